"""What building a data set takes in every task: splits, checks, a digest, and a folder that appears when whole."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engine.params import JsonFile
from engine.tasks import Task
from utils import UserError, save_json

SPLITS = ("train", "val", "test")
# what files and folders of a split may be called, in any case
SPLIT_NAMES = {
    "train": ("train", "training", "train_signs"),
    "val": ("val", "valid", "validate", "validation", "dev", "devel", "testa", "val_signs"),
    "test": ("test", "testing", "testb", "test_signs"),
}
MOST_PLACES = 4  # of equal examples that a line names
SHARE = 0.2  # of the examples that is split off for test, and of the rest for val


# ---------------------------------------------------------------------------------------------- splits


def find_splits(entries: Iterable[Path], endings: Sequence[str] = ("",), whole_names: bool = False) -> dict[str, Path]:
    """Which of `entries` is which split: `train`, `dev.conll`, or `eng.testa`, by name and one of `endings`.

    Args:
        whole_names: `eng.testa` is no split. For folders of classes, one of which may be called `bullet_train`.

    Raises:
        UserError: two of them are the same split.
    """
    found: dict[str, Path] = {}
    for entry in entries:
        name = entry.name.lower()
        stems = {name[: len(name) - len(ending)] for ending in endings if name.endswith(ending)}
        words = stems if whole_names else stems | {re.split(r"[._-]", stem)[-1] for stem in stems}
        split = next((split for split, names in SPLIT_NAMES.items() if words & set(names)), None)
        if split is None:
            continue
        if split in found:
            raise UserError(f"{entry.parent}: {found[split].name} and {entry.name} are both {split}. Rename one.")
        found[split] = entry
    return found


def split_off(
    names: Sequence[str], labels: Sequence[Any], splits: Sequence[str], seed: int, share: float = SHARE
) -> list[str]:
    """Split off what is missing from train: a share of each class for test, then for val.

    The examples whose names have the smallest hashes are moved. A hash depends on the name and the seed alone, so
    neither the order of the examples nor the other examples decide. A class of one example stays in train.

    Args:
        labels: the class of each example; for numbers, one and the same for all.
        splits: of each example, "train" if the data came without splits.
        share: of each class for test, and of the rest for val.

    Returns:
        The split of each example.
    """
    result = list(splits)
    for split in ("test", "val"):
        if split in splits:
            continue
        by_label = defaultdict(list)
        for i, label in enumerate(labels):
            if result[i] == "train":
                by_label[label].append(i)
        for same_label in by_label.values():
            same_label.sort(key=lambda i: hashlib.sha256(os.fsencode(f"{seed}/{split}/{names[i]}")).digest())
            count = max(round(share * len(same_label)), 1) if len(same_label) > 1 else 0
            for i in same_label[:count]:
                result[i] = split
    return result


def check_splits(splits: Sequence[str]) -> None:
    """Raises UserError when a split is empty."""
    for split in SPLITS:
        if split not in splits:
            raise UserError(f"The {split} split would be empty: it takes at least 3 examples of a class, better 50.")


def check_classes(labels: Sequence[str], splits: Sequence[str], places: Sequence[Any]) -> None:
    """Raises UserError when a split is empty, or holds a class that train does not have; `places` says where."""
    check_splits(splits)
    found = {split: {label for label, its in zip(labels, splits, strict=True) if its == split} for split in SPLITS}
    for split in SPLITS:
        if missing := class_names(found[split] - found["train"]):
            examples = [place for i, place in enumerate(places) if splits[i] == split and labels[i] in missing]
            raise UserError(
                "\n  ".join(
                    [
                        f"Classes that are in {split} but missing from train: {', '.join(missing)}",
                        *map(str, examples[:10]),
                    ]
                )
            )
    if len(found["train"]) < 2:
        raise UserError(f"Only one class ({', '.join(found['train'])}): there is nothing to tell apart.")


def class_names(labels: Iterable[str]) -> list[str]:
    """The different labels: numbers in numerical order, others in alphabetical order."""
    different = set(labels)
    return sorted(different, key=int) if all(label.isdecimal() for label in different) else sorted(different)


def copies_across_splits(hashes: Sequence[Any], splits: Sequence[str], places: Sequence[Any]) -> list[str]:
    """A line for each group of equal examples that stand in more than one split. It names the first MOST_PLACES, among
    them one of each split."""
    groups = defaultdict(list)
    for i, value in enumerate(hashes):
        groups[value].append(i)
    lines = []
    for group in groups.values():
        first = {splits[i]: i for i in reversed(group)}
        if len(first) > 1:
            shown = sorted(sorted(group, key=lambda i: i not in first.values())[:MOST_PLACES])
            more = [f"{len(group) - len(shown):,} more"] if len(group) > len(shown) else []
            lines.append(" = ".join([f"{splits[i]}: {places[i]}" for i in shown] + more))
    return lines


# ---------------------------------------------------------------------------------- writing a data set


def save_arrays(folder: Path, split: str, labels: np.ndarray, **inputs: np.ndarray) -> None:
    """Save a split for `engine.loaders.ArrayDataset`: {split}/labels.npy and an array for each name of `inputs`."""
    (folder / split).mkdir()
    for name, array in {**inputs, "labels": labels}.items():
        np.save(folder / split / f"{name}.npy", array)


def save_dataset_params(task: Task, folder: Path, values: Mapping[str, Any]) -> None:
    """Write dataset_params.json: what the data decides, the task, and a digest over all that was built."""
    digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode())
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(os.fsencode(f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\0"))
        for block in read_blocks(path):
            digest.update(block)
    complete = {"task": task.name, **values, "digest": digest.hexdigest()}
    _, problems = JsonFile(folder, complete).check(task.DataParams)
    if problems:  # a mistake in the task, not in the raw files
        found = "; ".join(f"{problem.key}: {problem.text}" for problem in problems)
        raise TypeError(f"build of {task.name} returned what DataParams does not take: {found}")
    save_json(complete, folder / "dataset_params.json")


def digest_of(path: Path) -> str:
    """The SHA-256 of a file of any size. Raises UserError when it cannot be read."""
    digest = hashlib.sha256()
    for block in read_blocks(path):
        digest.update(block)
    return digest.hexdigest()


def read_blocks(path: Path) -> Iterator[bytes]:
    """The content of a file, a part of it in memory at a time. Raises UserError when it cannot be read."""
    try:
        with open(path, "rb") as file:
            while block := file.read(2**20):
                yield block
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from None


@contextlib.contextmanager
def new_folder(folder: Path, overwrite: bool) -> Iterator[Path]:
    """A folder to build in. It takes the place of `folder` at the end of the block, or vanishes if the block fails.

    Raises:
        UserError: `folder` exists and is not to be replaced, or is no data set, or cannot be written.
    """
    for abandoned in folder.parent.glob(f".{folder.name}.building-*"):
        pid = abandoned.suffix.split("-")[1] if "-" in abandoned.suffix else ""
        if pid.isdecimal() and not process_is_alive(int(pid)):
            if abandoned.name.endswith("-old") and not folder.exists():
                os.rename(abandoned, folder)  # its process was killed between the two renames of `replace_folder`
            else:
                shutil.rmtree(abandoned)
    if folder.exists():
        if not overwrite:
            raise UserError(f"{folder}: there already. --overwrite replaces it.")
        if not (folder / "dataset_params.json").is_file():
            raise UserError(f"{folder}: not a built data set, so it is not replaced. Choose another --output_dir.")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        building = folder.with_name(f".{folder.name}.building-{os.getpid()}")
        building.mkdir()
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}). Choose another --output_dir.") from None
    try:
        yield building
        replace_folder(building, folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def replace_folder(new: Path, folder: Path) -> None:
    """Put `new` in the place of `folder`, whether that exists or not.

    If the process is killed between the two renames, the next `new_folder` puts the old folder back.
    """
    old = new.with_name(f"{new.name}-old")
    if folder.exists():
        os.rename(folder, old)
    os.rename(new, folder)
    shutil.rmtree(old, ignore_errors=True)


def process_is_alive(pid: int) -> bool:
    if sys.platform == "win32":
        return True  # os.kill would end the process there instead of asking
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
