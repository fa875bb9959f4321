"""Experiments as a table."""

from __future__ import annotations

import csv
import io
import json
import re
import statistics
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from tabulate import tabulate

from results.experiments import Experiment, best_first


def make_table(experiments: list[Experiment]) -> tuple[list[str], list[list[Any]]]:
    """Column names and rows: name, metrics, the hyperparameters that are not the same everywhere, and the status."""
    experiments = best_first(experiments)
    judged_by = [experiment.monitor for experiment in experiments if experiment.monitor in experiment.metrics]
    metrics = list(dict.fromkeys([*judged_by, *(name for e in experiments for name in e.metrics)]))
    params = list(dict.fromkeys(name for experiment in experiments for name in experiment.params))
    different = [name for name in params if len({json.dumps(e.params.get(name)) for e in experiments if e.params}) > 1]
    rows = [
        [
            e.name,
            *(e.metrics.get(name) for name in metrics),
            *(e.params.get(name) for name in different),
            describe_status(e),
        ]
        for e in experiments
    ]
    return ["experiment", *metrics, *different, "status"], rows


def describe_status(experiment: Experiment) -> str:
    return experiment.status + (", from other weights" if experiment.is_restored else "")


class Spread(float):
    """The mean of some runs, which knows their standard deviation."""

    deviation: float

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        mean = cls(statistics.mean(values))
        mean.deviation = statistics.stdev(values) if len(values) > 1 else 0.0
        return mean


def merge_seeds(experiments: list[Experiment]) -> list[Experiment]:
    """One for all that differ in their seed alone, with mean and deviation of what they measured."""
    groups: dict[str, list[Experiment]] = defaultdict(list)
    for e in experiments:
        same = {name: value for name, value in e.params.items() if name != "seed"}
        groups[json.dumps(same) if e.metrics and not e.is_restored else e.name].append(e)
    merged: list[Experiment] = []
    for group in groups.values():
        seeds = {e.params.get("seed") for e in group}
        merged += [merge(group)] if len(seeds) == len(group) > 1 else group
    return merged


def merge(group: list[Experiment]) -> Experiment:
    metrics: dict[str, float] = {}
    for name in dict.fromkeys(name for e in group for name in e.metrics):
        values = [e.metrics[name] for e in group if name in e.metrics]
        metrics[name] = Spread.of(values)
    done = sum(e.status == "finished" for e in group)
    status = "finished" if done == len(group) else f"{done} of {len(group)} finished"
    params = {name: value for name, value in group[0].params.items() if name != "seed"}
    name = re.sub(r"[-_]?seed_?\d+", "", group[0].name)
    return Experiment(f"{name} ({len(group)} seeds)", status, metrics, params, group[0].monitor)


def show(value: Any) -> str:
    """A number as a person reads it: 0.9833, 0.003, 1e-05."""
    if isinstance(value, Spread):
        return f"{value:.4f} ± {value.deviation:.4f}"
    if isinstance(value, float):
        if len(repr(value)) <= 7:
            return repr(value)
        return f"{value:.4f}" if abs(value) >= 0.001 else f"{value:.3g}"
    return "" if value is None else str(value)


def as_text(tablefmt: str) -> Callable[[list[str], list[list[Any]]], str]:
    def write(header: list[str], rows: list[list[Any]]) -> str:
        cells = [[show(value) for value in row] for row in rows]
        numeric = [any(isinstance(row[i], int | float) for row in rows) for i in range(len(header))]
        align = ["right" if is_numeric else "left" for is_numeric in numeric] if rows else None
        return tabulate(cells, header, tablefmt=tablefmt, disable_numparse=True, colalign=align)

    return write


def as_csv(header: list[str], rows: list[list[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return text.getvalue().rstrip("\n")


def as_json(header: list[str], rows: list[list[Any]]) -> str:
    return json.dumps([dict(zip(header, row, strict=True)) for row in rows], indent=4)


FORMATS: dict[str, Callable[[list[str], list[list[Any]]], str]] = {
    "markdown": as_text("github"),
    "csv": as_csv,
    "json": as_json,
    "latex": as_text("latex"),
}
