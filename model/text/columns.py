"""Text in columns: a word a line, an empty line after each sentence, as in the CoNLL shared tasks. All without torch.

CoNLL-U, the format of Universal Dependencies (https://universaldependencies.org/format.html), has ten columns between
tabs. Besides its words, it has lines for several words that are written as one (`1-2`) and for words that are not in
the text (`1.1`). A comment may name other columns: `# global.columns = ID FORM UPOS` (CoNLL-U Plus).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

from engine.params import did_you_mean
from utils import UserError

CONLLU_ENDINGS = (".conllu", ".conllup")
CONLLU_COLUMNS = "ID FORM LEMMA UPOS XPOS FEATS HEAD DEPREL DEPS MISC".split()
UNSET = "_"  # what CoNLL-U has in a cell without a value
GLOBAL_COLUMNS = re.compile(r"#\s*global\.columns\s*=(.*)")
NO_WORD = re.compile(r"\d+[-.]\d+")  # the ID of a line that is no word
FEATURES = re.compile(r"[^=|\s]+=[^=|\s]+(\|[^=|\s]+=[^=|\s]+)*")  # Number=Sing|Person=3

Row = tuple[int, list[str]]  # number of the line, cells
Other = TypeVar("Other")


class Layout(NamedTuple):
    """How a file is laid out: its number of columns, their names if it is CoNLL-U, and what they stand between."""

    num_columns: int
    names: list[str]
    has_tabs: bool

    @property
    def is_conllu(self) -> bool:
        return bool(self.names)

    def is_comment(self, line: str, begins: bool) -> bool:
        """Whether a line that begins with # is a comment. In CoNLL-U, all are. In other files, a comment comes before a
        sentence, begins with "# ", and has other columns than the words."""
        if self.is_conllu:
            return True
        if not begins or not line.startswith(("# ", "#begin", "#end")):
            return False
        return len(split_columns(line)) != self.num_columns or ("\t" in line) != self.has_tabs

    def is_passed_over(self, cells: Sequence[str]) -> bool:
        """Whether a line of CoNLL-U is no word of the text."""
        named = zip(self.names, cells, strict=False)
        return any(name == "ID" and NO_WORD.fullmatch(cell) for name, cell in named)


def find_layout(lines: Iterable[object], is_conllu: bool = False) -> Layout:
    """How a file is laid out, from its lines up to the end of its first sentence.

    It is CoNLL-U if `is_conllu` (its ending says so), if a comment names its columns, or if it has ten columns between
    tabs, the first of which counts the words.
    """
    sentence: list[str] = []
    for line in lines:
        if not isinstance(line, str):  # cannot be read
            continue
        if names := GLOBAL_COLUMNS.match(line):
            found = names[1].split()
            return Layout(len(found), found, True)
        if is_word(line) and not line.startswith("#"):
            sentence.append(line)
        elif sentence and not is_word(line):
            break
    rows = [split_columns(line) for line in sentence]
    has_ten = all("\t" in line and len(cells) == 10 for line, cells in zip(sentence, rows, strict=True))
    if is_conllu or (rows and has_ten and is_running([cells[0] for cells in rows])):
        return Layout(len(CONLLU_COLUMNS), CONLLU_COLUMNS, True)
    return Layout(len(rows[0]), [], "\t" in sentence[0]) if rows else Layout(2, [], False)


def read_rows(lines: Iterable[str | Other], layout: Layout) -> Iterator[Row | Other | None]:
    """The rows of a file, without comments. A None ends a sentence. What is no line (it cannot be read) is passed on.

    How many cells a row has is for the caller to check.
    """
    begins, is_conllu = True, layout.is_conllu
    for number, line in enumerate(lines, start=1):
        if not isinstance(line, str):
            yield line
        elif not is_word(line):
            begins = True
            yield None
        elif line[0] != "#" or not layout.is_comment(line, begins):
            begins, cells = False, split_columns(line)
            if not is_conllu or not layout.is_passed_over(cells):
                yield number, cells


def first_sentence(lines: Iterator[Other]) -> list[Other]:
    """The lines up to the first empty line that follows a word: what `find_layout` needs to see of a stream."""
    head: list[Other] = []
    has_word = False
    for line in lines:
        head.append(line)
        if isinstance(line, str):
            if has_word and not is_word(line):
                break
            has_word |= is_word(line) and not line.startswith("#")
    return head


def find_column(flag: str, asked: str, names: Sequence[str], num_columns: int) -> int:
    """The index of a column, by its number from 1 or by its name in any case. Raises UserError if there is none."""
    if asked.isdecimal() and 1 <= int(asked) <= num_columns:
        return int(asked) - 1
    lower = [name.lower() for name in names]
    if asked.lower() in lower:
        return lower.index(asked.lower())
    shown = ", ".join(name[:40] for name in names if name)
    there = f"There are {shown}" if names else "The columns have no names"
    raise UserError(
        f"no column {asked}.{did_you_mean(asked.lower(), lower)} {there[:200]}; {flag} takes"
        f"{' a name or' if names else ''} a number from 1 to {num_columns}."
    )


def is_word(line: str) -> bool:
    """Whether a line holds a word; others separate sentences."""
    return bool(line.strip(" \t")) and not line.startswith("-DOCSTART-")


def split_columns(line: str) -> list[str]:
    """Split at tabs if there are any, else at spaces. Unicode's other white space may be part of a word."""
    line = line.rstrip(" \t")
    return line.split("\t") if "\t" in line else re.split(" +", line.lstrip(" "))


# ------------------------------------------------------------------------------------- what a column holds


def is_running(cells: Iterable[str]) -> bool:
    """Whether the cells of a sentence count its words: 1, 2, 3, or 0, 1, 2."""
    numbers = [cell for cell in cells if not NO_WORD.fullmatch(cell)]
    return any(
        all(cell == str(number) for number, cell in enumerate(numbers, start=first)) for first in (0, 1) if numbers
    )


def are_features(cells: Iterable[str]) -> bool:
    """Whether cells hold features such as Number=Sing|Person=3, or nothing."""
    return all(cell == UNSET or FEATURES.fullmatch(cell) for cell in cells)


def describe_columns(sentences: Sequence[Sequence[Sequence[str]]], names: Sequence[str] = ()) -> str:
    """What each column seems to hold, a line for each.

    Args:
        sentences: the cells of each word of each sentence, in rows of one length.
    """
    columns = list(zip(*itertools.chain(*sentences), strict=True))
    kinds = []
    for i, cells in enumerate(columns):
        if set(cells) == {UNSET}:
            kinds.append(f"nothing but {UNSET}")
        elif all(is_running([row[i] for row in rows]) for rows in sentences):
            kinds.append("running numbers")
        elif all(cell.isdecimal() or cell == UNSET for cell in cells):
            kinds.append("numbers")
        else:
            kinds.append("features" if are_features(cells) else "")
    different = [0 if kind else len(set(cells)) for kind, cells in zip(kinds, columns, strict=True)]
    most = different.index(max(different))  # of equals, words come first
    lines = []
    for i, (kind, cells) in enumerate(zip(kinds, columns, strict=True)):
        kind = kind or ("words" if i == most or different[i] > max(different) / 2 else "tags")
        name = f" {names[i]}" if i < len(names) else ""
        lines.append(f"\n  {i + 1}{name}: {kind} ({' '.join(list(dict.fromkeys(cells))[:4])[:60]})")
    return "".join(lines)
