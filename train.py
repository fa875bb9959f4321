"""Train the network of an experiment, a folder with a params.json. Everything that the run produces lands there.

    python train.py --model_dir experiments/base_model
    python train.py --model_dir experiments/lr_0.01 --base experiments/base_model --set learning_rate=0.01

The same command goes on with a run that was interrupted, from its last finished epoch.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from evaluate import evaluate
from model import Task, create_experiment, load_experiment
from model.hardware import autocast, choose_device, choose_precision, to_device
from model.metrics import Totals
from model.optimizers import Schedule, make_optimizer
from model.plots import draw_curves
from model.summary import summarize
from utils import (
    Diverged,
    Progress,
    TrainingParams,
    UserError,
    check_writable,
    find_checkpoint,
    load_checkpoint,
    logger,
    restore_weights,
    run_command,
    save_checkpoint,
    save_json,
    set_logger,
    write_atomically,
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_dir", default="experiments/base_model", help="folder of the experiment (%(default)s)")
    parser.add_argument("--data_dir", help="built data set to train on (the one that params.json names)")
    parser.add_argument(
        "--restore_file", help="start a new run from these weights: best, last, or the path of a checkpoint"
    )
    parser.add_argument("--restart", action="store_true", help="start again; what is there moves to previous/")
    parser.add_argument("--base", metavar="DIR", help="make --model_dir a new experiment with this one's parameters")
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="parameters that differ from --base"
    )
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, mps (the fastest there is)")
    return parser.parse_args()


def train(
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: Schedule,
    loader: DataLoader[Any],
    task: Task,
    params: TrainingParams,
    device: torch.device,
    precision: torch.dtype,
    epoch: int,
    summaries: Summaries,
) -> dict[str, float]:
    """Train for one epoch. Returns its loss and metrics, each example as the network saw it at that moment."""
    net.train()
    totals = Totals(task.metrics)
    step = epoch * len(loader)
    loader.batch_sampler.set_epoch(epoch)  # type: ignore[union-attr]
    progress = Progress(loader, f"epoch {epoch + 1}/{params.num_epochs}")
    for inputs, labels in progress:
        inputs, labels = to_device(inputs, device), to_device(labels, device)
        with autocast(device, precision):
            outputs = net(inputs)
            loss = task.loss_fn(outputs, labels)
        optimizer.zero_grad()
        loss.backward()
        if params.clip_grad_norm:
            nn.utils.clip_grad_norm_(net.parameters(), params.clip_grad_norm)
        optimizer.step()
        schedule.step()
        step += 1

        totals.add(outputs.detach(), labels, loss)
        progress.show(totals.compute)  # computes once a second at most: nothing else here waits for the device
        if step % params.save_summary_steps == 0 or step == (epoch + 1) * len(loader):
            summaries.write("train_summaries", gradient_norms(net) | {"learning_rate": schedule.learning_rate}, step)
    return totals.compute()


def train_and_evaluate(
    model_dir: Path, task: Task, params: TrainingParams, device: torch.device, checkpoint: dict[str, Any] | None
) -> None:
    """Train for the epochs that are left; evaluate on val and save after each.

    Args:
        checkpoint: where to go on, or else, without an `epoch`, the weights to start from.

    Raises:
        Diverged: the loss is no number any more. The last saved weights are those of the epoch before.
    """
    torch.manual_seed(params.seed)
    loaders = task.fetch_dataloader(["train", "val"], params.data_dir, params, device)
    net = task.Net(params).to(device)
    optimizer = make_optimizer(net, params)
    schedule = Schedule(optimizer, params, len(loaders["train"]))
    precision = choose_precision(device, params.precision)
    history: list[dict[str, Any]] = []
    if checkpoint:
        restore_weights(net, checkpoint)
    if checkpoint and "epoch" in checkpoint:
        history = checkpoint["history"]
        optimizer.load_state_dict(checkpoint["optim_dict"])
        schedule.load_state_dict(checkpoint["scheduler"])
        set_random_states(checkpoint["random_states"])
        logger.info("Going on after epoch %d.", len(history))
    else:
        example, _ = loaders["val"].dataset.__getitems__(next(iter(loaders["val"].batch_sampler)))
        logger.info("%s", summarize(net, to_device(example, device)))
    summaries = Summaries(model_dir)
    num_examples = len(loaders["train"].dataset)
    logger.info("Training on %d examples, on %s in %s", num_examples, device, str(precision).removeprefix("torch."))

    for epoch in range(len(history), params.num_epochs):
        start = time.perf_counter()
        trained = train(net, optimizer, schedule, loaders["train"], task, params, device, precision, epoch, summaries)
        seconds = time.perf_counter() - start
        if not math.isfinite(trained["loss"]):
            raise Diverged(
                f"The loss became {trained['loss']} in epoch {epoch + 1}, at a learning rate of up to"
                f" {params.learning_rate:g}. Try a smaller learning_rate, warmup_epochs, or clip_grad_norm."
            )
        evaluated = evaluate(net, loaders["val"], task, device, precision)
        schedule.end_epoch(evaluated[params.monitor])
        history.append(
            {
                "epoch": epoch + 1,
                "train": trained,
                "val": evaluated,
                "learning_rate": schedule.learning_rate,
                "seconds": round(seconds, 3),
                "examples_per_second": round(num_examples / seconds, 1),
            }
        )
        best = best_epoch(history, params.monitor)
        patience = params.early_stopping_patience
        finished = epoch + 1 == params.num_epochs or 0 < patience <= epoch + 1 - best["epoch"]
        save_checkpoint(
            {
                "epoch": epoch + 1,
                "state_dict": net.state_dict(),
                "optim_dict": optimizer.state_dict(),
                "scheduler": schedule.state_dict(),
                "random_states": get_random_states(),
                "history": history,
                "best": best,
                "finished": finished,
                "params": params.model_dump(),
                "data": params.data.model_dump(),
            },
            model_dir,
            is_best=best is history[-1],
        )
        write_results(model_dir, history, best)
        step = (epoch + 1) * len(loaders["train"])
        summaries.write("train_summaries", trained, step)
        summaries.write("eval_summaries", evaluated, step)
        logger.info("%s", describe_epoch(history[-1], params.num_epochs, best is history[-1]))
        if finished:
            break
    summaries.close()
    draw_curves(history, best["epoch"], model_dir / "curves.png")
    logger.info("Best: %s %.4f on val, after epoch %d", params.monitor, best["val"][params.monitor], best["epoch"])


def best_epoch(history: list[dict[str, Any]], monitor: str) -> dict[str, Any]:
    """The entry with the best monitored metric: the earliest of equals, and never one that is not a number."""
    sign = -1 if monitor == "loss" else 1
    values = [sign * entry["val"][monitor] for entry in history]
    return history[max(range(len(history)), key=lambda i: (not math.isnan(values[i]), values[i], -i))]


def describe_epoch(entry: dict[str, Any], num_epochs: int, is_best: bool) -> str:
    """The line per epoch that stays on the console."""
    parts = [f"epoch {entry['epoch']:{len(str(num_epochs))}}/{num_epochs}"]
    for split in ("train", "val"):
        parts.append(f"{split} " + " ".join(f"{name} {value:.4f}" for name, value in entry[split].items()))
    parts.append(f"{entry['seconds']:.1f} s ({entry['examples_per_second']:.0f}/s)")
    return " | ".join(parts) + (" | best" if is_best else "")


# ---------------------------------------------------------------------------- what a run leaves behind


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


def get_random_states() -> dict[str, Any]:
    """The states of torch's generators, which draw the dropout. Order and augmentation have none: see model/batches."""
    return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []}


