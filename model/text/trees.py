"""Bracketed trees of the Stanford Sentiment Treebank (Socher et al. 2013) -> words and labelled phrases."""

from __future__ import annotations

import re
from typing import NamedTuple

TREE = re.compile(r"\s*\(\s*\d+\s*(\(\s*\d|[^\s()]+\s*\)\s*$)")  # what the first line of such a file matches
TOKEN = re.compile(r"[()]|[^() \t\n]+")  # a word may hold Unicode's other white space
FIVE = ("very negative", "negative", "neutral", "positive", "very positive")
BINARY = ("negative", "negative", None, "positive", "positive")
ESCAPE = re.compile(r"-(?:LRB|RRB|LSB|RSB|LCB|RCB)-|\\([/*])")  # of the Penn Treebank
BRACKETS = {"-LRB-": "(", "-RRB-": ")", "-LSB-": "[", "-RSB-": "]", "-LCB-": "{", "-RCB-": "}"}


class Phrase(NamedTuple):
    """A node of a tree: its label, 0 to 4, and the words [start, end) below it."""

    label: int
    start: int
    end: int


def parse_tree(line: str) -> tuple[list[str], list[Phrase]]:
    """The words of a tree, and its nodes, the root last. No recursion, so a tree may be deep.

    Raises:
        ValueError: the line is no tree; the message says why.
    """
    words: list[str] = []
    phrases: list[Phrase] = []
    open_nodes: list[tuple[int, int]] = []  # label and first word
    tokens = iter(TOKEN.findall(line))
    before = ""
    for token in tokens:
        if phrases and not open_nodes:
            raise ValueError(f"{token} after the end of the tree; expected one tree a line")
        if token == "(":
            if before == "word":
                raise ValueError(f"a node inside the one that holds the word {words[-1]}")
            label = next(tokens, "nothing")
            if label not in ("0", "1", "2", "3", "4"):
                raise ValueError(f"{label} after an opening bracket; expected a label, 0 to 4")
            open_nodes.append((int(label), len(words)))
            before = "label"
        elif not open_nodes:
            raise ValueError(f"{token} before the first opening bracket")
        elif token == ")":
            label_of_node, start = open_nodes.pop()
            if start == len(words):
                raise ValueError(f"a node without a word, after {len(words)} words")
            phrases.append(Phrase(label_of_node, start, len(words)))
            before = "node"
        elif before != "label":
            raise ValueError(f"the word {token} without a label; expected one such as (2 {token})")
        else:
            words.append(unescape(token))
            before = "word"
    if open_nodes:
        raise ValueError(f"closing brackets are missing: {len(open_nodes)}")
    return words, phrases


def unescape(word: str) -> str:
    """Undo what the Penn Treebank writes for brackets, quotation marks, slash and asterisk."""
    return '"' if word in ("``", "''") else ESCAPE.sub(lambda match: BRACKETS.get(match[0]) or match[1], word)
