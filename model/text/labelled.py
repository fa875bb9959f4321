"""Files of labelled texts, in the layouts that people have them in -> a stream of texts. All without torch."""

from __future__ import annotations

import argparse
import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from engine.building import find_splits


class Place(NamedTuple):
    path: Path
    line: int

    def __str__(self) -> str:
        return f"{self.path}, line {self.line}"


class Labelled(NamedTuple):
    content: str | list[str]
    label: str
    split: str | None
    place: Place
    is_part: bool = False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--labels", choices=["binary", "five"], default="binary")
    parser.add_argument("--phrases", action="store_true")


NAMES = ["very negative", "negative", "neutral", "positive", "very positive"]


def read_labelled(source: Path, args: argparse.Namespace) -> Iterator[Labelled]:
    files = {"": source}
    if source.is_dir():
        entries = [path for path in source.iterdir() if path.is_file()]
        files = find_splits(entries, (".txt", ".csv")) or {"": entries[0]}
    for split, path in files.items():
        with open(path, encoding="utf-8", newline="") as file:
            if path.suffix == ".csv":
                for i, (text, label) in enumerate(csv.reader(file)):
                    if (text, label) == ("review", "sentiment"):
                        continue
                    yield Labelled(text, label, split or None, Place(path, i + 1))
                continue
            for i, line in enumerate(file):
                for words, label, is_part in nodes(line, args, split):
                    yield Labelled(words, label, split or None, Place(path, i + 1), is_part)


def nodes(line: str, args: argparse.Namespace, split: str) -> Iterator[tuple[list[str], str, bool]]:
    stack: list[tuple[int, int]] = []
    words: list[str] = []
    found = []
    for part in re.findall(r"\(|\)|[^()\s]+", line):
        if part == "(":
            stack.append((-1, len(words)))
        elif part == ")":
            number, start = stack.pop()
            found.append((words[start:], number))
        elif stack[-1][0] < 0:
            stack[-1] = int(part), stack[-1][1]
        else:
            word = {"-LRB-": "(", "-RRB-": ")", "``": '"', "''": '"'}.get(part, part.replace("\\/", "/"))
            words.append(word)
    for i, (its, number) in enumerate(reversed(found)):
        if i and not (args.phrases and split == "train"):
            return
        if args.labels == "five":
            yield its, NAMES[number], i > 0
        elif number != 2:
            yield its, "positive" if number > 2 else "negative", i > 0
