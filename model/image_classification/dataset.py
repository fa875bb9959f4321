"""Raw photos -> data_dir: found, checked, split, shrunk. All without torch."""

from __future__ import annotations

import argparse
import hashlib
import io
import logging
import os
import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from utils import UserError, in_threads, save_json

logger = logging.getLogger(__name__)

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp")
SPLITS = {
    "train": ("train_signs", "train", "training"),
    "val": ("val_signs", "val", "valid", "validate", "validation", "dev"),
    "test": ("test_signs", "test", "testing"),
}
VAL_SHARE = TEST_SHARE = 0.2
SIGNS_NAME = re.compile(r"(.+?)_IMG_.+", re.IGNORECASE)  # {label}_IMG_{id}.jpg
SIGNS_URL = "https://drive.google.com/file/d/1ufiR6hUKhXoAyiBNsySPkUwlvE_wfEHC/view"


def add_build_arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(data_dir="data/SIGNS", output_dir="data/64x64_SIGNS", base="experiments/base_model")
    parser.add_argument("--size", type=int, default=64, help="width and height of the built images, in pixels (64)")
    parser.add_argument("--skip_bad", action="store_true", help="build without the files that cannot be read")


def build(args: argparse.Namespace, folder: Path) -> None:
    """Build the images of args.data_dir (or, with args.sample, drawn ones) into `folder`.

    Raises:
        UserError: there is nothing to build from, a class or a split would be empty, or files cannot be read.
    """
    if not 8 <= args.size <= 4096:
        raise UserError(f"--size {args.size}: expected 8 to 4096 pixels.")
    if args.sample:
        from .sample import draw_sample

        with tempfile.TemporaryDirectory() as raw:
            draw_sample(Path(raw), args.seed)
            build_folder(Path(raw), folder, args.task, args.size, args.seed, skip_bad=False)
    else:
        build_folder(Path(args.data_dir), folder, args.task, args.size, args.seed, args.skip_bad)


def build_folder(data_dir: Path, folder: Path, task: str, size: int, seed: int, skip_bad: bool) -> None:
    photos = split_photos(find_photos(data_dir), seed)
    check_classes(photos)
    for parent in {(folder / photo.target).parent for photo in photos}:
        parent.mkdir(parents=True, exist_ok=True)
    bad: list[tuple[Photo, str]] = []
    built: list[tuple[Photo, Shrunk]] = []
    histogram = np.zeros((3, 256), dtype=np.int64)  # of the pixels of train, per channel
    results = in_threads(partial(shrink, size=size, folder=folder), photos, "shrinking")
    for photo, result in zip(photos, results, strict=True):
        if isinstance(result, str):
            bad.append((photo, result))
            continue
        if photo.split == "train":
            histogram += result.histogram
        built.append((photo, result._replace(histogram=None)))
    if bad:
        names = "\n  ".join(f"{photo.path}: {problem}" for photo, problem in bad)
        if not skip_bad:
            raise UserError(f"{len(bad)} unreadable files:\n  {names}\nNothing was built. --skip_bad builds without.")
        logger.warning("Left out %d unreadable files:\n  %s", len(bad), names)
    check_classes([photo for photo, _ in built])
    report_duplicates(built)

    levels, shares = np.arange(256) / 255, histogram / histogram.sum(axis=1, keepdims=True)
    mean = shares @ levels
    std = np.sqrt(shares @ levels**2 - mean**2)
    digest = hashlib.sha256()
    for photo, result in sorted(built, key=lambda pair: pair[0].target):
        digest.update(os.fsencode(f"{photo.target}\0{result.file_hash}\n"))
    sizes = Counter(photo.split for photo, _ in built)
    classes = class_names(photo.label for photo, _ in built)
    save_json(
        {
            "task": task,
            "classes": classes,
            "image_size": size,
            "sizes": {split: sizes[split] for split in SPLITS},
            "mean": mean.tolist(),
            "std": std.tolist(),
            "digest": digest.hexdigest(),
        },
        folder / "dataset_params.json",
    )
    counts = ", ".join(f"{sizes[split]} {split}" for split in SPLITS)
    logger.info("%d images of %d classes (%s): %s", len(built), len(classes), ", ".join(classes[:20]), counts)


# -------------------------------------------------------------------------------------- finding photos


class Photo(NamedTuple):
    path: Path  # where it is read from
    name: str  # its path below the split's folder; decides, with the seed, on which side of a split it falls
    label: str
    split: str  # train, val, test; "all" while a flat folder is not split yet

    @property
    def target(self) -> str:
        """Where the built image goes, relative to the data set."""
        return f"{self.split}_signs/{Path(self.name).with_suffix('.jpg').as_posix()}"


