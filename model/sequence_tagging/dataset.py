"""Raw tagged text -> data_dir: tags harmonized, words counted, all written in one layout. All without torch."""

from __future__ import annotations

import argparse
import logging
from collections import Counter
from pathlib import Path
from typing import Any

from engine.building import SPLITS
from model.text.files import most_frequent, write_lines
from utils import UserError

from .entities import OUTSIDE, TAG, are_entities, find_entities, is_scheme, parse, to_iob2
from .formats import Asked, Sentence, read_raw, write_pair

logger = logging.getLogger(__name__)


def add_build_arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(data_dir="data/kaggle")
    parser.add_argument("--min_count_word", type=int, default=1, help="rarer words count as unknown (%(default)s)")
    parser.add_argument("--min_count_tag", type=int, default=1, help="rarer tags are not learnt (%(default)s)")
    parser.add_argument("--encoding", help="of the raw files (UTF-8; of a .csv that is no UTF-8, windows-1252)")
    parser.add_argument(
        "--word_column", metavar="COLUMN", help="name, or number from 1 (the first; of CoNLL-U FORM, of a .csv Word)"
    )
    parser.add_argument(
        "--tag_column", metavar="COLUMN", help="name, or number from 1 (the last; of CoNLL-U UPOS, of a .csv Tag)"
    )


def build(source: Path, folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Build the sentences of `source` into `folder`. Returns the values of DataParams.

    Raises:
        UserError: there is nothing to build from, a split is missing, or a file is not what it should be.
    """
    for flag, count in (("--min_count_word", args.min_count_word), ("--min_count_tag", args.min_count_tag)):
        if count < 1:
            raise UserError(f"{flag} {count}: expected a count of at least 1.")
    splits = harmonize_tags(read_raw(source, Asked(args.encoding, args.word_column, args.tag_column)))
    check_entities(splits)

    words = Counter(word for sentence in splits["train"] for word in sentence.words)
    tags = Counter(tag for sentence in splits["train"] for tag in sentence.tags)
    vocabularies = {
        "words": most_frequent(words, args.min_count_word),
        "tags": tag_vocabulary(most_frequent(tags, args.min_count_tag)),
        "chars": most_frequent(Counter(char for word in words.elements() for char in word), 1),
    }
    if not vocabularies["words"] or not vocabularies["tags"]:
        raise UserError("No word or no tag is as frequent as --min_count_word and --min_count_tag ask for.")
    unseen = find_unseen_tags(splits, vocabularies["tags"])

    for name, entries in vocabularies.items():
        write_lines(folder / f"{name}.txt", entries)
    for split, sentences in splits.items():
        write_pair(folder / split, sentences)
    report(splits, vocabularies)
    return {
        "sizes": {split: len(sentences) for split, sentences in splits.items()},
        **{f"num_{name}": len(entries) for name, entries in vocabularies.items()},
        "unseen_tags": unseen,
    }


def harmonize_tags(splits: dict[str, list[Sentence]]) -> dict[str, list[Sentence]]:
    """Convert tags in any scheme for entities to IOB2. Other tags, such as parts of speech, stay as they are.

    Raises:
        UserError: some tags belong to a scheme, and some to none.
    """
    tags = {tag for sentences in splits.values() for sentence in sentences for tag in sentence.tags}
    if {"B", "I"} <= tags <= set("BIOESLUM"):  # entities without types
        tags = {tag if tag == OUTSIDE else f"{tag}-" for tag in tags}
        splits = {
            split: [s._replace(tags=[tag if tag == OUTSIDE else f"{tag}-" for tag in s.tags]) for s in sentences]
            for split, sentences in splits.items()
        }
    if not is_scheme(tags):
        return splits
    strays = {tag for tag in tags if tag != OUTSIDE and not TAG.fullmatch(tag)}
    for sentence in (sentence for sentences in splits.values() for sentence in sentences):
        if found := strays & set(sentence.tags):
            raise UserError(
                f"{sentence.place} (where the sentence begins): {', '.join(sorted(found))} is neither O nor a tag like"
                " B-... or I-..., as others are."
            )
    return {
        split: [sentence._replace(tags=to_iob2(sentence.tags)) for sentence in sentences]
        for split, sentences in splits.items()
    }


def check_entities(splits: dict[str, list[Sentence]]) -> None:
    """Warn if val or test has no entity. Raises UserError if train has none: there is nothing to learn."""
    for split, sentences in splits.items():
        if any(tag != OUTSIDE for sentence in sentences for tag in sentence.tags):
            continue
        if split == "train":
            raise UserError(
                f"{sentences[0].place}: no entity in train: all words have the tag {OUTSIDE}, so there is nothing to"
                " learn. Are the tags in another column? --tag_column chooses one."
            )
        logger.warning("%s: no entity in it (all words have the tag %s), so its F1 will be 0.", split, OUTSIDE)


def tag_vocabulary(tags: list[str]) -> list[str]:
    """The tags with O first, and without each I-x whose B-x is too rare: its entities could never begin."""
    orphans = {tag for tag in tags if parse(tag)[0] == "I" and "B" + tag[1:] not in tags}
    return sorted((tag for tag in tags if tag not in orphans), key=lambda tag: tag != OUTSIDE)


def find_unseen_tags(splits: dict[str, list[Sentence]], tags: list[str]) -> list[str]:
    """The tags of all splits that will never be predicted. Each is logged with its reason."""
    places = {split: Counter(tag for sentence in splits[split] for tag in sentence.tags) for split in SPLITS}
    unseen = sorted({tag for counts in places.values() for tag in counts} - set(tags))
    for tag in unseen:
        where = ", ".join(f"{counts[tag]} in {split}" for split, counts in places.items() if counts[tag])
        why = f"rarer than --min_count_tag, learnt as {tags[0]}" if tag in places["train"] else "not in train"
        logger.warning("Tag %s (%s): %s, so it will not be predicted.", tag, where, why)
    return unseen


def report(splits: dict[str, list[Sentence]], vocabularies: dict[str, list[str]]) -> None:
    known, has_entities = set(vocabularies["words"]), are_entities(vocabularies["tags"])
    seen = {tuple(sentence.words) for sentence in splits["train"]}
    for split, sentences in splits.items():
        words = [word for sentence in sentences for word in sentence.words]
        longest = max(len(sentence.words) for sentence in sentences)
        parts = [f"{len(sentences):,} sentences of up to {longest} words, {len(words):,} in all"]
        if has_entities:
            parts.append(f"{sum(len(find_entities(s.tags)) for s in sentences):,} entities")
        else:
            parts.append(f"{len({tag for sentence in sentences for tag in sentence.tags}):,} different tags")
        if split != "train":
            parts.append(f"{sum(word not in known for word in words) / len(words):.1%} unknown words")
            parts.append(f"{sum(tuple(s.words) in seen for s in sentences):,} of the sentences in train too")
        logger.info("%s: %s", split, ", ".join(parts))
    counts = ", ".join(f"{len(entries):,} {name}" for name, entries in vocabularies.items())
    logger.info("From train: %s. The tags are %s", counts, ", ".join(vocabularies["tags"][:50]))
