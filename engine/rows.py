"""Rows of CSV files, or dicts -> what the network takes: what tasks that read tables need to predict."""

from __future__ import annotations

import csv
import itertools
import math
import sys
from abc import abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import IO, Any

import numpy as np

from engine.answers import is_unicode
from engine.params import did_you_mean
from engine.predicting import Arrays, Example, Options, Processing, Unreadable, made_up_word, refuse_text_options
from engine.tables import DELIMITERS, Row, Table, find_delimiter, is_empty, is_number
from utils import UserError


class RowProcessing(Processing):
    """Rows, each a dict of column -> cell. A row may have more columns than those of training, in any order."""

    accepts = "rows"

    @property
    def columns(self) -> Sequence[str]:
        """The columns that a row must have: `columns` of the data, unless a task says otherwise."""
        return self.params.data.columns

    @property
    def numbers(self) -> Collection[str]:
        """Those of them that hold numbers, or nothing; by default all."""
        return self.columns

    @abstractmethod
    def encode(self, table: Table) -> Arrays:
        """The inputs of the network for some rows that have just the `columns`."""

    def describe_columns(self) -> list[dict[str, Any]]:
        """What a person who fills in a row is told: `name` and `kind` ("number" or "word") of each column; where they
        are known, the `mean` of its numbers or its different `words`."""
        return [{"name": name, "kind": "number" if name in self.numbers else "word"} for name in self.columns]

    def read(self, words: Sequence[str], options: Options) -> Iterator[Any]:
        """CSV files with a header; `-` for one on stdin."""
        refuse_text_options(options, "CSV files")
        if not words:
            raise UserError("Which rows? Expected CSV files with the columns of training, or - for one on stdin.")
        for word in words:
            yield from read_rows(word, self.columns)

    def preprocess(self, raw: Any) -> Example:
        if not isinstance(raw, Mapping):
            raise UserError("expected a row: an object that says what stands in each column")
        if missing := [name for name in self.columns if name not in raw]:
            raise UserError(f"no value for {', '.join(missing)}")
        cells = [as_cell(raw[name]) for name in self.columns]
        for name, cell in zip(self.columns, cells, strict=True):
            if name in self.numbers and not is_number(cell) and not is_empty(cell):
                raise UserError(f"{cell:.100} in the column {name}, which holds numbers")
        return Example(dict(raw), cells)

    def examples(self, count: int, length: int, rng: np.random.Generator) -> list[dict[str, Any]]:
        """Numbers near 0, and words that nobody knows. A task whose cells may be empty should make some empty."""
        return [
            {name: rng.standard_normal() if name in self.numbers else made_up_word(rng, 9) for name in self.columns}
            for _ in range(count)
        ]

    def collate(self, contents: Sequence[list[str]]) -> Arrays:
        return self.encode(Table(list(self.columns), [Row(cells, "", "") for cells in contents]))


def as_cell(value: Any) -> str:
    """A value as it would stand in a CSV file. Raises UserError if it cannot."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, Mapping | list | tuple):
        raise UserError(f"{value!s:.100}: expected a number or a word")
    return str(value).strip()


def read_rows(name: str, columns: Sequence[str]) -> Iterator[dict[str, str] | Unreadable]:
    """The rows of a CSV file one by one, whatever its size.

    Args:
        name: of the file; `-` is standard input.
        columns: that a row must have. If they are numbered, the file needs no header.

    Raises:
        UserError: there is no such file, or the header lacks a column.
    """
    try:
        descriptor: Any = sys.stdin.fileno() if name == "-" else name
        with open(descriptor, encoding="utf-8-sig", errors="surrogateescape", newline="", closefd=name != "-") as file:
            yield from _rows_of(file, name, columns)
    except csv.Error as error:
        raise UserError(f"{name}: not a CSV file ({error}).") from None
    except OSError as error:
        raise UserError(f"{name}: cannot be read ({error.strerror}). Expected a CSV file.") from None


def _rows_of(file: IO[str], name: str, columns: Sequence[str]) -> Iterator[dict[str, str] | Unreadable]:
    head = [line for line in itertools.islice(file, 1)]  # if it is a header, the first row need not wait for others
    if head and not _is_header(head[0], columns):
        head += itertools.islice(file, 20)
    lines = itertools.chain(head, file)
    reader = csv.reader(lines, delimiter=_delimiter_of(head, columns), strict=True, skipinitialspace=True)
    header: list[str] = []
    while True:
        try:
            cells = [cell.strip() for cell in next(reader)]
        except StopIteration:
            return
        except csv.Error as error:
            yield Unreadable(f"{name}, line {reader.line_num}", f"{error}. Is a quotation mark left open?")
            continue
        if not cells:
            continue
        if not header:
            header = _header_of(cells, columns, f"{name}, line {reader.line_num}")
            if header == cells:
                continue
        place = f"{name}, line {reader.line_num}"
        if len(cells) != len(header):
            yield Unreadable(place, f"{len(cells)} cells, expected {len(header)}")
        elif not all(map(is_unicode, cells)):
            yield Unreadable(place, "not UTF-8")
        else:
            yield dict(zip(header, cells, strict=True))


def _header_of(cells: list[str], columns: Sequence[str], place: str) -> list[str]:
    """The names of the columns: the first line, or numbers. Raises UserError when one that is needed is missing."""
    if not all(map(is_unicode, cells)):
        raise UserError(f"{place}: not UTF-8. Expected a CSV file; save it as UTF-8.")
    numbered = [f"column {i + 1}" for i in range(len(cells))]
    if set(columns) <= set(numbered):
        return numbered
    if missing := [column for column in columns if column not in cells]:
        raise UserError(
            f"{place}: no column {', '.join(missing)}, which the network was trained with."
            f"{did_you_mean(missing[0], cells)} There are: {', '.join(cells)[:500]}."
        )
    if twice := [column for column in columns if cells.count(column) > 1]:
        raise UserError(f"{place}: the column {twice[0]} twice.")
    return cells


def _is_header(line: str, columns: Sequence[str]) -> bool:
    return any(set(columns) <= set(_split(line, delimiter)) for delimiter in DELIMITERS)


def _split(line: str, delimiter: str) -> list[str]:
    return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])]


def _delimiter_of(head: list[str], columns: Sequence[str]) -> str:
    """The delimiter with which the header contains the most `columns`. Without a header, `find_delimiter` decides."""

    def found(delimiter: str) -> int:
        return len(set(_split(head[0] if head else "", delimiter)) & set(columns))

    return max(DELIMITERS, key=found) if any(map(found, DELIMITERS)) else find_delimiter("".join(head))
