"""Raw labelled texts -> data_dir: split into words, words and classes numbered. All without torch."""

from __future__ import annotations

import argparse
import logging
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from engine.building import SHARE, SPLITS, check_classes, class_names
from model.text.corpus import choose_splits, read_corpus, report_copies, save_texts
from model.text.labelled import add_arguments, read_labelled
from utils import UserError

logger = logging.getLogger(__name__)


def add_build_arguments(parser: argparse.ArgumentParser) -> None:
    add_arguments(parser)
    parser.add_argument("--tokenized", action="store_true", help="words stand between spaces already")
    parser.add_argument("--min_count_word", type=int, default=1, help="rarer words count as unknown (%(default)s)")
    parser.add_argument(
        "--split_share", type=float, default=SHARE, help="share of each class that is split off for test (%(default)s)"
    )


def build(source: Path, folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Build the texts of `source` into `folder`. Returns the values of DataParams.

    Raises:
        UserError: there is nothing to build from, a split or a text is empty, or there is one class only.
    """
    if args.min_count_word < 1:
        raise UserError(f"--min_count_word {args.min_count_word}: expected a count of at least 1.")
    if not 0 < args.split_share < 1:
        raise UserError(f"--split_share {args.split_share}: expected a share between 0 and 1, such as 0.1.")
    corpus = read_corpus(read_labelled(source, args), folder, args.tokenized)
    splits = choose_splits(corpus, args.seed, args.split_share)
    check_classes(corpus.labels, splits, corpus.places)
    report_copies(corpus, splits)
    values = save_texts(corpus, splits, folder, args.min_count_word)
    classes = class_names(corpus.labels)
    numbers = {name: number for number, name in enumerate(classes)}
    for split in SPLITS:
        labels = [label for label, found in zip(corpus.labels, splits, strict=True) if found == split]
        np.save(folder / split / "labels.npy", np.array([numbers[label] for label in labels], dtype=np.int64))
        counts = Counter(labels).most_common()
        shown = [f"{count:,} {label}" for label, count in counts[:10]] + ["..."] * (len(counts) > 10)
        logger.info("%s: %s", split, ", ".join(shown))
        if missing := [name for name in classes if name not in labels]:
            logger.warning("%s has no text of %s, so nothing is measured of it.", split, ", ".join(missing[:10]))
    return {**values, "classes": classes}
