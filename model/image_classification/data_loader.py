"""data_dir -> batches.

Every image is decoded once in the life of a data set: the pixels then lie in `data_dir/.cache/`, and each later run
maps that file into memory. A batch is one indexing operation, and one augmentation of all its images at once.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
import os
from collections.abc import Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from engine.batches import Batch, BatchSampler, make_loader, make_rng
from utils import UserError, in_threads

from .dataset import label_of, list_images
from .params import Params

logger = logging.getLogger(__name__)


def fetch_dataloader(
    splits: Sequence[str],
    data_dir: str | Path,
    params: Params,
    device: torch.device | str = "cpu",
    evaluating: bool = False,
) -> dict[str, DataLoader[Any]]:
    """A loader of (images, labels) for each of `splits`; "train" is shuffled and augmented, unless `evaluating`.

    Batches are made on `device`, images batch_size x 3 x image_size x image_size, labels batch_size; where worker
    processes make them (params.num_workers), they come from there in CPU memory.

    Raises:
        UserError: the data set, or a split of it, is missing or broken.
    """
    loaders: dict[str, DataLoader[Any]] = {}
    for split in splits:
        train = split == "train" and not evaluating
        dataset = ImageDataset(Path(data_dir), split, params, augment=train)
        if not params.num_workers:
            dataset.to(torch.device(device))
        sampler = BatchSampler(len(dataset), params.batch_size, shuffle=train, seed=params.seed)
        pin_memory = params.num_workers > 0 and torch.device(device).type == "cuda"
        loaders[split] = make_loader(dataset, sampler, params.num_workers, pin_memory)
    return loaders


class ImageDataset(Dataset[Any]):
    """One split of a built data set, as uint8 pixels in memory (or mapped into it).

    Attributes:
        files: paths relative to the split's folder, in order.
        images: num_images x 3 x image_size x image_size, uint8.
        labels: num_images, int64.
    """

    def __init__(self, data_dir: Path, split: str, params: Params, augment: bool = False):
        self.arguments = data_dir, split, params, augment
        data = params.data
        self.folder = data_dir / f"{split}_signs"
        self.seed, self.strength, self.flip = params.seed, params.augmentation * augment, params.horizontal_flip
        self.augments = augment and (params.augmentation > 0 or params.horizontal_flip)
        self.device = torch.device("cpu")
        self.files = list_images(self.folder)
        if not self.files:
            raise UserError(f"{self.folder}: the {split} split is empty. Build the data set again with --overwrite.")
        number = {name: i for i, name in enumerate(data.classes)}
        labels = [number.get(label_of(file), -1) for file in self.files]
        if -1 in labels:
            strays = [str(self.folder / file) for file, label in zip(self.files, labels, strict=True) if label < 0]
            raise UserError(
                f"{len(strays)} images with a label outside the classes ({', '.join(data.classes)}):\n  "
                + "\n  ".join(strays[:20])
            )
        if len(self.files) != data.sizes.get(split, 0):
            raise UserError(
                f"{self.folder}: {len(self.files)} images, but {data.sizes.get(split, 0)} were built."
                " Build the data set again with --overwrite."
            )
        self.labels = torch.tensor(labels)
        self.images = load_pixels(self.folder, self.files, data.image_size)

    def __reduce__(self) -> Any:
        """A worker process that is not forked maps the pixels itself."""
        return ImageDataset, self.arguments

    def to(self, device: torch.device) -> None:
        """Make batches on `device`, from pixels that live there too if they take no more than a quarter of it."""
        self.labels = self.labels.to(device)
        self.device = self.labels.device  # cuda:0, where `device` may only say cuda
        if device.type == "cuda" and self.images.nbytes < torch.cuda.mem_get_info(device)[0] / 4:
            self.images = self.images.to(device)

    def __len__(self) -> int:
        return len(self.files)

    @cached_property
    def digest(self) -> str:
        """Of the names and sizes of the files: what edited data differ in, and copied data do not."""
        digest = hashlib.sha256()
        for file in self.files:
            digest.update(os.fsencode(f"{file}\0{os.stat(os.path.join(self.folder, file)).st_size}\n"))
        return digest.hexdigest()

    def describe(self, indices: Sequence[int]) -> str:
        """Where a person finds these examples."""
        return f"in {self.folder}: {', '.join(self.files[index] for index in indices)}"

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """One image as it is, 3 x image_size x image_size uint8, and its label."""
        return self.images[index], self.labels[index]

    def __getitems__(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The images of a batch, uint8 or (augmented) float32 in 0..255, and their labels."""
        indices = batch.indices.to(self.device, non_blocking=True)
        on_device = self.images.device == self.device
        images = self.images[indices] if on_device else self.images[batch.indices].to(self.device, non_blocking=True)
        if self.augments:
            draws = augmentation_draws(self.seed, batch.epoch, len(self), self.device)[indices]
            images = augment(images.float(), draws, self.strength, self.flip)
        return images, self.labels[indices]


# ---------------------------------------------------------------------------------------- augmentation

ROTATION, SHIFT, SCALE, CONTRAST = math.radians(15), 0.1, 0.2, 0.1  # largest change at strength 1
GREY = 127.5


