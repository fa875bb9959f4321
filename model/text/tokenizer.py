"""A plain sentence -> words, split as the words of the corpus are. All without torch.

Corpora differ in what they take for a word. In most, punctuation stands apart ("Kent ." for "Kent."), and in English
ones so do endings such as 's and n't (Marcus et al. 1993, the Penn Treebank). The vocabulary tells: what it holds as a
word of its own is split off, and what it holds as a whole ("U.S.") stays whole.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

LONGEST_CHUNK = 200  # characters without a space; a longer one is no text, and stays whole
FRONT = re.compile(r"(?![@#&+./-])([^\w\s])\1*")  # not in -5, .5, #1, @home
BACK = re.compile(r"([^\w\s])\1*$")  # "..." and "--" are one word
# what stands apart even in the middle of a word: dashes, dots, brackets, quotation marks; commas, but not in 1,000
INSIDE = re.compile(r"--+|\.\.+|[\u2013\u2014\u2026()\[\]\"\u201c\u201d;!?]|(?<!\d),|,(?!\d)")
ABBREVIATION = re.compile(r"(?:[^\W\d_]\.)+")  # J., U.S.
CLITIC = re.compile(r"(?<=\w)(?:n['\u2019]t|['\u2019](?:s|re|ve|ll|d|m))$", re.IGNORECASE)


class Tokenizer:
    """Splits a sentence.

    Args:
        vocabulary: the words of the corpus, as they are written.
    """

    def __init__(self, vocabulary: Collection[str]):
        self.vocabulary = vocabulary if isinstance(vocabulary, set | dict) else set(vocabulary)
        self.splits = any(mark in self.vocabulary for mark in ".,!?")  # else the corpus was split at spaces only

    def __call__(self, text: str) -> list[tuple[int, int]]:
        """First character of each word, and the one after its last."""
        spans: list[tuple[int, int]] = []
        for match in re.finditer(r"\S+", text):
            chunk = match[0]
            if not self.splits or chunk.isalnum() or chunk in self.vocabulary or len(chunk) > LONGEST_CHUNK:
                spans.append(match.span())
            else:
                spans.extend((match.start() + a, match.start() + b) for a, b in self._split(chunk))
        return spans

    def _split(self, chunk: str) -> Iterator[tuple[int, int]]:
        """The words of a piece of text without spaces."""
        start, end = 0, len(chunk)
        behind: list[tuple[int, int]] = []
        while start < end and not self._is_word(chunk[start:end]) and (match := FRONT.match(chunk, start, end)):
            yield match.span()
            start = match.end()
        while start < end and not self._is_word(chunk[start:end]) and (match := BACK.search(chunk[start:end])):
            behind.append((start + match.start(), end))
            end = start + match.start()
        while start < end and not self._is_word(chunk[start:end]) and (match := INSIDE.search(chunk, start, end)):
            yield from self._split_clitic(chunk, start, match.start())
            yield match.span()
            start = match.end()
        yield from self._split_clitic(chunk, start, end)
        yield from reversed(behind)

    def _is_word(self, text: str) -> bool:
        return text.isalnum() or text in self.vocabulary or ABBREVIATION.fullmatch(text) is not None

    def _split_clitic(self, chunk: str, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Split an English ending off, if the corpus does."""
        match = None if chunk[start:end].isalnum() else CLITIC.search(chunk[start:end])
        if match and match[0].replace("\u2019", "'").lower() in self.vocabulary:
            yield start, start + match.start()
            start += match.start()
        if start < end:
            yield start, end
