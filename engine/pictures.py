"""Numbers -> pictures. matplotlib is imported when the first one is drawn."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from utils import write_atomically

BLUE, ORANGE = "#2f6fb0", "#e07b28"


def new_figure(width: float, height: float, layout: Literal["constrained"] | None = "constrained") -> Any:
    from matplotlib.figure import Figure  # without pyplot: no display, no global state

    return Figure(figsize=(width, height), layout=layout)


def save(figure: Any, path: Path) -> None:
    picture = io.BytesIO()
    figure.savefig(picture, dpi=120, format=path.suffix[1:])
    write_atomically(path, picture.getbuffer())


def drawable(text: str) -> str:
    """`text` with escapes for bytes of a file name that are not UTF-8, since no font has them."""
    return text.encode(errors="backslashreplace").decode()


def draw_curves(history: Sequence[dict[str, Any]], best_epoch: int, path: Path) -> None:
    """The loss and the first two metrics of train and val over the epochs, and the learning rate.

    Args:
        history: one entry per epoch: `epoch`, `learning_rate`, and the metrics under `train` and `val`.
    """
    names = list(history[0]["train"])[:3]
    epochs = [entry["epoch"] for entry in history]
    # fixed margins: to measure all labels, as the constrained layout does, takes as long as to draw them
    figure = new_figure(4 * (len(names) + 1), 3.2, layout=None)
    figure.subplots_adjust(0.22 / (len(names) + 1), 0.16, 0.99, 0.9, wspace=0.25)
    axes = figure.subplots(1, len(names) + 1)
    for axis, name in zip(axes, names, strict=False):
        for split, colour in (("train", ORANGE), ("val", BLUE)):
            values = [entry[split][name] for entry in history]
            axis.plot(epochs, values, color=colour, label=split, marker="." if len(epochs) < 30 else None)
        axis.axvline(best_epoch, color="grey", linewidth=0.8, linestyle=":", label="best weights")
        axis.set(title=name, xlabel="epoch")
        axis.legend()
    axes[-1].plot(epochs, [entry["learning_rate"] for entry in history], color="grey")
    axes[-1].set(title="learning rate", xlabel="epoch", ylim=(0, None))
    for axis in axes:
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.2)
    save(figure, path)


def draw_confusion_matrix(counts: np.ndarray, classes: Sequence[str], path: Path) -> None:
    """Counts in the cells, colour by the share of the row: what became of the examples of each class."""
    n, classes = len(classes), [drawable(name) for name in classes]
    size = min(3 + 0.45 * n, 16)
    figure = new_figure(size + 0.8, size)
    axis = figure.subplots()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axis, label="share of the label's examples", shrink=0.8)
    every = max(1, n // 40)  # labels that would overlap are left out
    axis.set(xlabel="prediction", ylabel="label")
    axis.set_xticks(range(0, n, every), classes[::every], rotation=90 if max(map(len, classes)) > 3 else 0)
    axis.set_yticks(range(0, n, every), classes[::every])
    if n <= 30:
        for row, column in zip(*np.nonzero(counts), strict=True):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axis.text(column, row, counts[row, column], ha="center", va="center", color=colour)
    save(figure, path)


def draw_images(images: Sequence[np.ndarray], captions: Sequence[str], path: Path, columns: int = 8) -> None:
    """A contact sheet.

    Args:
        images: each height x width x 3, uint8.
    """
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    figure = new_figure(1.4 * columns, 1.9 * rows)
    for axis in figure.subplots(rows, columns, squeeze=False).flat:
        axis.axis("off")
    for axis, image, caption in zip(figure.axes, images, captions, strict=False):
        axis.imshow(image)
        axis.set_title(drawable(caption), fontsize=8)
    save(figure, path)
