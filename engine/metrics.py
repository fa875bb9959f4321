"""Metrics: they count batch by batch, and are computed once from the sums.

The mean of the batches' accuracies is not the accuracy: a short last batch would weigh as much as a full one, and
precision cannot be averaged over batches at all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor

from engine.params import did_you_mean
from engine.ranking import Goal
from engine.tasks import Task
from utils import UserError

# At most AT_ONCE batches are counted together, fewer once they have LABELS_AT_ONCE labels. One by one, the overhead of
# calls would be noticeable in small networks.
AT_ONCE, LABELS_AT_ONCE = 64, 2**17


@dataclass(frozen=True)
class Metric:
    """What to count, how to compute the number from the summed counts, and whether more of it is better.

    Metrics that share `keep` and `count` are counted once.
    """

    keep: Callable[[Any, Any], Any]  # (outputs, labels) -> what `count` needs of a batch, best a small tensor
    count: Callable[[list[Any]], Tensor]  # what was kept of some batches -> counts, which add up
    compute: Callable[[Tensor], float]  # summed counts -> number
    goal: Goal = "maximize"

    def __post_init__(self) -> None:
        if self.goal not in get_args(Goal):
            raise TypeError(f"goal: expected {' or '.join(get_args(Goal))}, got {self.goal}")


@dataclass(frozen=True)
class OfLoss:
    """A metric that is computed from the mean loss."""

    compute: Callable[[float], float]
    goal: Goal = "minimize"


PERPLEXITY = OfLoss(lambda loss: math.exp(min(loss, 100.0)))  # of a loss in nats


def count_labels(labels: Tensor) -> Tensor:
    """How many labels are not padding (below 0), for a task's `num_items`."""
    return (labels >= 0).sum()


def metrics_of(task: Task, params: Any) -> dict[str, Metric | OfLoss]:
    """The metrics by name: `metrics` of the task's net.py, which may be a function of the parameters."""
    return task.metrics(params) if callable(task.metrics) else task.metrics


def goal_of(task: Task, params: Any, name: str) -> Goal:
    """Whether more or less of the metric `name`, or of the loss, is better.

    Raises:
        UserError: there is no such metric here.
    """
    if name == "loss":
        return "minimize"
    metrics = metrics_of(task, params)
    if name not in metrics:
        known = ["loss", *metrics]
        raise UserError(
            f"monitor: expected one of {', '.join(known)}, got {name}.{did_you_mean(name, known)} The data in"
            f" {params.data_dir} decides which metrics there are."
        )
    if (metrics[name].goal == "minimize") != (name in params.minimized):  # which a search asks, without torch
        raise TypeError(f"the goal of {name} is to {metrics[name].goal}, but `minimized` of Params says otherwise")
    return metrics[name].goal


def totals_of(task: Task, params: Any) -> Totals:
    """Empty totals of the task's loss and metrics."""
    return Totals(metrics_of(task, params), task.optional("num_items") or Tensor.numel)


class Totals:
    """Running counts of the loss and of some metrics over a split. Adding a batch never waits for the device.

    Args:
        num_items: labels -> how many items the loss of a batch is the mean of.
    """

    def __init__(self, metrics: Mapping[str, Metric | OfLoss], num_items: Callable[[Any], Any] = Tensor.numel):
        self.metrics, self.num_items = metrics, num_items
        counted = [metric for metric in metrics.values() if isinstance(metric, Metric)]
        self.losses: list[tuple[Tensor, Any]] = []  # and the labels, of the batches that are not counted yet
        self.labels_kept = 0
        self.kept: dict[Any, list[Any]] = {metric.keep: [] for metric in counted}
        self.loss = torch.zeros(0)  # empty, then [sum over the items, number of items]
        self.counters = list(dict.fromkeys((metric.keep, metric.count) for metric in counted))
        self.counts: dict[Any, Tensor] = {}  # of each counter

    @torch.no_grad()
    def add(self, outputs: Any, labels: Any, loss: Tensor) -> None:
        """Add one batch. `loss` is its mean over the items that `num_items` counts."""
        outputs = outputs.detach() if isinstance(outputs, Tensor) else outputs  # what is kept holds no graph
        self.losses.append((loss.detach(), labels))
        self.labels_kept += sum(map(Tensor.numel, labels.values() if isinstance(labels, dict) else [labels]))
        for keep, batches in self.kept.items():
            batches.append(keep(outputs, labels))
        if len(self.losses) == AT_ONCE or self.labels_kept >= LABELS_AT_ONCE:
            self._count()

    @torch.no_grad()
    def _count(self) -> None:
        if not self.losses:
            return
        self.loss = add_losses(self.loss, [(loss, self.num_items(labels)) for loss, labels in self.losses])
        for keep, count in self.counters:
            first, *rest = self.kept[keep]
            parts = [count([first])]
            if parts[0].is_floating_point():  # one batch after another: the same sum however often they are counted
                parts += [count([batch]) for batch in rest]
            elif rest:
                parts.append(count(rest))
            for part in parts:
                self.counts[keep, count] = part + self.counts.get((keep, count), 0)
        for batches in (self.losses, *self.kept.values()):
            batches.clear()
        self.labels_kept = 0

    def compute(self) -> dict[str, float]:
        """The mean loss and every metric, over all examples so far. Raises ValueError if there were none."""
        self._count()
        if not len(self.loss):
            raise ValueError("no batch was counted")
        counts = {counter: torch.as_tensor(counted).cpu() for counter, counted in self.counts.items()}
        loss = ratio(self.loss)
        numbers = {
            name: float(m.compute(loss) if isinstance(m, OfLoss) else m.compute(counts[m.keep, m.count]))
            for name, m in self.metrics.items()
        }
        return {"loss": loss} | numbers

    def state_dict(self) -> dict[str, Any]:
        self._count()
        return {"loss": self.loss, "counts": list(self.counts.values())}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        self.loss = state["loss"].to(device)
        self.counts = {
            counter: counts.to(device)
            for counter, counts in zip(self.counters if state["counts"] else [], state["counts"], strict=True)
        }


