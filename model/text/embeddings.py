"""Word vectors that others have trained: text files in the format of GloVe, word2vec and fastText."""

from __future__ import annotations

import codecs
import logging
import math
from collections.abc import Mapping
from pathlib import Path

from utils import UserError

logger = logging.getLogger(__name__)


def read_embeddings(path: Path, vocabulary: Mapping[str, int], dim: int) -> dict[int, list[float]]:
    """The vectors of the words in `vocabulary`, by number. A word without one gets that of its lower case, if any.

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
            for line, text in enumerate(file, start=1):
                fields = text.removeprefix(codecs.BOM_UTF8).replace(b"\t", b" ").rstrip(b" \r\n").split(b" ")
                if line == 1:
                    is_header = len(fields) == 2 and fields[1].isdigit()  # number of words, size
                    size = int(fields[1]) if is_header else len(fields) - 1
                    if size != dim:
                        raise UserError(
                            f"{path}: vectors of {size} numbers, but embedding_dim is {dim}. Set it to theirs, if it is"
                            " a text file with a word and its numbers between spaces on each line."
                        )
                    if is_header:
                        continue
                if len(fields) < dim + 1:
                    raise UserError(f"{path}, line {line}: torn: {len(fields) - 1} numbers, expected {dim}.")
                word = b" ".join(fields[:-dim]).decode(errors="replace")
                if word not in vocabulary and word not in lower:
                    continue
                try:
                    vector = [float(field) for field in fields[-dim:]]
                except ValueError:
                    raise UserError(f"{path}, line {line}: torn: not {dim} numbers behind the word.") from None
                if not all(map(math.isfinite, vector)):
                    raise UserError(f"{path}, line {line}: a number that is not finite.")
                if word in vocabulary:
                    exact.setdefault(vocabulary[word], vector)
                for number in lower.get(word, ()):
                    by_lower_case.setdefault(number, vector)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}). It is what pretrained_embeddings names.") from None
    found = by_lower_case | exact
    if not found:
        raise UserError(f"{path}: empty, or no vector for any word of the vocabulary.")
    logger.info(
        "%s: vectors for %d of %d words of the vocabulary (%.1f %%), %d of them by their lower case",
        *(path, len(found), len(vocabulary), 100 * len(found) / len(vocabulary), len(found.keys() - exact.keys())),
    )
    return found
