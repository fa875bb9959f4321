"""Results on a terminal: tables that fit its width, and lines that say what was left out."""

from __future__ import annotations

import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from engine.commands import command_line
from results.experiments import Result
from results.table import (
    NUM_FIRST,
    Table,
    count_untrained,
    describe_best,
    is_metric,
    make_tables,
    show_columns,
    write_tables,
)

NAME_WIDTH = 24  # names of experiments are shortened to this before one of the NUM_FIRST parameters is left out
GAP = "  "  # between columns


def print_tables(
    results: list[Result],
    parent_dir: Path,
    format: str = "markdown",
    columns: Sequence[str] = (),
    show_all: bool = False,
) -> None:
    """Print tables: fitted to a terminal; whole into a file, a pipe, or in a format other than Markdown.

    Raises:
        UserError: one of `columns` does not exist.
    """
    if not results and format == "markdown":
        print(f"No experiments below {parent_dir}.")
    elif format == "markdown" and sys.stdout.isatty():
        print(fit_tables(results, parent_dir, shutil.get_terminal_size().columns, columns, show_all))
    else:
        print(write_tables(results, format, columns, show_all))


def fit_tables(
    results: list[Result], parent_dir: Path, width: int, columns: Sequence[str] = (), show_all: bool = False
) -> str:
    """Tables of at most `width` characters, and how to see what was left out. With `show_all`, nothing is.

    Wider than `width` are only tables of which nothing can be left out (`show_all`, more `columns` than fit, a terminal
    of less than 30 columns), and the command at the end, since a command of two lines cannot be pasted.
    """
    parts, notes, example = [], count_untrained(results, show_all), ""
    for group, table in make_tables(results, columns, show_all):
        table = change(table, "status", abbreviate)
        required = table.header if columns else ["experiment", "status", *group.ranking_columns]
        shown = table if show_all else fit(table, required, width)
        lines = [*wrap(group.title, width), *wrap(describe_best(group), width), "", *lay_out(shown)]
        if left_out := [name for name in table.header if name not in shown.header]:
            names = ", ".join(name.replace(" ", "_") for name in left_out)
            lines.append(textwrap.shorten(f"columns left out ({len(left_out)}): {names}", width, placeholder=" ..."))
            example = left_out[0]
        parts.append("\n".join(lines))
    if notes or example:
        command = command_line("synthesize_results.py", "--parent_dir", parent_dir, "--all")
        notes += ["To see all:", f"  {command}"]
    if example:
        notes.append(f"To see certain columns: --columns experiment {example.replace(' ', '_')}")
    return "\n\n".join([*parts, "\n".join(notes)] if notes else parts)


def fit(table: Table, required: Sequence[str], width: int) -> Table:
    """The columns of a table that fit into `width` characters: the `required` ones, then the first of the others.

    To fit, names of experiments lose the names of parameters and then their middle, a status all but its first word.
    """
    shown = [name for name in table.header if name in required]
    widths = column_widths(table)
    if total_width(widths, shown, NAME_WIDTH) > width:
        table = change(table, "status", lambda status: re.split(r",|:| \d+/", status)[0])
        widths = column_widths(table)
    others = [name for name in table.header if name not in required]
    first = [name for name in others[:NUM_FIRST] if not is_metric(name) and name != "epoch"]
    for name in others:
        if total_width(widths, [*shown, name], NAME_WIDTH if name in first else width) <= width:
            shown.append(name)
        elif name not in first:
            break
    room = max(width - total_width(widths, shown, 0), len("experiment"))
    places = [table.header.index(name) for name in shown]
    fitted = Table(shown, [[row[place] for place in places] for row in table.rows])
    params = [name for name in table.header if not is_metric(name) and name not in ("experiment", "status", "epoch")]
    return change(fitted, "experiment", lambda name: shorten(name, room, params))


def total_width(widths: Mapping[str, int], names: Sequence[str], longest_name: int) -> int:
    """The width of a table of some columns, if no name of an experiment is longer than `longest_name`."""
    cells = [min(widths[name], longest_name) if name == "experiment" else widths[name] for name in names]
    return sum(cells) + len(GAP) * (len(cells) - 1)


def change(table: Table, column: str, function: Callable[[str], str]) -> Table:
    """The table with `function` applied to each cell of a column, if it has that column."""
    rows = [
        [function(cell) if name == column else cell for name, cell in zip(table.header, row, strict=True)]
        for row in table.rows
    ]
    return Table(table.header, rows)


def abbreviate(status: str) -> str:
    """`diverged after epoch 3 of 20` as `diverged 3/20`"""
    return re.sub(r" after epoch (\S+) of (\S+)", r" \1/\2", status).replace("from other weights", "restored")


def shorten(text: str, width: int, params: Sequence[str] = ()) -> str:
    """A name that is longer than `width` without the names of `params`; if it still is, without its middle.

    `search/learning_rate_0.01-batch_size_32` becomes `search/0.01-32`.
    """
    if len(text) > width and params:
        text = re.sub(rf"(?<![a-z])(?:{'|'.join(map(re.escape, params))})_", "", text)
    tail = (width - 1) // 2
    return text if len(text) <= width else f"{text[: width - 1 - tail]}…{text[len(text) - tail :]}"


def wrap(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_on_hyphens=False)


def split_header(name: str) -> list[str]:
    """Up to three lines: `test`, `accuracy`, `on photos`; `learning_`, `rate`."""
    if " " in name or len(name) < 12:
        return name.split(" ", 2)
    middle = min((at.end() for at in re.finditer("_", name)), key=lambda at: abs(at - len(name) / 2), default=0)
    return [name[:middle], name[middle:]]


def column_widths(table: Table) -> dict[str, int]:
    columns = zip(table.header, show_columns(table), strict=True)
    return {name: max(map(len, [*split_header(name), *cells])) for name, (cells, _) in columns}


def lay_out(table: Table) -> list[str]:
    """The lines of a table: headers of up to three lines, dashes, rows. Numbers stand on the right."""
    headers = [split_header(name) for name in table.header]
    height = max(map(len, headers))
    columns = []
    for header, width, (cells, is_number) in zip(
        headers, column_widths(table).values(), show_columns(table), strict=True
    ):
        lines = [*[""] * (height - len(header)), *header, "-" * width, *cells]
        columns.append([line.rjust(width) if is_number else line.ljust(width) for line in lines])
    return [GAP.join(row).rstrip() for row in zip(*columns, strict=True)]
