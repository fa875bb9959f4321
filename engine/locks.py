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

from utils import PARTIAL, UserError, save_json

# what one that is killed may be writing; not what evaluate.py writes, which may be at it now
UNFINISHED = ("*_weights/.*", ".run.*", ".history.*", ".metrics_eval_*", ".curves.*", ".lock.*", ".params.*")


class Busy(UserError):
    """Another run is going on in the folder."""


@contextlib.contextmanager
def locked(model_dir: Path) -> Iterator[None]:
    """Let no other run into `model_dir` meanwhile, and clear away what one that was killed was writing.

    The lock is the operating system's: it ends with the process, however that ends.

    Raises:
        Busy: a run is going on there; its host and process are named.
    """
    from filelock import FileLock, Timeout

    # not at once: `is_locked` has it for a moment
    lock, holder = FileLock(model_dir / LOCK, timeout=0.2), model_dir / LOCK_HOLDER
    try:
        lock.acquire()
    except Timeout:
        there: dict[str, Any] = {}
        with contextlib.suppress(OSError, ValueError):  # it has only just begun, or just ended
            there = json.loads(holder.read_text())
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


def is_locked(model_dir: Path) -> bool:
    from filelock import FileLock, Timeout

    try:
        with FileLock(model_dir / LOCK, blocking=False):
            return False
    except Timeout:
        return True


LOCK, LOCK_HOLDER = ".lock", ".lock.json"  # the first stays: to take it away would let two in
