"""Train the network of an experiment, a folder with a params.json. Everything that the run produces lands there.

    python train.py --model_dir experiments/base_model
    python train.py --model_dir experiments/lr_0.01 --base experiments/base_model --set learning_rate=0.01

Without --restart and --restore_file, the same command goes on with a run that was interrupted, from its last finished
epoch.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from evaluate import evaluate
from model import Task, create_experiment, load_experiment, read_run
from model.hardware import autocast, choose_device, choose_precision, to_device
from model.metrics import Totals
from model.optimizers import Schedule, make_optimizer
from model.params import TrainingParams
from model.plots import draw_curves
from model.summary import summarize
from runs import (
    Summaries,
    best_epoch,
    choose_start,
    describe_run,
    get_random_states,
    gradient_norms,
    is_finished,
    is_stretched,
    keep_previous,
    recorded,
    set_random_states,
    write_results,
)
from utils import (
    Diverged,
    Progress,
    UserError,
    check_writable,
    logger,
    restore_weights,
    run_command,
    save_checkpoint,
    set_logger,
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_dir", default="experiments/base_model", help="folder of the experiment (%(default)s)")
    parser.add_argument("--data_dir", help="built data set to train on (the one that params.json names)")
    parser.add_argument(
        "--restore_file",
        help="start a new run from these weights: best, last, or a path; see --restart",
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

        totals.add(outputs, labels, loss)
        progress.show(totals.compute)  # computes once a second at most: nothing else here waits for the device
        if step % params.save_summary_steps == 0 or step == (epoch + 1) * len(loader):
            summaries.write("train_summaries", gradient_norms(net) | {"learning_rate": schedule.learning_rate}, step)
    return totals.compute()


def train_and_evaluate(
    model_dir: Path,
    net: nn.Module,
    loaders: dict[str, DataLoader[Any]],
    task: Task,
    params: TrainingParams,
    device: torch.device,
    checkpoint: dict[str, Any] | None,
) -> None:
    """Train for the epochs that are left; evaluate on val and save after each.

    Args:
        checkpoint: where to go on, or None to begin.

    Raises:
        Diverged: the loss is no number any more. The last saved weights are those of the epoch before.
    """
    optimizer = make_optimizer(net, params)
    schedule = Schedule(optimizer, params, len(loaders["train"]))
    precision = choose_precision(device, params.precision)
    summaries = Summaries(model_dir)
    num_examples = len(loaders["train"].dataset)  # type: ignore[arg-type]
    history: list[dict[str, Any]] = []
    if checkpoint:
        history = checkpoint["history"]
        optimizer.load_state_dict(checkpoint["optim_dict"])
        schedule.load_state_dict(checkpoint["scheduler"])
        set_random_states(checkpoint["random_states"], device)
        logger.info("Going on after epoch %d.", len(history))
    logger.info("Training on %d examples, on %s in %s", num_examples, device, str(precision).removeprefix("torch."))

    while not is_finished(history, params):
        epoch = len(history)
        start = time.perf_counter()
        trained = train(net, optimizer, schedule, loaders["train"], task, params, device, precision, epoch, summaries)
        seconds = time.perf_counter() - start
        evaluated = evaluate(net, loaders["val"], task, device, precision)
        if not math.isfinite(trained["loss"] + evaluated["loss"]):
            raise Diverged(
                f"The loss became {trained['loss']} in epoch {epoch + 1} (on val: {evaluated['loss']}), at a learning"
                f" rate of up to {params.learning_rate:g}. Try a smaller learning_rate, warmup_epochs, clip_grad_norm."
            )
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
        is_best = best is history[-1]
        save_checkpoint(
            {
                "epoch": epoch + 1,
                "state_dict": net.state_dict(),
                "optim_dict": optimizer.state_dict(),
                "scheduler": schedule.state_dict(),
                "random_states": get_random_states(device),
                "history": history,
                "best": best,
                "params": params.model_dump(),
                "data": params.data.model_dump(),
            },
            model_dir,
            is_best,
        )
        write_results(model_dir, history, best)
        step = (epoch + 1) * len(loaders["train"])
        summaries.write("train_summaries", trained, step)
        summaries.write("eval_summaries", evaluated, step)
        logger.info("%s", describe_epoch(history[-1], params.num_epochs, is_best))
    summaries.close()
    finish(model_dir, history, params)


def finish(model_dir: Path, history: list[dict[str, Any]], params: TrainingParams) -> None:
    best = best_epoch(history, params.monitor)
    draw_curves(history, best["epoch"], model_dir / "curves.png")
    logger.info("Best: %s %.4f on val, after epoch %d", params.monitor, best["val"][params.monitor], best["epoch"])
    logger.info("On test: python evaluate.py --model_dir %s", model_dir)


def describe_epoch(entry: dict[str, Any], num_epochs: int, is_best: bool) -> str:
    """The line per epoch that stays on the console."""
    parts = [f"epoch {entry['epoch']:{len(str(num_epochs))}}/{num_epochs}"]
    for split in ("train", "val"):
        numbers = list(entry[split].items())[:3]  # the loss and the first two metrics
        parts.append(f"{split} " + " ".join(f"{name} {value:.4f}" for name, value in numbers))
    parts.append(f"{entry['seconds']:.1f} s ({entry['examples_per_second']:.0f}/s)")
    return " | ".join(parts) + (" | best" if is_best else "")


def main() -> None:
    args = parse_args()
    model_dir = Path(args.model_dir)
    if args.set and not args.base:
        raise UserError("--set goes with --base DIR, the experiment to vary. Or edit params.json.")
    is_new = args.base and create_experiment(model_dir, Path(args.base), args.set, args.data_dir)
    try:
        run_experiment(model_dir, args)
    except UserError:
        if is_new and not (model_dir / "run.json").exists():  # it could not start, and the next try may differ
            (model_dir / "params.json").unlink()
            model_dir.rmdir()
        raise


def run_experiment(model_dir: Path, args: argparse.Namespace) -> None:
    task, params = load_experiment(model_dir, args.data_dir)
    device = choose_device(args.device)
    check_writable(model_dir)
    checkpoint = choose_start(model_dir, params, args.restore_file, args.restart)
    history = checkpoint.get("history", []) if checkpoint else []
    run = describe_run(params, device)
    if is_finished(history, params):
        if read_run(model_dir).get("status") != "finished":  # it was stopped after its last epoch
            with recorded(model_dir, run):
                write_results(model_dir, history, best_epoch(history, params.monitor))
                finish(model_dir, history, params)
        logger.info(
            "%s: finished, %d epochs on %s. To start again: --restart. To train on: %s.",
            model_dir,
            len(history),
            params.data_dir,
            "--restore_file last, since its schedule has ended" if is_stretched(params) else "raise num_epochs",
        )
        return

    torch.manual_seed(params.seed)
    loaders = task.fetch_dataloader(["train", "val"], params.data_dir, params, device)
    net = task.Net(params).to(device)
    if checkpoint:
        restore_weights(net, checkpoint)
    elif hasattr(net, "load_pretrained"):
        net.load_pretrained()
    if not history:
        keep_previous(model_dir)  # only now: whatever could be wrong with the new run has been found
    set_logger(model_dir / "train.log")
    if not history:
        example, _ = loaders["val"].dataset.__getitems__(next(iter(loaders["val"].batch_sampler)))
        logger.info("%s", summarize(net, to_device(example, device)))
    with recorded(model_dir, run):
        train_and_evaluate(model_dir, net, loaders, task, params, device, checkpoint if history else None)


if __name__ == "__main__":
    run_command(main)
