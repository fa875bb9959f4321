"""Results as a picture: learning curves, which parameters mattered, and the metric against each of them."""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engine.experiments import read_history
from engine.pictures import BLUE, drawable, new_figure, save
from results.experiments import Group, Result, group_results
from results.table import different_params
from utils import UserError

FEWEST_TRIALS = 8  # with fewer, nothing can be said of a parameter's importance
NOT_SHOWN = ("seed", "data_dir", "monitor")
FINISHED: dict[bool, dict[str, Any]] = {  # how the points of experiments look: trained to the end, or not
    True: {"s": 18, "color": "grey", "label": "finished"},
    False: {"s": 16, "facecolors": "none", "edgecolors": "grey", "label": "pruned, or not finished"},
}


def draw_results(results: list[Result], parent_dir: Path) -> list[Path]:
    """Draw a picture for each task and data set, into `parent_dir`, and return their paths.

    Raises:
        UserError: no experiment was trained.
    """
    histories = {result.name: read_history(parent_dir / result.name) for result in results}
    groups = group_results([result for result in results if histories[result.name]])
    if not groups:
        raise UserError(f"{parent_dir}: no experiment here was trained, so there is nothing to draw.")
    paths = []
    for group in groups:
        of_task = [other for other in groups if other.task == group.task]
        words = [group.task] * (len(groups) > 1) + [group.data] * (len(of_task) > 1)
        paths.append(parent_dir / ("_".join(["results", *(re.sub(r"[^\w.-]+", "_", word) for word in words)]) + ".png"))
        draw_group(group, histories, parent_dir, paths[-1])
    return paths


