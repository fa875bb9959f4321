"""What the commands share: errors, signals, logging, whole files, checkpoints, locks, and progress.

torch is imported where it is needed and not at the top: a table of results or a misspelt name need not wait for it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import itertools
import json
import logging
import os
import re
import shutil
import signal
import socket
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
    import torch

logger = logging.getLogger(__name__)


# ---------------------------------------------------------------------------------------------- errors


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


# --------------------------------------------------------------------------------------------- signals


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


# --------------------------------------------------------------------------------------------- logging


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
    for ours in ("utils", "model"):  # matplotlib and others are heard from WARNING on
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


# ----------------------------------------------------------------------------------------------- files


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


# ----------------------------------------------------------------------------------------- checkpoints

KEEP_EPOCHS = 5
KEEP_WITHIN_EPOCH = 2
CHECKPOINT_HINT = "Expected weights that train.py saved, such as best_weights/epoch_0012.pt."


def save_checkpoint(checkpoint: dict[str, Any], model_dir: Path, is_best: bool) -> None:
    """Save to last_weights/ and, if it is the best so far, to best_weights/.

    last_weights/ keeps the last five epochs, and of the epoch that is under way the last two checkpoints.

    Args:
        checkpoint: tensors and plain values only, so that it loads with `weights_only=True`; `epoch`, how many are
            finished, and `batch`, how many of the next one are done, name the file.
    """
    import torch

    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    content = buffer.getbuffer()
    name = f"epoch_{checkpoint['epoch']:04d}" + (f"_batch_{checkpoint['batch']:06d}" if checkpoint["batch"] else "")
    # the same in both: whoever is killed in between goes on from best_weights/
    for folder in ("best_weights", "last_weights") if is_best else ("last_weights",):
        _write_checkpoint(model_dir / folder / f"{name}.pt", content)


def _write_checkpoint(path: Path, content: bytes | memoryview) -> None:
    digest = hashlib.sha256(content).hexdigest()
    path.parent.mkdir(exist_ok=True)
    try:
        # first, so that no checkpoint is ever without one; what `sha256sum --check` reads
        write_atomically(_digest_of(path), f"{digest}  {path.name}\n", sync_folder=False)
        write_atomically(path, content)
    finally:
        _tidy(path.parent)


def _tidy(folder: Path) -> None:
    """Delete the checkpoints that newer ones replace, and digests of none."""
    paths = list_checkpoints(folder)
    epochs = [path for path in paths if "_batch_" not in path.name]
    under_way = paths[paths.index(epochs[-1]) + 1 :] if epochs else paths
    kept = paths[-1:] if folder.name == "best_weights" else epochs[-KEEP_EPOCHS:] + under_way[-KEEP_WITHIN_EPOCH:]
    for path in set(paths) - set(kept):
        path.unlink()
    for digest in folder.glob("*.sha256"):
        if not digest.with_suffix(".pt").exists():
            digest.unlink()


def _digest_of(path: Path) -> Path:
    return path.with_suffix(".sha256")


def position(path: Path) -> tuple[int, int]:
    """How many epochs were finished, and how many batches of the next one done, when a checkpoint was saved."""
    epoch, _, batch = path.stem.removeprefix("epoch_").partition("_batch_")
    return int(epoch), int(batch or 0)


def list_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in `folder`, the latest last."""
    paths = [path for path in folder.glob("epoch_*.pt") if re.fullmatch(r"epoch_\d+(_batch_\d+)?", path.stem)]
    return sorted((path for path in paths if path.is_file()), key=position)


def load_newest(model_dir: Path) -> dict[str, Any] | None:
    """The newest whole checkpoint of the run in `model_dir`, or None if there is no run.

    Newer ones, which are damaged, are named, and its `damaged` lists them.

    Raises:
        UserError: all of them are damaged.
    """
    damaged: list[Path] = []
    paths = list_checkpoints(model_dir / "last_weights") + list_checkpoints(model_dir / "best_weights")
    for path in sorted(paths, key=position, reverse=True):
        try:
            checkpoint = load_checkpoint(path)
            if "digests" not in checkpoint:
                raise UserError(f"{path}: weights alone, or of another version: no state to go on from.")
            return {**checkpoint, "damaged": damaged}
        except UserError as error:
            logger.warning("%s Taking the one before it.", error)
            damaged.append(path)
    if paths:
        raise UserError(f"{model_dir}: no checkpoint is whole. To start again: --restart.")
    return None


