"""Files of tagged text, in the layouts that people have them in -> sentences. All without torch."""

from __future__ import annotations

import csv
import io
import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from engine.building import SPLIT_NAMES, SPLITS, find_splits
from model.text.files import clean, read_text, write_lines
from utils import UserError

logger = logging.getLogger(__name__)

COLUMN_ENDINGS = (".conll", ".conll03", ".iob", ".iob2", ".bio", ".bioes", ".iobes", ".tsv", ".col")
ENDINGS = ("", ".txt", *COLUMN_ENDINGS, ".csv")
TRAIN_SHARE, VAL_SHARE = 0.7, 0.15  # of a file that is not split yet, in order, as CS230 does
COLUMNS = ("Sentence #", "Word", "Tag")
KAGGLE_URL = "https://www.kaggle.com/datasets/abhinavwalia95/entity-annotated-corpus"
EXPECTED = f"""Expected one of these:
  ner_dataset.csv, from {KAGGLE_URL}
  train, valid (or dev, val, testa) and test (or testb), .txt, .conll or .iob, in columns: word first, tag last
  one such file, to be split 70/15/15 in order
  train/, val/ and test/, each with sentences.txt and labels.txt
Without any of them: python build_dataset.py --task sequence_tagging --sample writes sentences of its own."""


class Sentence(NamedTuple):
    words: list[str]
    tags: list[str]
    place: str  # file and line where it begins


# --------------------------------------------------------------------------------- recognising a layout


def read_raw(path: Path, encoding: str | None) -> dict[str, list[Sentence]]:
    """The sentences of each split, from any of the layouts in EXPECTED. Raises UserError."""
    if path.is_file():
        return split_in_order(read_file(path, encoding), path)
    if not path.is_dir():
        raise UserError(f"{path}: no such file or folder. {EXPECTED}")
    entries = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
    folders = find_splits(entry for entry in entries if any(entry.glob("*.txt")))
    places = folders or find_splits((entry for entry in entries if entry.is_file()), ENDINGS)
    if not places:
        files = [entry for entry in entries if entry.is_file() and entry.suffix.lower() in ENDINGS[1:]]
        files = [file for file in files if file.name == "ner_dataset.csv"] or files
        if not files:
            raise UserError(f"{path}: no tagged text in it. {EXPECTED}")
        if len(files) > 1:
            names = ", ".join(file.name for file in files[:10])
            raise UserError(f"{path}: which of {names}? Name one: --data_dir {files[0]}. {EXPECTED}")
        return split_in_order(read_file(files[0], encoding), files[0])
    missing = [split for split in SPLITS if split not in places]
    if missing:
        raise UserError(
            f"{path}: no {' and no '.join(missing)} split beside {', '.join(place.name for place in places.values())}; "
            + "; ".join(f"{split} may be named {', '.join(SPLIT_NAMES[split])}" for split in missing)
            + ", before any of the usual endings."
        )
    if folders:
        return {split: read_pair(places[split], encoding or "utf-8-sig") for split in SPLITS}
    return {split: read_file(places[split], encoding) for split in SPLITS}


def read_file(path: Path, encoding: str | None) -> list[Sentence]:
    read = read_csv if path.suffix.lower() == ".csv" else read_columns
    return group(read(path, encoding), path)


def split_in_order(sentences: list[Sentence], path: Path) -> dict[str, list[Sentence]]:
    ends = [int(TRAIN_SHARE * len(sentences)), int((TRAIN_SHARE + VAL_SHARE) * len(sentences))]
    splits = {"train": sentences[: ends[0]], "val": sentences[ends[0] : ends[1]], "test": sentences[ends[1] :]}
    if not all(splits.values()):
        raise UserError(f"{path}: {len(sentences)} sentences are too few to split into train, val and test.")
    return splits


# ---------------------------------------------------------------------------------------- reading files


def write_pair(folder: Path, sentences: Sequence[Sentence]) -> None:
    """Write a split as `read_pair` reads it: sentences.txt and labels.txt, a sentence a line."""
    folder.mkdir()
    write_lines(folder / "sentences.txt", (" ".join(sentence.words) for sentence in sentences))
    write_lines(folder / "labels.txt", (" ".join(sentence.tags) for sentence in sentences))


Row = tuple[int, str, str]  # line, word, tag


def group(rows: Iterator[Row | None], path: Path) -> list[Sentence]:
    """Rows -> sentences. A None between two rows ends a sentence. Raises UserError when a word has no tag."""
    sentences: list[Sentence] = []
    begins, dropped = True, []
    for row in rows:
        if row is None:
            begins = True
            continue
        line, word, tag = row[0], clean(row[1]), clean(row[2])
        if not word:
            dropped.append(line)
            continue
        if not tag:
            raise UserError(f"{path}, line {line}: no tag for {word}.")
        if begins:
            sentences.append(Sentence([], [], f"{path}, line {line}"))
        sentences[-1].words.append(word)
        sentences[-1].tags.append(tag)
        begins = False
    if dropped:
        logger.warning("%s: %d lines without a word were left out, first line %d.", path, len(dropped), dropped[0])
    if not sentences:
        raise UserError(f"{path}: no sentence in it.")
    return sentences


