"""Raw tables -> data_dir: read, split, numbers standardised, words numbered. All without torch."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

import numpy as np

from engine.building import SPLITS, class_names, save_arrays
from engine.tables import Columns, Table, is_empty, is_number, moments, read_tables, standardize
from utils import UserError

logger = logging.getLogger(__name__)

OBJECTIVES = ("binary", "multiclass", "multilabel", "regression")
MOST_CLASSES = 20  # a label column with more different whole numbers is taken for a regression's


def add_build_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--label_columns", nargs="+", help="columns to predict, by name or number from 1 (the last)")
    parser.add_argument("--objective", choices=OBJECTIVES, help="kind of label (chosen from the label columns)")
    parser.add_argument("--no_header", action="store_true", help="the first line is a row (a header has no numbers)")


def build(source: Path, folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Build the rows of `source` into `folder`. Returns the values of DataParams.

    Raises:
        UserError: there is no table, a split or a label is empty, or a cell is not what its column holds.
    """
    table = read_tables(source, args.no_header)
    targets = table.find_columns(args.label_columns or [str(len(table.header))])
    inputs = [name for i, name in enumerate(table.header) if i not in targets]
    if not inputs:
        raise UserError("--label_columns: all columns, so there is nothing to predict from.")
    objective = choose_objective(table, targets, args.objective)
    labels = table.column(targets[0]) if objective in ("binary", "multiclass") else None
    table = table.split_off(labels, args.seed)
    splits = np.array([row.split for row in table.rows])
    columns = Columns.fit(table, inputs, [row for row in table.rows if row.split == "train"])
    numbers, categories = columns.encode(table)

    names = [table.header[i] for i in targets]
    classes, mean, std = class_names(labels) if labels else names if objective == "multilabel" else [], [], []
    array = np.array([classes.index(label) for label in labels]) if labels else table.numbers(targets)
    if objective == "regression":
        mean, std = map(list, zip(*map(moments, array[splits == "train"].T), strict=True))
        array = standardize(array, mean, std)
    array = array.astype(np.float32 if objective == "regression" else np.int64)
    for split in SPLITS:
        here = splits == split
        save_arrays(folder, split, array[here], numbers=numbers[here], categories=categories[here])
        table.save(folder / split / "rows.csv", split)
    sizes = {split: int((splits == split).sum()) for split in SPLITS}
    counts = ", ".join(f"{size} {split}" for split, size in sizes.items())
    about = f"{len(columns.numbers)} columns of numbers and {len(columns.categories)} of words"
    logger.info("%s of %s, from %s: %s", objective, ", ".join(names), about, counts)
    values = {"objective": objective, "label_columns": names, "classes": classes, "sizes": sizes}
    return {**values, "columns": columns.model_dump(), "label_mean": mean, "label_std": std}


def choose_objective(table: Table, targets: list[int], asked: str | None) -> str:
    """The kind of problem: `asked`, or what the labels look like. Raises UserError if they do not fit it."""
    different = set().union(*(table.column(i) for i in targets))
    hold_numbers = all(is_number(cell) for cell in different if not is_empty(cell))
    for row in table.rows:  # among words, "none" is one of them
        if any(is_empty(row.cells[i]) if hold_numbers else not row.cells[i] for i in targets):
            raise UserError(f"{row.place}: no value in the label column.")
    are_numbers, are_flags = all(map(is_number, different)), different <= {"0", "1"}
    is_whole = are_numbers and all(float(label).is_integer() for label in different)
    if len(targets) > 1:
        found = "multilabel" if are_flags else "regression"
    elif are_numbers and not (is_whole and len(different) <= MOST_CLASSES):
        found = "regression"
    else:
        found = "binary" if len(different) == 2 else "multiclass"
    fits = {"binary": len(targets) == 1 and len(different) == 2, "multiclass": len(targets) == 1}
    fits |= {"multilabel": are_flags, "regression": are_numbers}
    if not fits[asked or found]:
        values = ", ".join(sorted(different)[:5])
        raise UserError(f"Labels such as {values} do not fit the objective {asked or found}.")
    return asked or found