def add_losses(so_far: Tensor, batches: list[tuple[Tensor, Any]]) -> Tensor:
    """Add (mean loss, number of items) of some batches to [sum over the items, number of items].

    One batch after the other, so that on a CPU the sum is the same however often they are added.
    """
    losses = torch.stack([loss for loss, _ in batches])
    counts = [number for _, number in batches]  # tensors on the device, or ints, which reach it in one copy
    stacked = torch.stack(counts) if isinstance(counts[0], Tensor) else torch.tensor(counts)
    dtype = widest_float(losses.device)
    items = stacked.to(losses.device, dtype)
    sums = torch.stack([losses.to(dtype) * items, items])
    return torch.cat([so_far.to(sums).view(2, -1), sums], dim=1).cumsum(dim=1)[:, -1]


def widest_float(device: torch.device) -> torch.dtype:
    """float64, but float32 on MPS, which has no float64."""
    return torch.float32 if device.type == "mps" else torch.float64


def ratio(counts: Tensor) -> float:
    """First count over second; 0 where there is nothing to divide by."""
    part, whole = counts.tolist()
    return part / whole if whole else 0.0


# --------------------------------------------------------------------------------------------- classes


def predictions_and_labels(outputs: Tensor, labels: Tensor) -> Tensor:
    """The class with the largest output, and the label.

    Args:
        outputs: batch_size x num_classes scores.
        labels: batch_size class numbers.

    Returns:
        2 x batch_size.
    """
    return torch.stack([outputs.argmax(dim=1), labels])


def count_correct(batches: list[Tensor]) -> Tensor:
    """[correct, all] over the labels that are not padding (below 0).

    Args:
        batches: each 2 x number of labels: predictions and labels.
    """
    predicted, labels = torch.cat(batches, dim=1)
    return torch.stack([((predicted == labels) & (labels >= 0)).sum(), (labels >= 0).sum()])


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


def class_metrics(with_auc: bool = True) -> dict[str, Metric]:
    """Accuracy, macro F1 and AUC. Outputs: batch_size x num_classes scores. Labels: batch_size class numbers.

    Args:
        with_auc: AUC takes longest to count, and with more than two classes few people look at it.
    """
    return _one_against_rest(lambda counts: ratio(counts[[0, 2]].sum(dim=1)), with_auc)


def label_metrics() -> dict[str, Metric]:
    """Accuracy, F1 and AUC. Outputs: batch_size x num_labels logits. Labels: of the same shape, 0 or 1."""
    return _one_against_rest(lambda counts: ratio(counts[3:5].sum(dim=1)))


def _one_against_rest(accuracy: Callable[[Tensor], float], with_auc: bool = True) -> dict[str, Metric]:
    names = {"accuracy": accuracy, "f1": macro_f1} | ({"auc": auc} if with_auc else {})
    count = count_scores if with_auc else count_decisions
    return {name: Metric(outputs_and_labels, count, compute) for name, compute in names.items()}