def read_csv(path: Path, encoding: str | None) -> Iterator[Row | None]:
    """Kaggle's ner_dataset.csv: one word a line. The first word of a sentence, or every word, has its number."""
    text = read_text(path, [encoding] if encoding else ["utf-8-sig", "windows-1252"])
    reader = csv.reader(io.StringIO(text, newline=""))
    rows = checked_rows(reader, path)
    header = [name.strip() for name in next(rows)]
    missing = [name for name in COLUMNS if name not in header]
    if missing:
        found = ", ".join(filter(None, header))[:200]
        raise UserError(
            f"{path}, line 1: no column {' and no column '.join(missing)}; there are {found}.\n"
            "Is it ner.csv? The archive holds two files, and ner_dataset.csv is the one to take."
        )
    number_at, word_at, tag_at = (header.index(name) for name in COLUMNS)
    number = ""
    for row in rows:
        if len(row) != len(header):
            raise UserError(
                f"{path}, line {reader.line_num}: {len(row)} cells, but the header names {len(header)} columns."
            )
        if row[number_at].strip() and row[number_at] != number:
            number = row[number_at]
            yield None
        yield reader.line_num, row[word_at], row[tag_at]


def checked_rows(reader: Any, path: Path) -> Iterator[list[str]]:
    """The rows that are not empty. Raises UserError where a quotation mark is left open."""
    try:
        for row in reader:
            if any("\n" in cell for cell in row):
                raise csv.Error("a line break inside a cell")
            if row:
                yield row
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: {error}. Is a quotation mark left open?") from None


def read_columns(path: Path, encoding: str | None) -> Iterator[Row | None]:
    """CoNLL columns: a word a line, word first, tag last, an empty line after each sentence.

    A line before a sentence is a comment if it begins with "# " and has another number of columns than the words.
    """
    lines = read_text(path, [encoding or "utf-8-sig"]).split("\n")
    num_columns = next((len(split_columns(line)) for line in lines if is_word(line) and not line.startswith("#")), 2)
    comments, begins = 0, True
    for number, line in enumerate(lines, start=1):
        if not is_word(line):
            begins = True
            yield None
            continue
        cells = split_columns(line)
        if begins and len(cells) != num_columns and line.startswith(("# ", "#begin", "#end")):
            comments += 1
            continue
        if len(cells) != num_columns or num_columns < 2:
            expected = max(num_columns, 2)
            raise UserError(f"{path}, line {number}: {len(cells)} columns, expected {expected}: {line[:60]}")
        begins = False
        yield number, cells[0], cells[-1]
    if comments:
        logger.info("%s: %d comments were passed over.", path, comments)


def is_word(line: str) -> bool:
    """Whether a line of a CoNLL file holds a word; others separate sentences."""
    return bool(line.strip(" \t")) and not line.startswith("-DOCSTART-")


def split_columns(line: str) -> list[str]:
    """Split at tabs if there are any, else at spaces. Unicode's other white space may be part of a word."""
    line = line.rstrip(" \t")
    return line.split("\t") if "\t" in line else re.split(" +", line.lstrip(" "))


def read_pair(folder: Path, encoding: str = "utf-8") -> list[Sentence]:
    """sentences.txt and labels.txt, a sentence a line, words and tags between spaces. Raises UserError."""
    sides = []
    for name in ("sentences.txt", "labels.txt"):
        path = folder / name
        if not path.is_file():
            raise UserError(f"{path}: no such file.")
        lines = read_text(path, [encoding]).rstrip("\n").split("\n")
        sides.append([re.split("[ \t]+", line.strip(" \t")) for line in lines])
        for number, entries in enumerate(sides[-1], start=1):
            if entries == [""]:
                raise UserError(f"{path}, line {number}: empty. Every line holds one sentence.")
    sentences, labels = sides
    if len(sentences) != len(labels):
        raise UserError(f"{folder}: sentences.txt has {len(sentences)} lines, labels.txt {len(labels)}.")
    for number, (words, tags) in enumerate(zip(sentences, labels, strict=True), start=1):
        if len(words) != len(tags):
            raise UserError(
                f"{folder / 'labels.txt'}, line {number}: {len(tags)} tags, but line {number} of sentences.txt has"
                f" {len(words)} words."
            )
    return [
        Sentence(words, tags, f"{folder / 'labels.txt'}, line {number}")
        for number, (words, tags) in enumerate(zip(sentences, labels, strict=True), start=1)
    ]
