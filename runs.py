"""One run of an experiment: where it starts, and what it leaves in its folder."""

from __future__ import annotations

import contextlib
import json
import math
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from model import check_same_data
from model.hardware import choose_precision
from model.params import TrainingParams
from utils import (
    Diverged,
    UserError,
    find_checkpoint,
    list_checkpoints,
    load_checkpoint,
    logger,
    save_json,
    write_atomically,
)

# ------------------------------------------------------------------------------------- where to start

# what may change between an interrupted run and its continuation
MAY_CHANGE = {"data_dir", "num_epochs", "num_workers", "save_summary_steps", "early_stopping_patience"}

# what a run leaves in its folder
OUTPUTS = ("*.log", "*.jsonl", "run.json", "*.png", "*_weights", "*_summaries", "metrics_*.json", "predictions_*")


def choose_start(
    model_dir: Path, params: TrainingParams, restore_file: str | None, restart: bool
) -> dict[str, Any] | None:
    """The checkpoint to go on from, or the weights alone for a new run, or None for a fresh start.

    Raises:
        UserError: there is nothing to restore, or the interrupted run had other parameters or data.
    """
    if restore_file:
        checkpoint = load_checkpoint(find_checkpoint(model_dir, restore_file))
        check_same_data(checkpoint, params.data)
        return {"path": checkpoint["path"], "state_dict": checkpoint["state_dict"]}
    if restart or not list_checkpoints(model_dir / "last_weights"):
        return None
    checkpoint = load_checkpoint(find_checkpoint(model_dir, "last"))
    before, now = checkpoint["params"], params.model_dump()
    frozen = now.keys() - MAY_CHANGE
    if now["num_epochs"] < checkpoint["epoch"] or is_stretched(params):
        frozen |= {"num_epochs"}
    different = sorted(name for name in frozen if before.get(name) != now[name])
    changed = [f"{name}: {before.get(name)} then, {now[name]} now" for name in different]
    if checkpoint["data"]["digest"] != params.data.digest:
        changed.append(f"data: {before['data_dir']} then, {params.data_dir} now, and not the same (by their digests)")
    if is_stretched(params) and "num_epochs" in different:
        changed.append(f"({params.scheduler} stretches the learning rate over all epochs, so their number is fixed)")
    if changed:
        raise UserError(
            "\n  ".join([f"{model_dir}: the run here began with other parameters or data", *changed])
            + "\nChange them back to go on with it, start again with --restart (which keeps the old run in previous/),"
            + f"\nor start a new experiment from its weights: python train.py --model_dir NEW --base {model_dir}"
            + f" --data_dir {params.data_dir} --restore_file {checkpoint['path']}"
        )
    return checkpoint


def is_stretched(params: TrainingParams) -> bool:
    """Whether the schedule is stretched over all epochs from the first on."""
    return params.scheduler in ("cosine", "onecycle")


def is_finished(history: list[dict[str, Any]], params: TrainingParams) -> bool:
    """Whether all epochs are done, or early stopping ends the run here."""
    if not history or len(history) >= params.num_epochs:
        return bool(history)
    return 0 < params.early_stopping_patience <= len(history) - best_epoch(history, params.monitor)["epoch"]


def keep_previous(model_dir: Path) -> None:
    """Move what an earlier run left to a new folder, previous/<time>_*/."""
    outputs = [path for pattern in OUTPUTS for path in model_dir.glob(pattern)]
    if outputs:
        (model_dir / "previous").mkdir(exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=time.strftime("%Y-%m-%d_%H-%M-%S_"), dir=model_dir / "previous"))
        for path in outputs:
            path.rename(folder / path.name)


# ---------------------------------------------------------------------------- what a run leaves behind


@contextlib.contextmanager
def recorded(model_dir: Path, run: dict[str, Any]) -> Iterator[None]:
    """Keep run.json, with how the block ended as its `status`."""
    save_json(run, model_dir / "run.json")
    try:
        yield
        run["status"] = "finished"
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            logger.info("All finished epochs are saved. The same command goes on from there.")
        run["status"] = {Diverged: "diverged", KeyboardInterrupt: "interrupted"}.get(type(error), "failed")
        run["error"] = str(error)
        raise
    finally:
        save_json(run, model_dir / "run.json")


def write_results(model_dir: Path, history: list[dict[str, Any]], best: dict[str, Any]) -> None:
    """Bring history.jsonl and the metrics files up to the last epoch."""
    write_atomically(model_dir / "history.jsonl", "".join(json.dumps(entry) + "\n" for entry in history))
    save_json({"epoch": best["epoch"], **best["val"]}, model_dir / "metrics_eval_best_weights.json")
    last = history[-1]
    save_json({"epoch": last["epoch"], **last["val"]}, model_dir / "metrics_eval_last_weights.json")


class Summaries:
    """What TensorBoard shows. Importing its writer is slow: after the first steps is early enough."""

    def __init__(self, model_dir: Path):
        self.model_dir = model_dir
        self.writers: dict[str, Any] = {}

    def write(self, folder: str, numbers: dict[str, float], step: int) -> None:
        if folder not in self.writers:
            from torch.utils.tensorboard import SummaryWriter

            self.writers[folder] = SummaryWriter(str(self.model_dir / folder))
        for name, value in numbers.items():
            self.writers[folder].add_scalar(name, value, step)

    def close(self) -> None:
        for writer in self.writers.values():
            writer.close()


def gradient_norms(net: nn.Module) -> dict[str, float]:
    grads = {name: p.grad for name, p in net.named_parameters() if p.grad is not None}
    norms = torch.stack([grad.norm() for grad in grads.values()]).tolist()
    return {f"gradient_norm/{name}": norm for name, norm in zip(grads, norms, strict=True)}


def get_random_states(device: torch.device) -> dict[str, Any]:
    """The states of the generators that draw the dropout. Order and augmentation have none: see model/batches.py."""
    states = {"cpu": torch.get_rng_state()}
    if device.type != "cpu":
        states[device.type] = torch.get_device_module(device).get_rng_state(device)
    return states


def set_random_states(states: dict[str, Any], device: torch.device) -> None:
    torch.set_rng_state(states["cpu"])
    if device.type in states and device.type != "cpu":
        torch.get_device_module(device).set_rng_state(states[device.type], device)


def describe_run(params: TrainingParams, device: torch.device) -> dict[str, Any]:
    """What run.json says: enough to know what was run, on what, and with what."""
    git = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    commit = (
        subprocess.run(git, cwd=Path(__file__).parent, capture_output=True, text=True) if shutil.which("git") else None
    )
    return {
        "status": "running",
        "command": [Path(sys.executable).name, *sys.argv],
        "started": time.strftime("%Y-%m-%d %H:%M:%S"),
        "monitor": params.monitor,
        "params": params.model_dump(),
        "data_digest": params.data.digest,
        "seed": params.seed,
        "device": str(device),
        "precision": str(choose_precision(device, params.precision)).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "platform": platform.platform()},
        "git_commit": commit.stdout.strip() or None if commit else None,
    }


def best_epoch(history: list[dict[str, Any]], monitor: str) -> dict[str, Any]:
    """The entry with the best monitored metric: the earliest of equals, and never one that is not a number."""
    sign = -1 if monitor == "loss" else 1
    values = [sign * entry["val"][monitor] for entry in history]
    return history[max(range(len(history)), key=lambda i: (not math.isnan(values[i]), values[i], -i))]
