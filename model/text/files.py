"""Text files: read whole or by lines, decoded strictly, with messages that name file and line. All without torch."""

from __future__ import annotations

import contextlib
import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from utils import UserError

logger = logging.getLogger(__name__)

LONGEST_LINE = 10_000_000  # characters; a longer one is taken for a mistake, and not held in memory
UNKNOWN_ENCODING = "--encoding {}: unknown. Try utf-8, windows-1252 or latin-1."


def read_text(path: Path, encodings: list[str]) -> str:
    """The text of a file, in the first of `encodings` that fits. All line ends become line feeds.

    Raises:
        UserError: the file is missing or empty, or where it fits none of them.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from None
    if not content.strip():
        raise UserError(f"{path}: empty.")
    problems = []
    for encoding in encodings:
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            place = f"byte {error.start} (0x{content[error.start]:02x}, line {line})"
            problems.append(f"{place} is not {encoding.removesuffix('-sig')}")
        except (LookupError, ValueError):
            raise UserError(UNKNOWN_ENCODING.format(encoding)) from None
        else:
            if problems:
                logger.warning("%s: no UTF-8, so read as %s; --encoding names another.", path, encoding)
            return re.sub("\r+\n|\r", "\n", text)
    raise UserError(f"{path}: cannot be decoded: {', and '.join(problems)}. Try --encoding windows-1252, or latin-1.")


def stream_lines(path: Path, encoding: str, newline: str | None = None) -> Iterator[str]:
    """The lines of a file with their line ends, one in memory at a time. A byte order mark is dropped.

    Args:
        newline: None makes every line end a line feed; "" leaves them as they are, as the csv module expects.

    Raises:
        UserError: the file cannot be read, is no text in this encoding, or has a line longer than LONGEST_LINE.
    """
    with open_text(path, encoding, newline) as file:
        number = 0
        while line := file.readline(LONGEST_LINE + 1):
            number += 1
            if len(line) > LONGEST_LINE:
                expected = f"Expected one text a line, of up to {LONGEST_LINE:,} characters."
                raise UserError(f"{path}, line {number}: more than {LONGEST_LINE:,} characters. {expected}")
            check_text(line, path, encoding, number)
            yield line


def read_one_text(path: str, encoding: str) -> str:
    """The text of a file that holds one. Raises UserError as `stream_lines` does."""
    with open_text(path, encoding) as file:
        text = file.read(LONGEST_LINE + 1)
    if len(text) > LONGEST_LINE:
        expected = f"Expected one text in a file, of up to {LONGEST_LINE:,} characters."
        raise UserError(f"{path}: more than {LONGEST_LINE:,} characters. {expected}")
    check_text(text, path, encoding)
    return text


@contextlib.contextmanager
def open_text(path: str | Path, encoding: str, newline: str | None = None) -> Iterator[TextIO]:
    """Open a file whose bytes outside of `encoding` become surrogates, which `check_text` finds."""
    with contextlib.suppress(OSError), open(path, "rb") as file:  # opened again below, with a message
        if file.read(4) == b"PK\x03\x04":
            raise UserError(f"{path}: an Excel workbook, or another archive. Save it as CSV in UTF-8.")
    codec = "utf-8-sig" if encoding.lower().replace("_", "-") in ("utf-8", "utf8") else encoding
    try:
        with open(path, encoding=codec, errors="surrogateescape", newline=newline) as file:
            yield file
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from None
    except UnicodeError as error:  # from encodings with units of several bytes
        raise UserError(f"{path}: not {encoding} ({error}). --encoding names another.") from None
    except (LookupError, ValueError):
        raise UserError(UNKNOWN_ENCODING.format(encoding)) from None


def check_text(text: str, path: str | Path, encoding: str, line: int = 1) -> None:
    """Raises UserError when `text`, which begins at `line`, holds a NUL or a byte that was not in `encoding`."""
    if "\0" in text:
        line += text.count("\n", 0, text.index("\0"))
        raise UserError(
            f"{path}, line {line}: a NUL byte. Expected a text file in {encoding}; --encoding names another, such as"
            " utf-16."
        )
    try:
        text.encode()
    except UnicodeEncodeError as error:
        before = text[: error.start]
        line += before.count("\n")
        at = len(before.rpartition("\n")[2].encode(encoding, "surrogateescape")) + 1
        bad = f"byte 0x{ord(text[error.start]) & 0xFF:02x}, number {at} of the line, is not {encoding}"
        raise UserError(f"{path}, line {line}: {bad}. Try --encoding windows-1252, or latin-1.") from None


def read_lines(path: Path) -> list[str]:
    """The lines of a file that build_dataset.py wrote. Only line feeds end them: Unicode's other line breaks may stand
    inside a word. Raises UserError when the file is missing, empty, or not UTF-8."""
    return read_text(path, ["utf-8"]).removesuffix("\n").split("\n")


def read_chars(path: Path) -> tuple[list[str], np.ndarray, np.ndarray]:
    """The characters of the lines of a file: the different ones, which of these each is, and how many a line has."""
    points: Any = np.frombuffer(read_text(path, ["utf-8"]).encode("utf-32-le"), np.uint32)
    (ends,) = (points == ord("\n")).nonzero()
    points = np.delete(points, ends)
    counts = np.bincount(points)
    (different,) = counts.nonzero()
    counts[different] = np.arange(len(different))
    return [*map(chr, different.tolist())], counts.astype(np.int32)[points], np.diff(ends, prepend=-1) - 1


def lines_at(path: Path, indices: Sequence[int]) -> list[str]:
    """Some of the lines of a file that build_dataset.py wrote."""
    wanted, found = set(indices), {}
    with open(path, encoding="utf-8", newline="\n") as file:
        for i, line in enumerate(file):
            if i in wanted:
                found[i] = line.removesuffix("\n")
    return [found[i] for i in indices]


def write_lines(path: Path, lines: Iterable[str]) -> None:
    path.write_bytes("".join(line + "\n" for line in lines).encode())


def clean(word: str) -> str:
    """A word without spaces, so that it can stand between spaces: those inside it become non-breaking spaces."""
    return re.sub("[ \t]", "\u00a0", word.strip(" \t"))


def one_line(text: str) -> str:
    """A text whose line breaks have become spaces, one for each character."""
    return re.sub("[\r\n]", " ", text)


def most_frequent(counts: Counter[str], min_count: int) -> list[str]:
    """The entries that were counted at least `min_count` times, the most frequent first."""
    return sorted((entry for entry in counts if counts[entry] >= min_count), key=lambda entry: (-counts[entry], entry))
