"""data_dir -> batches of texts and their classes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from torch import Tensor

from engine.loaders import Batch, load_array
from model.text.dataset import BuiltTexts

from .params import Params


class Dataset(BuiltTexts):
    """One split of a built data set.

    The labels of a batch are batch_size class numbers. For its inputs, see `model.text.encode.Texts.batches`.

    Attributes:
        labels: num_texts class numbers.
    """

    def __init__(self, data_dir: Path, split: str, params: Params, training: bool = False):
        self.labels = load_array(data_dir / split / "labels.npy")
        super().__init__(data_dir, split, params, training, params.level == "char", params.max_length)
        self.check_size("labels", len(self.labels))

    def make_batches(self, batches: Sequence[Batch]) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        for batch, (inputs, _) in zip(batches, self.encode(batches), strict=True):
            yield inputs, self.labels[batch.indices]

    def digest(self) -> str:
        """Of all texts and labels."""
        return self.digest_of(self.labels)
