"""Outputs -> what a person looks at after evaluation: tables, pictures, and every single prediction."""

from __future__ import annotations

import csv
import io
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate
from torch import nn
from torch.utils.data import DataLoader

from engine.answers import Record, target_names
from engine.loaders import order_of
from engine.metrics import class_scores, confusion, count_errors, mae, r2, rmse
from engine.pictures import draw_confusion_matrix
from engine.tasks import Task
from engine.torch_network import answers_of, to_arrays
from utils import write_atomically


class Report(ABC):
    """Collects what the network says in one pass over a split, as the records that predict.py writes, and writes it up.

    A task's `Report` is called with (task, loader, params, net), as these are.
    """

    def __init__(self, task: Task, loader: DataLoader[Any], params: Any, net: nn.Module):
        self.task, self.net = task, net
        self.dataset: Any = loader.dataset
        self.order = order_of(loader).tolist()
        self.params = params
        self.answers, self.processing = answers_of(task), task.Processing(params)
        self.kept: list[Record] = []

    def add(self, outputs: Any) -> None:
        """Keep the records of a batch."""
        self.kept += self.processing.postprocess(to_arrays(self.answers(outputs)))

    @cached_property
    def records(self) -> list[Record]:
        """A record for each example, in the order of the data set."""
        return [record for _, record in sorted(zip(self.order, self.kept, strict=True), key=lambda pair: pair[0])]

    @abstractmethod
    def write(self, model_dir: Path, name: str) -> str:
        """Write predictions_{name} and pictures to `model_dir`. Returns a text to print."""


def report_of(task: Task, loader: DataLoader[Any], params: Any, net: nn.Module) -> Report:
    """The task's own Report; else one of numbers (float labels), of labels (an integer matrix), or of classes."""
    if own := task.optional("Report"):
        return own(task, loader, params, net)
    labels = loader.dataset.labels  # type: ignore[attr-defined]
    if labels.is_floating_point():
        return NumberReport(task, loader, params, net)
    return (LabelReport if labels.ndim == 2 else ClassReport)(task, loader, params, net)


def names_of_results(split: str, restore_file: str, checkpoint: dict[str, Any], params: Any) -> tuple[str, str]:
    """The `name` of a report, and the file of its metrics: `test`, and `metrics_test_best_weights.json`.

    Other weights than the best, and other data than the weights were trained on, have names of their own, so that
    nothing is overwritten: `test_last_weights_on_other`, and `metrics_test_last_weights_on_other.json`.
    """
    weights = f"{restore_file}_weights" if restore_file in ("best", "last") else Path(checkpoint["path"]).stem
    is_same_data = checkpoint.get("data", {}).get("digest") == params.data.digest
    data = "" if is_same_data else f"_on_{Path(params.data_dir).resolve().name}"
    file_split = "eval" if split == "val" else split  # train.py writes metrics_eval_best_weights.json as well
    name = split if restore_file == "best" else f"{split}_{weights}"
    return name + data, f"metrics_{file_split}_{weights}{data}.json"


def suffix(name: str) -> str:
    """What a split's pictures have behind their name; nothing for those of test."""
    return "" if name == "test" else f"_{name}"


