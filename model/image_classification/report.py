"""Outputs -> what a person looks at: tables, pictures, and every single prediction."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate
from torch import Tensor
from torch.utils.data import DataLoader

from engine.metrics import class_scores, confusion
from engine.pictures import draw_confusion_matrix, draw_images
from utils import write_atomically

from .params import Params

MOST_MISTAKES = 32


class Report:
    """Collects the outputs of one pass over a split, in the order of its loader, and writes them up."""

    def __init__(self, loader: DataLoader[Any], params: Params):
        self.dataset: Any = loader.dataset
        self.classes = params.data.classes
        self.best: list[tuple[Tensor, Tensor]] = []  # log-probability and class of each batch's predictions

    def add(self, outputs: Tensor) -> None:
        log_probabilities, classes = outputs.float().max(dim=1)
        self.best.append((log_probabilities, classes))

    def write(self, model_dir: Path, name: str) -> str:
        """Write predictions_{name}.csv, the confusion matrix and the worst mistakes. Returns the per-class table."""
        log_probabilities, classes = zip(*self.best, strict=True)
        probabilities, predicted = torch.cat(log_probabilities).cpu().exp(), torch.cat(classes).cpu()
        labels = self.dataset.labels.cpu()
        counts = confusion(predicted, labels, len(self.classes))

        rows = io.StringIO()
        writer = csv.writer(rows, lineterminator="\n")
        writer.writerow(["file", "label", "prediction", "probability"])
        for file, label, prediction, probability in zip(
            self.dataset.files, labels.tolist(), predicted.tolist(), probabilities.tolist(), strict=True
        ):
            writer.writerow([file, self.classes[label], self.classes[prediction], f"{probability:.4f}"])
        write_atomically(model_dir / f"predictions_{name}.csv", rows.getvalue().encode(errors="surrogateescape"))

        suffix = "" if name == "test" else f"_{name}"
        draw_confusion_matrix(counts.numpy(), self.classes, model_dir / f"confusion_matrix{suffix}.png")
        wrong = (predicted != labels).nonzero().flatten()
        worst = wrong[probabilities[wrong].argsort(descending=True)][:MOST_MISTAKES].tolist()
        sheet = model_dir / f"mistakes{suffix}.png"
        sheet.unlink(missing_ok=True)  # of an earlier evaluation
        if worst:
            draw_images(
                [self.dataset.images[i].cpu().permute(1, 2, 0).numpy() for i in worst],
                [
                    f"{self.classes[labels[i]]:.16}\nas {self.classes[predicted[i]]:.16}\n{probabilities[i]:.2f}"
                    for i in worst
                ],
                sheet,
            )
        scores = class_scores(counts)
        table = [
            [name, *numbers] for name, *numbers in zip(self.classes, *(score.tolist() for score in scores), strict=True)
        ]
        return tabulate(
            table,
            headers=["class", "precision", "recall", "F1", "support"],
            tablefmt="github",
            floatfmt=("", ".3f", ".3f", ".3f", ".0f"),
            disable_numparse=[0],
        )
