"""Tables of texts: delimiter, quotation marks, header and columns are recognised. All without torch."""

from __future__ import annotations

import argparse
import contextlib
import csv
import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from engine.predicting import Unreadable
from engine.tables import is_number
from model.text.columns import find_column
from model.text.files import LONGEST_LINE, stream_lines
from utils import UserError

logger = logging.getLogger(__name__)

TABLE_ENDINGS = (".csv", ".tsv")
EXPECTED = """Expected one of these, as a file, or as train, val (or dev, valid) and test in one folder:
  .csv or .tsv with a text and a label in each row:    "A fine film.",positive
  .txt with a tab between text and label:              A fine film.<TAB>positive
  .txt or .ft with lines of fastText:                  __label__positive A fine film.
  .txt with trees of the Stanford Sentiment Treebank:  (3 (2 A) (3 (3 fine) (2 film)))
or a folder per class with a .txt per text, directly or below train/ and test/: train/positive/0_9.txt
or a .txt per class with a text in each line: Italian.txt"""
HEAD = 1000  # lines from which delimiter, header and columns are recognised
MANY = 20  # rows; with fewer, labels may well be different
UNQUOTED = {"delimiter": "\t", "quoting": csv.QUOTE_NONE}  # quotation marks are part of the texts
# what the csv module takes; of two that fit equally well, the first
DIALECTS: list[dict[str, Any]] = [{"delimiter": delimiter} for delimiter in "\t;,"]
DIALECTS += [{**dialect, "escapechar": "\\"} for dialect in DIALECTS]
SEPARATOR = re.compile(r"sep=.", re.IGNORECASE)
QUOTED_CELL = re.compile(r'(?:^|\t)"[^\t]*"\s*(?:\t|$)')
TEXT_NAMES = """text sentence review content body comment message tweet utterance document phrase question_text
    comment_text review_text review_body reviewtext question post description headline title summary name""".split()
LABEL_NAMES = """label labels class category sentiment target language lang intent emotion polarity topic stars rating
    score genre type tag country label_text class_name y""".split()


class TableRow(NamedTuple):
    first: int  # line
    last: int
    cells: list[str]


class TableLayout(NamedTuple):
    """How to read a table: what the csv module takes, its columns, and its first row if that is a header."""

    dialect: Mapping[str, Any]
    num_columns: int
    text: int
    label: int
    header: list[str] | None


def read_table_rows(lines: Iterable[str], path: Path, dialect: Mapping[str, Any]) -> Iterator[TableRow]:
    """The rows of a table that are not empty lines. Raises UserError where quotation marks do not match."""
    csv.field_size_limit(LONGEST_LINE)
    reader = csv.reader(lines, strict=True, skipinitialspace=True, **dialect)
    begin = 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield TableRow(begin, reader.line_num, cells)
            begin = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{path}, line {begin}: {error}. Is a quotation mark left open?") from None


def table_lines(path: Path, encoding: str) -> Iterator[str]:
    """The lines of a table with their line ends. In place of Excel's `sep=;`, which may stand first, an empty one."""
    for number, line in enumerate(stream_lines(path, encoding, newline="")):
        yield "\n" if number == 0 and SEPARATOR.fullmatch(line.strip()) else line


def check_cells(found: int, expected: int, path: Path, line: int) -> None:
    if found != expected:
        raise UserError(f"{path}, line {line}: {found} cells, expected {expected} as in the first row.")


def find_table_layout(path: Path, args: argparse.Namespace, is_train: bool) -> TableLayout:
    """The layout of a table, from its first lines.

    Raises:
        UserError: it is no table, its first rows are not alike, or its columns are unclear, missing or wrong.
    """
    head = read_head(path, args.encoding)
    dialect, rows, fit = find_dialect(head, path)
    if not fit or (fit < 0.5 and path.suffix.lower() not in TABLE_ENDINGS):
        first = next(line.strip() for line in head if line.strip())
        raise UserError(f"{path}: no text with its label in the first line: {first[:80]}\n{EXPECTED}")
    if is_whole(head):  # what is wrong with its last row counts too
        rows = list(read_table_rows(head, path, dialect))
    for row in rows:
        check_cells(len(row.cells), len(rows[0].cells), path, row.first)
    layout = choose_columns([row.cells for row in rows], dialect, path, args)
    below = rows[1:] if layout.header else rows
    labels = [row.cells[layout.label] for row in below]
    different = len(set(labels))
    if is_train and len(labels) > 2 and different > max(len(labels) / 2, min(len(labels) - 1, MANY)):
        problem = f"{different} different labels in {len(labels)} rows, such as {labels[0][:60]}"
        raise UserError(
            f"{path}, line {below[0].first}: column {layout.label + 1} has {problem}. --label_column names another"
            " column. (Numbers are for tabular_prediction.)"
        )
    logger.info("%s: %s", path, describe_layout(layout))
    return layout


def read_head(path: Path, encoding: str) -> list[str]:
    """The first lines of a table. Raises UserError if they are empty."""
    head, size = [], 0
    for line in table_lines(path, encoding):
        head.append(line)
        size += len(line)
        if len(head) == HEAD or size > LONGEST_LINE:
            break
    if not any(line.strip() for line in head):
        raise UserError(f"{path}: empty. {EXPECTED}")
    return head


def is_whole(head: Sequence[str]) -> bool:
    """Whether the first lines are all lines of a file."""
    return len(head) < HEAD and sum(map(len, head)) <= LONGEST_LINE


