"""What is left when training ends: vectors for other programs, neighbours, and a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from engine.pictures import BLUE, drawable, new_figure, save
from engine.predicting import Predictor
from model.layers import UNK
from utils import whole_file

SHOWN, NEIGHBOURS = 10, 5  # words of which neighbours are shown, and how many
SKIPPED = 20  # of the most frequent words, which are the grammar's
DRAWN = 80  # words in the picture


def demonstrate(predictor: Predictor) -> str:
    """The nearest neighbours of some frequent words."""
    processing: Any = type(predictor.processing)(predictor.params, NEIGHBOURS)
    top = Predictor(predictor.task, processing, predictor.network, predictor.about)
    words = [word for word in processing.forms if word.isalpha()] or [word for word in processing.forms if word.strip()]
    chosen = words[SKIPPED : SKIPPED + SHOWN] or words[:SHOWN]
    return "\n".join(f"{record['input']}: {' '.join(record['probabilities'])}" for record in top(chosen))


def finish(net: Any, params: Any, model_dir: Path) -> None:
    """Write vectors.txt, a word and its vector in each line, as `pretrained_embeddings` reads them; and words.png."""
    forms, vectors = [*params.vocabulary], net.embedding.weight.detach().cpu().float().numpy()[UNK + 1 :]
    with whole_file(model_dir / "vectors.txt") as file:
        for word, vector in zip(forms, vectors, strict=True):
            if word.strip():
                file.write(f"{word} {' '.join(f'{number:.5g}' for number in vector.tolist())}\n".encode())
    chosen = [i for i, word in enumerate(forms) if word.strip()][:DRAWN]
    if len(chosen) > 2:
        draw_words([forms[i] for i in chosen], in_two_dimensions(vectors[chosen]), model_dir / "words.png")


def in_two_dimensions(vectors: np.ndarray) -> np.ndarray:
    """num_words x 2: the two principal components of the directions of vectors (num_words x dim)."""
    directions = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    centred = directions - directions.mean(axis=0)
    _, _, axes = np.linalg.svd(np.pad(centred, ((0, 0), (0, 1))), full_matrices=False)  # a vector of one number too
    return np.pad(centred, ((0, 0), (0, 1))) @ axes[:2].T


def draw_words(words: list[str], places: np.ndarray, path: Path) -> None:
    figure = new_figure(10, 8)
    axes = figure.subplots()
    axes.scatter(*places.T, s=4, color=BLUE)
    for word, place in zip(words, places, strict=True):
        axes.annotate(drawable(word), place, fontsize=8)
    axes.set_title(f"The {len(words)} most frequent words, in two dimensions (principal components)")
    axes.set_xticks([])
    axes.set_yticks([])
    save(figure, path)
