"""Arrays that are computed once and mapped into memory by every later run."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from engine.locks import one_at_a_time

logger = logging.getLogger(__name__)


def cached_array(folder: Path, name: str, state: str, shape: tuple[int, ...], fill: Callable[[Tensor], None]) -> Tensor:
    """A uint8 array: mapped from its file in `folder`. The first run writes the file, and others wait for it.

    Args:
        name, state: the file is {name}-{state}.uint8. `state` hashes what the content depends on; files of the same
            name in other states are deleted.
        fill: writes the content into an array of `shape`, if there is no file yet.

    Raises:
        What `fill` raises.
    """
    cache = folder / f"{name}-{state}.uint8"
    if (array := _read(cache, shape)) is not None:
        return array
    try:
        folder.mkdir(exist_ok=True)
        waiting = f"{folder}: another run is filling the cache. Waiting for it."
        # a lock, since the process ids of another host or container say nothing about whether a run is alive
        with one_at_a_time(folder / f"{name}.lock", waiting):
            array = _read(cache, shape)
            return _write(cache, name, shape, fill) if array is None else array
    except OSError as error:  # a read-only or full disk
        logger.warning("%s: no cache, so this is computed at every start (%s).", folder, error)
        array = torch.empty(shape, dtype=torch.uint8)
        fill(array)
        return array


def _read(cache: Path, shape: tuple[int, ...]) -> Tensor | None:
    """The array in a file; None if the file is missing or has another size. A run in another state may delete it."""
    try:
        return _map(cache, shape) if cache.stat().st_size == math.prod(shape) else None
    except OSError:
        return None


def _write(cache: Path, name: str, shape: tuple[int, ...], fill: Callable[[Tensor], None]) -> Tensor:
    for old in cache.parent.glob(f"{name}-*"):  # in other states, or of a run that was killed while it wrote
        old.unlink(missing_ok=True)
    partial = cache.with_suffix(f".{os.getpid()}")
    try:
        with open(partial, "wb") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, math.prod(shape))  # a full disk is an error here, not a crash
            file.truncate(math.prod(shape))
        fill(_map(partial, shape, "r+"))
        os.replace(partial, cache)
    finally:
        partial.unlink(missing_ok=True)  # if it was not renamed
    return _map(cache, shape)


def _map(path: Path, shape: tuple[int, ...], mode: Literal["c", "r+"] = "c") -> Tensor:
    """A file as a tensor. What is written to the tensor reaches the file only in mode "r+"."""
    return torch.from_numpy(np.memmap(path, np.uint8, mode, shape=shape))
