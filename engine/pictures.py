"""Numbers -> pictures. matplotlib is imported when the first one is drawn."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from utils import write_atomically

BLUE, ORANGE = "#2f6fb0", "#e07b28"
FINISHED: dict[bool, dict[str, Any]] = {  # how experiments look that were trained to the end, or not
    True: {"s": 18, "color": "grey", "label": "finished"},
    False: {"s": 16, "facecolors": "none", "edgecolors": "grey", "label": "pruned, or not finished"},
}


def new_figure(width: float, height: float, layout: Literal["constrained"] | None = "constrained") -> Any:
    from matplotlib.figure import Figure  # without pyplot: no display, no global state

    return Figure(figsize=(width, height), layout=layout)


def save(figure: Any, path: Path) -> None:
    picture = io.BytesIO()
    figure.savefig(picture, dpi=120, format=path.suffix[1:])
    write_atomically(path, picture.getbuffer())


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


def draw_results(
    metric: str,
    names: Sequence[str],
    values: Sequence[float | None],
    is_finished: Sequence[bool],
    curves: Sequence[Sequence[float]],
    searched: Mapping[str, Sequence[Any]],
    is_log: Mapping[str, bool],
    importance: Mapping[str, float],
    when: str,
    path: Path,
) -> None:
    """What a search has found: learning curves, which parameter mattered, and the metric against each of them.

    Args:
        names, values, is_finished, curves: of the experiments, the best first: values is the metric on val at the best
            epoch, None if there is none; curves that after each epoch.
        searched: the values of each parameter, one per experiment.
        importance: how much each parameter decides which experiments are the best (`when`: " after epoch 2", or in the
            end), as shares of 1; empty if not known.
    """
    panels = 1 + bool(importance) + len(searched)
    columns = min(3, panels)
    rows = -(-panels // columns)
    figure = new_figure(4.6 * columns, 3.4 * rows + 0.3)
    best_value = f", {metric} {values[0]:.4f}" if values[0] is not None else ""
    figure.suptitle(f"best of {len(names)}: {names[0]}{best_value}", fontsize=10, color=BLUE)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis in axes[panels:]:
        axis.axis("off")
    axis = axes.pop(0)
    for i, curve in reversed(list(enumerate(curves))):
        epochs = range(1, len(curve) + 1)
        best = {"color": BLUE, "linewidth": 2, "alpha": 1} if i == 0 else {}
        style = {"color": "grey", "linewidth": 0.8, "alpha": 0.5, **best}
        axis.plot(epochs, curve, marker="." if len(curve) == 1 else None, **style)
    axis.set(title=f"{metric} on val", xlabel="epoch")
    axis.xaxis.get_major_locator().set_params(integer=True)
    if importance:
        axis = axes.pop(0)
        ranked = sorted(importance, key=lambda name: importance[name])
        axis.barh(ranked, [importance[name] for name in ranked], color=BLUE)
        axis.set(title="importance", xlabel=f"share in what makes the best by {metric}{when}", xlim=(0, 1))
    for axis, (name, settings) in zip(axes, searched.items(), strict=False):
        points = zip(settings, values, is_finished, strict=True)
        known = [(x, y, finished) for x, y, finished in points if x is not None and y is not None]
        numeric = all(isinstance(x, int | float) and not isinstance(x, bool) for x, _, _ in known)
        known = [(x if numeric else str(x), y, finished) for x, y, finished in known]
        for kind, style in FINISHED.items():
            if pairs := [(x, y) for x, y, finished in known if finished is kind]:
                axis.scatter(*zip(*pairs, strict=True), **style)
        if known:
            axis.scatter(*known[0][:2], s=40, color=BLUE, label="best", zorder=3)
        if numeric and is_log.get(name):
            axis.set_xscale("log")
        choices = sorted({x for x, _, _ in known})
        if numeric and are_apart(choices, is_log.get(name, False)):
            axis.set_xticks(choices, [f"{x:g}" for x in choices])
            axis.minorticks_off()
        axis.set(title=f"{metric} against {name}", xlabel=name)
    if searched and not all(is_finished):
        labels = figure.axes[panels - 1].get_legend_handles_labels()
        figure.legend(*labels, loc="outside lower center", ncols=3, fontsize=8)
    for axis in figure.axes:
        axis.grid(alpha=0.2)
    save(figure, path)


def are_apart(values: Sequence[float], is_log: bool) -> bool:
    """Whether each of the sorted values can be written below an axis without touching its neighbour."""
    places = np.log(values) if is_log else np.asarray(values)
    return len(values) > 1 and bool(np.diff(places).min() > (places[-1] - places[0]) / 9)


def draw_confusion_matrix(counts: np.ndarray, classes: Sequence[str], path: Path) -> None:
    """Counts in the cells, colour by the share of the row: what became of the examples of each class."""
    n = len(classes)
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
        axis.set_title(caption, fontsize=8)
    save(figure, path)
