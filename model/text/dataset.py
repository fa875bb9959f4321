"""Texts as numbers -> batches of tensors."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from engine.building import read_blocks
from engine.loaders import Batch, load_array, make_rng
from engine.loaders import Dataset as BaseDataset
from utils import UserError

from .encode import Encoder, Texts, WordDropout
from .files import lines_at, read_chars, read_lines
from .params import TextParams

WORD_DROPOUT = 1  # part of the key of its random numbers, to have others than the order of examples


class TextDataset(BaseDataset):
    """One split of a built data set. Batches are in CPU memory, since shapes depend on them.

    Attributes:
        texts: all of them as numbers.
        lengths: num_texts numbers of words.
    """

    lengths: np.ndarray

    def __init__(self, texts: Texts, params: TextParams, training: bool):
        self.texts, self.lengths = texts, texts.lengths
        self.seed, self.epoch = params.seed, -1  # of the numbers that word dropout has drawn
        self.drop = WordDropout(texts, params.word_dropout) if params.word_dropout and training else None

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitems__(self, batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
        return next(iter(self.make_batches([batch])))

    def encode(self, batches: Sequence[Batch], *others: np.ndarray) -> Iterator[tuple[dict[str, Tensor], list[Tensor]]]:
        """What `Texts.batches` yields, as tensors."""
        if self.drop is not None and self.epoch != batches[0].epoch:
            self.epoch = batches[0].epoch
            self.drop.draw(make_rng(self.seed, self.epoch, WORD_DROPOUT))
        indices = [batch.indices.numpy() for batch in batches]
        for inputs, its_others in self.texts.batches(indices, *others, drop=self.drop):
            yield (
                {name: torch.from_numpy(array) for name, array in inputs.items()},
                [*map(torch.from_numpy, its_others)],
            )


class BuiltTexts(TextDataset):
    """One split of what `model.text.corpus.save_texts` wrote. Its words are in a file that is mapped into memory, so
    that there may be many.

    Args:
        by_chars: texts are sequences of characters.
        max_length: a longer text is read without its middle.

    Raises:
        UserError: a file is missing, or not what was built.
    """

    kind = "line"

    def __init__(
        self,
        data_dir: Path,
        split: str,
        params: TextParams,
        training: bool,
        by_chars: bool = False,
        max_length: int | None = None,
    ):
        self.folder, self.tokenized = data_dir / split, params.data.tokenized
        self.num_texts = params.data.sizes.get(split)
        if by_chars:
            spellings, tokens, lengths = read_chars(self.folder / "texts.txt")
        else:
            spellings = read_lines(data_dir / "spellings.txt")
            tokens = load_array(self.folder / "tokens.npy", in_memory=False).numpy()
            lengths = load_array(self.folder / "lengths.npy").numpy()
        self.check_size(
            "lines in texts.txt", sum(block.count(b"\n") for block in read_blocks(self.folder / "texts.txt"))
        )
        self.check_size("texts in lengths.npy", len(lengths))
        if lengths.sum() != len(tokens) or tokens.max(initial=0) >= len(spellings):
            found = f"{len(tokens)} of {lengths.sum()} words, {len(spellings)} different ones"
            raise UserError(f"{self.folder}: {found}. Build the data set again with --overwrite.")
        super().__init__(Texts(Encoder(params), spellings, tokens, lengths, max_length), params, training)

    def check_size(self, what: str, found: int) -> None:
        """Raises UserError if a file does not hold as many entries as texts were built."""
        if found != self.num_texts:
            raise UserError(
                f"{self.folder}: {found} {what}, but {self.num_texts} texts were built. Build the data set again with"
                " --overwrite."
            )

    def digest_of(self, labels: Tensor) -> str:
        """A hash of all texts and of `labels`."""
        digest = hashlib.sha256(labels.numpy().tobytes())
        for block in read_blocks(self.folder / "texts.txt"):
            digest.update(block)
        return digest.hexdigest()

    def describe(self, indices: Sequence[int]) -> str:
        return f"lines {', '.join(str(index + 1) for index in indices)} of {self.folder / 'texts.txt'}"

    def raw_texts(self, indices: Sequence[int]) -> list[str | list[str]]:
        """Some texts as `predict.py` takes them."""
        lines = lines_at(self.folder / "texts.txt", indices)
        return [line.split(" ") if self.tokenized else line for line in lines]
