"""Raw photos -> data_dir, for build_dataset.py. Skip this file until your raw files are no photos in folders."""

from __future__ import annotations

import argparse
import hashlib
import logging
import os
import re
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from engine.building import SPLITS, check_classes, class_names, copies_across_splits, find_splits, split_off
from engine.images import EXTENSIONS, encode, list_images, open_rgb, what_is_wrong
from utils import UserError, in_threads

logger = logging.getLogger(__name__)

SIGNS_NAME = re.compile(r"(.+?)_IMG_.+", re.IGNORECASE)  # {label}_IMG_{id}.jpg
SIGNS_URL = "https://drive.google.com/file/d/1ufiR6hUKhXoAyiBNsySPkUwlvE_wfEHC/view"


def add_build_arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(data_dir="data/SIGNS", output_dir="data/{size}x{size}_SIGNS")
    parser.add_argument("--size", type=int, default=64, help="width and height of the built images, in pixels (64)")
    parser.add_argument("--skip_bad", action="store_true", help="build without the files that cannot be read")


def build(source: Path, folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Build the photos of `source` into `folder`. Returns the values of DataParams.

    Raises:
        UserError: there is nothing to build from, a class or a split would be empty, or files cannot be read.
    """
    if not 8 <= args.size <= 4096:
        raise UserError(f"--size {args.size}: expected 8 to 4096 pixels.")
    photos = split_photos(find_photos(source), args.seed)
    check_photos(photos)
    for parent in {(folder / photo.target).parent for photo in photos}:
        parent.mkdir(parents=True, exist_ok=True)
    bad: list[str] = []
    built: list[tuple[Photo, str]] = []
    histogram = np.zeros((3, 256), dtype=np.int64)  # of the pixels of train, per channel
    results = in_threads(partial(shrink, size=args.size, folder=folder), photos, "shrinking")
    for photo, result in zip(photos, results, strict=True):
        if isinstance(result, str):
            bad.append(f"{photo.path}: {result}")
            continue
        if photo.split == "train":
            histogram += result.histogram
        built.append((photo, result.pixel_hash))
    if bad:
        names = "\n  ".join(bad)
        if not args.skip_bad:
            raise UserError(f"{len(bad)} unreadable files:\n  {names}\nNothing was built. --skip_bad builds without.")
        logger.warning("Left out %d unreadable files:\n  %s", len(bad), names)
    photos = [photo for photo, _ in built]
    check_photos(photos)
    # what was learnt by heart in train would pass for understood in another split
    hashes, splits, places = [pixels for _, pixels in built], [p.split for p in photos], [p.path for p in photos]
    if copies := copies_across_splits(hashes, splits, places):
        logger.warning("%d images are in two splits, pixel for pixel:\n  %s", len(copies), "\n  ".join(copies))

    levels, shares = np.arange(256) / 255, histogram / histogram.sum(axis=1, keepdims=True)
    mean = shares @ levels
    sizes, classes = Counter(splits), class_names(photo.label for photo in photos)
    counts = ", ".join(f"{sizes[split]} {split}" for split in SPLITS)
    logger.info("%d images of %d classes (%s): %s", len(photos), len(classes), ", ".join(classes[:20]), counts)
    return {
        "classes": classes,
        "image_size": args.size,
        "sizes": {split: sizes[split] for split in SPLITS},
        "mean": mean.tolist(),
        "std": np.sqrt(shares @ levels**2 - mean**2).tolist(),
    }


# -------------------------------------------------------------------------------------- finding photos


class Photo(NamedTuple):
    path: Path  # where it is read from
    name: str  # its path below the split's folder; decides, with the seed, to which split it is moved
    label: str
    split: str

    @property
    def target(self) -> str:
        """Where the built image goes, relative to the data set."""
        return f"{self.split}_signs/{Path(self.name).with_suffix('.jpg').as_posix()}"


def label_of(name: str) -> str | None:
    """The label in `dog/rex.jpg` or `5_IMG_1234.jpg`; None when the name holds none."""
    first, slash, _ = name.partition("/")
    if slash:
        return first
    match = SIGNS_NAME.fullmatch(name)
    return match[1] if match else None


def find_photos(data_dir: Path) -> list[Photo]:
    """The photos of `data_dir`, which holds train/ [val/] [test/] folders, or else the classes themselves.

    Raises:
        UserError: there is no such folder, no photo in it, or a photo without a label.
    """
    if not data_dir.is_dir():
        problem = "a file, and no folder" if data_dir.exists() else "no such folder"
        raise UserError(
            f"{data_dir}: {problem}. Expected train_signs/ and test_signs/ with {{label}}_IMG_{{id}}.jpg,\n"
            f"or train/ and test/ with one folder of photos per class, or just one folder per class.\n"
            f"The SIGNS photos of CS230 (1.1 GB): {SIGNS_URL}\n"
            f"Without any photos: python build_dataset.py --sample draws a data set of its own."
        )
    entries = sorted(path for path in data_dir.iterdir() if path.is_dir() and path.name[0] != ".")
    folders = find_splits(entries, whole_names=True)
    if folders and "train" not in folders:
        raise UserError(f"{data_dir}: no train folder beside {', '.join(f.name for f in folders.values())}.")
    if folders and (others := [entry.name for entry in entries if entry not in folders.values()]):
        logger.warning("%s: not read, since it is no split: %s", data_dir, ", ".join(others))
    folders = folders or {"train": data_dir}
    photos = [photo for split, folder in folders.items() for photo in photos_of(folder, split)]
    if unlabelled := [str(photo.path) for photo in photos if not photo.label]:
        raise UserError(
            f"{len(unlabelled)} photos without a label; expected {{label}}_IMG_{{id}}.jpg or a folder per class:\n  "
            + "\n  ".join(unlabelled[:20])
        )
    return photos


def photos_of(folder: Path, split: str) -> list[Photo]:
    """The photos in and below one split's folder. Raises UserError when there is none, or a class has none."""
    names = list_images(folder)
    other_files = Counter(path.suffix.lower() for path in folder.rglob("[!.]*.*") if path.is_file())
    if skipped := [f"{count} {suffix}" for suffix, count in other_files.items() if suffix not in EXTENSIONS]:
        logger.warning("%s: files that are not read, by their ending: %s", folder, ", ".join(skipped))
    if not names:
        raise UserError(f"{folder}: no photos in it (files ending in {', '.join(EXTENSIONS)}).")
    photos = [Photo(folder / name, name, label_of(name) or "", split) for name in names]
    inhabited = {photo.label for photo in photos}
    folders = sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")
    if split == "train" and (empty := [name for name in folders if name not in inhabited]):
        raise UserError(f"{folder}: no photos of the class {', '.join(empty)}.")
    return photos


def split_photos(photos: list[Photo], seed: int) -> list[Photo]:
    """Split off what is missing. Sorted by target, every target once."""
    names, labels, splits = ([getattr(photo, field) for photo in photos] for field in ("name", "label", "split"))
    splits = split_off(names, labels, splits, seed)
    photos = [photo._replace(split=split) for photo, split in zip(photos, splits, strict=True)]
    # cat.jpg and cat.png (or CAT.jpg) would become the same file: these get a hash of their name into the name
    times = Counter(photo.target.lower() for photo in photos)
    photos = [p if times[p.target.lower()] == 1 else p._replace(name=hashed(p.name)) for p in photos]
    return sorted(photos, key=lambda photo: photo.target)


def hashed(name: str) -> str:
    stem, ending = os.path.splitext(name)
    return f"{stem}-{hashlib.sha256(os.fsencode(name)).hexdigest()[:8]}{ending}"


def check_photos(photos: list[Photo]) -> None:
    """Raises UserError when a split is empty, or holds a class that train does not have."""
    check_classes([p.label for p in photos], [p.split for p in photos], [p.path for p in photos])


# ------------------------------------------------------------------------------------------- shrinking


class Shrunk(NamedTuple):
    pixel_hash: str
    histogram: np.ndarray  # 3 x 256 counts of pixels, as built


def shrink(photo: Photo, size: int, folder: Path) -> Shrunk | str:
    """Build one image. Returns what is wrong with the photo when it cannot be read."""
    try:
        image = open_rgb(photo.path, size)
    except Exception as error:  # whatever is wrong in there, the file cannot be read
        return what_is_wrong(error)
    encoded = encode(image)
    (folder / photo.target).write_bytes(encoded.getbuffer())
    return Shrunk(
        hashlib.sha256(image.tobytes()).hexdigest(),
        np.array(Image.open(encoded).histogram()).reshape(3, 256),
    )
