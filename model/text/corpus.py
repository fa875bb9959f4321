"""Labelled texts -> words as numbers, splits, and files of lines. All without torch."""

from __future__ import annotations

import contextlib
import hashlib
import logging
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from engine.building import SPLITS, copies_across_splits, split_off
from utils import UserError

from .files import most_frequent, one_line, write_lines
from .labelled import Labelled
from .tokenizer import Tokenizer

logger = logging.getLogger(__name__)

SHOWN = 10  # texts that a warning names


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


def read_corpus(texts: Iterable[Labelled], folder: Path, tokenized: bool) -> Corpus:
    """Split texts into words, or at spaces if they are `tokenized`. Writes each as a line of texts.txt. Raises
    UserError."""
    corpus = Corpus({}, array("i"), array("q"), [], [], [], [], [], tokenized)
    split_text = str.split if tokenized else Tokenizer().words
    spellings = corpus.spellings
    with open(folder / "texts.txt", "w", encoding="utf-8", newline="\n") as file:
        for content, label, split, place, is_part in texts:
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
            file.write((joined if isinstance(content, list) or tokenized else one_line(content.strip())) + "\n")
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
    hashes, kept_places = [corpus.hashes[i] for i in kept], [corpus.places[i] for i in kept]
    if copies := copies_across_splits(hashes, [splits[i] for i in kept], kept_places):
        logger.warning("Texts that are in two splits: %d\n  %s", len(copies), "\n  ".join(copies[:SHOWN]))
    train = [(corpus.hashes[i], corpus.labels[i]) for i in kept if splits[i] == "train"]
    if repeated := len(train) - len(set(train)):
        logger.info("train: %s texts stand there twice or more; each counts", f"{repeated:,}")
    if several := [text for text, found in labels.items() if len(found) > 1]:
        lines = [f"{places[text]}: {', '.join(sorted(labels[text]))}" for text in several[:SHOWN]]
        logger.warning("Texts with two labels or more: %d\n  %s", len(several), "\n  ".join(lines))


def save_texts(corpus: Corpus, splits: Sequence[str], folder: Path, min_count_word: int) -> dict[str, Any]:
    """Write the texts of each split, for `model.text.dataset.BuiltTexts`, and the vocabularies of train.

    Returns:
        What TextDataParams says of them.

    Raises:
        UserError: no word is frequent enough.
    """
    is_in = {split: np.array(splits) == split for split in SPLITS}
    lengths, tokens = np.array(corpus.lengths), np.array(corpus.tokens)
    in_train = np.bincount(tokens[is_in["train"].repeat(lengths)], minlength=len(corpus.spellings)).tolist()
    words = most_frequent(Counter(dict(zip(corpus.spellings, in_train, strict=True))), min_count_word)
    if not words:
        raise UserError("No word is as frequent as --min_count_word asks for.")
    # the words of the vocabulary come first
    number_of = {word: number for number, word in enumerate(dict.fromkeys([*words, *corpus.spellings]))}
    tokens = np.array([number_of[word] for word in corpus.spellings], dtype=np.int32)[tokens]
    for split, is_one in is_in.items():
        split_tokens, split_lengths = tokens[is_one.repeat(lengths)], lengths[is_one]
        (folder / split).mkdir()
        np.save(folder / split / "tokens.npy", split_tokens)
        np.save(folder / split / "lengths.npy", split_lengths)
        about = f"{np.median(split_lengths):.0f} words (median) and up to {split_lengths.max():,}"
        unknown = "" if split == "train" else f"; {(split_tokens >= len(words)).mean():.1%} unknown words"
        logger.info("%s: %s texts of %s%s", split, f"{len(split_lengths):,}", about, unknown)
        if split == "val" and (split_tokens >= len(words)).mean() > 0.5:
            logger.warning('Most words of val are unknown. With "level": "char", texts are read as characters.')
    chars = distribute_lines(folder, splits)
    for name, entries in (("spellings", number_of), ("words", words), ("chars", chars)):
        write_lines(folder / f"{name}.txt", entries)
    logger.info("From train: %s words, %s characters", f"{len(words):,}", f"{len(chars):,}")
    sizes = {split: int(is_one.sum()) for split, is_one in is_in.items()}
    return {"sizes": sizes, "tokenized": corpus.tokenized, "num_words": len(words), "num_chars": len(chars)}


def distribute_lines(folder: Path, splits: Sequence[str]) -> list[str]:
    """Move each line of texts.txt to texts.txt of its split. Returns the characters of train, the most frequent
    first."""
    chars = Counter[str]()
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(open(folder / "texts.txt", encoding="utf-8", newline="\n"))
        targets = {
            split: stack.enter_context(open(folder / split / "texts.txt", "w", encoding="utf-8", newline="\n"))
            for split in SPLITS
        }
        for line, split in zip(source, splits, strict=True):
            if split:
                targets[split].write(line)
            if split == "train":
                chars.update(line)
    (folder / "texts.txt").unlink()
    del chars["\n"]
    return most_frequent(chars, 1)
