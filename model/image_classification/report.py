"""Outputs -> the report of classes, and a sheet of the worst mistakes."""

from __future__ import annotations

from pathlib import Path

from engine.pictures import draw_images
from engine.reports import ClassReport, suffix

MOST_MISTAKES = 32


class Report(ClassReport):
    """The report of any classifier, and mistakes.png, which shows the most confident mistakes."""

    def write(self, model_dir: Path, name: str) -> str:
        table = super().write(model_dir, name)
        worst = self.surest_mistakes(MOST_MISTAKES)
        sheet = model_dir / f"mistakes{suffix(name)}.png"
        sheet.unlink(missing_ok=True)  # of an earlier evaluation
        if worst:
            images = [self.dataset.images[i].cpu().permute(1, 2, 0).numpy() for i, _, _ in worst]
            captions = [
                f"{label:.16}\nas {record['prediction']:.16}\n{record['probability']:.2f}" for _, label, record in worst
            ]
            draw_images(images, captions, sheet)
        return table
