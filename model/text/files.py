"""Text files: read whole, decoded strictly, with messages that name file and line. All without torch."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from utils import UserError

logger = logging.getLogger(__name__)


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
            raise UserError(f"--encoding {encoding}: unknown. Try utf-8, windows-1252 or latin-1.") from None
        else:
            if problems:
                logger.warning("%s: no UTF-8, so read as %s; --encoding names another.", path, encoding)
            return re.sub("\r+\n|\r", "\n", text)
    raise UserError(f"{path}: cannot be decoded: {', and '.join(problems)}. --encoding latin-1 reads any byte.")


def read_lines(path: Path) -> list[str]:
    """The lines of a file that build_dataset.py wrote. Only line feeds end them: Unicode's other line breaks may stand
    inside a word. Raises UserError when the file is missing, empty, or not UTF-8."""
    return read_text(path, ["utf-8"]).removesuffix("\n").split("\n")


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
