"""Arrays that are computed once and mapped into memory by every later run."""

from __future__ import annotations

import contextlib
import logging
import math
import os
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from engine.building import process_is_alive

logger = logging.getLogger(__name__)


def cached_array(folder: Path, name: str, state: str, shape: tuple[int, ...], fill: Callable[[Tensor], None]) -> Tensor:
    """A uint8 array: mapped from its file in `folder`, which the first run writes.

    Args:
        name, state: the file is {name}-{state}.uint8. `state` hashes what the content depends on; files of the same
            name in other states are deleted.
        fill: writes the content into an array of `shape`, if there is no file yet.

    Raises:
        What `fill` raises.
    """
    cache, size = folder / f"{name}-{state}.uint8", math.prod(shape)
    if not (cache.is_file() and cache.stat().st_size == size):
        partial = cache.with_suffix(f".{os.getpid()}")
        try:
            folder.mkdir(exist_ok=True)
            for old in folder.glob(f"{name}-*"):
                pid = old.suffix[1:]  # of a first run that is writing, perhaps right now
                if old != cache and (old.suffix == ".uint8" or (pid.isdecimal() and not process_is_alive(int(pid)))):
                    old.unlink(missing_ok=True)
            fill(_map(partial, shape, write=True))
            os.replace(partial, cache)
        except OSError as error:  # a read-only or full disk
            logger.warning("%s: no cache, so this is computed at every start (%s).", folder, error)
            array = torch.empty(shape, dtype=torch.uint8)
            fill(array)
            return array
        finally:
            with contextlib.suppress(OSError):  # it was renamed, or never made
                partial.unlink()
    return _map(cache, shape, write=False)


def _map(path: Path, shape: tuple[int, ...], write: bool) -> Tensor:
    """A file as a tensor; with `write`, what is written to the tensor reaches it. Raises OSError on a full disk."""
    size = math.prod(shape)
    if write:
        with open(path, "wb") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)  # else a full disk would be a crash at the first write
            file.truncate(size)
    return torch.from_file(str(path), shared=write, size=size, dtype=torch.uint8).view(shape)
