"""Results as tables, one for each task and data set. results.terminal fits them to a terminal."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from tabulate import tabulate

from engine.params import WITHOUT_EFFECT, TrainingParams, did_you_mean
from results.experiments import Group, Result, group_results, rank_results
from utils import UserError

INCIDENTAL = {"seed", *WITHOUT_EFFECT}  # parameters that make no setting better than another
NUM_FIRST = 3  # of the parameters that differ most, so many come before metrics that rank nothing


class Table(NamedTuple):
    header: list[str]
    rows: list[list[Any]]


def make_table(results: list[Result], metric: str, columns: Sequence[str] = ()) -> Table:
    """A row for each result, in their order: the name, then those of `columns` that any of the results has.

    Without `columns`, they are all that may be of interest when results are ranked by `metric`.
    """
    columns = columns or order_columns(results, metric)
    values = {column: [value_of(result, column) for result in results] for column in columns}
    known = {column: cells for column, cells in values.items() if any(cell is not None for cell in cells)}
    rows = [list(row) for row in zip([result.name for result in results], *known.values(), strict=True)]
    return Table(["experiment", *known], rows)


def value_of(result: Result, column: str) -> Any:
    """What `result` has in a column; None if it has nothing there."""
    if column == "status":
        return result.status + (", from other weights" if result.is_restored else "")
    return result.metrics.get(column, result.params.get(column))


def order_columns(results: list[Result], metric: str) -> list[str]:
    """The status, all that was measured, and the parameters that differ, in the order of their importance.

    First comes the metric that ranks. Then come the parameters that differ most, other metrics, metrics on other data,
    more parameters, losses, the epoch, and incidental parameters.
    """
    measured = dict.fromkeys(column for result in results for column in result.metrics)
    metrics = [column for column in measured if is_metric(column) and column.split()[1] != "loss"]
    params = list(different_params([result for result in results if result.params]))
    main_params = [name for name in params if name not in INCIDENTAL]
    ordered = [  # a column that was there before is skipped
        *(f"{split} {metric}" for split in ("val", "test") if f"{split} {metric}" in measured),
        *main_params[:NUM_FIRST],
        *(column for column in metrics if " on " not in column),
        *metrics,
        *main_params,
        *filter(is_metric, measured),
        *measured,
        *params,
    ]
    return ["status", *dict.fromkeys(ordered)]


def is_metric(column: str) -> bool:
    return column.startswith(("val ", "test "))


def different_params(results: list[Result]) -> dict[str, list[Any]]:
    """The values of each hyperparameter that is not the same in all results, those that differ most first.

    A parameter with more values differs more. With equally many, those of the task come before those that all tasks
    share. Incidental ones come last.
    """
    names = dict.fromkeys(name for result in results for name in result.params)
    columns = {name: [result.params.get(name) for result in results] for name in names}
    counts = {name: len(set(map(json.dumps, values))) for name, values in columns.items()}

    def key(name: str) -> tuple[bool, int, bool]:
        return name in INCIDENTAL, -counts[name], name in TrainingParams.model_fields

    return {name: columns[name] for name in sorted(columns, key=key) if counts[name] > 1}


def choose_columns(results: list[Result], names: Sequence[str]) -> list[str]:
    """The columns that `names` mean: `val f1`, or `val_f1` for it. Raises UserError if there is no such column."""
    columns = dict.fromkeys(column for result in results for column in [*result.metrics, *result.params])
    known = {column.replace(" ", "_"): column for column in ["experiment", "status", *columns]}
    asked = dict.fromkeys(name.replace(" ", "_") for name in names)
    for name in asked:
        if name not in known:
            hint = did_you_mean(name, known)
            raise UserError(f"--columns {name}: there is no such column.{hint} There are {', '.join(known)}.")
    return [known[name] for name in asked]


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


def show(value: Any, column: str = "") -> str:
    """A number as a person reads it: 0.9833, 0.003, 1e-05. Metrics have four digits, to be compared at a glance."""
    if isinstance(value, Spread):
        digits = 4 if is_metric(column) else 1  # the epoch of the best weights
        return f"{value:.{digits}f} ± {value.deviation:.{digits}f}"
    if isinstance(value, float):
        if not is_metric(column) and len(repr(value)) <= 7:
            return repr(value)
        return f"{value:.4f}" if abs(value) >= 0.001 or not value else f"{value:.3g}"
    return "" if value is None else str(value)


def show_columns(table: Table) -> list[tuple[list[str], bool]]:
    """The cells of each column as text, and whether they are numbers."""
    return [
        ([show(value, name) for value in values], any(isinstance(value, int | float) for value in values))
        for name, values in zip(table.header, zip(*table.rows, strict=True), strict=False)
    ]


def as_text(tablefmt: str) -> Callable[[Table], str]:
    def write(table: Table) -> str:
        columns = show_columns(table)
        rows = list(zip(*(cells for cells, _ in columns), strict=True))
        align = ["right" if is_number else "left" for _, is_number in columns] or None
        return tabulate(rows, table.header, tablefmt=tablefmt, disable_numparse=True, colalign=align)

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
TEXTS = {"markdown": ("### {}\n\n{}\n\n", "{}"), "latex": ("% {}\n% {}\n", "% {}")}  # above a table, and below all
FOR_PROGRAMS = ("csv", "json")  # a program gets one table, with a row for each run


def write_tables(results: list[Result], format: str, columns: Sequence[str] = (), show_all: bool = False) -> str:
    """Whole tables: one for each task and data set with the seeds of a setting as one row, or one for a program.

    Args:
        columns: the only ones to show, by names that `choose_columns` knows.
        show_all: also list experiments that are not trained, instead of counting them.

    Raises:
        UserError: there is no such column.
    """
    if format in FOR_PROGRAMS:
        columns = choose_columns(results, columns)
        groups = group_results(listed(results, show_all))
        ranked = [result for group in groups for result in group.results]
        return FORMATS[format](make_table(ranked, groups[0].metric if groups else "", columns))
    heading, note = TEXTS[format]
    parts = [
        heading.format(group.title, describe_best(group)) + FORMATS[format](table)
        for group, table in make_tables(results, columns, show_all)
    ]
    return "\n\n".join([*parts, *map(note.format, count_untrained(results, show_all))])


def make_tables(results: list[Result], columns: Sequence[str], show_all: bool) -> list[tuple[Group, Table]]:
    """For each task and data set the ranked results, with the seeds of a setting merged, and their table."""
    columns = choose_columns(results, columns)
    groups = [
        group._replace(results=rank_results(merge_seeds(group.results), group.metric, group.goal))
        for group in group_results(listed(results, show_all))
    ]
    return [(group, make_table(group.results, group.metric, columns)) for group in groups]


def listed(results: list[Result], show_all: bool) -> list[Result]:
    return [result for result in results if result.is_trained or show_all]


def count_untrained(results: list[Result], show_all: bool) -> list[str]:
    """A line that says how many experiments are not listed, if there are any."""
    count = len(results) - len(listed(results, show_all))
    return [f"{count} experiment{' is' if count == 1 else 's are'} not trained yet (--all lists them)."] * (count > 0)


def describe_best(group: Group) -> str:
    """`best: a, val f1 0.8034, 0.0041 ahead of b`"""
    column = f"val {group.metric}"
    values = [(result.name, result.metrics.get(column, math.nan)) for result in group.results]
    known = [(name, value) for name, value in values if not math.isnan(value)]
    if not known:
        return "no results yet"
    (name, value), *others = known
    best = f"best: {name}, {column} {show(value, column)}"
    if not others:
        return best
    second, other = others[0]
    ahead = abs(value - other)
    return f"{best}, " + (f"{show(ahead, column)} ahead of {second}" if ahead else f"the same as {second}")
