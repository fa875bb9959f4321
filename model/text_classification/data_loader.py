"""data_dir -> batches. A word is a number in a file that is mapped into memory, however long the texts are."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from engine.loaders import Batch, load_array
from model.text.dataset import TextDataset
from model.text.encode import Encoder, Texts
from model.text.files import read_lines, read_text
from utils import UserError

from .params import Params


class Dataset(TextDataset):
    """One split of a built data set.

    The labels of a batch are batch_size class numbers. For its inputs, see `model.text.encode.Texts.batches`; of
    params.level "char", words are characters.

    Raises:
        UserError: a split is missing or broken.

    Attributes:
        labels: num_texts class numbers.
    """

    kind = "line"

    def __init__(self, data_dir: Path, split: str, params: Params, training: bool = False):
        self.folder = data_dir / split
        self.labels, self.tokenized = load_array(self.folder / "labels.npy"), params.data.tokenized
        if params.level == "char":
            spellings, tokens, lengths = read_chars(self.folder / "texts.txt")
        else:
            spellings = read_lines(data_dir / "spellings.txt")
            tokens = load_array(self.folder / "tokens.npy", in_memory=False).numpy()
            lengths = load_array(self.folder / "lengths.npy").numpy()
        found = {
            "lines in texts.txt": sum(block.count(b"\n") for block in read_blocks(self.folder / "texts.txt")),
            "texts": len(lengths),
            "labels": len(self.labels),
        }
        built = params.data.sizes.get(split)
        if {*found.values()} != {built} or lengths.sum() != len(tokens) or tokens.max(initial=0) >= len(spellings):
            counts = ", ".join(f"{count} {what}" for what, count in found.items())
            raise UserError(
                f"{self.folder}: {counts}, {len(tokens)} of {lengths.sum()} words, {len(spellings)} different ones, but"
                f" {built} texts were built. Build the data set again with --overwrite."
            )
        super().__init__(Texts(Encoder(params), spellings, tokens, lengths, params.max_length), params, training)

    def make_batches(self, batches: Sequence[Batch]) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        for batch, (inputs, _) in zip(batches, self.encode(batches), strict=True):
            yield inputs, self.labels[batch.indices]

    def digest(self) -> str:
        """Of all texts and labels."""
        digest = hashlib.sha256(self.labels.numpy().tobytes())
        for block in read_blocks(self.folder / "texts.txt"):
            digest.update(block)
        return digest.hexdigest()

    def describe(self, indices: Sequence[int]) -> str:
        return f"lines {', '.join(str(index + 1) for index in indices)} of {self.folder / 'texts.txt'}"

    def raw_texts(self, indices: Sequence[int]) -> list[str | list[str]]:
        """Some texts as `predict.py` takes them."""
        wanted, found = set(indices), {}
        with open(self.folder / "texts.txt", encoding="utf-8", newline="\n") as file:
            for i, line in enumerate(file):
                if i in wanted:
                    found[i] = line.removesuffix("\n")
        return [found[i].split(" ") if self.tokenized else found[i] for i in indices]


def read_blocks(path: Path) -> Iterator[bytes]:
    """The content of a file, a part of it in memory at a time. Raises UserError when it cannot be read."""
    try:
        with open(path, "rb") as file:
            while block := file.read(2**20):
                yield block
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from None


def read_chars(path: Path) -> tuple[list[str], np.ndarray, np.ndarray]:
    """The characters of the lines of a file: the different ones, which of these each is, and how many a line has."""
    points: Any = np.frombuffer(read_text(path, ["utf-8"]).encode("utf-32-le"), np.uint32)
    (ends,) = (points == ord("\n")).nonzero()
    points = np.delete(points, ends)
    counts = np.bincount(points)
    (different,) = counts.nonzero()
    counts[different] = np.arange(len(different))
    return [*map(chr, different.tolist())], counts.astype(np.int32)[points], np.diff(ends, prepend=-1) - 1
