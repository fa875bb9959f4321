"""Texts from a command line, a file or a stream: what tasks that read text need to predict."""

from __future__ import annotations

import codecs
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from engine.predicting import Options, Processing, Unreadable, made_up_word
from utils import UserError


class TextProcessing(Processing):
    """Texts: each word of the command line is one, or each line of a file."""

    accepts = "texts"

    def read(self, words: Sequence[str], options: Options) -> Iterator[Any]:
        """The words themselves, or the lines of `options.file`, without empty ones; `-` is standard input."""
        if words and options.file:
            raise UserError("Sentences and --file: expected one of the two.")
        if not words and not options.file:
            hint = " To write: --prompt TEXT" if self.writes else ""
            raise UserError(f"Which text? Expected sentences in quotation marks, or --file FILE, or - for stdin.{hint}")
        if (options.columns or options.text_column) and not options.file:
            raise UserError("--columns and --text_column say how --file is laid out, and there is none.")
        if len(words) == 1 and words[0] != "-" and os.path.exists(words[0]):
            raise UserError(f"{words[0]} is a file or folder. To read the lines of a file: --file FILE")
        if words in (["-"], ("-",)):
            options, words = options._replace(file="-"), []
        yield from self.read_file(options) if options.file else (self.split(word, options) for word in words)

    def read_file(self, options: Options) -> Iterator[Any]:
        if options.columns:
            raise UserError("--columns is for tagged text; this network takes one text a line.")
        if options.text_column:
            raise UserError("--text_column is for tables; this network takes one text a line.")
        return (self.split(line, options) for line in read_lines(str(options.file), encoding=options.encoding))

    def split(self, text: str | Unreadable, options: Options) -> Any:
        """A text; where the words stand between spaces already, a list of them."""
        return text.split() if options.tokenized and isinstance(text, str) else text

    def examples(self, count: int, length: int, rng: np.random.Generator) -> list[Any]:
        """Texts of words that nobody knows."""
        lengths = [length, *rng.integers(1, length + 1, count - 1).tolist()]
        return [" ".join(made_up_word(rng, length) for _ in range(words)) for words in lengths]


def read_lines(name: str, keep_empty: bool = False, encoding: str = "utf-8") -> Iterator[str | Unreadable]:
    """The lines of a file one by one, whatever its size; `-` is standard input. Raises UserError if there is none."""
    try:
        codec = codecs.lookup(encoding)
    except LookupError:
        raise UserError(f"--encoding {encoding}: unknown. Try utf-8, windows-1252 or latin-1.") from None
    if len("\n".encode(codec.name)) > 1:
        raise UserError(f"--encoding {encoding}: a line of it cannot be found by its end. Save the file as UTF-8.")
    try:
        descriptor: Any = sys.stdin.fileno() if name == "-" else name
        with open(descriptor, "rb", closefd=name != "-") as file:
            if b"\0" in file.peek(1):
                raise UserError(f"{name}: not a text file.")
            yield from _decoded(file, name, keep_empty, codec.name)
    except OSError as error:
        raise UserError(f"{name}: cannot be read ({error.strerror}). Expected a file with one text a line.") from None


def _decoded(lines: Iterable[bytes], name: str, keep_empty: bool, encoding: str) -> Iterator[str | Unreadable]:
    for number, line in enumerate(lines, start=1):
        try:
            text = line.decode("utf-8-sig" if number == 1 and encoding == "utf-8" else encoding).rstrip("\r\n")
        except UnicodeDecodeError as error:
            yield Unreadable(
                f"{name}, line {number}",
                f"not {encoding.upper()} (byte {error.start + 1} of the line); --encoding names another",
            )
            continue
        if keep_empty or text.strip():
            yield text
