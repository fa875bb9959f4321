"""Plain text of any size -> splits, and numbers of its characters or words. All without torch."""

from __future__ import annotations

import argparse
import itertools
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engine.building import SPLITS, find_splits
from model.layers import UNK
from utils import UserError

from .files import LONGEST_LINE, check_text, most_frequent, open_text, write_lines
from .params import TokenDataParams, VectorParams
from .tokenizer import Tokenizer

logger = logging.getLogger(__name__)

SHARES = {"train": 0.9, "val": 0.05, "test": 0.05}  # of a text that comes without splits
BLOCK = 2**22  # characters that are in memory at a time
NEAR = 10_000  # characters behind the end of a split, in which the end of a line is looked for
LINE_FEED = "\0"  # stands for it while words are split at white space; no text has this character
Blocks = Iterator[tuple[str, str]]  # (split, some of its text, which ends in white space if the text has any)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--max_words", type=int, default=50_000, help="the most frequent are kept (%(default)s)")
    parser.add_argument("--tokenized", action="store_true", help="words stand between spaces already")
    parser.add_argument("--encoding", default="utf-8", help="of the text (%(default)s)")


def build_tokens(source: Path, folder: Path, level: str, args: argparse.Namespace) -> dict[str, Any]:
    """Build the text of `source` into `folder`. Returns the values of TokenDataParams.

    {split}/tokens.bin has a number for each character or word: its line in tokens.txt, from 0; for one that is not
    there, the number of lines. It is of the smallest unsigned type that holds all of these.

    Args:
        level: "char" or "word".
        args: the flags of `add_arguments`.

    Raises:
        UserError: there is nothing to read, a split is empty, or something is no text in this encoding.
    """
    if args.max_words < 1:
        raise UserError(f"--max_words {args.max_words}: expected at least 1.")
    files = find_files(source)
    lengths = {path: count_characters(path, args.encoding) for path in files.values()}
    counts = Counter[str]()
    split_words, by_words = splitter_of_corpus(level, args.tokenized), level == "word"
    for split, text in read_splits(files, lengths, args.encoding, by_words):
        if split == "train":
            counts.update(split_words(text) if split_words else count_chars(text))
    tokens = most_frequent(counts, 1)
    if by_words and len(tokens) > args.max_words:
        logger.info("%s different words, of which the most frequent are kept", f"{len(tokens):,}")
        tokens = tokens[: args.max_words]
    encode = encoder(tokens, split_words)
    sizes = dict.fromkeys(SPLITS, 0)
    unknown = dict.fromkeys(SPLITS, 0)
    for split in SPLITS:
        (folder / split).mkdir()
    for split, text in read_splits(files, lengths, args.encoding, by_words):
        numbers = encode(text)
        with open(folder / split / "tokens.bin", "ab") as file:
            file.write(numbers.tobytes())
        sizes[split] += len(numbers)
        unknown[split] += int((numbers == len(tokens)).sum())
    unit = "words" if by_words else "characters"
    for split, size in sizes.items():
        if size < 2:
            raise UserError(f"{source}: {split} has {size} {unit}. Expected more text, at least some hundreds.")
        logger.info("%s: %s %s, %.2f %% of them unknown", split, f"{size:,}", unit, 100 * unknown[split] / size)
    logger.info("From train: %s different %s", f"{len(tokens):,}", unit)
    write_lines(folder / "tokens.txt", ["" if token == "\n" else token for token in tokens])
    return {"level": level, "tokenized": args.tokenized, "sizes": sizes, "num_tokens": len(tokens)}


# --------------------------------------------------------------------------------------------- reading


def find_files(source: Path) -> dict[str | None, Path]:
    """The file of each split; of None, a text to be split in order. Raises UserError."""
    if not source.is_dir():
        if not source.exists():
            raise UserError(f"{source}: no such file or folder. Expected a text file, or a folder with one.")
        return {None: source}
    texts = sorted(path for path in source.iterdir() if path.is_file() and path.suffix.lower() in (".txt", ".text"))
    splits = find_splits(texts, (".txt", ".text"))
    if len(texts) > 1 and splits:
        if missing := [split for split in SPLITS if split not in splits]:
            found = ", ".join(path.name for path in splits.values())
            raise UserError(f"{source}: {found}, but no file for {' and '.join(missing)}. Expected all three, or one.")
        return {split: splits[split] for split in SPLITS}
    if len(texts) != 1:
        found = f"{len(texts)} text files" if texts else "no text file (.txt)"
        raise UserError(f"{source}: {found}. Expected one, or train.txt, valid.txt and test.txt.")
    return {None: texts[0]}


def read_blocks(path: Path, encoding: str) -> Iterator[str]:
    """The text of a file, some of it in memory at a time. Every line end becomes a line feed. Raises UserError."""
    with open_text(path, encoding) as file:
        line = 1
        while block := file.read(BLOCK):
            check_text(block, path, encoding, line)
            line += block.count("\n")
            yield block


