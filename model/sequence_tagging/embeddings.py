"""Word vectors that others have trained: text files in the format of GloVe, word2vec and fastText."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path

from utils import UserError

logger = logging.getLogger(__name__)


def read_embeddings(path: Path, vocabulary: Mapping[str, int], dim: int) -> dict[int, list[float]]:
    """The vectors of the words in `vocabulary`, by their numbers there: of a word as it is, or else in lower case.

    A line holds a word and its `dim` numbers between spaces; word2vec and fastText put a line with the number of words
    and `dim` before them.

    Raises:
        UserError: the file is missing or empty, its vectors have another size, or a line is torn.
    """
    lower: dict[str, list[int]] = {}
    for form, number in vocabulary.items():
        lower.setdefault(form.lower(), []).append(number)
    exact: dict[int, list[float]] = {}
    by_lower_case: dict[int, list[float]] = {}
    try:
        with open(path, "rb") as file:
            size = 0
            for line, text in enumerate(file, start=1):
                fields = text.rstrip(b" \r\n").split(b" ")
                if line == 1 and len(fields) == 2:  # the line before the vectors
                    size = check_size(fields[1], dim, path)
                    continue
                size = size or check_size(str(len(fields) - 1).encode(), dim, path)
                if len(fields) < dim + 1:
                    raise UserError(f"{path}, line {line}: torn: {len(fields) - 1} numbers, expected {dim}.")
                word = b" ".join(fields[:-dim]).decode(errors="replace")
                if word not in vocabulary and word not in lower:
                    continue
                try:
                    vector = [float(field) for field in fields[-dim:]]
                except ValueError as error:
                    raise UserError(f"{path}, line {line}: torn: {error}.") from None
                if not all(map(math.isfinite, vector)):
                    raise UserError(f"{path}, line {line}: a number that is not finite.")
                if word in vocabulary:
                    exact.setdefault(vocabulary[word], vector)
                for number in lower.get(word, ()):
                    by_lower_case.setdefault(number, vector)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}). It is what pretrained_embeddings names.") from None
    if not size:
        raise UserError(f"{path}: empty.")
    found = by_lower_case | exact
    logger.info(
        "%s: vectors for %d of %d words of the vocabulary (%.1f %%), %d of them by their lower case",
        *(path, len(found), len(vocabulary), 100 * len(found) / len(vocabulary), len(found.keys() - exact.keys())),
    )
    return found


def check_size(size: bytes, dim: int, path: Path) -> int:
    if size != str(dim).encode():
        raise UserError(
            f"{path}: vectors of {size.decode(errors='replace')} numbers, but embedding_dim is {dim}. Set it to theirs."
        )
    return dim
