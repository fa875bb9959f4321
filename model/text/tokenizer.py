"""A plain text -> words, split as the words of the corpus are. All without torch.

Corpora differ in what they take for a word. In most, punctuation stands apart ("Kent ." for "Kent."), and in English
ones so do endings such as 's and n't (Marcus et al. 1993, the Penn Treebank). The vocabulary tells: what it holds as a
word of its own is split off, and what it holds as a whole ("U.S.") stays whole. A corpus that comes as plain text is
split without a vocabulary when it is built, and so is what its networks predict.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from functools import lru_cache

CHUNKS_KEPT = 2**16  # whose words are remembered; in a text most come again and again
LONGEST_CHUNK = 200  # characters without a space; a longer one is no text, and stays whole
FRONT = re.compile(r"(?![@#&+./-])([^\w\s])\1*")  # not in -5, .5, #1, @home
BACK = re.compile(r"([^\w\s])\1*$")  # "..." and "--" are one word
# what stands apart even in the middle of a word: dashes, dots, brackets, quotation marks; commas, but not in 1,000
INSIDE = re.compile(r"--+|\.\.+|[\u2013\u2014\u2026()\[\]\"\u201c\u201d;!?]|(?<!\d),|,(?!\d)")
ABBREVIATION = re.compile(r"(?:[^\W\d_]\.)+")  # J., U.S.
BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)
CLITIC = re.compile(r"(?<=\w)(?:n['\u2019]t|['\u2019](?:s|re|ve|ll|d|m))$", re.IGNORECASE)


class Tokenizer:
    """Splits a text.

    Args:
        vocabulary: the words of the corpus, as they are written. None: there is no corpus that shows what a word is, so
            punctuation and English endings are split off everywhere.
    """

    def __init__(self, vocabulary: Collection[str] | None = None):
        if not isinstance(vocabulary, set | dict | None):
            vocabulary = set(vocabulary)
        self.vocabulary = vocabulary
        # else the corpus was split at spaces only
        self.splits = vocabulary is None or any(mark in vocabulary for mark in ".,!?")
        self.spans_of = lru_cache(CHUNKS_KEPT)(lambda chunk: tuple(self._split(chunk)))

    def __call__(self, text: str) -> list[tuple[int, int]]:
        """First character of each word, and the one after its last."""
        spans: list[tuple[int, int]] = []
        for match in re.finditer(r"\S+", without_breaks(text)):
            start, chunk = match.start(), match[0]
            if self._stays_whole(chunk):
                spans.append(match.span())
            else:
                spans.extend((start + a, start + b) for a, b in self.spans_of(chunk))
        return spans

    def words(self, text: str) -> list[str]:
        """The words alone, which is faster."""
        words: list[str] = []
        for chunk in without_breaks(text).split():
            if self._stays_whole(chunk):
                words.append(chunk)
            else:
                words.extend(chunk[a:b] for a, b in self.spans_of(chunk))
        return words

    def _stays_whole(self, chunk: str) -> bool:
        return chunk.isalnum() or not self.splits or self._is_known(chunk) or len(chunk) > LONGEST_CHUNK

    def _is_known(self, text: str) -> bool:
        return self.vocabulary is not None and text in self.vocabulary

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
        return text.isalnum() or self._is_known(text) or ABBREVIATION.fullmatch(text) is not None

    def _split_clitic(self, chunk: str, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Split an English ending off, if the corpus does."""
        match = None if chunk[start:end].isalnum() else CLITIC.search(chunk[start:end])
        if match and (self.vocabulary is None or self._is_known(match[0].replace("\u2019", "'").lower())):
            yield start, start + match.start()
            start += match.start()
        if start < end:
            yield start, end


def without_breaks(text: str) -> str:
    """A text in which spaces stand in place of HTML's line breaks, of which reviews and comments are full."""
    return BREAK.sub(lambda match: " " * len(match[0]), text) if "<" in text else text
