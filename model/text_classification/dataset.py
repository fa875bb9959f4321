"""Raw labelled texts -> data_dir: split into words, words numbered, all in one layout. All without torch."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import logging
from array import array
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from engine.building import SHARE, SPLITS, check_classes, class_names, copies_across_splits, save_arrays, split_off
from model.text.files import most_frequent, one_line, write_lines
from model.text.labelled import add_arguments, read_labelled
from model.text.tokenizer import Tokenizer
from utils import UserError

logger = logging.getLogger(__name__)

SHOWN = 10  # texts that a warning names


def add_build_arguments(parser: argparse.ArgumentParser) -> None:
    add_arguments(parser)
    parser.add_argument("--tokenized", action="store_true", help="words stand between spaces already")
    parser.add_argument(
        "--split_share", type=float, default=SHARE, help="share of each class that is split off for test (%(default)s)"
    )
    parser.add_argument("--min_count_word", type=int, default=1, help="rarer words count as unknown (%(default)s)")


def build(source: Path, folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Build the texts of `source` into `folder`. Returns the values of DataParams.

    Raises:
        UserError: there is nothing to build from, a split or a text is empty, or there is one class only.
    """
    if args.min_count_word < 1:
        raise UserError(f"--min_count_word {args.min_count_word}: expected a count of at least 1.")
    if not 0 < args.split_share < 1:
        raise UserError(f"--split_share {args.split_share}: expected a share between 0 and 1, such as 0.1.")
    corpus = read_corpus(source, folder / "texts.txt", args)
    splits = choose_splits(corpus, args.seed, args.split_share)
    check_classes(corpus.labels, splits, corpus.places)
    report_copies(corpus, splits)

    here = {split: np.array([its == split for its in splits]) for split in SPLITS}
    lengths, tokens = np.array(corpus.lengths), np.array(corpus.tokens)
    in_train = np.bincount(tokens[here["train"].repeat(lengths)], minlength=len(corpus.spellings)).tolist()
    words = most_frequent(Counter(dict(zip(corpus.spellings, in_train, strict=True))), args.min_count_word)
    if not words:
        raise UserError("No word is as frequent as --min_count_word asks for.")
    # the words of the vocabulary come first
    number_of = {word: number for number, word in enumerate(dict.fromkeys([*words, *corpus.spellings]))}
    tokens = np.array([number_of[word] for word in corpus.spellings], dtype=np.int32)[tokens]
    classes = class_names(corpus.labels)
    class_numbers = {name: number for number, name in enumerate(classes)}
    labels = np.array([class_numbers[label] for label in corpus.labels], dtype=np.int64)
    for split, is_here in here.items():
        its_tokens = tokens[is_here.repeat(lengths)]
        save_arrays(folder, split, labels[is_here], lengths=lengths[is_here], tokens=its_tokens)
        report(split, lengths[is_here], its_tokens >= len(words), np.bincount(labels[is_here]), classes)
    chars = distribute_lines(folder / "texts.txt", folder, splits)
    write_lines(folder / "spellings.txt", number_of)
    write_lines(folder / "words.txt", words)
    write_lines(folder / "chars.txt", chars)
    logger.info("From train: %s words, %s characters", f"{len(words):,}", f"{len(chars):,}")
    sizes = {split: int(is_here.sum()) for split, is_here in here.items()}
    values = {"classes": classes, "sizes": sizes, "tokenized": corpus.tokenized}
    return {**values, "num_words": len(words), "num_chars": len(chars)}


class Corpus(NamedTuple):
    """All texts, one behind the other; compact, since there may be millions.

    Attributes:
        spellings: the different words, in the order of their numbers.
        tokens: the words of all texts, by number; `lengths`: how many of them are in each.
        hashes: a digest of the words of each text.
        splits: None where the source has no splits.
        is_part: whether it is a phrase of the text at the same place.
        tokenized: whether the source was split into words.
    """

    spellings: dict[str, int]
    tokens: array[int]
    lengths: array[int]
    hashes: list[bytes]
    labels: list[str]
    splits: list[str | None]
    is_part: list[bool]
    places: list[Any]
    tokenized: bool