def outputs_and_labels(outputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Both as they are: all counting is left for later, when it is done for many batches at once."""
    return outputs, labels


BINS = 4096  # for the log-odds z, of equal width in z / (1 + |z|): near 0 a bin is 0.0005 wide, near 10 it is 0.06


def count_decisions(batches: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Counts for each class, or label, against the rest.

    Args:
        batches: outputs and labels, see `class_metrics` and `label_metrics`.

    Returns:
        5 x num_classes counts of examples: labelled and predicted so, predicted, labelled, predicted right (so or not
        so), all.
    """
    outputs, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    return _count_decisions(*against_rest(outputs, labels))


def _count_decisions(is_predicted: Tensor, is_labelled: Tensor) -> Tensor:
    both, predicted, labelled = ((x != 0).sum(dim=0) for x in (is_labelled * is_predicted, is_predicted, is_labelled))
    num_examples = len(is_predicted)
    right = num_examples - predicted - labelled + 2 * both
    return torch.stack([both, predicted, labelled, right, torch.full_like(both, num_examples)])


def count_scores(batches: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Like `count_decisions`, and below it 2*BINS x num_classes histograms of the log-odds of the examples outside of
    the class, and of those in it."""
    outputs, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    if labels.ndim == 2:
        log_odds = outputs
    else:
        log_p = outputs.log_softmax(dim=1)
        log_odds = log_p - torch.log1p(-log_p.exp().clamp(max=1 - 1e-7))
    is_predicted, labels = against_rest(outputs, labels)
    log_odds = log_odds.clamp(-1e6, 1e6)
    bins = ((log_odds / (1 + log_odds.abs()) + 1) * (BINS / 2)).clamp(0, BINS - 1).long()
    num_classes = outputs.shape[1]
    cells = ((labels * BINS + bins) * num_classes + torch.arange(num_classes, device=outputs.device)).flatten()
    counts = torch.zeros(2 * BINS * num_classes, dtype=torch.int64, device=labels.device)
    counts.index_add_(0, cells, torch.ones_like(cells))
    return torch.cat([_count_decisions(is_predicted, labels), counts.view(-1, num_classes)])


def against_rest(outputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Whether each class, or label, is predicted, and whether an example has it: both batch_size x num_classes."""
    if labels.ndim == 2:
        return outputs > 0, labels
    return one_hot(outputs.argmax(dim=1), outputs), one_hot(labels, outputs)


def one_hot(numbers: Tensor, outputs: Tensor) -> Tensor:
    """batch_size class numbers -> batch_size x num_classes, True at the class."""
    return numbers[:, None] == torch.arange(outputs.shape[1], device=outputs.device)


def macro_f1(counts: Tensor) -> float:
    """The mean F1 of the classes that occur in labels or predictions, see `class_scores`."""
    both, predicted, labelled = counts[:3].double()
    occurs = predicted + labelled > 0
    return (2 * both / (predicted + labelled))[occurs].mean().item() if occurs.any() else 0.0


def auc(counts: Tensor) -> float:
    """The area under the ROC curve, averaged over the classes: the probability that an example of the class scores
    higher than another example, where ties count half (Hanley & McNeil 1982). Scores within one of the BINS are ties.

    Args:
        counts: of `count_scores`. Classes without examples, or without others, are left out; 0 if there is no other.
    """
    others, own = counts[5:].double().view(2, BINS, -1)
    below = others.cumsum(dim=0) - others / 2  # ties count half
    pairs = own.sum(dim=0) * others.sum(dim=0)
    areas = ((own * below).sum(dim=0) / pairs)[pairs > 0]
    return areas.mean().item() if len(areas) else 0.0


# --------------------------------------------------------------------------------------------- numbers


def number_metrics(scale: Tensor | float = 1.0) -> dict[str, Metric]:
    """RMSE, MAE and R2. Outputs and labels: batch_size x num_targets. `scale`: the standard deviation that they were
    divided by, so that errors have the units of the data."""
    return {
        "rmse": Metric(outputs_and_labels, count_errors, partial(rmse, scale=scale), "minimize"),
        "mae": Metric(outputs_and_labels, count_errors, partial(mae, scale=scale), "minimize"),
        "r2": Metric(outputs_and_labels, count_errors, r2),
    }


def count_errors(batches: list[tuple[Tensor, Tensor]]) -> Tensor:
    """5 x num_targets sums from which MAE, RMSE and R2 follow: number, absolute errors, squared errors, labels, squared
    labels."""
    predicted, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    predicted, labels = (x.to(widest_float(x.device)) for x in (predicted, labels))
    difference = predicted - labels
    ones = torch.ones_like(labels)
    return torch.stack([ones, difference.abs(), difference.square(), labels, labels.square()]).sum(dim=1)


def mae(counts: Tensor, scale: Tensor | float = 1.0) -> float:
    """Mean absolute error, averaged over the targets. `scale`: as in `number_metrics`."""
    return (counts[1] / counts[0] * scale).mean().item()


def rmse(counts: Tensor, scale: Tensor | float = 1.0) -> float:
    """Root of the mean squared error, averaged over the targets. `scale`: as in `number_metrics`."""
    return ((counts[2] / counts[0]).sqrt() * scale).mean().item()


def r2(counts: Tensor) -> float:
    """1 - residual sum of squares / total sum of squares, averaged over the targets; 0 for a constant target."""
    number, _, residual, total, squares = counts
    spread = squares - total.square() / number
    is_constant = spread <= 1e-12 * squares  # but for rounding
    return (1 - residual / spread).masked_fill(is_constant, 0.0).mean().item()
