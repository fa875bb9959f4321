"""Results as a table."""

from __future__ import annotations

import csv
import io
import json
import re
import statistics
from collections import defaultdict
from collections.abc import Callable
from typing import Any, NamedTuple

from tabulate import tabulate

from results.experiments import Result, best_first, by_task


class Table(NamedTuple):
    header: list[str]
    rows: list[list[Any]]


def make_table(results: list[Result]) -> Table:
    """A row for each result, the best first: name, metrics, the hyperparameters that differ, and the status."""
    results = best_first(results)
    judged_by = [result.monitor for result in results if result.monitor in result.metrics]
    metrics = list(dict.fromkeys([*judged_by, *(name for result in results for name in result.metrics)]))
    params = list(different_params([result for result in results if result.params]))
    rows = [
        [
            result.name,
            *(result.metrics.get(name) for name in metrics),
            *(result.params.get(name) for name in params),
            result.status + (", from other weights" if result.is_restored else ""),
        ]
        for result in results
    ]
    return Table(["experiment", *metrics, *params, "status"], rows)


def different_params(results: list[Result]) -> dict[str, list[Any]]:
    """The values of each hyperparameter that is not the same in all results."""
    names = dict.fromkeys(name for result in results for name in result.params)
    columns = {name: [result.params.get(name) for result in results] for name in names}
    return {name: values for name, values in columns.items() if len(set(map(json.dumps, values))) > 1}


class Spread(float):
    """The mean of some numbers, which knows their standard deviation."""

    deviation: float

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        mean = cls(statistics.mean(values))
        mean.deviation = statistics.stdev(values) if len(values) > 1 else 0.0
        return mean


def merge_seeds(results: list[Result]) -> list[Result]:
    """Merge results that differ only in their seed into one, with the mean and deviation of each metric."""
    groups: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        same = {name: value for name, value in result.params.items() if name != "seed"}
        groups[json.dumps(same) if result.metrics and not result.is_restored else result.name].append(result)
    merged: list[Result] = []
    for group in groups.values():
        seeds = {result.params.get("seed") for result in group}
        merged += [merge(group)] if len(seeds) == len(group) > 1 else group
    return merged


def merge(group: list[Result]) -> Result:
    names = dict.fromkeys(name for result in group for name in result.metrics)
    measured = {name: [result.metrics[name] for result in group if name in result.metrics] for name in names}
    done = sum(result.status == "finished" for result in group)
    return group[0]._replace(
        name=re.sub(r"[-_]?seed_?\d+", "", group[0].name) + f" ({len(group)} seeds)",
        status="finished" if done == len(group) else f"{done} of {len(group)} finished",
        metrics={name: Spread.of(values) for name, values in measured.items()},
        params={name: value for name, value in group[0].params.items() if name != "seed"},
    )


def show(value: Any) -> str:
    """A number as a person reads it: 0.9833, 0.003, 1e-05."""
    if isinstance(value, Spread):
        return f"{value:.4f} ± {value.deviation:.4f}"
    if isinstance(value, float):
        if len(repr(value)) <= 7:
            return repr(value)
        return f"{value:.4f}" if abs(value) >= 0.001 else f"{value:.3g}"
    return "" if value is None else str(value)


def as_text(tablefmt: str) -> Callable[[Table], str]:
    def write(table: Table) -> str:
        cells = [[show(value) for value in row] for row in table.rows]
        numeric = [any(isinstance(value, int | float) for value in column) for column in zip(*table.rows, strict=True)]
        align = ["right" if is_numeric else "left" for is_numeric in numeric] or None
        return tabulate(cells, table.header, tablefmt=tablefmt, disable_numparse=True, colalign=align)

    return write


def as_csv(table: Table) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([table.header, *table.rows])
    return text.getvalue().rstrip("\n")


def as_json(table: Table) -> str:
    return json.dumps([dict(zip(table.header, row, strict=True)) for row in table.rows], indent=4)


FORMATS: dict[str, Callable[[Table], str]] = {
    "markdown": as_text("github"),
    "csv": as_csv,
    "json": as_json,
    "latex": as_text("latex"),
}
FOR_PROGRAMS = ("csv", "json")  # a program gets one table, with a row for each run


def write_tables(results: list[Result], format: str) -> str:
    """One table for each task, since their columns have little in common; the seeds of a setting as one row."""
    if format in FOR_PROGRAMS:
        return FORMATS[format](make_table(results))
    tables = [make_table(merge_seeds(group)) for group in by_task(results)]
    return "\n\n".join(map(FORMATS[format], tables or [make_table([])]))