@lru_cache(maxsize=1)
def augmentation_draws(seed: int, epoch: int, num_examples: int, device: torch.device) -> Tensor:
    """num_examples x 9 numbers in -1..1 that decide how each example is augmented in this epoch.

    Drawn for the whole epoch at once, so that an example's do not depend on the batch or process that asks.
    """
    draws = make_rng(seed, epoch, 1).uniform(-1, 1, (num_examples, 9)).astype(np.float32)
    return torch.from_numpy(draws).to(device)


def augment(images: Tensor, draws: Tensor, strength: float, flip: bool) -> Tensor:
    """Rotate, scale, shift and light each image its own way, as another photo of the same thing would.

    Args:
        images: batch_size x 3 x height x width, float, 0..255.
        draws: batch_size x 9 in -1..1: mirror, angle, scale, two shifts, contrast, and an offset per channel.
        strength: what the largest changes (ROTATION, ...) are multiplied by.
        flip: mirror an image when its first draw is negative.
    """
    angle, zoom, shift_x, shift_y, contrast, *tint = (strength * draws[:, 1:]).unbind(1)
    scale = torch.exp(-math.log1p(SCALE) * zoom)
    cos, sin = scale * torch.cos(ROTATION * angle), scale * torch.sin(ROTATION * angle)
    side = torch.where(draws[:, 0] < 0, -1.0, 1.0) if flip else torch.ones_like(angle)
    # where each output pixel comes from, in coordinates of -1..1: a shift of 2 is a whole image
    to_input = torch.stack([side * cos, -sin, 2 * SHIFT * shift_x, side * sin, cos, 2 * SHIFT * shift_y], dim=1)
    grid = F.affine_grid(to_input.view(-1, 2, 3), list(images.shape), align_corners=False)
    images = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    contrast = torch.exp(CONTRAST * contrast).view(-1, 1, 1, 1)  # about mid-grey
    offset = GREY * (1 - contrast) + GREY * CONTRAST / 2 * torch.stack(tint, dim=1)[:, :, None, None]
    return torch.addcmul(offset, images, contrast)


# --------------------------------------------------------------------------------------------- pixels


def load_pixels(folder: Path, files: list[str], image_size: int) -> Tensor:
    """All images of a folder, decoded by the first run and mapped into memory by the later ones.

    The cache is named after the names, sizes and times of the files: when one changes, all are read again.

    Returns:
        num_images x 3 x image_size x image_size, uint8.

    Raises:
        UserError: a file is no image, or not of that size; it is named.
    """
    state = hashlib.blake2b(f"{image_size}".encode(), digest_size=16)
    for file in files:
        stat = os.stat(os.path.join(folder, file))
        state.update(os.fsencode(f"{file}\0{stat.st_size}\0{stat.st_mtime_ns}\n"))
    cache = folder.parent / ".cache" / f"{folder.name}-{state.hexdigest()}.uint8"
    shape = (len(files), 3, image_size, image_size)

    def is_there() -> bool:
        return cache.is_file() and cache.stat().st_size == math.prod(shape)

    if not is_there():
        partial = cache.with_suffix(f".{os.getpid()}")
        try:
            cache.parent.mkdir(exist_ok=True)
            for old in cache.parent.glob(f"{folder.name}-*"):  # of other pixels, or of a process that was killed
                old.unlink()
            decode_all(folder, files, map_pixels(partial, shape, shared=True))
            os.replace(partial, cache)
        except OSError as error:
            if not is_there():  # which another process may have seen to; a read-only or full disk has none
                logger.warning("%s: no cache of the decoded images (%s).", cache.parent, error)
                return decode_all(folder, files, torch.empty(shape, dtype=torch.uint8))
        finally:
            with contextlib.suppress(OSError):  # renamed, or never made
                partial.unlink()
    return map_pixels(cache, shape, shared=False)


def map_pixels(path: Path, shape: tuple[int, ...], shared: bool) -> Tensor:
    """A file as a tensor; what is written to it reaches the file if it is `shared`. Raises OSError on a full disk."""
    size = math.prod(shape)
    if shared:
        with open(path, "wb") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)  # or the disk would turn out full only at a write
            file.truncate(size)
    return torch.from_file(str(path), shared=shared, size=size, dtype=torch.uint8).view(shape)


def decode_all(folder: Path, files: list[str], pixels: Tensor) -> Tensor:
    """Fill `pixels`, num_images x 3 x height x width. Raises UserError that names the files which do not fit."""
    height, width = pixels.shape[2:]

    def decode(index: int) -> str | None:
        try:
            with Image.open(folder / files[index]) as image:
                array = np.array(image.convert("RGB"))
        except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, ...
            return f"{folder / files[index]}: {str(error) or type(error).__name__}"
        if array.shape != (height, width, 3):
            return f"{folder / files[index]}: {array.shape[1]}x{array.shape[0]} pixels, not {width}x{height}"
        pixels[index] = torch.from_numpy(array).permute(2, 0, 1)
        return None

    problems = [problem for problem in in_threads(decode, range(len(files)), f"reading {folder.name}") if problem]
    if problems:
        raise UserError(f"{len(problems)} images cannot be used:\n  " + "\n  ".join(problems[:20]))
    return pixels