def describe_layout(layout: TableLayout) -> str:
    """`text in column 2 (review), label in column 3 (mood), not read: id (--text_column ... say otherwise)`"""
    names = layout.header or [""] * layout.num_columns
    shown = [f"{i + 1} ({name.strip():.40})" if name.strip() else str(i + 1) for i, name in enumerate(names)]
    others = [name for i, name in enumerate(shown) if i not in (layout.text, layout.label)]
    parts = [f"text in column {shown[layout.text]}", f"label in column {shown[layout.label]}"]
    parts += [] if layout.header else ["no header"]
    parts += [f"not read: {', '.join(others[:10])}"] if others else []
    return f"{', '.join(parts)} (--text_column, --label_column and --no_header say otherwise)"


def read_text_column(path: Path, asked: str | None, encoding: str) -> Iterator[str | Unreadable]:
    """The texts of a table that may have no labels.

    The column is the one that is `asked` for, by name or number; else the one that is called as texts are; else the one
    with the most characters.

    Raises:
        UserError: it is no table, or has no such column.
    """
    head = read_head(path, encoding)
    dialect, rows, _ = find_dialect(head, path)
    if not rows:  # of one column
        dialect = {"delimiter": ","}
        rows = list(read_table_rows(head, path, dialect)) if is_whole(head) else [TableRow(1, 1, [head[0].strip()])]
    first = [cell.strip() for cell in rows[0].cells]
    names = [name.lower() for name in first]
    known = [names.index(name) for name in TEXT_NAMES if name in names]
    if asked:
        try:
            at = find_column("--text_column", asked, first, len(first))
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
    else:
        sizes = [sum(len(row.cells[i]) for row in rows if i < len(row.cells)) for i in range(len(first))]
        at = known[0] if known else sizes.index(max(sizes))
    has_header = any(name in (*TEXT_NAMES, *LABEL_NAMES) for name in names) or (asked or "").strip() in first
    logger.info("%s: text in column %d (%s; --text_column names another)", path, at + 1, first[at][:40])
    for number, row in enumerate(read_table_rows(table_lines(path, encoding), path, dialect)):
        if number == 0 and has_header:
            continue
        if len(row.cells) != len(first):
            found = f"{len(row.cells)} cells, expected {len(first)} as in the first row"
            yield Unreadable(f"{path}, line {row.first}", found)
        else:
            yield row.cells[at].strip()


def find_dialect(head: Sequence[str], path: Path) -> tuple[dict[str, Any], list[TableRow], float]:
    """The dialect in which rows like the first cover the most lines, the rows up to the first mistake in it, and the
    share of lines. Between tabs, quotation marks enclose cells if they do so in most lines, or if only that fits."""
    filled = [line for line in head if line.strip()]
    is_quoted = 2 * sum(bool(QUOTED_CELL.search(line)) for line in filled) > len(filled)
    best: tuple[dict[str, Any], list[TableRow], float] = ({}, [], 0.0)
    for dialect in DIALECTS if is_quoted else [UNQUOTED, *DIALECTS]:
        rows: list[TableRow] = []
        with contextlib.suppress(UserError):  # another dialect may fit; if none does, the reader says what is wrong
            for row in read_table_rows(head, path, dialect):
                rows.append(row)
        fitting = [row for row in rows if len(row.cells) == len(rows[0].cells) > 1]
        fit = sum(row.last - row.first + 1 for row in fitting) / len(filled)
        if fit > best[2]:
            best = dialect, rows, fit
    return best


def choose_columns(rows: Sequence[list[str]], dialect: Mapping[str, Any], path: Path, args: Any) -> TableLayout:
    """Which column is what: by the flags, else by the names in a header, else the label is what repeats.

    Raises:
        UserError: that is not clear, or a flag names no column, or both name the same.
    """
    first, below = rows[0], rows[1:]
    names = [cell.strip().lower() for cell in first]
    may_be_header = not args.no_header and not any(map(is_number, first))
    is_new = [may_be_header and all(row[i] != first[i] for row in below) for i in range(len(first))]

    def known(well_known: Sequence[str], taken: int | None) -> int | None:
        found = [i for name in well_known for i in range(len(names)) if names[i] == name and is_new[i] and i != taken]
        return found[0] if found else None

    try:
        text, label = (
            None if asked is None else find_column(flag, asked, [cell.strip() for cell in first], len(first))
            for flag, asked in (("--text_column", args.text_column), ("--label_column", args.label_column))
        )
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    has_names = any(value and not value.isdecimal() for value in (args.text_column, args.label_column))
    label = known(LABEL_NAMES, text) if label is None else label
    text = known(TEXT_NAMES, label) if text is None else text
    if len(first) == 2 and text is None and label is None:
        different = [len({row[i] for row in below}) for i in (0, 1)]
        fewest = different.index(min(different))
        if 4 * different[fewest] <= 3 * min(len(below), different[1 - fewest]):  # a class repeats, texts hardly do
            label = fewest
    if len(first) == 2 and (text is None) != (label is None):
        text, label = (1 - label, label) if label is not None else (text, 1 - (text or 0))
    if missing := [flag for flag, at in (("--text_column", text), ("--label_column", label)) if at is None]:
        cells = ", ".join(f"{number} {cell.strip()[:40]}" for number, cell in enumerate(first, start=1))
        raise UserError(
            f"{path}, line 1: which column is the {' and which the '.join(flag[2:-7] for flag in missing)}? The first"
            f" row: {cells}\nChoose with {' and '.join(missing)}, by name or by number from 1."
        )
    assert text is not None
    assert label is not None
    if text == label:
        raise UserError(f"{path}: column {text + 1} cannot be both --text_column and --label_column.")
    is_known = names[text] in TEXT_NAMES or names[label] in LABEL_NAMES
    is_header = is_new[label] and (is_known or (len(below) > 0 and len(first[text].split()) <= 3))
    return TableLayout(dialect, len(first), text, label, first if has_names or is_header else None)
