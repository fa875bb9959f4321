"""What tests and benchmarks share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image


def draw_photo(path: Path, number: int, size: tuple[int, int] = (24, 24), **options: Any) -> None:
    """A photo of class `number`: a bright square whose place says which, in noise that its path decides."""
    rng = np.random.default_rng(list(path.name.encode()))
    pixels = rng.integers(0, 90, (size[1], size[0], 3), dtype=np.uint8)
    step = size[0] // 4
    pixels[step : 2 * step, number * step : (number + 1) * step] = 230
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def draw_photos(folder: Path, train: int = 20, test: int = 5, classes: int = 3) -> Path:
    """Raw photos in the layout of SIGNS."""
    for split, count in (("train", train), ("test", test)):
        for number in range(classes):
            for i in range(count):
                draw_photo(folder / f"{split}_signs" / f"{number}_IMG_{split}{i}.jpg", number)
    return folder


def timeless(value: Any) -> Any:
    """A checkpoint, or a part of one, without what no two runs share: how long they took, and where they lie."""
    if isinstance(value, dict):
        different = ("seconds", "examples_per_second", "num_workers", "checkpoint_minutes", "path")
        return {name: timeless(part) for name, part in value.items() if name not in different}
    if isinstance(value, list | tuple):
        return [timeless(part) for part in value]
    return value.numpy().tobytes() if isinstance(value, torch.Tensor) else value
