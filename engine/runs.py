"""One run of an experiment: where it starts, and what it leaves in its folder."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from engine.checkpoints import fetch_checkpoint, list_checkpoints, load_newest, save_checkpoint
from engine.devices import choose_precision
from engine.experiments import check_same_data, read_run
from engine.locks import LOCK, LOCK_HOLDER
from engine.metrics import Totals
from engine.optimizers import Schedule, make_optimizer
from engine.params import WITHOUT_EFFECT, TrainingParams
from engine.tasks import Task
from utils import Diverged, Stopped, UserError, explain, logger, save_json, write_atomically

# ------------------------------------------------------------------------------------- where to start

# what may change between an interrupted run and its continuation
MAY_CHANGE = WITHOUT_EFFECT | {"num_epochs", "early_stopping_patience"}

# what a run leaves in its folder
OUTPUTS = ("*.log", "*.jsonl", "run.json", "*.png", "*_weights", "*_summaries", "metrics_*.json", "predictions_*")


@contextlib.contextmanager
def taken_back(model_dir: Path, is_new: bool) -> Iterator[None]:
    """If an experiment that is new cannot start, take its folder away again: the next try may be a different one."""
    try:
        yield
    except UserError:
        if is_new and not (model_dir / "run.json").exists():
            with contextlib.suppress(OSError):  # what else is there stays
                for name in ("params.json", LOCK_HOLDER, LOCK):
                    (model_dir / name).unlink(missing_ok=True)
                model_dir.rmdir()
        raise


def choose_start(
    model_dir: Path, params: TrainingParams, restore_file: str | None, restart: bool
) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """The checkpoint to go on from, and the one whose weights a new run begins with; None where there is none.

    An unfinished run that began from `restore_file` goes on: whoever starts a killed command again means that.

    Raises:
        UserError: there is nothing to restore, or the interrupted run had other parameters or data.
    """
    checkpoint = None if restart else load_newest(model_dir)
    if restore_file and (
        checkpoint is None
        or checkpoint["restore_file"] != restore_file
        or read_run(model_dir).get("status") == "finished"
    ):
        place = model_dir
        if restore_file in ("best", "last") and not list_checkpoints(model_dir / f"{restore_file}_weights"):
            place = max((model_dir / "previous").glob("*"), default=model_dir)  # killed when they had just been moved
        weights = fetch_checkpoint(place, restore_file)
        check_same_data(weights, params.data)
        return None, weights
    if checkpoint is None:
        return None, None
    check_same_data(checkpoint, params.data)
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
            "\n  ".join([f"{checkpoint['path']}: the run here began with other parameters or data", *changed])
            + f"\nChange them back to go on with it, or {how_else(model_dir, params, checkpoint)}"
        )
    return checkpoint, None


def how_else(model_dir: Path, params: TrainingParams, checkpoint: dict[str, Any]) -> str:
    """What to do with a run that cannot go on."""
    return (
        "start again with --restart (which keeps the old run in previous/),\n"
        "or start a new experiment from its weights, if they are for the same network:\n"
        f"  python train.py --model_dir NEW --base {model_dir} --data_dir {params.data_dir}"
        f" --restore_file {checkpoint['path']}"
    )


def check_same_files(
    model_dir: Path, params: TrainingParams, checkpoint: dict[str, Any], loaders: dict[str, DataLoader[Any]]
) -> None:
    """Raises UserError when the files of a data set were changed under a run, after they were built."""
    for split, digest in digests(loaders).items():
        if checkpoint["digests"][split] != digest:
            raise UserError(
                f"{loaders[split].dataset.folder}: changed since the run here began,"  # type: ignore[attr-defined]
                f" which cannot end as it would have.\nUndo that, or {how_else(model_dir, params, checkpoint)}"
            )


def digests(loaders: dict[str, DataLoader[Any]]) -> dict[str, str]:
    return {split: loader.dataset.digest for split, loader in loaders.items()}  # type: ignore[attr-defined]


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
        name = time.strftime("%Y-%m-%d_%H-%M-%S")
        names = itertools.chain([name], (f"{name}_{i}" for i in itertools.count(2)))  # two within a second
        folder = next(path for path in (model_dir / "previous" / name for name in names) if not path.exists())
        folder.mkdir()
        for path in outputs:
            path.rename(folder / path.name)


# --------------------------------------------------------------------------------------- while it runs


MOST_NAMED = 100  # examples of a batch


class Run:
    """A network in training: all that decides how it goes on, and so all that a checkpoint holds.

    Attributes:
        history: an entry per finished epoch.
        batches: how many of the next epoch are done.
        totals, seconds: what was counted over them, and how long they took.
    """

    def __init__(
        self,
        model_dir: Path,
        net: nn.Module,
        loaders: dict[str, DataLoader[Any]],
        task: Task,
        params: TrainingParams,
        device: torch.device,
        restore_file: str | None = None,
    ):
        self.model_dir, self.net, self.params, self.device = model_dir, net, params, device
        self.loader, self.digests = loaders["train"], digests(loaders)
        self.metrics = task.metrics
        self.optimizer = make_optimizer(net, params)
        self.schedule = Schedule(self.optimizer, params, len(self.loader))
        # A GPU is not waited for: the run looks a little later there, and before it saves anything. Meanwhile a fused
        # optimizer skips the step by itself if its `found_inf` is 1, as torch.amp.GradScaler has it do.
        self.look_every = 1 if device.type == "cpu" else 64  # steps
        self.skips_itself = device.type == "cuda" and bool(self.optimizer.defaults.get("fused"))
        self.unseen: list[tuple[int, float, Tensor, Tensor]] = []  # batch, learning rate, loss, gradient norm
        self.restore_file = restore_file
        self.history: list[dict[str, Any]] = []
        self.begin_epoch()
        self.summaries = Summaries(model_dir)
        self.saved: tuple[int, int] | None = None
        self.saved_at = time.monotonic()

    def begin_epoch(self) -> None:
        self.batches, self.seconds, self.totals = 0, 0.0, Totals(self.metrics)

    @property
    def epoch(self) -> int:
        """How many epochs are finished."""
        return len(self.history)

    @property
    def step(self) -> int:
        """How many batches there have been in all."""
        return self.epoch * len(self.loader) + self.batches

    def end_epoch(self, trained: dict[str, float], evaluated: dict[str, float]) -> bool:
        """Enter the metrics of the epoch, save, and write all results. Returns whether it is the best so far."""
        num_examples = len(self.loader.dataset)  # type: ignore[arg-type]
        self.schedule.end_epoch(evaluated[self.params.monitor])
        self.history.append(
            {
                "epoch": self.epoch + 1,
                "train": trained,
                "val": evaluated,
                "learning_rate": self.schedule.learning_rate,
                "seconds": round(self.seconds, 3),
                "examples_per_second": round(num_examples / self.seconds, 1),
            }
        )
        self.begin_epoch()
        self.summaries.write("train_summaries", trained, self.step)
        self.summaries.write("eval_summaries", evaluated, self.step)
        is_best = best_epoch(self.history, self.params.monitor) is self.history[-1]
        self.save(is_best)
        write_results(self.model_dir, self.history, self.params.monitor)
        return is_best

    def save(self, is_best: bool = False) -> None:
        """Save a checkpoint, unless this moment has one.

        Raises:
            Diverged: a gradient was not finite, which a GPU tells only now.
            UserError: the disk is full.
        """
        self.saved_at = time.monotonic()
        if self.saved == (self.epoch, self.batches):
            return
        self.look()
        self.summaries.flush()
        save_checkpoint(
            {
                "epoch": self.epoch,
                "batch": self.batches,
                "state_dict": self.net.state_dict(),
                "optim_dict": self.optimizer.state_dict(),
                "scheduler": self.schedule.state_dict(),
                "random_states": get_random_states(self.device),
                "totals": self.totals.state_dict(),
                "seconds": self.seconds,
                "history": self.history,
                "best": best_epoch(self.history, self.params.monitor) if self.history else None,
                "restore_file": self.restore_file,
                "params": self.params.model_dump(),
                "data": self.params.data.model_dump(),
                "digests": self.digests,
            },
            self.model_dir,
            is_best,
        )
        self.saved = (self.epoch, self.batches)

    def check_finite(self, loss: Tensor, gradient_norm: Tensor) -> None:
        """Keep a loss or gradient that is not finite from the weights. Raises Diverged, naming step and examples."""
        loss = loss.detach()
        self.unseen.append((self.batches, self.optimizer.param_groups[0]["lr"], loss, gradient_norm))
        if len(self.unseen) == self.look_every:
            self.look()
        if self.skips_itself:
            self.optimizer.found_inf = 1 - torch.isfinite(loss + gradient_norm).float()  # type: ignore[attr-defined]

    def look(self) -> None:
        """Raise Diverged if one of the last steps was not finite."""
        if not self.unseen:
            return
        numbers = torch.stack([torch.stack([loss, norm]) for *_, loss, norm in self.unseen]).tolist()
        for (batch, learning_rate, *_), (loss, norm) in zip(self.unseen, numbers, strict=True):
            if not math.isfinite(loss + norm):
                raise Diverged(self._describe_divergence(batch, learning_rate, loss, norm))
        self.unseen.clear()

    def _describe_divergence(self, batch: int, learning_rate: float, loss: float, norm: float) -> str:
        sampler: Any = self.loader.batch_sampler
        sampler.set_epoch(self.epoch, batch)
        indices = next(iter(sampler)).indices.tolist()
        examples = self.loader.dataset.describe(indices[:MOST_NAMED])  # type: ignore[attr-defined]
        if len(indices) > MOST_NAMED:
            examples += f" and {len(indices) - MOST_NAMED} more"
        return (
            f"Step {self.epoch * len(self.loader) + batch + 1} (epoch {self.epoch + 1}, batch {batch + 1}): the loss is"
            f" {loss:g} and the norm of its gradient {norm:g}, at a learning rate of {learning_rate:g}."
            f" The saved weights are those of before.\nThe batch was {examples}.\n"
            "If they are what they should be, try a smaller learning_rate, warmup_epochs, or clip_grad_norm:\n"
            f"  python train.py --model_dir NEW --base {self.model_dir} --data_dir {self.params.data_dir}"
            f" --set learning_rate={self.params.learning_rate / 10:g} clip_grad_norm=1"
        )

    def save_if_older(self, minutes: float) -> None:
        """Save if that is how long ago the last checkpoint was saved."""
        if time.monotonic() - self.saved_at > 60 * minutes:
            self.save()

    @property
    def place(self) -> str:
        """Where the run is, in words."""
        if not self.batches:
            return f"after epoch {self.epoch}"
        if self.batches == len(self.loader):
            return f"in epoch {self.epoch + 1}, before its validation"
        return f"in epoch {self.epoch + 1}, after batch {self.batches} of {len(self.loader)}"

    def resume(self, checkpoint: dict[str, Any]) -> None:
        """Be where the run was when `checkpoint` was saved; the weights are in the network already."""
        self.history, self.batches, self.seconds = (checkpoint[name] for name in ("history", "batch", "seconds"))
        self.optimizer.load_state_dict(checkpoint["optim_dict"])
        self.schedule.load_state_dict(checkpoint["scheduler"])
        self.totals.load_state_dict(checkpoint["totals"], self.device)
        set_random_states(checkpoint["random_states"], self.device)
        self.summaries.purge_step = self.step + 1
        self.saved = (self.epoch, self.batches)
        logger.info("Going on %s (%s).", self.place, checkpoint["path"])


def warn_of_another_machine(before: dict[str, Any], now: dict[str, Any]) -> None:
    """Say what lets the sums of a run that goes on be rounded otherwise."""
    for name in ("device", "precision", "threads", "versions"):
        then = before.get(name)
        if name in before and then != now[name]:
            logger.warning("%s: %s then, %s now. So the run may end otherwise, by rounding.", name, then, now[name])


# ---------------------------------------------------------------------------- what a run leaves behind


@contextlib.contextmanager
def recorded(model_dir: Path, run: dict[str, Any]) -> Iterator[None]:
    """Keep run.json, with how the block ended as its `status`."""
    save_json(run, model_dir / "run.json")
    try:
        yield
    except BaseException as error:
        run["status"] = {Diverged: "diverged", Stopped: "interrupted"}.get(type(error), "failed")
        run["error"] = str(error) or type(error).__name__
        with contextlib.suppress(UserError, OSError):  # `error` is what is to be told
            save_json(run, model_dir / "run.json")
        raise
    save_json({**run, "status": "finished"}, model_dir / "run.json")


def write_results(model_dir: Path, history: list[dict[str, Any]], monitor: str) -> None:
    """Bring history.jsonl and the metrics files up to the last epoch."""
    best = best_epoch(history, monitor)
    write_atomically(model_dir / "history.jsonl", "".join(json.dumps(entry) + "\n" for entry in history))
    save_json({"epoch": best["epoch"], **best["val"]}, model_dir / "metrics_eval_best_weights.json")
    last = history[-1]
    save_json({"epoch": last["epoch"], **last["val"]}, model_dir / "metrics_eval_last_weights.json")


class Summaries:
    """What TensorBoard shows. Importing its writer is slow: after the first steps is early enough."""

    def __init__(self, model_dir: Path):
        self.model_dir = model_dir
        self.purge_step: int | None = None  # what an earlier process wrote from there on is hidden
        self.writers: dict[str, Any] = {}

    def write(self, folder: str, numbers: dict[str, float], step: int) -> None:
        if folder not in self.writers:
            from torch.utils.tensorboard import SummaryWriter

            self.writers[folder] = SummaryWriter(str(self.model_dir / folder), purge_step=self.purge_step)
        with self._explaining(folder):  # of what was written before: the writer has a thread for it
            for name, value in numbers.items():
                self.writers[folder].add_scalar(name, value, step)

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


def gradient_norms(net: nn.Module) -> dict[str, float]:
    grads = {name: p.grad for name, p in net.named_parameters() if p.grad is not None}
    norms = torch.stack([grad.norm() for grad in grads.values()]).tolist()
    return {f"gradient_norm/{name}": norm for name, norm in zip(grads, norms, strict=True)}


def get_random_states(device: torch.device) -> dict[str, Any]:
    """The states of the generators that draw the dropout. Order and augmentation have none: see engine/batches.py."""
    states = {"cpu": torch.get_rng_state()}
    if device.type != "cpu":
        states[device.type] = torch.get_device_module(device).get_rng_state(device)
    return states


def set_random_states(states: dict[str, Any], device: torch.device) -> None:
    torch.set_rng_state(states["cpu"])
    if device.type in states and device.type != "cpu":
        torch.get_device_module(device).set_rng_state(states[device.type], device)


def describe_run(params: TrainingParams, device: torch.device, restore_file: str | None) -> dict[str, Any]:
    """What run.json says: enough to know what was run, on what, and with what."""
    git = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    commit = (
        subprocess.run(git, cwd=Path(__file__).parents[1], capture_output=True, text=True)
        if shutil.which("git")
        else None
    )
    return {
        "status": "running",
        "command": [Path(sys.executable).name, *sys.argv],
        "started": time.strftime("%Y-%m-%d %H:%M:%S"),
        "restore_file": restore_file,
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
