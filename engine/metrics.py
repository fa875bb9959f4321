"""Counts -> numbers.

The mean of the batches' accuracies is not the accuracy: a short last batch would weigh as much as a full one, and
precision has no mean at all. So a metric counts, batch by batch, and is computed once from the totals.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

AT_ONCE = 64  # batches: each call has its price, and a small network feels it


@dataclass(frozen=True)
class Metric:
    """What to count, and the number that the summed counts stand for. Metrics may share `keep` and `count`."""

    keep: Callable[[Any, Any], Any]  # (outputs, labels) -> what is to be counted of a batch, in little memory
    count: Callable[[list[Any]], Tensor]  # what was kept of some batches -> counts, which add up
    compute: Callable[[Tensor], float]  # summed counts -> number


class Totals:
    """Running counts of the loss and of some metrics over a split. Adding never waits for the device."""

    def __init__(self, metrics: Mapping[str, Metric]):
        self.metrics = metrics
        self.losses: list[tuple[Tensor, Tensor]] = []  # of the batches that are not counted yet
        self.kept: dict[Any, list[Any]] = {metric.keep: [] for metric in metrics.values()}
        self.loss = torch.zeros(0)  # then 2: sum over the items, number of items
        self.counts: dict[Any, Tensor] = {}  # by what counted them

    @torch.no_grad()
    def add(self, outputs: Any, labels: Any, loss: Tensor) -> None:
        """Add one batch. `loss` is its mean over the labels that are not padding."""
        self.losses.append((loss.detach(), num_items(labels)))
        for keep, batches in self.kept.items():
            batches.append(keep(outputs, labels))
        if len(self.losses) == AT_ONCE:
            self._count()

    @torch.no_grad()
    def _count(self) -> None:
        if not self.losses:
            return
        self.loss = add_losses(self.loss, self.losses)
        for keep, count in dict.fromkeys((metric.keep, metric.count) for metric in self.metrics.values()):
            self.counts[count] = count(self.kept[keep]) + self.counts.get(count, 0)
        for batches in (self.losses, *self.kept.values()):
            batches.clear()

    def compute(self) -> dict[str, float]:
        """The mean loss and every metric, over all examples so far. Raises ValueError if there were none."""
        self._count()
        if not self.counts:
            raise ValueError("no batch was counted")
        counts = {count: counted.cpu() for count, counted in self.counts.items()}
        numbers = {name: metric.compute(counts[metric.count]) for name, metric in self.metrics.items()}
        return {"loss": ratio(self.loss)} | numbers

    def state_dict(self) -> dict[str, Any]:
        self._count()
        return {"loss": self.loss, "counts": list(self.counts.values())}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        self.loss = state["loss"].to(device)
        counted = [counts.to(device) for counts in state["counts"]]
        self.counts = dict(zip(dict.fromkeys(metric.count for metric in self.metrics.values()), counted, strict=False))


def add_losses(so_far: Tensor, batches: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Add (mean loss, number of items) of some batches to [sum over the items, number of items].

    One batch after the other, so that on a CPU the sum is the same however often they are added.
    """
    losses, items = (torch.stack(values) for values in zip(*batches, strict=True))
    dtype = torch.float32 if losses.device.type == "mps" else torch.float64  # MPS has no float64
    sums = torch.stack([losses.to(dtype) * items, items.to(dtype)])
    return torch.cat([so_far.to(sums).view(2, -1), sums], dim=1).cumsum(dim=1)[:, -1]


def num_items(labels: Tensor) -> Tensor:
    """How many labels there are, as a scalar on their device; labels below 0 are padding."""
    return (labels >= 0).sum()


def ratio(counts: Tensor) -> float:
    """First count over second; 0 where there is nothing to divide by."""
    part, whole = counts.tolist()
    return part / whole if whole else 0.0


def count_correct(batches: list[Tensor]) -> Tensor:
    """[correct, all] over the labels that are not padding (below 0).

    Args:
        batches: each 2 x number of labels: predictions and labels.
    """
    predicted, labels = torch.cat(batches, dim=1)
    return torch.stack([((predicted == labels) & (labels >= 0)).sum(), num_items(labels)])


def confusion(predicted: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Count each pair of label and prediction.

    Args:
        predicted, labels: class numbers of the same shape; labels below 0 are padding.

    Returns:
        num_classes x num_classes counts: rows are labels, columns predictions.
    """
    padding = num_classes**2  # one cell more, for the pairs that do not count
    cells = torch.where(labels >= 0, labels * num_classes + predicted, padding).flatten()
    counts = torch.zeros(padding + 1, dtype=torch.int64, device=labels.device)
    return counts.index_add_(0, cells, torch.ones_like(cells))[:-1].view(num_classes, num_classes)


class ClassScores(NamedTuple):
    """Each a tensor of num_classes numbers."""

    precision: Tensor
    recall: Tensor
    f1: Tensor
    support: Tensor


def class_scores(confusion: Tensor) -> ClassScores:
    """Precision, recall, F1 and support of every class; 0 where a score has nothing to divide by.

    F1 = 2 TP / (2 TP + FP + FN) (van Rijsbergen 1979), the harmonic mean of precision and recall.
    """
    counts = confusion.double()
    correct, predicted, support = counts.diagonal(), counts.sum(0), counts.sum(1)
    return ClassScores(
        correct / predicted.clamp(min=1),
        correct / support.clamp(min=1),
        2 * correct / (predicted + support).clamp(min=1),
        support,
    )
