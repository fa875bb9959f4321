"""Files of tagged text, in the layouts that people have them in -> sentences. All without torch."""

from __future__ import annotations

import csv
import io
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from utils import UserError

logger = logging.getLogger(__name__)

SPLITS = ("train", "val", "test")
# the names under which a split is found: folders and files; the first is the one that is written
NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev", "devel", "testa"),
    "test": ("test", "testing", "testb"),
}
ENDINGS = ("", ".txt", ".conll", ".conll03", ".iob", ".iob2", ".bio", ".bioes", ".iobes", ".tsv", ".col")
TRAIN_SHARE, VAL_SHARE = 0.7, 0.15  # of a file that is not split yet, in order, as CS230 does
COLUMNS = ("Sentence #", "Word", "Tag")
KAGGLE_URL = "https://www.kaggle.com/datasets/abhinavwalia95/entity-annotated-corpus"
EXPECTED = f"""Expected one of these:
  ner_dataset.csv, from {KAGGLE_URL}
  train, valid (or dev, val, testa) and test (or testb), .txt, .conll or .iob, in columns: word first, tag last
  train/, val/ and test/, each with sentences.txt and labels.txt
Without any of them: python build_dataset.py --task sequence_tagging --sample writes sentences of its own."""


class Sentence(NamedTuple):
    words: list[str]
    tags: list[str]
    place: str  # file and line where it begins


# --------------------------------------------------------------------------------- recognising a layout


def read_raw(path: Path, encoding: str | None) -> dict[str, list[Sentence]]:
    """The sentences of each split, from any of the layouts that are understood. Raises UserError."""
    if path.is_file():
        return split_in_order(read_file(path, encoding), path)
    if not path.is_dir():
        raise UserError(f"{path}: no such file or folder. {EXPECTED}")
    entries = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
    folders = find_splits([entry for entry in entries if any(entry.glob("*.txt"))], ("",))
    places = folders or find_splits([entry for entry in entries if entry.is_file()], ENDINGS)
    if not places:
        tables = [entry for entry in entries if entry.suffix.lower() == ".csv"]
        if not tables:
            raise UserError(f"{path}: no tagged text in it. {EXPECTED}")
        table = next((table for table in tables if table.name == "ner_dataset.csv"), tables[0])
        return split_in_order(read_file(table, encoding), table)
    missing = [split for split in SPLITS if split not in places]
    if missing:
        raise UserError(
            f"{path}: no {' and no '.join(missing)} split beside {', '.join(place.name for place in places.values())}; "
            + "; ".join(f"{split} may be named {', '.join(NAMES[split])}" for split in missing)
            + ", before any of the usual endings."
        )
    read = read_pair if folders else read_file
    return {split: read(places[split], encoding) for split in SPLITS}


def read_file(path: Path, encoding: str | None) -> list[Sentence]:
    sentences = list((read_csv if path.suffix.lower() == ".csv" else read_columns)(path, encoding))
    if not sentences:
        raise UserError(f"{path}: no sentence in it.")
    return sentences


def find_splits(entries: list[Path], endings: tuple[str, ...]) -> dict[str, Path]:
    """Which of `entries` is which split: `dev.conll`, or `eng.testa`. Raises UserError when two are the same."""
    found: dict[str, Path] = {}
    for entry in entries:
        name = entry.name.lower()
        stems = [name[: len(name) - len(ending)] for ending in endings if name.endswith(ending)]
        words = {re.split(r"[._-]", stem)[-1] for stem in stems}
        split = next((split for split, names in NAMES.items() if words & set(names)), None)
        if split is None:
            continue
        if split in found:
            first = found[split].name
            raise UserError(f"{entry.parent}: {first} and {entry.name} are both {split}. Rename one of them.")
        found[split] = entry
    return found


def split_in_order(sentences: list[Sentence], path: Path) -> dict[str, list[Sentence]]:
    ends = [int(TRAIN_SHARE * len(sentences)), int((TRAIN_SHARE + VAL_SHARE) * len(sentences))]
    splits = {"train": sentences[: ends[0]], "val": sentences[ends[0] : ends[1]], "test": sentences[ends[1] :]}
    if not all(splits.values()):
        raise UserError(f"{path}: {len(sentences)} sentences are too few to split into train, val and test.")
    return splits


# ---------------------------------------------------------------------------------------- reading files


