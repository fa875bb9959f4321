"""Checkpoints: what a run or its weights can be restored from. Written whole, checked when they are read.

`last_weights/` keeps the last five epochs, and of the epoch under way the last two checkpoints; `best_weights/` keeps
the best epoch. `epoch_0003_batch_000120.pt` was saved when 3 epochs and 120 batches of the next were done. The .sha256
file beside it holds its digest, in the format of `sha256sum --check`.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from engine.commands import command_line
from utils import UserError, logger, whole_file, write_atomically

if TYPE_CHECKING:
    import torch

KEEP_EPOCHS = 5
KEEP_WITHIN_EPOCH = 2
EXPORT_VERSION = 1  # of the files of `save_weights`
HINT = "Expected weights that train.py saved, such as best_weights/epoch_0012.pt."


# --------------------------------------------------------------------------------------------- writing


class _Hashing:
    """A file that computes the SHA-256 of what is written to it, so that a checkpoint never lies in memory twice."""

    def __init__(self, file: IO[bytes]):
        self.file, self.digest = file, hashlib.sha256()
        self.error: OSError | None = None  # torch.save raises a RuntimeError in its place

    def write(self, content: bytes) -> int:
        self.digest.update(content)
        try:
            return self.file.write(content)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self.file.flush()


def save_checkpoint(checkpoint: dict[str, Any], model_dir: Path, is_best: bool) -> None:
    """Save to last_weights/ and, if it is the best so far, to best_weights/.

    Args:
        checkpoint: tensors and plain values only, so that it loads with `weights_only=True`. Its `epoch` (how many are
            finished) and `batch` (how many of the next one are done) name the file.

    Raises:
        UserError: the disk is full.
    """
    name = f"epoch_{checkpoint['epoch']:04d}" + (f"_batch_{checkpoint['batch']:06d}" if checkpoint["batch"] else "")
    import torch  # here, since a search lists checkpoints without it

    # best_weights/ first: a process that is killed between the two files goes on from there
    folders = [model_dir / folder for folder in ("best_weights", "last_weights") if is_best or folder == "last_weights"]
    paths = [folder / f"{name}.pt" for folder in folders]
    _write(paths[0], lambda file: torch.save(checkpoint, file))
    for path in paths[1:]:
        copy_checkpoint(paths[0], path)


def copy_checkpoint(source: Path, path: Path) -> None:
    def copy(file: Any) -> None:
        with open(source, "rb") as original:
            shutil.copyfileobj(original, file)

    _write(path, copy)


def save_weights(weights: dict[str, Any], path: Path) -> None:
    """Save weights, and what else they need to be used, into a file of their own. Raises UserError: the disk is full.

    A file of torch, read with `weights_only=True`, is as safe as one of safetensors. It needs no other package, and
    holds the parameters too.
    """
    import torch

    _write_with_digest(path, lambda file: torch.save({**weights, "exported": EXPORT_VERSION}, file))


def _write(path: Path, write: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    try:
        _write_with_digest(path, write)
    finally:
        _tidy(path.parent)


def _write_with_digest(path: Path, write: Any) -> None:
    with whole_file(path) as file:
        hashing = _Hashing(file)
        try:
            write(hashing)
        except RuntimeError as error:
            raise hashing.error or error from None
        # before the checkpoint gets its name, so that none is ever without a digest
        write_atomically(_digest_of(path), f"{hashing.digest.hexdigest()}  {path.name}\n")


def _tidy(folder: Path) -> None:
    """Delete the checkpoints that newer ones replace, and digests whose checkpoint is gone."""
    paths = list_checkpoints(folder)
    epochs = [path for path in paths if "_batch_" not in path.name]
    under_way = paths[paths.index(epochs[-1]) + 1 :] if epochs else paths
    kept = paths[-1:] if folder.name == "best_weights" else epochs[-KEEP_EPOCHS:] + under_way[-KEEP_WITHIN_EPOCH:]
    for path in set(paths) - set(kept):
        path.unlink()
    for digest in folder.glob("*.sha256"):
        if not digest.with_suffix(".pt").exists():
            digest.unlink()


# --------------------------------------------------------------------------------------------- finding


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

    Damaged ones are named, and listed in the checkpoint's `damaged`.

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


def mend(model_dir: Path, newest: dict[str, Any], best: int) -> None:
    """Set damaged checkpoints aside as .damaged; let last_weights/ have the newest one, and best_weights/ the best.

    Args:
        newest: what `load_newest` found.
        best: the number of the best epoch, 0 if there is none yet.
    """
    for path in newest["damaged"]:
        path.replace(path.with_suffix(".damaged"))  # else it would be taken for the newest again
        logger.warning("%s: damaged, set aside as .damaged", path)
    last_weights, best_weights = model_dir / "last_weights", model_dir / "best_weights"
    wanted = {last_weights / Path(newest["path"]).name} | ({best_weights / f"epoch_{best:04d}.pt"} if best else set())
    for path in wanted - {Path(newest["path"])}:
        source = next(
            (place for place in (path, last_weights / path.name, best_weights / path.name) if _is_whole(place)), None
        )
        if source is None:
            logger.warning("%s: gone or damaged, and there is no copy.", path)
        elif source != path:
            logger.warning("%s: gone or damaged, taken from %s again", path, source)
            copy_checkpoint(source, path)


def _is_whole(path: Path) -> bool:
    try:
        load_checkpoint(path)
    except (UserError, FileNotFoundError):
        return False
    return True


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
            continue  # a run that is going on here has replaced it by a better one
        except UserError as error:
            raise UserError(f"{error}{hint}") from None
    hint = hint or f" Train first: {command_line('train.py', '--model_dir', model_dir)}"
    raise UserError(f"{model_dir}: no {restore_file} weights.{hint}")


# --------------------------------------------------------------------------------------------- reading


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint into CPU memory; nothing in it is executed.

    Raises:
        UserError: the file is no checkpoint, or its bytes are not the ones that were saved.
        FileNotFoundError: it is not there.
    """
    import torch

    try:
        with open(path, "rb") as file:
            _check_digest(path, file)
            file.seek(0)
            checkpoint = torch.load(file, map_location="cpu", weights_only=True)
    except (UserError, FileNotFoundError, PermissionError, MemoryError):
        raise
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from None
    except Exception as error:  # torch.load lets out whatever its parsers raise; all of it means the same
        code = re.search(r"nsupported (?:global: )?GLOBAL (\S+)", str(error))
        reason = f"it would run {code[1]}, which is not allowed" if code else "it cannot be read as one"
        raise UserError(f"{path}: not a checkpoint ({reason}). {HINT}") from None
    weights = checkpoint.get("state_dict") if isinstance(checkpoint, dict) else None
    if not isinstance(weights, dict) or not all(isinstance(value, torch.Tensor) for value in weights.values()):
        raise UserError(f"{path}: not a checkpoint (it holds no state_dict). {HINT}")
    return {**checkpoint, "path": str(path)}