def list_images(folder: Path) -> list[str]:
    """Paths, relative to `folder`, of all image files in and below it, sorted. Hidden files do not count."""
    found = []
    for root, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        below = os.path.relpath(root, folder)
        names = [name for name in files if name.lower().endswith(EXTENSIONS) and not name.startswith(".")]
        found += names if below == "." else [f"{below}/{name}".replace(os.sep, "/") for name in names]
    return sorted(found)


def label_of(name: str) -> str | None:
    """The label in `dog/rex.jpg` or `5_IMG_1234.jpg`; None when the name holds none."""
    first, slash, _ = name.partition("/")
    if slash:
        return first
    match = SIGNS_NAME.fullmatch(name)
    return match[1] if match else None


def class_names(labels: Iterable[str]) -> list[str]:
    """The different labels: numbers in the order of numbers, others in that of the alphabet."""
    different = set(labels)
    return sorted(different, key=int) if all(label.isdecimal() for label in different) else sorted(different)


def find_photos(data_dir: Path) -> list[Photo]:
    """The photos of `data_dir`, which holds train/ [val/] [test/] folders, or else the classes themselves.

    Raises:
        UserError: there is no such folder, no photo in it, or a photo without a label.
    """
    if not data_dir.is_dir():
        raise UserError(
            f"{data_dir}: no such folder. Expected train_signs/ and test_signs/ with {{label}}_IMG_{{id}}.jpg,\n"
            f"or train/ and test/ with one folder of photos per class, or just one folder per class.\n"
            f"The SIGNS photos of CS230 (1.1 GB): {SIGNS_URL}\n"
            f"Without any photos: python build_dataset.py --sample draws a data set of its own."
        )
    folders: dict[str, Path] = {}
    others = []
    for entry in sorted(path for path in data_dir.iterdir() if path.is_dir() and path.name[0] != "."):
        split = next((split for split, names in SPLITS.items() if entry.name.lower() in names), None)
        if split is None:
            others.append(entry.name)
        elif split in folders:
            raise UserError(f"{data_dir}: {folders[split].name} and {entry.name} are both {split}. Rename one of them.")
        else:
            folders[split] = entry
    if folders and "train" not in folders:
        raise UserError(f"{data_dir}: no train folder beside {', '.join(f.name for f in folders.values())}.")
    if folders and others:
        logger.warning("%s: not read, since it is no split: %s", data_dir, ", ".join(others))
    folders = folders or {"all": data_dir}
    photos = []
    for split, folder in folders.items():
        names = list_images(folder)
        other_files = Counter(path.suffix.lower() for path in folder.rglob("[!.]*.*") if path.is_file())
        skipped = [f"{count} {suffix}" for suffix, count in other_files.items() if suffix not in EXTENSIONS]
        if skipped:
            logger.warning("%s: files that are not read, by their ending: %s", folder, ", ".join(skipped))
        photos += [Photo(folder / name, name, label_of(name) or "", split) for name in names]
        if not names:
            raise UserError(f"{folder}: no photos in it (files ending in {', '.join(EXTENSIONS)}).")
        if split in ("all", "train"):  # a class folder that is there, but empty, was meant to be a class
            inhabited = {photo.label for photo in photos}
            empty = [
                f.name for f in sorted(folder.iterdir()) if f.is_dir() and f.name[0] != "." and f.name not in inhabited
            ]
            if empty:
                raise UserError(f"{folder}: no photos of the class {', '.join(empty)}.")
    unlabelled = [str(photo.path) for photo in photos if not photo.label]
    if unlabelled:
        raise UserError(
            f"{len(unlabelled)} photos without a label; expected {{label}}_IMG_{{id}}.jpg or a folder per class:\n  "
            + "\n  ".join(unlabelled[:20])
        )
    return photos


# ------------------------------------------------------------------------------------------- splitting


def split_photos(photos: list[Photo], seed: int) -> list[Photo]:
    """Split off what is missing: test from a folder that has none, then val. Sorted by target, every target once."""
    photos = [photo._replace(split="train") if photo.split == "all" else photo for photo in photos]
    for split, share in (("test", TEST_SHARE), ("val", VAL_SHARE)):
        if not any(photo.split == split for photo in photos):
            photos = split_off(photos, split, share, seed)
    return sorted(unique_names(photos), key=lambda photo: photo.target)


