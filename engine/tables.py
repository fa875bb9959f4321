"""Tables in text files -> rows -> arrays: what tasks need that read CSV."""

from __future__ import annotations

import csv
import io
import itertools
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydantic import NonNegativeFloat

from engine.building import check_classes, check_splits, copies_across_splits, find_splits, split_off
from engine.params import StrictModel
from utils import UserError

logger = logging.getLogger(__name__)

ENDINGS = (".csv", ".tsv", ".txt")
DELIMITERS = ";\t,"
EMPTY = {"", "na", "nan", "null", "none", "?"}  # cells that hold no value, in lower case


class Row(NamedTuple):
    cells: list[str]
    split: str  # train, if the table came without splits
    place: str  # file and line


class Table(NamedTuple):
    """Rows of one length, and the names of their columns: "column 1", ... where the file has no header."""

    header: list[str]
    rows: list[Row]

    def find_columns(self, names: Sequence[str]) -> list[int]:
        """The indices of columns, by name or by number from 1.

        Raises:
            UserError: there is no such column, or one is named twice.
        """
        numbered = {str(i + 1): i for i in range(len(self.header))} | {name: i for i, name in enumerate(self.header)}
        if missing := [name for name in names if name not in numbered]:
            raise UserError(f"{missing[0]}: no such column. There are {', '.join(self.header)}.")
        found = [numbered[name] for name in names]
        if len(set(found)) < len(found):
            raise UserError(f"{' '.join(names)}: the same column twice.")
        return found

    def column(self, column: int) -> list[str]:
        """The cells of a column."""
        return [row.cells[column] for row in self.rows]

    def numbers(self, columns: Sequence[int]) -> np.ndarray:
        """The numbers in some columns, num_rows x num_columns float64, NaN where a cell is empty.

        Raises:
            UserError: a word stands in one of them.
        """
        for row in self.rows:
            for i in columns:
                if not is_empty(row.cells[i]) and not is_number(row.cells[i]):
                    raise UserError(f"{row.place}: {row.cells[i]} in the column {self.header[i]}, which holds numbers.")
        values = [[math.nan if is_empty(row.cells[i]) else float(row.cells[i]) for i in columns] for row in self.rows]
        return np.array(values, dtype=np.float64).reshape(len(self.rows), len(columns))

    def split_off(self, classes: Sequence[str] | None, seed: int) -> Table:
        """The table with val and test split off train, if it came without them: by a hash of all cells of a row.

        Args:
            classes: of the rows, to take the same share of each; None if they have none.

        Raises:
            UserError: a split is empty, or has a class that train does not have.
        """
        splits, places = [row.split for row in self.rows], [row.place for row in self.rows]
        if copies := copies_across_splits([tuple(row.cells) for row in self.rows], splits, places):
            logger.warning("%d rows are in two splits:\n  %s", len(copies), "\n  ".join(copies[:20]))
        splits = split_off([str(row.cells) for row in self.rows], classes or [""] * len(splits), splits, seed)
        if classes:
            check_classes(classes, splits, places)
        else:
            check_splits(splits)
        return Table(self.header, [row._replace(split=split) for row, split in zip(self.rows, splits, strict=True)])

    def save(self, path: Path, split: str) -> None:
        """Write the rows of a split as CSV, below a header."""
        with open(path, "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([self.header, *(row.cells for row in self.rows if row.split == split)])


def is_empty(cell: str) -> bool:
    return cell.lower() in EMPTY


def is_number(cell: str) -> bool:
    try:
        return math.isfinite(float(cell))
    except ValueError:
        return False


# --------------------------------------------------------------------------------------------- reading


def read_tables(source: Path, no_header: bool = False) -> Table:
    """The rows of a file, or of the files train, [val] and test of a folder.

    Args:
        no_header: the first line is a row. Otherwise it is a header if no cell of it is a number.

    Raises:
        UserError: there is no such file, it is no table, or the files of a folder have different columns.
    """
    files = {"train": source}
    if source.is_dir():
        tables = sorted(path for path in source.iterdir() if path.suffix.lower() in ENDINGS and path.name[0] != ".")
        files = find_splits(tables, ENDINGS) or ({"train": tables[0]} if len(tables) == 1 else {})
        if "train" not in files:
            found = ", ".join(path.name for path in tables) or "no table"
            raise UserError(f"{source}: {found} in it. Expected one table, or train.csv [val.csv] test.csv.")
    header: list[str] = []
    rows: list[Row] = []
    for split, path in files.items():
        table = read_table(path, split, no_header)
        if header and table.header != header:
            raise UserError(f"{path}: the columns {', '.join(table.header)}, but others have {', '.join(header)}.")
        header = table.header
        rows += table.rows
    return Table(header, rows)


def read_table(path: Path, split: str, no_header: bool = False) -> Table:
    """The rows of one file, between commas, semicolons or tabs. See `read_tables`."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}). Expected a table such as data.csv.") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 (byte {error.start}). Save it as UTF-8.") from None
    reader = csv.reader(io.StringIO(text), delimiter=find_delimiter(text), strict=True, skipinitialspace=True)
    try:
        lines = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader if any(cells)]
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: {error}. Is a quotation mark left open?") from None
    header = [f"column {i + 1}" for i in range(len(lines[0][1]))] if lines else []
    if lines and not no_header and not any(map(is_number, lines[0][1])):
        header = [cell or name for cell, name in zip(lines.pop(0)[1], header, strict=True)]
    if not lines or len(header) < 2 or len(set(header)) < len(header):
        raise UserError(f"{path}: expected rows of at least 2 columns with different names, below a header or without.")
    for number, cells in lines:
        if len(cells) != len(header):
            raise UserError(f"{path}, line {number}: {len(cells)} cells, expected {len(header)}.")
    return Table(header, [Row(cells, split, f"{path}, line {number}") for number, cells in lines])


def find_delimiter(text: str) -> str:
    """The one that splits the first lines into the most columns, equally many in each."""

    def columns(delimiter: str) -> int:
        head = itertools.islice(csv.reader(io.StringIO(text), delimiter=delimiter, skipinitialspace=True), 20)
        counts = {len(cells) for cells in head if any(cells)}
        return counts.pop() if len(counts) == 1 else 0

    return max(DELIMITERS, key=columns) if any(map(columns, DELIMITERS)) else ","


# -------------------------------------------------------------------------------------------- encoding


class Columns(StrictModel):
    """How the cells of a row become inputs of a network: what the training rows decide."""

    numbers: list[str]  # columns that hold numbers
    mean: list[float]  # of each, over the cells that are not empty
    std: list[NonNegativeFloat]
    with_empty: list[str]  # those of them with empty cells
    categories: dict[str, list[str]]  # column -> the different words in it

    @property
    def num_numbers(self) -> int:
        return len(self.numbers) + len(self.with_empty)

    @classmethod
    def fit(cls, table: Table, names: Sequence[str], rows: Sequence[Row]) -> Columns:
        """From the training rows of the columns `names`. A column with a cell that is no number holds words."""
        at = {name: i for i, name in enumerate(table.header)}
        cells = {name: [row.cells[at[name]] for row in rows] for name in names}
        values = {
            name: [float(cell) for cell in column if not is_empty(cell)] or [0.0]
            for name, column in cells.items()
            if all(is_number(cell) or is_empty(cell) for cell in column)
        }
        mean, std = zip(*map(moments, values.values()), strict=True) if values else ([], [])
        for name, deviation in zip(values, std, strict=True):
            if not math.isfinite(deviation):
                raise UserError(f"The numbers in the column {name} are too large to be standardised.")
        return cls(
            numbers=[*values],
            mean=[*mean],
            std=[*std],
            with_empty=[name for name in values if any(map(is_empty, cells[name]))],
            categories={name: sorted(set(column)) for name, column in cells.items() if name not in values},
        )

    def encode(self, table: Table) -> tuple[np.ndarray, np.ndarray]:
        """The inputs of each row.

        Returns:
            num_rows x num_numbers float32: standardised numbers, 0 where a cell is empty; then, for each column
            `with_empty`, 1 where it is empty. And num_rows x len(categories) int64: the number of each word from 1 in
            the order of `categories`, 0 for a word that is not there.

        Raises:
            UserError: a word stands in a column of numbers.
        """
        at = {name: i for i, name in enumerate(table.header)}
        array = table.numbers([at[name] for name in self.numbers])
        is_missing = np.isnan(array)
        standard = np.where(is_missing, 0.0, standardize(array, self.mean, self.std))
        indicators = is_missing[:, [name in self.with_empty for name in self.numbers]]
        known = {name: {word: i for i, word in enumerate(words, 1)} for name, words in self.categories.items()}
        words = [[known[name].get(row.cells[at[name]], 0) for name in known] for row in table.rows]
        with np.errstate(over="ignore"):  # the loss, or the answer, is then not finite
            numbers = np.concatenate([standard, indicators], axis=1).astype(np.float32)
        return numbers, np.array(words, dtype=np.int64).reshape(len(table.rows), len(known))


def moments(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation; of equal numbers exactly these numbers' value and 0, without rounding."""
    with np.errstate(over="ignore"):
        is_constant = np.min(values) == np.max(values)
        return (float(values[0]), 0.0) if is_constant else (float(np.mean(values)), float(np.std(values)))


def standardize(values: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """Subtract the mean and divide by the standard deviation, column by column; a constant column becomes 0."""
    return (values - np.array(mean)) / np.where(np.array(std) > 0, std, 1.0)
