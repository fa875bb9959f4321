"""Files of labelled texts, in the layouts that people have them in -> a stream of texts. All without torch."""

from __future__ import annotations

import argparse
import contextlib
import csv
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from engine.answers import is_unicode
from engine.building import SPLITS, find_splits
from engine.tables import is_number
from model.text.columns import find_column
from model.text.files import LONGEST_LINE, read_one_text, stream_lines
from model.text.trees import BINARY, FIVE, TREE, parse_tree
from utils import UserError

logger = logging.getLogger(__name__)

TABLE_ENDINGS = (".csv", ".tsv")
ENDINGS = (*TABLE_ENDINGS, ".ft.txt", ".txt", ".ft")
EXPECTED = """Expected one of these, as a file, or as train, val (or dev, valid) and test in one folder:
  .csv or .tsv with a text and a label in each row:    "A fine film.",positive
  .txt with a tab between text and label:              A fine film.<TAB>positive
  .txt or .ft with lines of fastText:                  __label__positive A fine film.
  .txt with trees of the Stanford Sentiment Treebank:  (3 (2 A) (3 (3 fine) (2 film)))
or a folder per class with a .txt per text, directly or below train/ and test/: train/positive/0_9.txt"""


class Place(NamedTuple):
    file: str
    line: int = 0  # 0: the whole file

    def __str__(self) -> str:
        return f"{self.file}, line {self.line}" if self.line else self.file


class Labelled(NamedTuple):
    content: str | list[str]  # a text, or its words where the source has words
    label: str
    split: str | None  # None: the source has no splits
    place: Place
    is_part: bool = False  # a phrase of the sentence that stands at the same place


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--text_column", help="column of a table with the text, by name or number from 1 (recognised)")
    parser.add_argument("--label_column", help="column with the label, by name or number from 1 (recognised)")
    parser.add_argument("--no_header", action="store_true", help="the first line of a table is a row (recognised)")
    parser.add_argument("--labels", choices=("binary", "five"), help="classes of trees (binary)")
    parser.add_argument("--phrases", action="store_true", help="train on every phrase of a tree")
    parser.add_argument("--encoding", default="utf-8", help="of the text files (%(default)s)")


def read_labelled(source: Path, args: argparse.Namespace) -> Iterator[Labelled]:
    """The texts of `source`, from any of the layouts in EXPECTED: train, val, test, each in the order of its file.

    Args:
        args: the flags of `add_arguments`.

    Raises:
        UserError: there is nothing to read, or something in it is not what its layout holds. It names file and line.
    """
    places = find_places(source)
    if all(place.is_dir() for place in places.values()):
        kind = "folders"
    else:
        kinds = {path: recognise(path, args.encoding) for path in places.values()}
        kind = next(iter(kinds.values()))
        if len(set(kinds.values())) > 1:
            found = ", ".join(f"{path.name} holds {kind}" for path, kind in kinds.items())
            raise UserError(f"{source}: {found}. Expected all in one layout. {EXPECTED}")
    if (args.phrases or args.labels) and kind != "trees":
        raise UserError(f"{source}: no trees but {kind}, so there is nothing that --labels and --phrases choose.")
    if kind != "a table" and (args.text_column or args.label_column or args.no_header):
        flags = "--text_column, --label_column and --no_header"
        raise UserError(f"{source}: no table but {kind}, so there is nothing that {flags} choose.")
    readers = {"folders": read_folders, "a table": read_tables, "trees": read_trees, "lines of fastText": read_fasttext}
    return without_empty(readers[kind](places, args))


def without_empty(texts: Iterable[Labelled]) -> Iterator[Labelled]:
    """`texts`, and at their end a UserError that names those without a word. One without a label is named at once."""
    empty: list[Place] = []
    count, read = 0, 0
    for text in texts:
        read += 1
        if not text.label:
            raise UserError(f"{text.place}: no label. Every text has one.")
        if text.content:
            yield text
            continue
        count += 1
        if len(empty) < 10:
            empty.append(text.place)
    if count:
        raise UserError("\n  ".join([f"{count} empty texts. Take them out, or write them:", *map(str, empty)]))
    if not read:
        raise UserError("No text to read: only a header, empty lines, or neutral trees (--labels five keeps these).")


# --------------------------------------------------------------------------------- recognising a layout

Places = Mapping[str | None, Path]  # split -> its file or folder; None -> the only one