def set_random_states(states: dict[str, Any]) -> None:
    torch.set_rng_state(states["cpu"])
    if torch.cuda.is_available() and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])


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
        "data": params.data.model_dump(),
        "seed": params.seed,
        "device": str(device),
        "precision": str(choose_precision(device, params.precision)).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "platform": platform.platform()},
        "git_commit": commit.stdout.strip() or None if commit else None,
    }


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
        UserError: there is nothing to restore, or the interrupted run had other parameters.
    """
    if restore_file:
        checkpoint = load_checkpoint(find_checkpoint(model_dir, restore_file))
        return {"path": checkpoint["path"], "state_dict": checkpoint["state_dict"]}
    if restart or not any((model_dir / "last_weights").glob("epoch_*.pt")):
        return None
    checkpoint = load_checkpoint(find_checkpoint(model_dir, "last"))
    before, now = checkpoint["params"], params.model_dump()
    frozen = now.keys() - MAY_CHANGE
    if now["num_epochs"] < checkpoint["epoch"] or params.scheduler in ("cosine", "onecycle"):
        frozen |= {"num_epochs"}  # these schedules are stretched over all epochs from the first on
    other_data = checkpoint["data"]["digest"] != params.data.digest
    if other_data:
        frozen |= {"data_dir"}
    changed = [
        f"{name}: {before.get(name)} then, {now[name]} now" for name in sorted(frozen) if before.get(name) != now[name]
    ]
    if changed:
        raise UserError(
            "\n  ".join([f"{model_dir}: the run here has other parameters than params.json now", *changed])
            + "\nChange them back to go on with it, start again with --restart (which keeps the old run in previous/),"
            + "\nor start a new folder from its weights:"
            + f" --model_dir NEW --base {model_dir} --restore_file {checkpoint['path']}"
        )
    if other_data:
        logger.warning("%s has changed since this run began: its digest is another.", params.data_dir)
    return checkpoint


def is_finished(checkpoint: dict[str, Any], params: TrainingParams) -> bool:
    return bool(checkpoint.get("finished")) and params.num_epochs <= checkpoint["params"]["num_epochs"]


def keep_previous(model_dir: Path) -> None:
    """Move what an earlier run left to a new folder, previous/<time>_*/."""
    outputs = [path for pattern in OUTPUTS for path in model_dir.glob(pattern)]
    if outputs:
        (model_dir / "previous").mkdir(exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=time.strftime("%Y-%m-%d_%H-%M-%S_"), dir=model_dir / "previous"))
        for path in outputs:
            path.rename(folder / path.name)


def main() -> None:
    args = parse_args()
    model_dir = Path(args.model_dir)
    if args.base:
        create_experiment(model_dir, Path(args.base), args.set)
    elif args.set:
        raise UserError("--set goes with --base DIR, the experiment to vary. Or edit params.json.")
    task, params = load_experiment(model_dir, args.data_dir, as_before=not args.restart)
    device = choose_device(args.device)
    check_writable(model_dir)
    checkpoint = choose_start(model_dir, params, args.restore_file, args.restart)
    if checkpoint and is_finished(checkpoint, params):
        logger.info(
            "%s: finished, %d epochs on %s. To go on, raise num_epochs in params.json; to start again, --restart.",
            model_dir,
            checkpoint["epoch"],
            params.data_dir,
        )
        return
    if checkpoint is None or "epoch" not in checkpoint:
        keep_previous(model_dir)
    set_logger(model_dir / "train.log")

    run = describe_run(params, device)
    save_json(run, model_dir / "run.json")
    try:
        train_and_evaluate(model_dir, task, params, device, checkpoint)
        run["status"] = "finished"
    except BaseException as error:
        run["status"] = {Diverged: "diverged", KeyboardInterrupt: "interrupted"}.get(type(error), "failed")
        run["error"] = str(error)
        raise
    finally:
        save_json(run, model_dir / "run.json")


if __name__ == "__main__":
    run_command(main)
