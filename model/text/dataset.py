"""Texts as numbers -> batches of tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from engine.loaders import Batch, make_rng
from engine.loaders import Dataset as BaseDataset

from .encode import Texts, WordDropout
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
