"""What the commands share: errors, signals, logging, whole files, checkpoints, locks, and progress.

torch is imported where it is needed and not at the top: a table of results or a misspelt name need not wait for it.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import logging
import os
import shutil
import signal
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

if TYPE_CHECKING:
    pass

logger = logging.getLogger(__name__)


# ----------------------------------------------------------------------------------------------- errors


class UserError(Exception):
    """Something that the user can put right. The text says what was expected and what to do; exit status 2."""

    exit_status = 2


class Diverged(UserError):
    """The loss, or its gradient, is not finite; exit status 3."""

    exit_status = 3


def run_command(main: Callable[[], None]) -> None:
    """Run a command's `main`, turning UserError and signals into a message and an exit status."""
    set_logger()
    threading.excepthook = _report_thread
    status = 0
    try:
        with stop:
            main()
    except (UserError, Stopped) as error:
        report(error)
        status = error.exit_status
    except Exception as error:
        if isinstance(error, BrokenPipeError):
            silence(sys.stdout.fileno())
            status = 128 + 13  # SIGPIPE, as of any program in a pipe
        elif isinstance(error, OSError) and error.errno in (*DISK_FULL, errno.EROFS, errno.EACCES):
            report(explain(error))
            status = 2
        elif is_out_of_memory(error):
            first = (str(error).strip() or "no more to be had").split("\n")[0]
            report(UserError(f"Out of memory ({first}). In training, a smaller batch_size or network needs less."))
            status = 2
        else:
            logger.exception("This is a bug in the program, not in what it was given:")
            status = 1
    if status:  # outside, where the error and all that it holds, such as loaders with workers, is gone
        sys.exit(status)


def is_out_of_memory(error: Exception) -> bool:
    """Of the process (NumPy and torch say it differently) or of the device."""
    return isinstance(error, MemoryError) or any(
        sign in f"{type(error).__name__} {error}" for sign in ("OutOfMemoryError", "can't allocate memory")
    )


def _report_thread(problem: Any) -> None:
    if isinstance(problem.exc_value, OSError) and problem.exc_value.errno in DISK_FULL:
        return  # TensorBoard's: it raises the same where it is next asked to write
    threading.__excepthook__(problem)


def report(error: BaseException) -> None:
    with contextlib.suppress(UserError):  # the log file's disk is full: the console has it
        logger.error("%s", error)


# ---------------------------------------------------------------------------------------------- signals


class Stopped(BaseException):
    """A signal asked the command to stop; exit status 128 + its number, as shells have it.

    Like KeyboardInterrupt it is no Exception, so that nobody takes it for a damaged file.
    """

    def __init__(self, number: int):
        super().__init__(f"Stopped by {signal.Signals(number).name}.")
        self.exit_status = 128 + number


class Stop:
    """What Ctrl-C, SIGTERM and the end of the terminal do to a command: raise Stopped, once that does no harm.

    A second signal ends the process at once, unless `is_patient`.
    """

    def __init__(self) -> None:
        self.received = 0
        self.is_patient = False
        self.is_deferred = False
        self.before: dict[int, Any] = {}

    def __enter__(self) -> None:
        self.received = 0
        numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
        # left alone if ignored, as nohup or a shell's & have it, or (None) not Python's
        numbers = [number for number in numbers if signal.getsignal(number) not in (signal.SIG_IGN, None)]
        self.before = {number: signal.signal(number, self._receive) for number in numbers}

    def __exit__(self, *_: Any) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, _: Any) -> None:
        if self.received:
            if self.is_patient:
                return
            os._exit(128 + number)
        self.received = number
        with contextlib.suppress(OSError):  # a stream that is closed, or read by a program that got the signal too
            if number == getattr(signal, "SIGHUP", None):
                for descriptor in (1, 2):
                    if stat.S_ISCHR(os.fstat(descriptor).st_mode):  # the terminal, which is gone
                        silence(descriptor)
            if self.is_deferred:  # not by the logger, in the middle of whose work this may be
                os.write(2, b"\nStopping after this batch; a second signal stops at once.\n")
        if not self.is_deferred:
            raise Stopped(number)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Within, a signal waits for the next `check`."""
        self.is_deferred = True
        try:
            yield
        finally:
            self.is_deferred = False

    def check(self) -> None:
        """Raise Stopped if a signal has come."""
        if self.received:
            raise Stopped(self.received)


stop = Stop()


def silence(descriptor: int) -> None:
    """Let what is written there vanish: nobody reads it any more, and a write would fail."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, descriptor)
    os.close(devnull)


