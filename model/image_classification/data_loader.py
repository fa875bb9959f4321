"""data_dir -> batches: the Dataset. (engine/loaders.py makes the DataLoader from it.)

Every image is decoded once in the life of a data set: the pixels then lie in `data_dir/.cache/`, and each later run
maps that file into memory. A batch is one indexing operation, and one augmentation of all its images at once.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from engine.cache import cached_array
from engine.images import list_images
from engine.loaders import Batch, make_rng
from engine.loaders import Dataset as BaseDataset
from utils import UserError, in_threads

from .dataset import label_of
from .params import Params


class Dataset(BaseDataset):
    """One split of a built data set, as uint8 pixels in memory (or mapped into it).

    Attributes:
        names: paths of the images relative to the split's folder, in order.
        images: num_images x 3 x image_size x image_size, uint8.
        labels: num_images, int64.
    """

    kind = "file"
    names: Sequence[str] = ()  # replaces the base class's property

    def __init__(self, data_dir: Path, split: str, params: Params, training: bool = False):
        self.arguments = data_dir, split, params, training
        self.folder = data_dir / f"{split}_signs"
        self.seed, self.strength, self.flip = params.seed, params.augmentation, params.horizontal_flip
        self.augments = training and (params.augmentation > 0 or params.horizontal_flip)
        self.names = list_images(self.folder)
        class_index = {name: i for i, name in enumerate(params.data.classes)}
        labels = [class_index.get(label_of(name), -1) for name in self.names]
        unknown = [str(self.folder / name) for name, label in zip(self.names, labels, strict=True) if label < 0]
        if unknown:
            raise UserError(
                f"{len(unknown)} images with a label outside the classes ({', '.join(class_index)}):\n  "
                + "\n  ".join(unknown[:20])
            )
        if not labels or len(labels) != params.data.sizes.get(split):
            found = f"{len(labels)} images" if labels else f"the {split} split is empty"
            raise UserError(
                f"{self.folder}: {found}, but {params.data.sizes.get(split, 0)} were built."
                " Build the data set again with --overwrite."
            )
        self.labels = torch.tensor(labels)
        self.images = load_pixels(self.folder, self.names, params.data.image_size)
        self.device = self.labels.device

    def __reduce__(self) -> Any:
        """A worker process that is not forked maps the pixels itself."""
        return Dataset, self.arguments

    def to(self, device: torch.device) -> None:
        """Make batches on `device`. The pixels move there too if they fit in a quarter of a GPU's free memory."""
        self.labels = self.labels.to(device)
        self.device = self.labels.device  # cuda:0, where `device` may only say cuda
        if device.type == "cuda" and self.images.nbytes < torch.cuda.mem_get_info(device)[0] / 4:
            self.images = self.images.to(device)

    def __len__(self) -> int:
        return len(self.names)

    def digest(self) -> str:
        """Of the names and sizes of the files, which is fast. An edit that keeps every size goes unnoticed."""
        digest = hashlib.sha256()
        for name in self.names:
            digest.update(os.fsencode(f"{name}\0{os.stat(os.path.join(self.folder, name)).st_size}\n"))
        return digest.hexdigest()

    def describe(self, indices: Sequence[int]) -> str:
        return f"in {self.folder}: {', '.join(self.names[index] for index in indices)}"

    def __getitems__(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The images of a batch, uint8 in 0..255, or augmented float32 of about that range, and their labels."""
        indices = batch.indices.to(self.device, non_blocking=True)
        if self.images.device == self.device:
            images = self.images[indices]
        else:
            images = self.images[batch.indices].to(self.device, non_blocking=True)
        if self.augments:
            draws = augmentation_draws(self.seed, batch.epoch, len(self), self.device)[indices]
            images = augment(images.float(), draws, self.strength, self.flip)
        return images, self.labels[indices]


def load_pixels(folder: Path, names: Sequence[str], image_size: int) -> Tensor:
    """All images of a folder, num_images x 3 x image_size x image_size, uint8. See `cached_array`.

    Raises:
        UserError: a file is no image, or not of that size; it is named.
    """
    state = hashlib.blake2b(f"{image_size}".encode(), digest_size=16)
    for name in names:
        stat = os.stat(os.path.join(folder, name))
        state.update(os.fsencode(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\n"))

    def decode_all(pixels: Tensor) -> None:
        def decode(index: int) -> str | None:
            try:
                with Image.open(folder / names[index]) as image:
                    array = np.array(image.convert("RGB"))
            except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, ...
                return f"{folder / names[index]}: {str(error) or type(error).__name__}"
            if array.shape != (image_size, image_size, 3):
                size = f"{array.shape[1]}x{array.shape[0]}"
                return f"{folder / names[index]}: {size} pixels, not {image_size}x{image_size}"
            pixels[index] = torch.from_numpy(array).permute(2, 0, 1)
            return None

        results = in_threads(decode, range(len(names)), f"reading {folder.name}")
        if problems := [problem for problem in results if problem]:
            raise UserError(f"{len(problems)} images cannot be used:\n  " + "\n  ".join(problems[:20]))

    shape = (len(names), 3, image_size, image_size)
    return cached_array(folder.parent / ".cache", folder.name, state.hexdigest(), shape, decode_all)


# ---------------------------------------------------------------------------------------- augmentation

ROTATION, SHIFT, SCALE, CONTRAST = math.radians(15), 0.1, 0.2, 0.1  # largest change at strength 1
GREY = 127.5
NUM_DRAWS = 9  # of an example. To add an augmentation, raise it and use the new column of `draws` in `augment`
AUGMENTATION = 1  # part of the key of these random numbers, to have others than the order of examples


@lru_cache(maxsize=1)
def augmentation_draws(seed: int, epoch: int, num_examples: int, device: torch.device) -> Tensor:
    """num_examples x NUM_DRAWS numbers in -1..1 that decide how each example is augmented in this epoch.

    They are drawn for the whole epoch at once, so that an example's do not depend on its batch or process. With torch's
    own generator instead, a resumed run would differ.
    """
    draws = make_rng(seed, epoch, AUGMENTATION).uniform(-1, 1, (num_examples, NUM_DRAWS)).astype(np.float32)
    return torch.from_numpy(draws).to(device)


def augment(images: Tensor, draws: Tensor, strength: float, flip: bool) -> Tensor:
    """Change the rotation, size, place, contrast and tint of each image in its own way.

    Args:
        images: batch_size x 3 x height x width, float, 0..255.
        draws: batch_size x NUM_DRAWS in -1..1: mirror, angle, scale, two shifts, contrast, and an offset per channel.
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
