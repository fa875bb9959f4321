"""What everything may use. You need UserError, logger and Progress; the rest makes writing and printing safe."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import logging
import logging.handlers
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

from tqdm import tqdm

logger = logging.getLogger(__name__)


class UserError(Exception):
    """Something that the user can put right. The text says what was expected and what to do; exit status 2."""

    exit_status = 2


# --------------------------------------------------------------------------------------------- logging


class _Console(logging.StreamHandler[Any]):
    """Prints above a progress bar instead of through it; errors go to stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        stream = sys.stderr if record.levelno >= logging.ERROR else sys.stdout
        try:
            tqdm.write(self.format(record), file=stream)
        except OSError as error:
            silence(stream.fileno())
            if error.errno not in (errno.EPIPE, errno.EIO):  # if only the reader is gone, the command goes on
                raise UserError(f"{stream.name}: cannot be written to ({error.strerror}).") from None


class _LogFile(logging.FileHandler):
    """A file that raises one error when it cannot be written, instead of printing a traceback for each line."""

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        logging.getLogger().removeHandler(self)
        with contextlib.suppress(OSError):  # closing writes what is left, which fails the same way
            self.close()
        if isinstance(error, OSError):
            raise explain(error, Path(self.baseFilename), len(self.format(record)) + 1) from None
        raise


def set_logger(log_file: Path | None = None) -> None:
    """Log to the console and, given a file, append the same to it with the time before each line."""
    root = logging.getLogger()
    for package in ("utils", "engine", "model", "search", "results"):  # others are heard from WARNING on
        logging.getLogger(package).setLevel(logging.INFO)
    if not any(isinstance(handler, _Console) for handler in root.handlers):
        root.addHandler(_Console())
        for stream in (sys.stdout, sys.stderr):  # a file name that is not Unicode can still be printed
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace", line_buffering=True)
        logging.captureWarnings(True)
    if log_file is not None:
        handler = _LogFile(log_file, encoding="utf-8", errors="backslashreplace")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s: %(message)s"))
        for early in root.handlers:
            if isinstance(early, logging.handlers.MemoryHandler):
                for record in early.buffer:
                    handler.handle(record)
                early.buffer.clear()
        root.addHandler(handler)


@contextlib.contextmanager
def kept_for_the_log() -> Iterator[None]:
    """What is logged in the block is also written to the log file that `set_logger` opens within it, from its start."""
    early = logging.handlers.MemoryHandler(capacity=10_000, flushLevel=logging.CRITICAL + 1, flushOnClose=False)
    logging.getLogger().addHandler(early)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(early)
        early.close()


def silence(descriptor: int) -> None:
    """Send what is written to a file descriptor nowhere, since nobody reads it and writing would fail."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, descriptor)
    os.close(devnull)


# ----------------------------------------------------------------------------------------------- files

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
PARTIAL = ".partial"  # ending of a file that is being written


@contextlib.contextmanager
def whole_file(path: Path, size: int = 0) -> Iterator[IO[bytes]]:
    """A file to write that replaces `path` at the end of the block.

    At every moment, and after any crash, `path` is either the old file or the new one, complete. A message of a full
    disk names the `size`.

    Raises:
        UserError: the disk is full, and the old file untouched; or `path` is a device or a folder.
    """
    path = path.resolve() if path.is_symlink() else path  # a link stays one
    if path.exists() and not path.is_file():  # to replace /dev/null would harm the whole machine
        raise UserError(f"{path}: not a regular file, so it is not replaced.")
    partial = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")  # beside it: a rename crosses no file system
    try:
        try:
            with open(partial, "wb") as file:
                yield file
                size = size or file.tell()
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise explain(error, path, size or None) from None
    if os.name == "posix":  # the rename, too, shall be on disk when this returns
        folder = os.open(path.parent, os.O_RDONLY)
        with contextlib.suppress(OSError):  # some network file systems do not offer it
            os.fsync(folder)
        os.close(folder)


def write_atomically(path: Path, content: bytes | memoryview | str) -> None:
    """Write `content` as a `whole_file`. Raises UserError if the disk is full."""
    data = content.encode(errors="surrogateescape") if isinstance(content, str) else content  # may name files
    with whole_file(path, len(data)) as file:
        file.write(data)


def save_json(values: Any, path: Path) -> None:
    write_atomically(path, json.dumps(values, indent=4) + "\n")


def explain(error: OSError, path: Path | None = None, needed: int | None = None) -> Exception:
    """What to raise for `error`: if the disk is full, a UserError that says how full."""
    if error.errno not in DISK_FULL:
        return error
    place = path or Path(error.filename or "")
    if not place.name:
        silence(sys.stdout.fileno())
        return UserError(f"standard output: cannot be written to ({error.strerror}).")
    free = shutil.disk_usage(place if place.exists() else place.absolute().parent).free
    needs = f"{needed:,} bytes needed, " if needed is not None else ""
    why = ": a quota, or no room for another name" if needed is not None and needed < free else ""
    return UserError(
        f"{place}: the disk is full ({needs}{free:,} free{why}). What was saved before is whole. Make room, and run the"
        " same command again."
    )


def check_writable(folder: Path) -> None:
    """Make `folder` if need be. Raises UserError now rather than after the first epoch."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".writable.{os.getpid()}{PARTIAL}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(f"{folder}: cannot be written to ({error.strerror}). Choose another folder.") from None


# -------------------------------------------------------------------------------------------- progress


class Progress:
    """A progress bar that shows numbers without slowing the loop: they are computed once a second at most.

    Args:
        done: items of `total` that were done before, by an earlier process.
    """

    def __init__(self, iterable: Any, description: str, total: int | None = None, done: int = 0):
        self.bar = tqdm(iterable, description, total, leave=False, disable=not sys.stderr.isatty(), initial=done)
        self.last = time.monotonic()

    def __iter__(self) -> Iterator[Any]:
        return iter(self.bar)

    def show(self, numbers: Callable[[], Mapping[str, float]]) -> None:
        now = time.monotonic()
        if not self.bar.disable and now - self.last > 1:
            self.bar.set_postfix({name: f"{value:.3f}" for name, value in numbers().items()}, refresh=False)
            self.last = now


def in_threads(function: Callable[[Any], Any], items: Sequence[Any], description: str) -> Iterator[Any]:
    """`map` over all cores, in order, with a progress bar. For work that releases Python's lock, as Pillow's does."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        chunks = (items[start : start + 1000] for start in range(0, len(items), 1000))  # a million futures take room
        results = (result for chunk in chunks for result in pool.map(function, chunk))
        yield from Progress(results, description, len(items))
