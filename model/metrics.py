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


@dataclass(frozen=True)
class Metric:
    """What to count in a batch, and the number that the summed counts stand for."""

    count: Callable[[Any, Any], Tensor]  # (outputs, labels) -> counts, on their device; counts of batches add up
    compute: Callable[[Tensor], float]  # summed counts -> number


class Totals:
    """Running counts of the loss and of some metrics over a split. Adding never waits for the device."""

    def __init__(self, metrics: Mapping[str, Metric]):
        self.metrics = metrics
        self.counts: dict[Any, Tensor] = {}  # by what counted them: several metrics may share their counts

    @torch.no_grad()
    def add(self, outputs: Any, labels: Any, loss: Tensor) -> None:
        """Count one batch. `loss` is its mean over the labels that are not padding."""
        items = num_items(labels)
        dtype = torch.float32 if loss.device.type == "mps" else torch.float64  # MPS has no float64
        self._add("loss", torch.stack([loss.to(dtype) * items, items.to(dtype)]))
        for count in dict.fromkeys(metric.count for metric in self.metrics.values()):
            self._add(count, count(outputs, labels))

    def _add(self, key: Any, counts: Tensor) -> None:
        self.counts[key] = self.counts[key] + counts if key in self.counts else counts

    def compute(self) -> dict[str, float]:
        """The mean loss and every metric, over all examples so far. Raises ValueError if there were none."""
        if not self.counts:
            raise ValueError("no batch was counted")
        counts = {key: count.cpu() for key, count in self.counts.items()}
        return {"loss": ratio(counts["loss"])} | {name: m.compute(counts[m.count]) for name, m in self.metrics.items()}


def num_items(labels: Tensor) -> Tensor:
    """How many labels there are, as a scalar on their device; labels below 0 are padding."""
    return (labels >= 0).sum()


def ratio(counts: Tensor) -> float:
    """First count over second; 0 where there is nothing to divide by."""
    part, whole = counts.tolist()
    return part / whole if whole else 0.0


def count_correct(predicted: Tensor, labels: Tensor) -> Tensor:
    """[correct, all] over the labels that are not padding (below 0)."""
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