def read_text(path: Path, encodings: list[str]) -> str:
    """The text of a file in the first of `encodings` that fits. Raises UserError that says where the last does not."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from None
    if not content.strip():
        raise UserError(f"{path}: empty.")
    problems = []
    for encoding in encodings:
        try:
            return content.decode(encoding).removeprefix("\ufeff")
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            problems.append(f"byte {error.start} (0x{content[error.start]:02x}, line {line}) is not {encoding}")
        except LookupError:
            raise UserError(f"--encoding {encoding}: unknown. Try utf-8, windows-1252 or latin-1.") from None
    raise UserError(f"{path}: cannot be decoded: {', and '.join(problems)}. --encoding latin-1 reads any byte.")


def split_lines(text: str) -> list[str]:
    """Lines end at a line feed and nowhere else: the other line breaks of Unicode may stand inside a word."""
    return [line.removesuffix("\r") for line in text.split("\n")]


def read_lines(path: Path) -> list[str]:
    """The lines of a file that we wrote. Raises UserError when it is missing, empty, or no UTF-8."""
    return split_lines(read_text(path, ["utf-8"]).removesuffix("\n"))


def clean(word: str) -> str:
    """A word that can stand between spaces: those inside it become non-breaking ones."""
    return re.sub(r"[ \t\r\n]", "\u00a0", word.strip(" \t\r\n"))


def read_csv(path: Path, encoding: str | None) -> Iterator[Sentence]:
    """Kaggle's ner_dataset.csv: one word a line; the sentence's number at its first word, or at all of them."""
    text = read_text(path, [encoding] if encoding else ["utf-8", "windows-1252"])
    reader = csv.reader(io.StringIO(text, newline=""))
    rows = checked_rows(reader, path)
    header = [name.strip() for name in next(rows)]
    missing = [name for name in COLUMNS if name not in header]
    if missing:
        raise UserError(
            f"{path}, line 1: no column {' and no column '.join(missing)}; there are {', '.join(header)[:200]}.\n"
            "Is it ner.csv? The archive holds two files, and ner_dataset.csv is the one to take."
        )
    number_at, word_at, tag_at = (header.index(name) for name in COLUMNS)
    words: list[str] = []
    tags: list[str] = []
    number, place, dropped = "", f"{path}, line 2", []
    for row in rows:
        line = reader.line_num
        if not row:
            continue
        if len(row) != len(header):
            raise UserError(f"{path}, line {line}: {len(row)} cells, but the header names {len(header)} columns.")
        if row[number_at].strip() and row[number_at] != number:
            number = row[number_at]
            if words:
                yield Sentence(words, tags, place)
            words, tags, place = [], [], f"{path}, line {line}"
        word, tag = clean(row[word_at]), clean(row[tag_at])
        if not word:
            dropped.append(line)
            continue
        if not tag:
            raise UserError(f"{path}, line {line}: no tag for {word}.")
        words.append(word)
        tags.append(tag)
    if words:
        yield Sentence(words, tags, place)
    report_dropped(path, dropped)


def checked_rows(reader: Any, path: Path) -> Iterator[list[str]]:
    try:
        yield from reader
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: {error}. Is a quotation mark left open?") from None


def report_dropped(path: Path, lines: list[int]) -> None:
    if lines:
        logger.warning("%s: %d lines with a tag but no word were left out, first line %d.", path, len(lines), lines[0])


def read_columns(path: Path, encoding: str | None) -> Iterator[Sentence]:
    """CoNLL columns: a word a line, word first, tag last, an empty line after each sentence."""
    words: list[str] = []
    tags: list[str] = []
    place, num_columns, dropped = "", 0, []
    for line, text in enumerate(split_lines(read_text(path, [encoding or "utf-8"])), start=1):
        if not text.strip(" \t"):
            if words:
                yield Sentence(words, tags, place)
            words, tags = [], []
            continue
        if text.startswith("-DOCSTART-"):
            continue
        cells = text.rstrip(" \t").split("\t") if "\t" in text.rstrip(" \t") else re.split(" +", text.strip(" \t"))
        if len(cells) != num_columns:
            if text.startswith("#") and not words:  # a comment; the word # has as many columns as other words
                continue
            if num_columns or len(cells) < 2:
                expected = num_columns or "at least 2"
                raise UserError(f"{path}, line {line}: {len(cells)} columns, expected {expected}: {text[:60]}")
            num_columns = len(cells)
        if not clean(cells[0]):
            dropped.append(line)
            continue
        if not words:
            place = f"{path}, line {line}"
        words.append(clean(cells[0]))
        tags.append(clean(cells[-1]))
    if words:
        yield Sentence(words, tags, place)
    report_dropped(path, dropped)


def read_pair(folder: Path, encoding: str | None = None) -> list[Sentence]:
    """sentences.txt and labels.txt, a sentence a line, words and tags between spaces. Raises UserError."""
    sides = []
    for name in ("sentences.txt", "labels.txt"):
        path = folder / name
        if not path.is_file():
            raise UserError(f"{path}: no such file.")
        lines = split_lines(read_text(path, [encoding or "utf-8"]).rstrip("\r\n"))
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
