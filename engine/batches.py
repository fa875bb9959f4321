"""The order in which examples are seen: a function of (seed, epoch) and of nothing else."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler


class Batch(NamedTuple):
    """What a Dataset's `__getitems__` is asked for. The epoch lets it augment the same way wherever it runs."""

    epoch: int
    indices: Tensor  # int64, batch_size


POOL = 50  # batches


class BatchSampler(Sampler[Any]):
    """Batches of `batch_size` indices; shuffled afresh each epoch, or in order.

    A single example left over joins the batch before it: batch normalisation has no variance to offer for one.

    Args:
        lengths: num_examples; if given, examples of like length share a batch, so that little of it is padding. When
            shuffling, they are sorted within pools of 50 batches and the batches shuffled, so that every epoch brings
            other examples together; else all are sorted, longest first.
    """

    def __init__(
        self,
        num_examples: int,
        batch_size: int,
        shuffle: bool = False,
        seed: int = 0,
        lengths: np.ndarray | None = None,
    ):
        self.num_examples, self.batch_size, self.shuffle, self.seed = num_examples, batch_size, shuffle, seed
        self.lengths = lengths
        self.epoch = self.first = 0

    def set_epoch(self, epoch: int, first: int = 0) -> None:
        """Go on to `epoch`, and there to the batch number `first`."""
        self.epoch, self.first = epoch, first

    def __len__(self) -> int:
        full, left_over = divmod(self.num_examples, self.batch_size)
        return max(1, full + (left_over > 1)) if self.num_examples else 0

    def __iter__(self) -> Iterator[Any]:
        rng = make_rng(self.seed, self.epoch)
        order = rng.permutation(self.num_examples) if self.shuffle else np.arange(self.num_examples)
        if self.lengths is not None:
            pool = POOL * self.batch_size if self.shuffle else max(1, self.num_examples)
            order = order[np.lexsort((-self.lengths[order], np.arange(self.num_examples) // pool))]
        batches = np.split(order, np.arange(1, len(self)) * self.batch_size)  # the last takes what is left over
        numbers = np.arange(len(self))
        if self.shuffle and self.lengths is not None:
            numbers = rng.permutation(numbers)
        for number in numbers[self.first :]:
            yield Batch(self.epoch, torch.from_numpy(batches[number]))


def make_loader(
    dataset: Dataset[Any], batch_sampler: BatchSampler, num_workers: int, pin_memory: bool
) -> DataLoader[Any]:
    """A loader of what `dataset.__getitems__` makes of each batch."""
    return DataLoader(
        dataset,
        batch_sampler=batch_sampler,
        collate_fn=identity,
        generator=torch.Generator(),  # its own: the loader must not draw from the one that dropout draws from
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=pin_memory,
        worker_init_fn=leave_signals_to_the_parent,
    )


def leave_signals_to_the_parent(_: int) -> None:
    """Ctrl-C and a scheduler's SIGTERM reach workers too, but the process they work for may need them for its batch."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "alarm"):
        signal.signal(signal.SIGTERM, lambda *_: signal.alarm(WORKER_GRACE))  # which ends the process then


WORKER_GRACE = 600  # seconds: for a slow batch and a slow disk, but not for ever


def make_rng(*key: int) -> np.random.Generator:
    """A generator for this key alone. SeedSequence mixes the numbers, so that neighbouring keys share nothing."""
    return np.random.default_rng(key)


def identity(batch: Any) -> Any:
    """The collate function of a Dataset whose `__getitems__` already returns a batch."""
    return batch