def read_corpus(source: Path, lines: Path, args: argparse.Namespace) -> Corpus:
    """Read the raw texts and split them into words. Writes each text as one of `lines`. Raises UserError."""
    corpus = Corpus({}, array("i"), array("q"), [], [], [], [], [], args.tokenized)
    split_text = str.split if args.tokenized else Tokenizer().words
    spellings = corpus.spellings
    with open(lines, "w", encoding="utf-8", newline="\n") as file:
        for content, label, split, place, is_part in read_labelled(source, args):
            if isinstance(content, list):
                words, corpus = content, corpus._replace(tokenized=True)
            else:
                words = split_text(content)
            if not words:
                raise UserError(f"{place}: no word in it.")
            corpus.tokens.extend([spellings.setdefault(word, len(spellings)) for word in words])
            corpus.lengths.append(len(words))
            joined = " ".join(words)
            corpus.hashes.append(hashlib.blake2b(joined.encode(), digest_size=8).digest())
            corpus.labels.append(label)
            corpus.splits.append(split)
            corpus.is_part.append(is_part)
            corpus.places.append(place)
            file.write((joined if isinstance(content, list) or args.tokenized else one_line(content)) + "\n")
    return corpus


def choose_splits(corpus: Corpus, seed: int, share: float) -> list[str]:
    """The split of each text: as the source has it, or split off by class and hash. "": the text is left out.

    Phrases are for training. They are left out if their sentence is not in train, or if train has the same already.
    """
    whole = [i for i, is_part in enumerate(corpus.is_part) if not is_part]
    names, labels = [corpus.hashes[i].hex() for i in whole], [corpus.labels[i] for i in whole]
    found = split_off(names, labels, [corpus.splits[i] or "train" for i in whole], seed, share)
    if len(whole) == len(corpus.labels):
        return found
    splits = ["train"] * len(corpus.labels)
    of_sentence = {}
    seen = set()
    for i, split in zip(whole, found, strict=True):
        splits[i] = of_sentence[corpus.places[i]] = split
        if split == "train":
            seen.add((corpus.hashes[i], corpus.labels[i]))
    for i, is_part in enumerate(corpus.is_part):
        text = corpus.hashes[i], corpus.labels[i]
        split = of_sentence.get(corpus.places[i], corpus.splits[i] or "train")  # not every sentence has a label
        if is_part and (text in seen or split != "train"):
            splits[i] = ""
        elif is_part:
            seen.add(text)
    return splits


def report_copies(corpus: Corpus, splits: Sequence[str]) -> None:
    """Warn of texts that stand in two splits, and of texts with two labels."""
    labels: defaultdict[bytes, set[str]] = defaultdict(set)
    places: dict[bytes, Any] = {}
    for i, text in enumerate(corpus.hashes):
        if splits[i]:
            labels[text].add(corpus.labels[i])
            places.setdefault(text, corpus.places[i])
    kept = [i for i, split in enumerate(splits) if split]
    hashes, its_splits = [corpus.hashes[i] for i in kept], [splits[i] for i in kept]
    if copies := copies_across_splits(hashes, its_splits, [corpus.places[i] for i in kept]):
        logger.warning("%d texts are in two splits:\n  %s", len(copies), "\n  ".join(copies[:SHOWN]))
    if several := [text for text, its in labels.items() if len(its) > 1]:
        lines = [f"{places[text]}: {', '.join(sorted(labels[text]))}" for text in several[:SHOWN]]
        logger.warning("%d texts have two labels or more:\n  %s", len(several), "\n  ".join(lines))


def distribute_lines(lines: Path, folder: Path, splits: Sequence[str]) -> list[str]:
    """Move each of `lines` to texts.txt of its split. Returns the characters of train, the most frequent first."""
    chars = Counter[str]()
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(open(lines, encoding="utf-8", newline="\n"))
        targets = {
            split: stack.enter_context(open(folder / split / "texts.txt", "w", encoding="utf-8", newline="\n"))
            for split in SPLITS
        }
        for line, split in zip(source, splits, strict=True):
            if split:
                targets[split].write(line)
            if split == "train":
                chars.update(line)
    lines.unlink()
    del chars["\n"]
    return most_frequent(chars, 1)


def report(split: str, lengths: np.ndarray, is_unknown: np.ndarray, counts: np.ndarray, classes: list[str]) -> None:
    parts = [f"{len(lengths):,} texts of {np.median(lengths):.0f} words (median) and up to {lengths.max():,}"]
    named = sorted(zip(counts.tolist(), classes, strict=False), reverse=True)
    parts.append(", ".join(f"{count:,} {name}" for count, name in named[:SHOWN]) + (" ..." if named[SHOWN:] else ""))
    if split != "train":
        parts.append(f"{is_unknown.mean():.1%} unknown words")
    logger.info("%s: %s", split, "; ".join(parts))
