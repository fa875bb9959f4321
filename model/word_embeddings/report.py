"""Outputs -> the nearest neighbours of all words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.reports import Report as BaseReport
from engine.reports import write_predictions
from engine.torch_network import predictor_of

from .write import demonstrate

MOST = 2000  # words


class Report(BaseReport):
    """Neighbours of the most frequent words. The loss says the rest."""

    def add(self, outputs: Any) -> None:
        """There is nothing to keep: vectors do not depend on the split."""

    def write(self, model_dir: Path, name: str) -> str:
        """Write predictions_{name}.csv. Returns the neighbours of a few words."""
        predictor = predictor_of(self.task, self.params, self.net)
        words = [word for word in predictor.processing.forms if word.strip()][:MOST]  # type: ignore[attr-defined]
        rows = [(record["input"], record["prediction"], f"{record['probability']:.4f}") for record in predictor(words)]
        write_predictions(model_dir / f"predictions_{name}.csv", ["word", "prediction", "probability"], rows)
        return demonstrate(predictor)