def split_off(photos: list[Photo], split: str, share: float, seed: int) -> list[Photo]:
    """Move `share` of each class of train to `split`: the names whose hashes with the seed are the smallest.

    A name's hash depends on nothing else, so neither the order of listing nor the other files move it.
    A class of one photo stays in train.
    """
    by_label = defaultdict(list)
    for photo in photos:
        if photo.split == "train":
            by_label[photo.label].append(photo)
    moved: set[Path] = set()
    for same_label in by_label.values():
        same_label.sort(key=lambda photo: hashlib.sha256(os.fsencode(f"{seed}/{split}/{photo.name}")).digest())
        count = max(round(share * len(same_label)), 1) if len(same_label) > 1 else 0
        moved.update(photo.path for photo in same_label[:count])
    return [photo._replace(split=split) if photo.path in moved else photo for photo in photos]


def unique_names(photos: list[Photo]) -> list[Photo]:
    """Where cat.jpg and cat.png (or CAT.jpg) would become one file, put a hash of the name into the name."""
    times = Counter(photo.target.lower() for photo in photos)
    return [photo if times[photo.target.lower()] == 1 else photo._replace(name=hashed(photo.name)) for photo in photos]


def hashed(name: str) -> str:
    stem, ending = os.path.splitext(name)
    return f"{stem}-{hashlib.sha256(os.fsencode(name)).hexdigest()[:8]}{ending}"


def check_classes(photos: list[Photo]) -> None:
    """Raises UserError when a split is empty, or holds a class that train does not have."""
    labels = {split: {photo.label for photo in photos if photo.split == split} for split in SPLITS}
    for split, found in labels.items():
        if not found:
            raise UserError(f"The {split} split would be empty: it takes at least 2 photos of a class, better 50.")
        if missing := class_names(found - labels["train"]):
            examples = [str(photo.path) for photo in photos if photo.split == split and photo.label in missing]
            raise UserError(
                f"Classes that are in {split} but missing from train: {', '.join(missing)}\n  "
                + "\n  ".join(examples[:10])
            )
    if len(labels["train"]) < 2:
        raise UserError(f"Only one class ({', '.join(labels['train'])}): there is nothing to tell apart.")


# ------------------------------------------------------------------------------------------- shrinking


class Shrunk(NamedTuple):
    pixel_hash: str
    file_hash: str
    histogram: np.ndarray | None  # 3 x 256 counts of pixels, as built


def open_rgb(path: Path, size: int) -> Image.Image:
    """Read any photo as size x size RGB, upright. A JPEG is decoded at the smallest scale that is at least twice that.

    Raises OSError, ValueError, SyntaxError and others, as Pillow's decoders do, when the file cannot be read.
    """
    with Image.open(path) as image:
        drafted = image.draft(None, (2 * size, 2 * size))  # JPEG only: 1/2, 1/4 or 1/8, by leaving out frequencies
        box = drafted[1] if drafted else None  # 1/8 of 1500 pixels is 187.5: where the picture ends in the last pixel
        if image.mode.startswith("I"):  # 16 bits a pixel, which convert() would clip to white
            image = Image.fromarray((np.asarray(image).clip(0, 65535) // 256).astype(np.uint8))
        mode = "RGBA" if image.has_transparency_data else "RGB"
        if image.mode != mode:
            image = image.convert(mode)
        image = ImageOps.exif_transpose(image.resize((size, size), Image.Resampling.BILINEAR, box, reducing_gap=2.0))
    if mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image


def shrink(photo: Photo, size: int, folder: Path) -> Shrunk | str:
    """Build one image. Returns what is wrong with the photo when it cannot be read."""
    try:
        image = open_rgb(photo.path, size)
    except UnidentifiedImageError:
        return "not an image"
    except Exception as error:  # whatever is wrong in there, the file cannot be read
        return str(error) or type(error).__name__
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=95, subsampling=0)
    (folder / photo.target).write_bytes(encoded.getbuffer())
    return Shrunk(
        hashlib.sha256(image.tobytes()).hexdigest(),
        hashlib.sha256(encoded.getbuffer()).hexdigest(),
        np.array(Image.open(encoded).histogram()).reshape(3, 256),
    )


def report_duplicates(built: list[tuple[Photo, Shrunk]]) -> None:
    """Warn of images that stand in two splits: what was learnt by heart would pass for understood."""
    same = defaultdict(list)
    for photo, shrunk in built:
        same[shrunk.pixel_hash].append(photo)
    duplicates = [group for group in same.values() if len({photo.split for photo in group}) > 1]
    if duplicates:
        lines = [" = ".join(f"{photo.split}: {photo.path}" for photo in group) for group in duplicates]
        logger.warning("%d images are in two splits, pixel for pixel:\n  %s", len(duplicates), "\n  ".join(lines))
