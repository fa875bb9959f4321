"""Datasets, and their batches. The order of examples depends on the seed and the epoch only."""

from __future__ import annotations

import hashlib
import itertools
import signal
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler
from torch.utils.data import Dataset as TorchDataset

from engine.devices import to_device
from engine.signals import stop
from engine.tasks import Task
from utils import UserError


class Batch(NamedTuple):
    """What the sampler yields in place of a list of indices; the loader hands it to `__getitems__` unchanged.

    With the epoch, worker processes can draw the same augmentation as the main process would.
    """

    epoch: int
    indices: Tensor  # int64, batch_size


class Dataset(TorchDataset[Any], ABC):
    """One split of a built data set, which makes whole batches.

    A task's `Dataset` is called with (data_dir, split, params, training). `training` says whether the network learns
    from it, so that it may be augmented. A subclass must define all abstract methods.

    Attributes:
        folder: where its files are, for messages.
        kind: what an example is, as the header of a column: image, sentence, row.
        labels: of all examples in order, for reports.
        lengths: num_examples; where given, examples of similar length share a batch, to reduce padding.
        batch_size: examples of a batch, where that is not for params.batch_size to say.
        is_shuffled: whether training takes them in another order every epoch.
    """

    folder: Path
    kind = "example"
    labels: Any
    lengths: np.ndarray | Tensor | None = None
    batch_size: int | None = None
    is_shuffled = True

    @abstractmethod
    def __len__(self) -> int:
        """The number of examples."""

    @abstractmethod
    def __getitems__(self, batch: Batch) -> tuple[Any, Any]:
        """The inputs and labels of a batch, each a tensor or a dict of tensors."""

    @abstractmethod
    def digest(self) -> str:
        """A hash that changes when the examples change. An interrupted run goes on only with the same data."""

    @abstractmethod
    def describe(self, indices: Sequence[int]) -> str:
        """Where a person finds these examples, for messages such as `lines 3, 7 of data/x/train.csv`."""

    @property
    def names(self) -> Sequence[str]:
        """What a report calls each example: its number, unless a task has something better."""
        return [str(number) for number in range(1, len(self) + 1)]

    def make_batches(self, batches: Sequence[Batch]) -> Iterable[tuple[Any, Any]]:
        """What `__getitems__` returns, for each of some batches. A data set may make them together, to be faster."""
        return map(self.__getitems__, batches)

    def to(self, device: torch.device) -> None:
        """Make batches on `device` from now on. Optional, since batches are moved to the device anyway."""

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        """One example, as a batch of its own."""
        return self.__getitems__(Batch(0, torch.tensor([index])))


class ArrayDataset(Dataset):
    """Examples that are rows of plain arrays, as `engine.building.save_arrays` wrote them.

    If a table rows.csv lies beside the arrays, messages and reports name its lines.

    Attributes:
        inputs: num_examples x ..., or a dict of such.
        labels: num_examples x ...
    """

    def __init__(self, data_dir: str | Path, split: str, params: Any, training: bool):
        self.folder = Path(data_dir) / split
        arrays = {path.stem: load_array(path) for path in sorted(self.folder.glob("*.npy"))}
        if "labels" not in arrays or {len(array) for array in arrays.values()} != {params.data.sizes.get(split)}:
            found = ", ".join(f"{name}.npy: {len(array)}" for name, array in arrays.items()) or "no arrays"
            raise UserError(
                f"{self.folder}: {found}, but {params.data.sizes.get(split)} examples were built."
                " Build the data set again with --overwrite."
            )
        self.labels = arrays.pop("labels")
        self.inputs: Any = arrays["inputs"] if arrays.keys() == {"inputs"} else arrays
        self.table = self.folder / "rows.csv"
        if self.table.exists():
            self.kind = "line"

    @property
    def names(self) -> Sequence[str]:
        first = 2 if self.kind == "line" else 1  # line 1 is a header
        return [str(number) for number in range(first, len(self) + first)]

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> None:
        arrays = [self.labels, *(self.inputs.values() if isinstance(self.inputs, dict) else [self.inputs])]
        if device.type != "cuda" or sum(a.nbytes for a in arrays) < torch.cuda.mem_get_info(device)[0] / 4:
            self.inputs, self.labels = to_device(self.inputs, device), to_device(self.labels, device)

    def __getitems__(self, batch: Batch) -> tuple[Any, Any]:
        indices = batch.indices.to(self.labels.device)
        if isinstance(self.inputs, dict):
            inputs = {name: array.index_select(0, indices) for name, array in self.inputs.items()}
        else:
            inputs = self.inputs.index_select(0, indices)  # several times faster than self.inputs[indices]
        return inputs, self.labels.index_select(0, indices)

    def digest(self) -> str:
        digest = hashlib.sha256()
        for path in sorted(self.folder.glob("*.npy")):
            digest.update(path.read_bytes())
        return digest.hexdigest()

    def describe(self, indices: Sequence[int]) -> str:
        names = self.names
        numbers = ", ".join(names[index] for index in indices)
        return f"lines {numbers} of {self.table}" if self.kind == "line" else f"examples {numbers} of {self.folder}"


