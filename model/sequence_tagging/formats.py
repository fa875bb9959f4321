"""Files of tagged text, in the layouts that people have them in -> sentences. All without torch."""

from __future__ import annotations

import csv
import io
import itertools
import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from engine.building import SPLIT_NAMES, SPLITS, find_splits
from model.text.columns import (
    CONLLU_ENDINGS,
    UNSET,
    Layout,
    Row,
    are_features,
    describe_columns,
    find_column,
    find_layout,
    is_running,
    read_rows,
)
from model.text.files import clean, read_text, write_lines
from utils import UserError

logger = logging.getLogger(__name__)

COLUMN_ENDINGS = (*CONLLU_ENDINGS, ".conll", ".conll03", ".iob", ".iob2", ".bio", ".bioes", ".iobes", ".tsv", ".col")
ENDINGS = ("", ".txt", *COLUMN_ENDINGS, ".csv")
TRAIN_SHARE, VAL_SHARE = 0.7, 0.15  # of a file that is not split yet, in order, as CS230 does
SENTENCE = "Sentence #"  # the column of a .csv that numbers the sentences
KAGGLE_URL = "https://www.kaggle.com/datasets/abhinavwalia95/entity-annotated-corpus"
EXPECTED = f"""Expected one of these:
  ner_dataset.csv, from {KAGGLE_URL}
  train, valid (or dev, val, testa) and test (or testb), .txt, .conll or .iob, in columns: word first, tag last
  the same in CoNLL-U, as in a treebank of Universal Dependencies: en_ewt-ud-train.conllu, -dev.conllu, -test.conllu
  one such file, to be split 70/15/15 in order
  train/, val/ and test/, each with sentences.txt and labels.txt
Without any of them: python build_dataset.py --task sequence_tagging --sample writes sentences of its own."""


class Sentence(NamedTuple):
    words: list[str]
    tags: list[str]
    place: str  # file and line where it begins


class Asked(NamedTuple):
    """What the user said of the raw files; None leaves it to them."""

    encoding: str | None = None
    word_column: str | None = None
    tag_column: str | None = None


# --------------------------------------------------------------------------------- recognising a layout


def read_raw(path: Path, asked: Asked) -> dict[str, list[Sentence]]:
    """The sentences of each split, from any of the layouts in EXPECTED. Raises UserError."""
    if path.is_file():
        return split_in_order(read_file(path, asked), path)
    if not path.is_dir():
        raise UserError(f"{path}: no such file or folder. {EXPECTED}")
    entries = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
    folders = find_splits(entry for entry in entries if any(entry.glob("*.txt")))
    files = [entry for entry in entries if entry.is_file()]
    # a treebank has its text beside it: en_ewt-ud-train.txt
    files = [file for file in files if file.suffix.lower() in CONLLU_ENDINGS] or files
    places = folders or find_splits(files, ENDINGS)
    if not places:
        files = [file for file in files if file.suffix.lower() in ENDINGS[1:]]
        files = [file for file in files if file.name == "ner_dataset.csv"] or files
        if not files:
            raise UserError(f"{path}: no tagged text in it. {EXPECTED}")
        if len(files) > 1:
            names = ", ".join(file.name for file in files[:10])
            raise UserError(f"{path}: which of {names}? Name one: --data_dir {files[0]}. {EXPECTED}")
        return split_in_order(read_file(files[0], asked), files[0])
    missing = [split for split in SPLITS if split not in places]
    if missing:
        raise UserError(
            f"{path}: no {' and no '.join(missing)} split beside {', '.join(place.name for place in places.values())}; "
            + "; ".join(f"{split} may be named {', '.join(SPLIT_NAMES[split])}" for split in missing)
            + ", before any of the usual endings."
        )
    if folders:
        if asked.word_column or asked.tag_column:
            raise UserError(f"{path}: sentences.txt and labels.txt have no columns for --word_column or --tag_column.")
        return {split: read_pair(places[split], asked.encoding or "utf-8-sig") for split in SPLITS}
    return {split: read_file(places[split], asked) for split in SPLITS}


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


class Table(NamedTuple):
    """A file in columns."""

    rows: Iterator[Row | None]  # a None ends a sentence
    num_columns: int
    names: list[str]  # of the columns; empty if they have none
    defaults: tuple[str, str]  # the columns of words and tags, unless the user says otherwise


def read_file(path: Path, asked: Asked) -> list[Sentence]:
    """The sentences of a file in columns. Raises UserError."""
    table = read_table(path, asked.encoding)
    flags = {"--word_column": asked.word_column, "--tag_column": asked.tag_column}
    try:
        word_at, tag_at = (
            find_column(flag, name or default, table.names, table.num_columns)
            for (flag, name), default in zip(flags.items(), table.defaults, strict=True)
        )
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    if word_at == tag_at:
        raise UserError(f"{path}: words and tags in the same column. Choose two: --word_column, --tag_column.")
    sentences, first_unset = group(table.rows, word_at, tag_at, path)
    if problem := find_problem(sentences, asked):
        rows = itertools.islice(read_table(path, asked.encoding).rows, 10_000)
        blocks = [list(block) for is_row, block in itertools.groupby(rows, bool) if is_row]
        cells = [[row[1] for row in block if row] for block in blocks]
        raise UserError(
            f"{sentences[0].place}: {problem}. Choose with --word_column and --tag_column (names, or numbers from 1)."
            f" The columns seem to hold:{describe_columns(cells, table.names)}"
        )
    if first_unset and table.names[tag_at : tag_at + 1] == ["UPOS"]:
        raise UserError(
            f"{path}, line {first_unset}: a word without a part of speech ({UNSET} in the column UPOS), though others"
            " have one. Correct the line, or choose another column with --tag_column."
        )
    return sentences


