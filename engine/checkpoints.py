"""Checkpoints: written whole, checked when read."""

from __future__ import annotations

import hashlib
import io
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils import UserError, logger, write_atomically

if TYPE_CHECKING:
    import torch

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