def load_array(path: Path, in_memory: bool = True) -> Tensor:
    """An array that build_dataset.py saved, loaded or mapped into memory. Raises UserError if it is none."""
    try:
        return torch.from_numpy(np.load(path, None if in_memory else "c", allow_pickle=False))
    except (OSError, EOFError, ValueError, TypeError) as error:
        raise UserError(f"{path}: not an array ({error}). Build the data set again with --overwrite.") from None


# --------------------------------------------------------------------------------------------- batches

POOL = 50  # batches whose examples are sorted by length together
MADE_AT_ONCE, EXAMPLES_AT_ONCE = 16, 4096  # the most batches that are made together, and examples in them


class BatchSampler(Sampler[Any]):
    """Batches of `batch_size` indices; reshuffled every epoch, or in order.

    A single example left over joins the batch before it, since batch normalisation cannot compute a variance from one.

    Args:
        lengths: num_examples; if given, examples of similar length share a batch. When shuffling, they are sorted
            within pools of 50 batches and the batches shuffled, so that batches differ between epochs. Otherwise all
            are sorted, longest first.
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
        """Select the epoch, and the first of its batches to yield."""
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


def make_rng(*key: int) -> np.random.Generator:
    """A generator for this key alone. SeedSequence makes those of similar keys independent.

    (seed, epoch) draws the order of examples; a task adds a number of its own.
    """
    return np.random.default_rng(key)


# --------------------------------------------------------------------------------------------- loaders


class Loader(DataLoader[Any]):
    """A DataLoader that, without worker processes, takes whole batches from the data set directly: that is faster."""

    def __iter__(self) -> Any:
        if self.num_workers:
            yield from super().__iter__()
            return
        dataset, sampler = self.dataset, self.batch_sampler
        assert isinstance(dataset, Dataset)
        assert isinstance(sampler, BatchSampler)
        batches, at_once = iter(sampler), max(1, min(MADE_AT_ONCE, EXAMPLES_AT_ONCE // sampler.batch_size))
        while chunk := list(itertools.islice(batches, at_once)):
            yield from dataset.make_batches(chunk)


def fetch_dataloaders(
    task: Task, splits: Iterable[str], params: Any, device: torch.device | str = "cpu", evaluating: bool = False
) -> dict[str, DataLoader[Any]]:
    """A loader of (inputs, labels) for each of `splits` of params.data_dir.

    "train" is shuffled and augmented, unless `evaluating`. Batches are made on `device` if the data set supports it,
    but in CPU memory if worker processes make them (params.num_workers).

    Raises:
        UserError: a split is missing or broken.
    """
    device = torch.device(device)
    loaders: dict[str, DataLoader[Any]] = {}
    for split in splits:
        training = split == "train" and not evaluating
        dataset: Dataset = task.Dataset(Path(params.data_dir), split, params, training)
        if missing := [name for name in ("folder", "labels") if not hasattr(dataset, name)]:
            raise TypeError(f"the Dataset of {task.name} does not set {missing[0]}: see docs/adding_a_task.md")
        if not params.num_workers:
            dataset.to(device)
        loaders[split] = loader_of(dataset, params, device, training)
    return loaders


def loader_of(
    dataset: Dataset, params: Any, device: torch.device | str = "cpu", training: bool = False
) -> DataLoader[Any]:
    """The loader of one data set; see `fetch_dataloaders`."""
    lengths = None if dataset.lengths is None else np.asarray(dataset.lengths)
    batch_size, shuffle = dataset.batch_size or params.batch_size, training and dataset.is_shuffled
    return Loader(
        dataset,
        batch_sampler=BatchSampler(len(dataset), batch_size, shuffle, params.seed, lengths),
        collate_fn=_identity,
        generator=torch.Generator(),  # its own, so that it does not advance the one that draws dropout
        num_workers=params.num_workers,
        persistent_workers=params.num_workers > 0,
        pin_memory=params.num_workers > 0 and torch.device(device).type == "cuda",
        worker_init_fn=_leave_signals_to_the_parent,
    )


def batches_on(device: torch.device, batches: Iterable[tuple[Any, Any]]) -> Iterator[tuple[Any, Any]]:
    """The batches, moved to `device`. Raises Stopped between two of them if a signal has come."""
    for inputs, labels in batches:
        stop.check()
        yield (inputs, labels) if device.type == "cpu" else (to_device(inputs, device), to_device(labels, device))


def order_of(loader: DataLoader[Any]) -> Tensor:
    """The index of each example, in the order in which the loader brings them."""
    return torch.cat([batch.indices for batch in loader.batch_sampler])  # type: ignore[union-attr]


def _identity(batch: Any) -> Any:
    return batch  # `__getitems__` returns a batch already


WORKER_GRACE = 600  # seconds that a worker goes on after SIGTERM: enough for a slow batch and a slow disk


def _leave_signals_to_the_parent(_: int) -> None:
    """Workers ignore Ctrl-C and a scheduler's SIGTERM for a while, since the parent still needs their batch."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "alarm"):
        signal.signal(signal.SIGTERM, lambda *_: signal.alarm(WORKER_GRACE))  # which then ends the worker