def write_predictions(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A CSV file with a row for each example."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    write_atomically(path, text.getvalue())


def score_table(header: Sequence[str], rows: Sequence[Sequence[Any]], counts: int) -> str:
    """A table of scores with three digits, whose last `counts` columns are whole numbers."""
    digits = ["", *[".3f"] * (len(header) - 1 - counts), *[".0f"] * counts]
    return tabulate(rows, header, tablefmt="github", floatfmt=digits, disable_numparse=[0])


class ClassReport(Report):
    """For networks that choose one of the classes."""

    def write(self, model_dir: Path, name: str) -> str:
        """Write predictions_{name}.csv and the confusion matrix. Returns the scores of each class."""
        classes, labels, records = self.params.data.classes, self.dataset.labels.cpu(), self.records
        write_predictions(
            model_dir / f"predictions_{name}.csv",
            [self.dataset.kind, "label", "prediction", "probability"],
            (
                [example, classes[label], record["prediction"], f"{record['probability']:.4f}"]
                for example, label, record in zip(self.dataset.names, labels.tolist(), records, strict=True)
            ),
        )
        numbers = {class_name: number for number, class_name in enumerate(classes)}
        predicted = torch.tensor([numbers[record["prediction"]] for record in records])
        counts = confusion(predicted, labels, len(classes))
        draw_confusion_matrix(counts.numpy(), classes, model_dir / f"confusion_matrix{suffix(name)}.png")
        scores = [score.tolist() for score in class_scores(counts)]
        return score_table(
            ["class", "precision", "recall", "F1", "support"], list(zip(classes, *scores, strict=True)), 1
        )

    def surest_mistakes(self, most: int) -> list[tuple[int, str, Record]]:
        """The wrong predictions with the highest probability, at most `most`: index, label and record of each."""
        labels = [self.params.data.classes[label] for label in self.dataset.labels.tolist()]
        examples = zip(range(len(labels)), labels, self.records, strict=True)
        wrong = [(i, label, record) for i, label, record in examples if record["prediction"] != label]
        return sorted(wrong, key=lambda mistake: -mistake[2]["probability"])[:most]


class LabelReport(Report):
    """For networks that say of each label whether an example has it."""

    def write(self, model_dir: Path, name: str) -> str:
        """Write predictions_{name}.csv, with a probability for each label. Returns the scores of each label."""
        names, labels = self.params.data.classes, self.dataset.labels.cpu().long()
        rows = [list(record["probabilities"].values()) for record in self.records]
        applies = torch.tensor([[label in record["prediction"] for label in names] for record in self.records]).long()
        write_predictions(
            model_dir / f"predictions_{name}.csv",
            [self.dataset.kind, *names, *(f"probability of {label}" for label in names)],
            (
                [example, *label, *(f"{probability:.4f}" for probability in row)]
                for example, label, row in zip(self.dataset.names, labels.tolist(), rows, strict=True)
            ),
        )
        table = []
        for i, label in enumerate(names):
            scores = class_scores(confusion(applies[:, i], labels[:, i], 2))
            table.append([label, *(score[1].item() for score in scores)])
        return score_table(["label", "precision", "recall", "F1", "support"], table, 1)


class NumberReport(Report):
    """For networks that predict numbers.

    The targets are named, and were standardised, as `label_columns`, `label_mean` and `label_std` of DataParams say, if
    it has these.
    """

    def write(self, model_dir: Path, name: str) -> str:
        """Write predictions_{name}.csv, labels and predictions. Returns the errors of each target."""
        data, count = self.params.data, self.dataset.labels.shape[1]
        targets = target_names(data, count)
        mean, std = torch.tensor(getattr(data, "label_mean", 0.0)), torch.tensor(getattr(data, "label_std", 1.0))
        labels = self.dataset.labels.cpu() * std + mean
        predictions = [record["prediction"] for record in self.records]
        predicted = [[*values.values()] if isinstance(values, dict) else [values] for values in predictions]
        write_predictions(
            model_dir / f"predictions_{name}.csv",
            [self.dataset.kind, *targets, *(f"predicted {target}" for target in targets)],
            (
                [example, *(f"{value:.6g}" for value in (*label, *row))]
                for example, label, row in zip(self.dataset.names, labels.tolist(), predicted, strict=True)
            ),
        )
        counts = count_errors([(torch.tensor(predicted), labels)]).unsqueeze(2)
        rows = [[target, *(f(counts[:, i]) for f in (mae, rmse, r2))] for i, target in enumerate(targets)]
        return score_table(["target", "MAE", "RMSE", "R2"], rows, 0)
