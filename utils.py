"""What the commands share: errors, logging, files that are whole or absent, checkpoints, and progress.

torch is imported where it is needed and not at the top: a table of results or a misspelt name need not wait for it.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import logging
import os
import sys
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
    """The loss stopped being a number; exit status 3."""

    exit_status = 3


def run_command(main: Callable[[], None]) -> None:
    """Run a command's `main`, turning UserError and Ctrl-C into a message and an exit status."""
    set_logger()
    try:
        main()
    except UserError as error:
        logger.error("%s", error)
        sys.exit(error.exit_status)
    except KeyboardInterrupt:
        logger.error("Interrupted.")
        sys.exit(130)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
            logger.error("%s", error)
            sys.exit(2)
        logger.exception("This is a bug in the program, not in what it was given:")
        sys.exit(1)


# --------------------------------------------------------------------------------------------- logging


class _Console(logging.StreamHandler[Any]):
    """Prints above a progress bar instead of through it; errors go to stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr if record.levelno >= logging.ERROR else sys.stdout)


def set_logger(log_file: Path | None = None) -> None:
    """Log to the console and, given a file, append the same to it with the time before each line."""
    root = logging.getLogger()
    for ours in ("utils", "model"):  # matplotlib and others are heard from WARNING on
        logging.getLogger(ours).setLevel(logging.INFO)
    if not any(isinstance(handler, _Console) for handler in root.handlers):
        root.addHandler(_Console())
        for stream in (sys.stdout, sys.stderr):  # a file name that is no Unicode is no reason to stop
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        logging.captureWarnings(True)
    if log_file is not None:
        handler = logging.FileHandler(log_file, encoding="utf-8", errors="backslashreplace")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s: %(message)s"))
        root.addHandler(handler)


# ----------------------------------------------------------------------------------------------- files


def write_atomically(path: Path, content: bytes | memoryview | str) -> None:
    """Write a file that is, at every moment, either the old one or the new one, whole."""
    data = content.encode() if isinstance(content, str) else content
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(partial, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def save_json(values: Any, path: Path) -> None:
    write_atomically(path, json.dumps(values, indent=4) + "\n")


def check_writable(folder: Path) -> None:
    """Make `folder` if need be. Raises UserError now rather than after the first epoch."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".writable.{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(f"{folder}: cannot be written to ({error.strerror}). Choose another folder.") from None


# ----------------------------------------------------------------------------------------- checkpoints

KEEP_LAST = 5
CHECKPOINT_HINT = "Expected weights that train.py saved, such as experiments/base_model/best_weights/epoch_0012.pt."


def save_checkpoint(checkpoint: dict[str, Any], model_dir: Path, is_best: bool) -> None:
    """Save to last_weights/, where the last five epochs are kept, and to best_weights/ if it is the best so far.

    Args:
        checkpoint: tensors and plain values only, so that it loads with `weights_only=True`; `epoch` names the file.
    """
    import torch

    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    content = buffer.getbuffer()
    digest = hashlib.sha256(content).hexdigest()
    # best first: whoever is killed in between repeats this epoch and finds it there again
    for folder, keep in [("best_weights", 1)] * is_best + [("last_weights", KEEP_LAST)]:
        path = model_dir / folder / f"epoch_{checkpoint['epoch']:04d}.pt"
        path.parent.mkdir(exist_ok=True)
        write_atomically(_digest_of(path), digest + "\n")  # first, so that no checkpoint is ever without one
        write_atomically(path, content)
        for old in list_checkpoints(path.parent)[:-keep]:
            old.unlink()
            _digest_of(old).unlink(missing_ok=True)


def _digest_of(path: Path) -> Path:
    return path.with_suffix(".sha256")


def list_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in `folder`, the latest epoch last."""
    return sorted(folder.glob("epoch_*.pt"), key=lambda path: int(path.stem.split("_")[1]))


def find_checkpoint(model_dir: Path, restore_file: str) -> Path:
    """The path of `best`, `last`, or a path given as such. Raises UserError when there is none."""
    if restore_file not in ("best", "last"):
        if not Path(restore_file).is_file():
            raise UserError(f"--restore_file {restore_file}: no such file. Expected best, last, or a path.")
        return Path(restore_file)
    found = list_checkpoints(model_dir / f"{restore_file}_weights")
    if not found:
        raise UserError(f"{model_dir}: no {restore_file} weights. Train first: python train.py --model_dir {model_dir}")
    return found[-1]


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint into CPU memory; nothing in it is executed.

    Raises:
        UserError: the file is no checkpoint, or its bytes are not the ones that were saved.
    """
    import torch

    content = path.read_bytes()
    digest_file = _digest_of(path)
    if digest_file.exists() and digest_file.read_text().strip() != hashlib.sha256(content).hexdigest():
        raise UserError(f"{path}: damaged: its bytes are not those that were saved.")
    try:
        checkpoint = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load lets out whatever its parsers met; all of it means the same
        reason = str(error).strip().split("\n")[0][:120]
        raise UserError(f"{path}: not a checkpoint ({reason or type(error).__name__}). {CHECKPOINT_HINT}") from None
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


# ------------------------------------------------------------------------------------------- progress


def in_threads(function: Callable[[Any], Any], items: Sequence[Any], description: str) -> Iterator[Any]:
    """`map` over all cores, in order, with a progress bar: for work that lets go of Python's lock, as Pillow's does."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        chunks = (items[start : start + 1000] for start in range(0, len(items), 1000))  # a million futures take room
        results = (result for chunk in chunks for result in pool.map(function, chunk))
        yield from Progress(results, description, len(items))


class Progress:
    """A progress bar that shows numbers without slowing the loop: they are computed once a second at most."""

    def __init__(self, iterable: Any, description: str, total: int | None = None):
        self.bar = tqdm(iterable, description, total, leave=False, disable=not sys.stderr.isatty())
        self.last = time.monotonic()

    def __iter__(self) -> Iterator[Any]:
        return iter(self.bar)

    def show(self, numbers: Callable[[], Mapping[str, float]]) -> None:
        now = time.monotonic()
        if not self.bar.disable and now - self.last > 1:
            self.bar.set_postfix({name: f"{value:.3f}" for name, value in numbers().items()}, refresh=False)
            self.last = now
