"""Records of predictions -> lines for a person, JSON lines, CSV, or CoNLL's columns."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TextIO

from engine.answers import Record, as_text, is_unicode, kept
from engine.predicting import Processing
from utils import UserError, check_writable, logger, whole_file

FORMATS = ("text", "jsonl", "csv", "conll")


class SomeUnreadable(UserError):
    """Some inputs were answered, others could not be."""

    exit_status = 1


class Writer:
    """Writes records as they come, and counts them."""

    def __init__(self, file: TextIO, processing: Processing, style: str):
        self.file, self.processing, self.style = file, processing, style
        self.color = file.isatty() and "NO_COLOR" not in os.environ
        self.answered = self.unreadable = 0
        self.first = ""  # reason why one could not be read
        self.csv: csv.DictWriter[str] | None = None
        self.waiting: list[Record] = []  # for the first readable one, which decides the columns of a CSV file

    def write(self, record: Record) -> None:
        if "error" in record:
            self.unreadable += 1
            self.first = self.first or f"{as_text(record['input']):.200}: {record['error']}"
        else:
            self.answered += 1
        if self.style == "csv":
            self._write_csv(record)
        else:
            self.file.write(getattr(self, f"_{self.style}")(record) + "\n")

    def close(self) -> None:
        """Write what is left. Raises UserError if nothing was answered, or not all (exit status 1)."""
        if self.waiting:
            self._start_csv({"input": ""})
        self.file.flush()
        if not self.answered + self.unreadable:
            raise UserError("Nothing to predict: the input is empty.")
        if self.unreadable:
            count = f"{self.unreadable:,} of {self.answered + self.unreadable:,} inputs could not be read."
            raise (SomeUnreadable if self.answered else UserError)(f"{count} The first: {self.first}")

    def _text(self, record: Record) -> str:
        if "error" in record:
            line = f"{as_text(record['input'])}: {record['error']}"
            return f"\033[31m{line}\033[0m" if self.color else line
        return self.processing.show(record, self.color)

    def _jsonl(self, record: Record) -> str:
        text = json.dumps(record, ensure_ascii=False)
        return text if is_unicode(text) else json.dumps(record)  # names of files need not be Unicode

    def _conll(self, record: Record) -> str:
        if "error" in record:
            return f"# {record['input']}: {record['error']}\n"
        return self.processing.conll(record)

    def _write_csv(self, record: Record) -> None:
        if self.csv is None and "error" in record:
            self.waiting.append(record)
            return
        cells = self.processing.cells(record) if "error" not in record else {}
        if self.csv is None:
            self._start_csv(cells)
        if "error" in record:
            given, error = record["input"], record["error"]
            if isinstance(given, dict):
                cells = {**kept(given), "error": error}
            elif "input" in self.csv.fieldnames:  # type: ignore[union-attr]
                cells = {"input": given, "error": error}
            else:  # a line of a table that is no row
                cells = {"error": f"{given}: {error}"}
        try:
            self.csv.writerow(cells)  # type: ignore[union-attr]
        except ValueError:
            new = ", ".join(cells.keys() - set(self.csv.fieldnames))  # type: ignore[union-attr]
            raise UserError(f"The column {new} is not in the first input. Predict it by itself, or as jsonl.") from None

    def _start_csv(self, cells: Record) -> None:
        columns = dict.fromkeys([*cells, "error"])
        self.csv = csv.DictWriter(self.file, list(columns), lineterminator="\n")
        self.csv.writeheader()
        for record in self.waiting:
            self._write_csv(record)
        self.waiting.clear()


def check_output(output: str | None, inputs: Iterable[str | None]) -> None:
    """Raises UserError if `output` is one of the files that are read."""
    if output and os.path.exists(output):
        for name in inputs:
            if name and os.path.exists(name) and os.path.samefile(name, output):
                raise UserError(f"--output {output}: this is also an input. Choose another name.")


@contextlib.contextmanager
def open_writer(processing: Processing, style: str | None, output: str | None) -> Iterator[Writer]:
    """A Writer to a file, which appears when it is whole, or to stdout.

    Args:
        style: one of FORMATS; by default, the one that the ending of `output` says, or text.

    Raises:
        UserError: the format is unknown, or not for this task, or the file cannot be written; when the block ends, some
            input could not be read.
    """
    ending = Path(output).suffix[1:].lower() if output else "text"
    style = style or {"txt": "text"}.get(ending, ending)
    if style not in FORMATS:
        raise UserError(f"--output {output}: an ending that says no format. Choose one: --format {'|'.join(FORMATS)}.")
    if output is None:
        writer = Writer(sys.stdout, processing, style)
        yield writer
        writer.close()
        return
    path = Path(output)
    if path.is_dir() or not path.parent.is_dir():
        raise UserError(f"--output {output}: expected a file in a folder that exists.")
    check_writable(path.parent)
    unreadable = None
    with whole_file(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="\n")
        writer = Writer(text, processing, style)
        yield writer
        try:
            writer.close()
        except SomeUnreadable as error:  # the others are worth a file
            unreadable = error
        text.detach()
    logger.info("%s: %d answers", path, writer.answered)
    if unreadable:
        raise unreadable