# ---------------------------------------------------------------------------------------------- logging


class _Console(logging.StreamHandler[Any]):
    """Prints above a progress bar instead of through it; errors go to stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        stream = sys.stderr if record.levelno >= logging.ERROR else sys.stdout
        try:
            tqdm.write(self.format(record), file=stream)
        except OSError as error:
            silence(stream.fileno())
            if error.errno not in (errno.EPIPE, errno.EIO):  # nobody reads any more: no reason to stop
                raise UserError(f"{stream.name}: cannot be written to ({error.strerror}).") from None


class _LogFile(logging.FileHandler):
    """A file that cannot be written to is an error, once, and not a traceback for each line."""

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        logging.getLogger().removeHandler(self)
        with contextlib.suppress(OSError):  # what it still holds cannot be written either
            self.close()
        if isinstance(error, OSError):
            raise explain(error, Path(self.baseFilename), len(self.format(record)) + 1) from None
        raise


def set_logger(log_file: Path | None = None) -> None:
    """Log to the console and, given a file, append the same to it with the time before each line."""
    root = logging.getLogger()
    for ours in ("utils", "engine", "model", "search"):  # matplotlib and others are heard from WARNING on
        logging.getLogger(ours).setLevel(logging.INFO)
    if not any(isinstance(handler, _Console) for handler in root.handlers):
        root.addHandler(_Console())
        for stream in (sys.stdout, sys.stderr):  # a file name that is no Unicode is no reason to stop
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace", line_buffering=True)
        logging.captureWarnings(True)
    if log_file is not None:
        handler = _LogFile(log_file, encoding="utf-8", errors="backslashreplace")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s: %(message)s"))
        root.addHandler(handler)


# ------------------------------------------------------------------------------------------------ files


DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


def write_atomically(path: Path, content: bytes | memoryview | str, sync_folder: bool = True) -> None:
    """Write a file that is, at every moment and after any crash, either the old one or the new one, whole.

    Args:
        sync_folder: have the new name on disk when this returns, not only soon after.

    Raises:
        UserError: the disk is full. The old file is untouched.
    """
    data = content.encode() if isinstance(content, str) else content
    partial = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")  # beside it: a rename crosses no file system
    try:
        try:
            with open(partial, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise explain(error, path, len(data)) from None
    if sync_folder and os.name == "posix":
        folder = os.open(path.parent, os.O_RDONLY)
        with contextlib.suppress(OSError):  # network file systems may not know how
            os.fsync(folder)
        os.close(folder)


PARTIAL = ".partial"


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


def save_json(values: Any, path: Path) -> None:
    write_atomically(path, json.dumps(values, indent=4) + "\n")


def check_writable(folder: Path) -> None:
    """Make `folder` if need be. Raises UserError now rather than after the first epoch."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".writable.{os.getpid()}{PARTIAL}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(f"{folder}: cannot be written to ({error.strerror}). Choose another folder.") from None


# --------------------------------------------------------------------------------------------- progress


def in_threads(function: Callable[[Any], Any], items: Sequence[Any], description: str) -> Iterator[Any]:
    """`map` over all cores, in order, with a progress bar: for work that lets go of Python's lock, as Pillow's does."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        chunks = (items[start : start + 1000] for start in range(0, len(items), 1000))  # a million futures take room
        results = (result for chunk in chunks for result in pool.map(function, chunk))
        yield from Progress(results, description, len(items))


class Progress:
    """A progress bar that shows numbers without slowing the loop: they are computed once a second at most.

    Between two items it looks whether a signal has come, and if so raises Stopped.

    Args:
        done: items of `total` that an earlier process has seen to.
    """

    def __init__(self, iterable: Any, description: str, total: int | None = None, done: int = 0):
        self.bar = tqdm(iterable, description, total, leave=False, disable=not sys.stderr.isatty(), initial=done)
        self.last = time.monotonic()

    def __iter__(self) -> Iterator[Any]:
        for item in self.bar:
            stop.check()
            yield item

    def show(self, numbers: Callable[[], Mapping[str, float]]) -> None:
        now = time.monotonic()
        if not self.bar.disable and now - self.last > 1:
            self.bar.set_postfix({name: f"{value:.3f}" for name, value in numbers().items()}, refresh=False)
            self.last = now