def find_places(source: Path) -> Places:
    """Where each split is. Raises UserError when there is nothing, or more than one thing."""
    if not source.is_dir():
        if not source.exists():
            raise UserError(f"{source}: no such file or folder. {EXPECTED}")
        return {None: source}
    entries = sorted(path for path in source.iterdir() if path.name[0] != ".")
    folders, files = [path for path in entries if path.is_dir()], [path for path in entries if path.is_file()]
    split_folders = find_splits((folder for folder in folders if holds(folder, "*/*.txt")), whole_names=True)
    split_files = find_splits(files, ("", *ENDINGS))
    classes = [folder for folder in folders if folder not in split_folders.values() and holds(folder, "*.txt")]
    if classes and len(find_splits(classes, whole_names=True)) == len(classes):
        names = ", ".join(folder.name for folder in classes)
        raise UserError(f"{source}: {names} hold texts, but no folder for each class. {EXPECTED}")
    if (split_folders or classes) and split_files:
        names = ", ".join(path.name for path in (*split_folders.values(), *classes[:5], *split_files.values()))
        raise UserError(f"{source}: folders of texts beside files of texts: {names}. Expected either. {EXPECTED}")
    if split_folders:
        if others := [folder.name for folder in folders if folder not in split_folders.values()]:
            logger.warning("%s: not read, since it is no split: %s", source, ", ".join(others))
        return in_order(split_folders)
    if classes:
        return {None: source}
    if split_files:
        return in_order(split_files)
    others = [path.name for path in files if path.name.lower().endswith(ENDINGS)]
    if len(others) == 1:
        return {None: source / others[0]}
    if others:
        raise UserError(f"{source}: which of {', '.join(others[:10])}? Name one: --data_dir {source / others[0]}")
    raise UserError(f"{source}: no labelled texts in it. {EXPECTED}")


def holds(folder: Path, pattern: str) -> bool:
    return any(folder.glob(pattern))


def in_order(found: Mapping[str, Path]) -> Places:
    return {split: found[split] for split in SPLITS if split in found}


def recognise(path: Path, encoding: str) -> str:
    """What a file holds, by its ending or its first line with a word. Raises UserError when it has none."""
    if path.suffix.lower() in TABLE_ENDINGS:
        return "a table"
    for line in stream_lines(path, encoding):
        if line.strip():
            is_fasttext = any(word.startswith(PREFIX) for word in line.split())
            return "lines of fastText" if is_fasttext else "trees" if TREE.match(line) else "a table"
    raise UserError(f"{path}: empty. {EXPECTED}")


# ------------------------------------------------------------------------------ folders, trees, fastText

PREFIX = "__label__"
LABEL = re.compile(rf"(?<!\S){PREFIX}(\S*)")


def read_folders(places: Places, args: argparse.Namespace) -> Iterator[Labelled]:
    """A folder per class, a file per text, sorted by name."""
    for split, folder in places.items():
        empty, others = [], 0
        for label in sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and entry.name[0] != "."):
            names = sorted(name for name in os.listdir(folder / label) if name[0] != ".")
            files = [name for name in names if name.lower().endswith(".txt")]
            if not is_unicode(label):
                raise UserError(f"{folder / label}: the name of a class is not Unicode. Rename the folder.")
            if label == "unsup":
                logger.info("%s: not read, since its texts have no label.", folder / label)
                continue
            if not files:
                empty.append(label)
            others += len(names) - len(files)
            for name in files:
                file = os.path.join(folder, label, name)
                yield Labelled(read_one_text(file, args.encoding).strip(), label, split, Place(file))
        if empty:
            logger.warning("%s: folders without a .txt, so no classes: %s", folder, ", ".join(empty))
        if others:
            logger.warning("%s: %d files beside the texts are not .txt, so they are not read.", folder, others)


def read_trees(places: Places, args: argparse.Namespace) -> Iterator[Labelled]:
    """A tree a line: the sentence with its root's label; then, with --phrases, its phrases, unless it is for val or
    test."""
    names = FIVE if args.labels == "five" else BINARY
    for split, path in places.items():
        for place, line in filled_lines(path, args.encoding):
            try:
                words, phrases = parse_tree(line)
            except ValueError as error:
                raise UserError(f"{place}: {error}. Expected a tree such as (3 (2 A) (3 (3 fine) (2 film))).") from None
            *parts, whole = phrases
            for phrase in (whole, *parts) if args.phrases and split in ("train", None) else (whole,):
                if label := names[phrase.label]:
                    yield Labelled(words[phrase.start : phrase.end], label, split, place, phrase is not whole)


def read_fasttext(places: Places, args: argparse.Namespace) -> Iterator[Labelled]:
    """A text a line, with one word that begins with __label__."""
    for split, path in places.items():
        for place, line in filled_lines(path, args.encoding):
            labels = LABEL.findall(line)
            if len(labels) != 1:
                found = f"{len(labels)} labels ({', '.join(labels[:5])})" if labels else f"no {PREFIX}"
                raise UserError(f"{place}: {found}; expected one: {PREFIX}positive A fine film.")
            yield Labelled(LABEL.sub("", line).strip(), labels[0], split, place)


