"""data_dir -> batches.

A split is read once into flat arrays, a number per word, however long the sentences are (model/text/encode.py).
Sentences of like length go together, so that little of a batch is padding.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from engine.loaders import Batch
from model.text.dataset import TextDataset
from model.text.encode import Encoder
from utils import UserError

from .formats import read_pair
from .params import NO_TAG, Params


class Dataset(TextDataset):
    """One split of a built data set, as numbers.

    The labels of a batch are batch_size x length tags, int64, NO_TAG behind a sentence's end. For its inputs, see
    `model.text.encode.Texts.batches`.

    Raises:
        UserError: a split is missing or broken, or has a tag that is not in tags.txt.

    Attributes:
        sentences: words of each sentence, as they are written.
        labels: the tags of all words; numbers from num_tags on are those that train does not have; at the end NO_TAG.
    """

    def __init__(self, data_dir: Path, split: str, params: Params, training: bool = False):
        self.folder = data_dir / split
        data = params.data
        pairs = read_pair(data_dir / split)
        if len(pairs) != data.sizes.get(split):
            raise UserError(
                f"{data_dir / split}: {len(pairs)} sentences, but {data.sizes.get(split)} were built."
                " Build the data set again with --overwrite."
            )
        self.sentences = [pair.words for pair in pairs]
        tag_numbers = {tag: number for number, tag in enumerate([*data.tags, *data.unseen_tags])}
        labels = []
        for pair in pairs:
            for tag in pair.tags:
                if tag not in tag_numbers:
                    raise UserError(f"{pair.place}: the tag {tag} is not in tags.txt ({', '.join(data.tags)[:200]}).")
                labels.append(tag_numbers[tag])
        self.labels = np.array([*labels, NO_TAG])
        super().__init__(Encoder(params).encode(self.sentences), params, training)

    def make_batches(self, batches: Sequence[Batch]) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        for inputs, (labels,) in self.encode(batches, self.labels):
            yield inputs, labels

    def digest(self) -> str:
        """Of all words and labels."""
        digest = hashlib.sha256(self.labels.tobytes())
        for sentence in self.sentences:
            digest.update(" ".join([*sentence, "\n"]).encode())
        return digest.hexdigest()

    def describe(self, indices: Sequence[int]) -> str:
        return f"lines {', '.join(str(index + 1) for index in indices)} of {self.folder / 'sentences.txt'}"
