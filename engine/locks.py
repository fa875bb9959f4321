"""Let one run at a time into a folder."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from utils import PARTIAL, UserError, logger, save_json

# files that a killed run may have left half-written; those of evaluate.py are not among them, since it may be running
UNFINISHED = ("*_weights/.*", ".run.*", ".history.*", ".metrics_eval_*", ".curves.*", ".lock.*", ".params.*")


class Busy(UserError):
    """Another run is going on in the folder."""


@contextlib.contextmanager
def locked(model_dir: Path) -> Iterator[None]:
    """Keep other runs out of `model_dir` during the block, and delete the half-written files of a killed one.

    The operating system holds the lock, and releases it when the process ends, however that happens.

    Raises:
        Busy: a run is going on there; its host and process are named.
    """
    from filelock import FileLock, Timeout

    # wait a little, since `is_locked` holds the lock for a moment
    lock, holder = FileLock(model_dir / LOCK, timeout=0.2), model_dir / LOCK_HOLDER
    try:
        lock.acquire()
    except Timeout:
        there: dict[str, Any] = {}
        with contextlib.suppress(OSError, ValueError):  # that run has only just begun, or just ended
            there = json.loads(holder.read_text(encoding="utf-8"))
        raise Busy(
            f"{model_dir}: another run is going on here: process {there.get('process', '(just starting)')} on"
            f" {there.get('host', 'an unknown host')}, since {there.get('since', 'now')}."
            " Wait for it, stop it, or train in another folder."
        ) from None
    try:
        for partial in itertools.chain(*(model_dir.glob(pattern + PARTIAL) for pattern in UNFINISHED)):
            partial.unlink()
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        save_json({"host": socket.gethostname(), "process": os.getpid(), "since": since}, holder)
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


@contextlib.contextmanager
def one_at_a_time(path: Path, waiting: str) -> Iterator[None]:
    """Let one process at a time into the block; `path` is the lock. Whoever has to wait logs `waiting`."""
    from filelock import FileLock, Timeout

    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        logger.info("%s", waiting)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def is_locked(model_dir: Path) -> bool:
    from filelock import FileLock, Timeout

    try:
        with FileLock(model_dir / LOCK, blocking=False):
            return False
    except Timeout:
        return True


LOCK, LOCK_HOLDER = ".lock", ".lock.json"  # the first stays: if it were deleted, two runs could each lock their own