def count_characters(path: Path, encoding: str) -> int:
    """Raises UserError if there are none."""
    length = sum(map(len, read_blocks(path, encoding)))
    if not length:
        raise UserError(f"{path}: empty. Expected text, at least some hundreds of characters.")
    return length


def read_splits(files: Mapping[str | None, Path], lengths: Mapping[Path, int], encoding: str, by_words: bool) -> Blocks:
    """The text of each split, train first. A text without splits is cut behind a line, or else behind a word."""
    for split, path in files.items():
        shares = SHARES if split is None else {split: 1.0}
        ends = [round(end * lengths[path]) for end in np.cumsum([*shares.values()]).tolist()]
        yield from cut(read_blocks(path, encoding), [*shares], ends, path, by_words)


def cut(blocks: Iterable[str], splits: Sequence[str], ends: Sequence[int], path: Path, by_words: bool) -> Blocks:
    """Give each split its part of a text: up to `ends`, and on to the end of that line or word.

    Args:
        by_words: no word is cut into two pieces within a split either.

    Raises:
        UserError: a word is so long that it is none.
    """
    number = position = 0
    rest = ""
    for block in itertools.chain(blocks, [None]):
        rest += block or ""
        limit = len(rest)
        while number < len(splits) - 1 and (at := max(ends[number] - position, 0)) < len(rest):
            end = rest.find("\n", at, at + NEAR) + 1
            if not end and block is not None and len(rest) - at < NEAR:  # the end of the line is still to come
                limit = at
                break
            end = end or rest.find(" ", at, at + NEAR) + 1 or max(at, 1)
            yield splits[number], rest[:end]
            position, rest, number = position + end, rest[end:], number + 1
            limit = len(rest)
        end = limit
        if block is None:
            end = len(rest)
        elif by_words:
            end = max(rest.rfind("\n", 0, limit), rest.rfind(" ", 0, limit)) + 1
        if end:
            yield splits[number], rest[:end]
            position, rest = position + end, rest[end:]
        elif len(rest) > LONGEST_LINE:
            raise UserError(f"{path}: no space among {len(rest):,} characters. Expected text.")


# -------------------------------------------------------------------------------------------- numbering


def count_chars(text: str) -> Mapping[str, int]:
    counts = np.bincount(code_points(text))
    return {chr(point): int(counts[point]) for point in counts.nonzero()[0].tolist()}


def splitter(words: Callable[[str], list[str]]) -> Callable[[str], list[str]]:
    """Text -> its words, split by `words`; a line feed is one, too."""

    def split(text: str) -> list[str]:
        found = words(text.replace("\n", f" {LINE_FEED} "))
        return ["\n" if word == LINE_FEED else word for word in found]

    return split


def splitter_of_corpus(level: str, tokenized: bool) -> Callable[[str], list[str]] | None:
    """What splits the text that a data set is built of; None for characters."""
    return splitter(str.split if tokenized else Tokenizer().words) if level == "word" else None


def splitter_of(data: TokenDataParams) -> Callable[[str], list[str]] | None:
    """What splits text that a person writes into words like those of `data`; None for characters."""
    if data.level == "char":
        return None
    return splitter(Tokenizer(data.tokens if data.tokenized else None).words)


def encoder(tokens: list[str], split: Callable[[str], list[str]] | None) -> Callable[[str], np.ndarray]:
    """Text -> the number of each of its words (of its characters, without `split`); `len(tokens)` for those that are
    not among `tokens`."""
    dtype = np.min_scalar_type(len(tokens))
    if split is None:
        table = np.full(0x110000, len(tokens), dtype)
        table[[ord(token) for token in tokens]] = np.arange(len(tokens))
        return lambda text: table.take(code_points(text))
    numbers = {token: number for number, token in enumerate(tokens)}

    def encode(text: str) -> np.ndarray:
        words = split(text)
        return np.fromiter((numbers.get(word, len(tokens)) for word in words), dtype, len(words))

    return encode


def code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def map_tokens(path: Path, num_tokens: int, size: int | None) -> np.ndarray:
    """The numbers that build_dataset.py wrote, mapped into memory. Raises UserError if they are others."""
    dtype = np.min_scalar_type(num_tokens)
    try:
        tokens = np.memmap(path, dtype, mode="r")
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}). Build the data set again with --overwrite.") from None
    if len(tokens) != size:
        raise UserError(f"{path}: {len(tokens)} tokens, but {size} were built. Build the data set again.")
    return tokens


def numbers_of(tokens: Sequence[str], params: VectorParams) -> np.ndarray:
    """The number in the vocabulary of each token, and behind them that of unknown ones."""
    vocabulary = params.vocabulary
    return np.array([*(vocabulary.get(params.normalize(token), UNK) for token in tokens), UNK])