def draw_group(group: Group, histories: Mapping[str, Any], parent_dir: Path, path: Path) -> None:
    """Draw trained results of one task on one data set."""
    trained, best, metric = group.results, group.results[0], group.metric
    searched, (importance, when) = searched_params(trained), read_importance(parent_dir)
    panels = 1 + bool(importance) + len(searched)
    columns = min(3, panels)
    rows = -(-panels // columns)
    figure = new_figure(4.6 * columns, 3.4 * rows + 0.3)
    best_value = f", val {metric} {best.metrics[f'val {metric}']:.4f}" if f"val {metric}" in best.metrics else ""
    title = drawable(f"{group.title}\nbest of {len(trained)}: {best.name}{best_value}")
    figure.suptitle(title, fontsize=10, color=BLUE)
    axes = iter(figure.subplots(rows, columns, squeeze=False).flat)
    plot_curves(next(axes), metric, [[e["val"].get(metric, math.nan) for e in histories[r.name]] for r in trained])
    if importance:
        plot_importance(next(axes), importance, f"share in what makes the best by {metric}{when}")
    for (name, values), axis in zip(searched.items(), axes, strict=False):
        plot_values(axis, name, values, group, is_log(name, values, parent_dir))
    if searched and any(result.status != "finished" for result in trained):
        labels = figure.axes[panels - 1].get_legend_handles_labels()
        figure.legend(*labels, loc="outside lower center", ncols=3, fontsize=8)
    for axis in figure.axes[:panels]:
        axis.grid(alpha=0.2)
    for axis in figure.axes[panels:]:
        axis.axis("off")
    save(figure, path)


def plot_curves(axis: Any, metric: str, curves: Sequence[Sequence[float]]) -> None:
    """The metric on val over the epochs, the best experiment on top."""
    for i, curve in reversed(list(enumerate(curves))):
        style = {"color": "grey", "linewidth": 0.8, "alpha": 0.5} if i else {"color": BLUE, "linewidth": 2}
        axis.plot(range(1, len(curve) + 1), curve, marker="." if len(curve) == 1 else None, **style)
    axis.set(title=f"{metric} on val", xlabel="epoch")
    axis.xaxis.get_major_locator().set_params(integer=True)


def plot_importance(axis: Any, importance: Mapping[str, float], label: str) -> None:
    ranked = sorted(importance, key=lambda name: importance[name])
    axis.barh(ranked, [importance[name] for name in ranked], color=BLUE)
    axis.set(title="importance", xlabel=label, xlim=(0, 1))


def plot_values(axis: Any, name: str, values: Sequence[Any], group: Group, is_log: bool) -> None:
    """The metric against one parameter, a point for each result. Values that are not numbers are categories."""
    metric = group.metric
    known = [
        (x, result.metrics[f"val {metric}"], result.status == "finished")
        for x, result in zip(values, group.results, strict=True)
        if x is not None and f"val {metric}" in result.metrics
    ]
    is_numeric = all(isinstance(x, int | float) and not isinstance(x, bool) for x, *_ in known)
    points: list[Any] = [(x if is_numeric else str(x), y, finished) for x, y, finished in known]
    for kind, style in FINISHED.items():
        if pairs := [(x, y) for x, y, finished in points if finished is kind]:
            axis.scatter(*zip(*pairs, strict=True), **style)
    if points:
        axis.scatter(*points[0][:2], s=40, color=BLUE, label="best", zorder=3)
    if is_numeric and is_log:
        axis.set_xscale("log")
    choices = sorted({x for x, *_ in points})
    if is_numeric and are_apart(choices, is_log):
        axis.set_xticks(choices, [f"{x:g}" for x in choices])
        axis.minorticks_off()
    axis.set(title=f"{metric} against {name}", xlabel=name)


def are_apart(values: Sequence[float], is_log: bool) -> bool:
    """Whether each of the sorted values can be written below an axis without touching its neighbour."""
    places = np.log(values) if is_log else np.asarray(values)
    return len(values) > 1 and bool(np.diff(places).min() > (places[-1] - places[0]) / 9)


def searched_params(results: Sequence[Result]) -> dict[str, list[Any]]:
    """The values of each parameter that is not the same in all results, apart from NOT_SHOWN."""
    return {name: values for name, values in different_params(list(results)).items() if name not in NOT_SHOWN}


def is_log(name: str, values: Sequence[Any], parent_dir: Path) -> bool:
    """Whether search.json says that this parameter is logarithmic; or else, whether its values span a factor of 30."""
    with contextlib.suppress(OSError, ValueError, KeyError, AttributeError):
        return bool(
            json.loads((parent_dir / "search.json").read_text(encoding="utf-8"))["space"][name].get("log", False)
        )
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    return bool(numbers) and min(numbers) > 0 and max(numbers) / min(numbers) >= 30


def read_importance(parent_dir: Path) -> tuple[dict[str, float], str]:
    """How much each parameter decides which trials are the best, by the study that search_hyperparams.py left here.

    PED-ANOVA (Watanabe et al. 2023, "PED-ANOVA: Efficiently quantifying hyperparameter importance in arbitrary
    subspaces"). If few trials were trained to the end, values are compared at the first rung, the only one that every
    trial reached.

    Returns:
        name -> share, empty if there are too few trials to say; and "", or " after epoch 2".
    """
    if not (parent_dir / "study.db").is_file():
        return {}, ""
    import optuna

    from search.study import STUDY, study_url

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        study, when = optuna.load_study(study_name=STUDY, storage=study_url(parent_dir)), ""
        trials = study.get_trials(deepcopy=False)
        if sum(trial.state == optuna.trial.TrialState.COMPLETE for trial in trials) < FEWEST_TRIALS:
            first = min((min(trial.intermediate_values) for trial in trials if trial.intermediate_values), default=0)
            judged = [trial for trial in trials if first in trial.intermediate_values]
            if len(judged) < FEWEST_TRIALS:
                return {}, ""
            study, when = optuna.create_study(direction=study.direction), f" after epoch {first}"
            for t in judged:
                value = t.intermediate_values[first]
                study.add_trial(optuna.create_trial(value=value, params=t.params, distributions=t.distributions))
        return optuna.importance.get_param_importances(study), when
    except (KeyError, ValueError, RuntimeError):  # there is no study, or all trials are the same
        return {}, ""