def filled_lines(path: Path, encoding: str) -> Iterator[tuple[Place, str]]:
    """The lines of a file that hold more than white space."""
    file = str(path)
    for number, line in enumerate(stream_lines(path, encoding), start=1):
        if line.strip():
            yield Place(file, number), line


# ---------------------------------------------------------------------------------------------- tables

HEAD = 1000  # lines from which delimiter, header and columns are recognised
UNQUOTED = {"delimiter": "\t", "quoting": csv.QUOTE_NONE}  # quotation marks are part of the texts
# what the csv module takes; of two that fit equally well, the first
DIALECTS: list[dict[str, Any]] = [{"delimiter": delimiter} for delimiter in "\t;,"]
DIALECTS += [{**dialect, "escapechar": "\\"} for dialect in DIALECTS]
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


def read_tables(places: Places, args: argparse.Namespace) -> Iterator[Labelled]:
    """A row per text. The first file decides the layout, which the others share."""
    layout: TableLayout | None = None
    for split, path in places.items():
        layout = layout or find_table_layout(path, args, is_train=split in ("train", None))
        rows = read_table_rows(stream_lines(path, args.encoding, newline=""), path, layout.dialect)
        file, header = str(path), layout.header
        for line, _, cells in rows:
            if header and cells != header:
                raise UserError(
                    f"{path}, line {line}: expected the header of the other files: {', '.join(header)}\n"
                    "Texts without labels are for predict.py; take their file out of the folder."
                )
            check_cells(len(cells), layout.num_columns, path, line)
            if header:
                header = None
            else:
                yield Labelled(cells[layout.text].strip(), cells[layout.label].strip(), split, Place(file, line))


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


def check_cells(found: int, expected: int, path: Path, line: int) -> None:
    if found != expected:
        raise UserError(f"{path}, line {line}: {found} cells, expected {expected} as in the first row.")


def find_table_layout(path: Path, args: argparse.Namespace, is_train: bool) -> TableLayout:
    """The layout of a table, from its first lines.

    Raises:
        UserError: it is no table, its first rows are not alike, or its columns are unclear, missing or wrong.
    """
    head, size = [], 0
    for line in stream_lines(path, args.encoding, newline=""):
        head.append(line)
        size += len(line)
        if len(head) == HEAD or size > LONGEST_LINE:
            break
    if not any(line.strip() for line in head):
        raise UserError(f"{path}: empty. {EXPECTED}")
    dialect, rows, fit = find_dialect(head, path)
    if not fit or (fit < 0.5 and path.suffix.lower() not in TABLE_ENDINGS):
        first = next(line.strip() for line in head if line.strip())
        raise UserError(f"{path}: no text with its label in the first line: {first[:80]}\n{EXPECTED}")
    if len(head) < HEAD and size <= LONGEST_LINE:  # all of the file, so what is wrong with its last row counts too
        rows = list(read_table_rows(head, path, dialect))
    for row in rows:
        check_cells(len(row.cells), len(rows[0].cells), path, row.first)
    layout = choose_columns([row.cells for row in rows], dialect, path, args)
    below = rows[1:] if layout.header else rows
    labels = [row.cells[layout.label] for row in below]
    if is_train and len(labels) > 2 and len(set(labels)) == len(labels):
        problem = f"the labels of column {layout.label + 1} are all different, such as {labels[0][:60]}"
        raise UserError(f"{path}, line {below[0].first}: {problem}. --label_column names another column.")
    logger.info(
        "%s: text in column %d, label in column %d, %s (--text_column, --label_column and --no_header say otherwise)",
        path,
        layout.text + 1,
        layout.label + 1,
        "below a header" if layout.header else "no header",
    )
    return layout


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
    if text is None or label is None:
        cells = ", ".join(f"{number} {cell.strip()[:40]}" for number, cell in enumerate(first, start=1))
        raise UserError(
            f"{path}, line 1: which column is the text, and which the label? The first row: {cells}\n"
            "Choose with --text_column and --label_column, by name or by number from 1."
        )
    if text == label:
        raise UserError(f"{path}: column {text + 1} cannot be both --text_column and --label_column.")
    is_known = names[text] in TEXT_NAMES or names[label] in LABEL_NAMES
    is_header = is_new[label] and (is_known or (len(below) > 0 and len(first[text].split()) <= 3))
    return TableLayout(dialect, len(first), text, label, first if has_names or is_header else None)
