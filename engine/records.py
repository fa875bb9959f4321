"""What a run leaves in its folder, besides checkpoints."""

from __future__ import annotations

import contextlib
import html
import itertools
import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from engine.devices import choose_precision
from engine.experiments import git_commit
from engine.params import TrainingParams
from engine.ranking import Goal
from utils import UserError, explain, save_json, write_atomically

DEMONSTRATION = "demonstration.txt"  # what the best weights have learnt, of a task that can show it
# what `keep_previous` moves away when a new run begins
OUTPUTS = (
    *("*.log", "*.jsonl", "run.json", "*.png", "*_weights", "*_summaries", "metrics_*.json", "predictions_*"),
    *("mistakes*", "vectors.txt", DEMONSTRATION),
)


def keep_previous(model_dir: Path) -> None:
    """Move what an earlier run left to a new folder, previous/<time>/."""
    outputs = [path for pattern in OUTPUTS for path in model_dir.glob(pattern)]
    if outputs:
        (model_dir / "previous").mkdir(exist_ok=True)
        name = time.strftime("%Y-%m-%d_%H-%M-%S")
        names = itertools.chain([name], (f"{name}_{i}" for i in itertools.count(2)))  # two within a second
        folder = next(path for path in (model_dir / "previous" / name for name in names) if not path.exists())
        folder.mkdir()
        for path in outputs:
            path.rename(folder / path.name)


def describe_run(params: TrainingParams, goal: Goal, device: torch.device, restore_file: str | None) -> dict[str, Any]:
    """What run.json says: enough to know what was run, on what, and with what."""
    return {
        "status": "running",
        "command": [Path(sys.executable).name, *sys.argv],
        "started": time.strftime("%Y-%m-%d %H:%M:%S"),
        "restore_file": restore_file,
        "monitor": params.monitor,
        "goal": goal,
        "params": params.model_dump(),
        "data_digest": params.data.digest,
        "seed": params.seed,
        "device": str(device),
        "precision": str(choose_precision(device, params.precision)).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "platform": platform.platform()},
        "git_commit": git_commit(),
    }


@contextlib.contextmanager
def recorded(model_dir: Path, run: dict[str, Any]) -> Iterator[None]:
    """Keep run.json. Its `status` says how the block ended: an error may bring its own, as an attribute."""
    save_json(run, model_dir / "run.json")
    try:
        yield
    except BaseException as error:
        run["status"] = getattr(error, "status", "failed")
        run["error"] = str(error) or type(error).__name__
        with contextlib.suppress(UserError, OSError):  # what is to be told is `error`
            save_json(run, model_dir / "run.json")
        raise
    save_json({**run, "status": "finished"}, model_dir / "run.json")


def write_results(model_dir: Path, history: list[dict[str, Any]], best: dict[str, Any]) -> None:
    """Bring history.jsonl and the metrics on val up to the last epoch."""
    write_atomically(model_dir / "history.jsonl", "".join(json.dumps(entry) + "\n" for entry in history))
    for which, entry in (("best", best), ("last", history[-1])):
        save_json({"epoch": entry["epoch"], **entry["val"]}, model_dir / f"metrics_eval_{which}_weights.json")


def describe_epoch(entry: dict[str, Any], num_epochs: int, is_best: bool) -> str:
    """The line per epoch that stays on the console."""
    parts = [f"epoch {entry['epoch']:{len(str(num_epochs))}}/{num_epochs}"]
    for split in ("train", "val"):
        numbers = list(entry[split].items())[:3]  # the loss and the first two metrics
        parts.append(f"{split} " + " ".join(f"{name} {value:.4f}" for name, value in numbers))
    parts.append(f"{entry['seconds']:.1f} s ({entry['examples_per_second']:.0f}/s)")
    return " | ".join(parts) + (" | best" if is_best else "")


class Summaries:
    """What TensorBoard shows. Its writer is slow to import, so that is done when the first numbers are written."""

    def __init__(self, model_dir: Path):
        self.model_dir = model_dir
        self.purge_step: int | None = None  # TensorBoard hides what an earlier process wrote from this step on
        self.writers: dict[str, Any] = {}

    def write(self, folder: str, numbers: dict[str, float], step: int) -> None:
        writer = self._writer(folder)
        with self._explaining(folder):  # a thread writes them: what fails here was written before
            for name, value in numbers.items():
                writer.add_scalar(name, value, step)

    def show_text(self, folder: str, text: str, step: int) -> None:
        writer = self._writer(folder)
        with self._explaining(folder):
            writer.add_text("demonstration", f"<pre>{html.escape(text)}</pre>", step)

    def _writer(self, folder: str) -> Any:
        if folder not in self.writers:
            from torch.utils.tensorboard import SummaryWriter

            path = path_in_utf8(self.model_dir / folder)
            self.writers[folder] = SummaryWriter(path, purge_step=self.purge_step)
        return self.writers[folder]

    def flush(self) -> None:
        """Raises UserError if the disk is full."""
        for folder, writer in self.writers.items():
            with self._explaining(folder):
                writer.flush()

    @contextlib.contextmanager
    def _explaining(self, folder: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise explain(error, self.model_dir / folder) from None

    def close(self) -> None:
        for writer in self.writers.values():
            writer.close()


def path_in_utf8(folder: Path) -> str:
    """A path of `folder` for TensorBoard, which takes only UTF-8. Only Linux allows other names.

    Such a folder is opened, and named by its path in /dev/fd. It stays open until the process ends.
    """
    try:
        return str(folder).encode().decode()
    except UnicodeEncodeError:
        folder.mkdir(exist_ok=True)
        return f"/dev/fd/{os.open(folder, os.O_RDONLY)}"


def gradient_norms(net: nn.Module, total: Tensor) -> dict[str, float]:
    """`gradient_norm/<parameter>` -> the norm of its gradient before clipping, when the norm of all was `total`."""
    grads = {name: p.grad for name, p in net.named_parameters() if p.grad is not None}
    norms = torch.stack([grad.norm() for grad in grads.values()])
    if total.isfinite():  # clipping scaled all by the same factor
        norms *= total / norms.norm().clamp(min=torch.finfo(norms.dtype).tiny)
    named = zip(grads, norms.tolist(), strict=True)
    return {f"gradient_norm/{name}": norm for name, norm in named} | {"gradient_norm": total.item()}