def _check_digest(path: Path, file: IO[bytes]) -> None:
    digest = _digest_of(path).read_text(encoding="utf-8", errors="replace") if _digest_of(path).exists() else None
    if digest is None:
        logger.warning("%s: has no .sha256 beside it, which would tell whether it is damaged.", path)
        return
    found = hashlib.sha256()
    while block := file.read(1 << 20):
        found.update(block)
    if digest.split()[:1] != [found.hexdigest()]:
        raise UserError(f"{path}: damaged: its bytes are not those that were saved (SHA-256).")


def restore_weights(net: torch.nn.Module, checkpoint: dict[str, Any]) -> None:
    """Put a checkpoint's weights into `net`. Raises UserError that names every parameter that does not fit."""
    ours, theirs = net.state_dict(), checkpoint["state_dict"]
    problems = [f"{name}: only in the checkpoint" for name in theirs.keys() - ours.keys()]
    problems += [f"{name}: not in the checkpoint" for name in ours.keys() - theirs.keys()]
    for name in ours.keys() & theirs.keys():
        if ours[name].shape != theirs[name].shape and not name.endswith("_extra_state"):  # which a network checks
            problems.append(f"{name}: {list(theirs[name].shape)} in the checkpoint, {list(ours[name].shape)} here")
    if problems:
        raise UserError("\n  ".join([f"{checkpoint['path']}: weights of another architecture", *sorted(problems)]))
    net.load_state_dict(theirs)
