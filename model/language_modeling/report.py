"""Outputs -> how well each part of a text was foreseen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.loaders import Batch
from engine.reports import Report as BaseReport
from engine.reports import score_table, write_predictions

from .predict import Processing

SHOWN, WIDTH = 5, 60  # parts that are printed, and characters of each


class Report(BaseReport):
    """The loss of each part of the text, in nats per token."""

    processing: Processing

    def __init__(self, *arguments: Any):
        super().__init__(*arguments)
        self.batches = iter(torch.tensor(self.order).split(self.dataset.num_streams))
        self.parts: list[tuple[int, str, float]] = []  # place of the first token, text, loss

    def add(self, outputs: Tensor) -> None:
        indices = next(self.batches)
        _, labels = self.dataset.__getitems__(Batch(0, indices))
        positions, _ = self.dataset.positions(indices.numpy())
        losses = F.cross_entropy(outputs.transpose(1, 2).cpu(), labels, ignore_index=-1, reduction="none")
        means = (losses.sum(dim=1) / (labels >= 0).sum(dim=1).clamp(min=1)).tolist()
        for place, row, loss in zip(positions[:, 0].tolist(), labels.tolist(), means, strict=True):
            if numbers := [number for number in row if number >= 0]:
                self.parts.append((place, self.processing.decode(numbers), loss))

    def write(self, model_dir: Path, name: str) -> str:
        """Write predictions_{name}.csv, the loss of each part. Returns those that were foreseen least."""
        self.parts.sort()
        rows = [(place, text, f"{loss:.4f}") for place, text, loss in self.parts]
        write_predictions(model_dir / f"predictions_{name}.csv", ["from", "text", "loss"], rows)
        parts = [part for part in self.parts if len(part[1]) >= self.params.num_steps / 2] or self.parts
        hardest = sorted(parts, key=lambda part: -part[2])[:SHOWN]
        shown = [(" ".join(text.split())[:WIDTH], loss) for _, text, loss in hardest]
        return score_table(["foreseen least", "loss"], shown, 0)
