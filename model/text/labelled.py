"""Files of labelled texts, in the layouts that people have them in -> a stream of texts. All without torch."""

from __future__ import annotations

import argparse
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from engine.answers import is_unicode
from engine.building import SPLITS, find_splits
from model.text.files import read_one_text, stream_lines
from model.text.tables import (
    EXPECTED,
    TABLE_ENDINGS,
    TableLayout,
    check_cells,
    find_table_layout,
    read_table_rows,
    table_lines,
)
from model.text.trees import BINARY, FIVE, TREE, parse_tree
from utils import UserError

logger = logging.getLogger(__name__)

SHOWN = 10  # names in a message
ENDINGS = (*TABLE_ENDINGS, ".ft.txt", ".txt", ".ft")


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
        has_folders = any(holds(place, "*/*.txt") for place in places.values())
        kind = "folders" if has_folders else "a file for each class"
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
    readers = {
        "folders": read_folders,
        "a file for each class": read_class_files,
        "a table": read_tables,
        "trees": read_trees,
        "lines of fastText": read_fasttext,
    }
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
        raise UserError(f"{source}: no folder for each class in {names}. {EXPECTED}")
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
    if len(others) > 1 and all(is_bare(source / name) for name in others):
        return {None: source}
    if len(others) == 1:
        return {None: source / others[0]}
    if others:
        raise UserError(f"{source}: which of {', '.join(others[:10])}? Name one: --data_dir {source / others[0]}")
    raise UserError(f"{source}: no labelled texts in it. {EXPECTED}")


def is_bare(path: Path) -> bool:
    """Whether a .txt has texts without labels, to judge by its first line: then its name is their label."""
    first = next(filter(str.strip, stream_lines(path, "latin-1")), "\t") if path.suffix.lower() == ".txt" else "\t"
    return "\t" not in first and PREFIX not in first and not TREE.match(first)


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
        empty, others = [], []
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
            others += [os.path.join(label, name) for name in names if name not in files]
            for name in files:
                file = os.path.join(folder, label, name)
                yield Labelled(read_one_text(file, args.encoding).strip(), label, split, Place(file))
        if empty:
            logger.warning("%s: folders without a .txt, so no classes: %s", folder, ", ".join(empty))
        if others:
            shown = ", ".join(others[:SHOWN]) + (", ..." if len(others) > SHOWN else "")
            logger.warning("%s: not read, since it is no .txt: %s", folder, shown)


def read_class_files(places: Places, args: argparse.Namespace) -> Iterator[Labelled]:
    """A file per class, a text a line."""
    (folder,) = places.values()
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".txt" and path.name[0] != ".")
    logger.info("%s: a file for each class: %s", folder, ", ".join(path.stem for path in files))
    for path in files:
        for place, line in filled_lines(path, args.encoding):
            yield Labelled(line.strip(), path.stem, None, place)


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


def read_tables(places: Places, args: argparse.Namespace) -> Iterator[Labelled]:
    """A row per text. The first file decides the layout, which the others share."""
    layout: TableLayout | None = None
    for split, path in places.items():
        layout = layout or find_table_layout(path, args, is_train=split in ("train", None))
        rows = read_table_rows(table_lines(path, args.encoding), path, layout.dialect)
        file, text, label, num_columns = str(path), layout.text, layout.label, layout.num_columns
        for number, (line, _, cells) in enumerate(rows):
            if number > 0 or not layout.header:
                check_cells(len(cells), num_columns, path, line)
                yield Labelled(cells[text].strip(), cells[label].strip(), split, Place(file, line))
                continue
            wanted = layout.header[text], layout.header[label]
            if not {*wanted} <= {*cells}:
                raise UserError(
                    f"{path}, line {line}: no {' or no '.join(name for name in wanted if name not in cells)} in its"
                    f" header, which the other files have: {', '.join(layout.header)}\n"
                    "Texts without labels are for predict.py; take their file out of the folder."
                )
            num_columns = len(cells)
            if cells != layout.header:  # the same columns in another order
                text, label = map(cells.index, wanted)