def find_problem(sentences: Sequence[Sentence], asked: Asked) -> str | None:
    """Why the columns that were read cannot be words and tags, if they cannot. What the user chose is trusted, unless
    it is empty."""
    tags = (tag for sentence in sentences for tag in sentence.tags)
    if all(word == UNSET for sentence in sentences for word in sentence.words):
        return f"all words are {UNSET}, so the text is missing"
    if not asked.word_column and all(is_running(sentence.words) for sentence in sentences):
        return "the column of words holds running numbers"
    if asked.tag_column and any(tag != UNSET for sentence in sentences for tag in sentence.tags):
        return None
    if are_features(tags):
        only_unset = all(tag == UNSET for sentence in sentences for tag in sentence.tags)
        return f"all tags are {UNSET}, so there are none" if only_unset else "the column of tags holds features"
    return None


def group(rows: Iterable[Row | None], word_at: int, tag_at: int, path: Path) -> tuple[list[Sentence], int | None]:
    """Rows -> sentences, and the first line whose tag is not set.

    Raises:
        UserError: a word has no tag, or there is no sentence.
    """
    sentences: list[Sentence] = []
    begins, dropped, first_unset = True, [], None
    for row in rows:
        if row is None:
            begins = True
            continue
        line, cells = row
        word, tag = clean(cells[word_at]), clean(cells[tag_at])
        if not word:
            dropped.append(line)
            continue
        if not tag:
            raise UserError(f"{path}, line {line}: no tag for {word}.")
        if tag == UNSET:
            first_unset = first_unset or line
        if begins:
            sentences.append(Sentence([], [], f"{path}, line {line}"))
        sentences[-1].words.append(word)
        sentences[-1].tags.append(tag)
        begins = False
    if dropped:
        logger.warning("%s: %d lines without a word were left out, first line %d.", path, len(dropped), dropped[0])
    if not sentences:
        raise UserError(f"{path}: no sentence in it.")
    return sentences, first_unset


def read_table(path: Path, encoding: str | None) -> Table:
    """A file in columns, by its ending and content. Its rows have one length. Raises UserError, rows too."""
    if path.suffix.lower() == ".csv":
        return read_csv(path, encoding)
    lines = read_text(path, [encoding or "utf-8-sig"]).split("\n")
    layout = find_layout(lines, path.suffix.lower() in CONLLU_ENDINGS)
    num_columns = max(layout.num_columns, 2)
    defaults = ("FORM", "UPOS") if layout.is_conllu else ("1", str(num_columns))
    return Table(checked_lines(lines, layout, path), num_columns, layout.names, defaults)


def checked_lines(lines: list[str], layout: Layout, path: Path) -> Iterator[Row | None]:
    """The rows of CoNLL's columns: a word a line, an empty line after each sentence. Raises UserError at a torn one."""
    expected, between = max(layout.num_columns, 2), " between tabs" if layout.is_conllu else ""
    for row in read_rows(lines, layout):
        if row and len(row[1]) != expected:
            line, found = row[0], len(row[1])
            raise UserError(
                f"{path}, line {line}: {found} columns, expected {expected}{between}: {lines[line - 1][:60]}"
            )
        yield row


def read_csv(path: Path, encoding: str | None) -> Table:
    """Kaggle's ner_dataset.csv: one word a line. The first word of a sentence, or every word, has its number."""
    text = read_text(path, [encoding] if encoding else ["utf-8-sig", "windows-1252"])
    reader = csv.reader(io.StringIO(text, newline=""))
    rows = checked_rows(reader, path)
    header = [name.strip() for name in next(rows)]
    if SENTENCE not in header:
        found = ", ".join(filter(None, header))[:200]
        raise UserError(
            f"{path}, line 1: no column {SENTENCE}; there are {found}.\n"
            "Is it ner.csv? The archive holds two files, and ner_dataset.csv is the one to take."
        )

    def numbered_rows() -> Iterator[Row | None]:
        number_at, number = header.index(SENTENCE), ""
        for row in rows:
            if len(row) != len(header):
                raise UserError(
                    f"{path}, line {reader.line_num}: {len(row)} cells, but the header names {len(header)} columns."
                )
            if row[number_at].strip() and row[number_at] != number:
                number = row[number_at]
                yield None
            yield reader.line_num, row

    return Table(numbered_rows(), len(header), header, ("Word", "Tag"))


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