def mend(model_dir: Path, newest: dict[str, Any], best_epoch: int) -> None:
    """Set damaged checkpoints aside as .damaged, and let last_weights/ have the newest and best_weights/ the best one.

    Args:
        newest: what `load_newest` found.
        best_epoch: 0 if there is none yet.
    """
    for path in newest["damaged"]:
        path.replace(path.with_suffix(".damaged"))  # or it would pass for the newest
        logger.warning("%s: damaged, set aside as .damaged", path)
    last, best = model_dir / "last_weights", model_dir / "best_weights"
    wanted = {last / Path(newest["path"]).name} | ({best / f"epoch_{best_epoch:04d}.pt"} if best_epoch else set())
    for path in wanted - {Path(newest["path"])}:
        for source in (path, last / path.name, best / path.name):
            try:
                load_checkpoint(source)
            except (UserError, FileNotFoundError):
                continue
            if source != path:
                logger.warning("%s: gone or damaged, taken from %s again", path, source)
                _write_checkpoint(path, source.read_bytes())
            break
        else:
            logger.warning("%s: gone or damaged, and there is no copy.", path)


def fetch_checkpoint(model_dir: Path, restore_file: str) -> dict[str, Any]:
    """Load `best`, `last`, or a path given as such. Raises UserError when there is none, or it is damaged."""
    if restore_file not in ("best", "last"):
        if not Path(restore_file).is_file():
            raise UserError(f"--restore_file {restore_file}: no such file. Expected best, last, or a path.")
        return load_checkpoint(Path(restore_file))
    others = {"best": "last", "last": "best"}[restore_file]
    hint = f" There are others: --restore_file {others}." if list_checkpoints(model_dir / f"{others}_weights") else ""
    while found := list_checkpoints(model_dir / f"{restore_file}_weights"):
        try:
            return load_checkpoint(found[-1])
        except FileNotFoundError:
            continue  # a run that is going on here has a better one now
        except UserError as error:
            raise UserError(f"{error}{hint}") from None
    hint = hint or f" Train first: python train.py --model_dir {model_dir}"
    raise UserError(f"{model_dir}: no {restore_file} weights.{hint}")


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint into CPU memory; nothing in it is executed.

    Raises:
        UserError: the file is no checkpoint, or its bytes are not the ones that were saved.
        FileNotFoundError: it is not there.
    """
    import torch

    try:
        content = path.read_bytes()
        digest = _digest_of(path).read_text(errors="replace") if _digest_of(path).exists() else None
    except (FileNotFoundError, PermissionError):
        raise
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from None
    if digest is None:
        logger.warning("%s: has no .sha256 beside it, which would tell whether it is damaged.", path)
    elif digest.split()[:1] != [hashlib.sha256(content).hexdigest()]:
        raise UserError(f"{path}: damaged: its bytes are not those that were saved (SHA-256).")
    try:
        checkpoint = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # torch.load lets out whatever its parsers met; all of it means the same
        code = re.search(r"nsupported (?:global: )?GLOBAL (\S+)", str(error))
        reason = f"it would run {code[1]}, and is not let" if code else "it cannot be read as one"
        raise UserError(f"{path}: not a checkpoint ({reason}). {CHECKPOINT_HINT}") from None
    weights = checkpoint.get("state_dict") if isinstance(checkpoint, dict) else None
    if not isinstance(weights, dict) or not all(isinstance(value, torch.Tensor) for value in weights.values()):
        raise UserError(f"{path}: not a checkpoint (it holds no state_dict). {CHECKPOINT_HINT}")
    return {**checkpoint, "path": str(path)}


def restore_weights(net: torch.nn.Module, checkpoint: dict[str, Any]) -> None:
    """Put a checkpoint's weights into `net`. Raises UserError that names every parameter that does not fit."""
    ours, theirs = net.state_dict(), checkpoint["state_dict"]
    problems = [f"{name}: only in the checkpoint" for name in theirs.keys() - ours.keys()]
    problems += [f"{name}: not in the checkpoint" for name in ours.keys() - theirs.keys()]
    for name in ours.keys() & theirs.keys():
        if ours[name].shape != theirs[name].shape:
            problems.append(f"{name}: {list(theirs[name].shape)} in the checkpoint, {list(ours[name].shape)} here")
    if problems:
        raise UserError("\n  ".join([f"{checkpoint['path']}: weights of another architecture", *sorted(problems)]))
    net.load_state_dict(theirs)


# ---------------------------------------------------------------------------------------------- locks

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


# ------------------------------------------------------------------------------------------- progress


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
