"""Train the network of an experiment, a folder with a params.json. Everything that the run produces lands there.

    python train.py --model_dir experiments/base_model
    python train.py --model_dir experiments/lr_0.01 --base experiments/base_model --set learning_rate=0.01

The same command goes on with a run that was interrupted, and ends where that would have ended. Ctrl-C and SIGTERM stop
it after the batch and save; whatever else ends it costs at most the batches since the last checkpoint.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from engine.checkpoints import mend, restore_weights
from engine.devices import autocast, choose_device, choose_precision, to_device
from engine.experiments import create_experiment, load_experiment, read_run
from engine.locks import locked
from engine.optimizers import clip_gradients
from engine.params import TrainingParams
from engine.pictures import draw_curves
from engine.runs import (
    Run,
    best_epoch,
    check_same_files,
    choose_start,
    describe_run,
    gradient_norms,
    is_finished,
    is_stretched,
    keep_previous,
    recorded,
    taken_back,
    warn_of_another_machine,
    write_results,
)
from engine.summary import summarize
from engine.tasks import Task
from evaluate import evaluate
from model import TASKS
from utils import Diverged, Progress, Stopped, UserError, check_writable, logger, run_command, set_logger, stop


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


def train(run: Run, task: Task, precision: torch.dtype) -> dict[str, float]:
    """Train to the end of the epoch. Returns its loss and metrics, each example as the network saw it at that moment.

    Raises:
        Stopped: a signal came; `run` is between two batches.
        Diverged: the loss or its gradient is not finite; the weights are those before the step.
    """
    net, loader, params, device = run.net, run.loader, run.params, run.device
    net.train()
    start = time.perf_counter() - run.seconds
    loader.batch_sampler.set_epoch(run.epoch, run.batches)  # type: ignore[union-attr]
    progress = Progress(loader, f"epoch {run.epoch + 1}/{params.num_epochs}", done=run.batches)
    for inputs, labels in progress:
        inputs, labels = to_device(inputs, device), to_device(labels, device)
        with autocast(device, precision):
            outputs = net(inputs)
            loss = task.loss_fn(outputs, labels)
        run.optimizer.zero_grad()
        loss.backward()
        gradient_norm = clip_gradients(net, params.clip_grad_norm)
        run.check_finite(loss, gradient_norm)
        run.optimizer.step()
        run.schedule.step()

        run.totals.add(outputs, labels, loss)
        run.batches += 1
        run.seconds = time.perf_counter() - start
        progress.show(run.totals.compute)  # computes once a second at most: nothing else here waits for a GPU
        if run.step % params.save_summary_steps == 0 or run.batches == len(loader):
            numbers = gradient_norms(net) | {"learning_rate": run.schedule.learning_rate}
            run.summaries.write("train_summaries", numbers, run.step)
        run.save_if_older(params.checkpoint_minutes)
    run.look()
    return run.totals.compute()


def train_and_evaluate(run: Run, val_loader: DataLoader[Any], task: Task) -> None:
    """Train for the epochs that are left; evaluate on val and save after each.

    Raises:
        Stopped: a signal came; a checkpoint of that moment is saved.
        Diverged: the loss or its gradient is not finite; the checkpoints are of before.
    """
    params, device = run.params, run.device
    precision = choose_precision(device, params.precision)
    num_examples = len(run.loader.dataset)  # type: ignore[arg-type]
    logger.info("Training on %d examples, on %s in %s", num_examples, device, str(precision).removeprefix("torch."))
    try:
        while not is_finished(run.history, params):
            trained = train(run, task, precision)
            run.save_if_older(params.checkpoint_minutes / 10)  # validation may take long
            evaluated = evaluate(run.net, val_loader, task, device, precision)
            if not math.isfinite(evaluated["loss"]):
                raise Diverged(
                    f"The loss on val is {evaluated['loss']} after epoch {run.epoch + 1}, at a learning rate of up to"
                    f" {params.learning_rate:g}. Try a smaller learning_rate, warmup_epochs, or clip_grad_norm."
                )
            is_best = run.end_epoch(trained, evaluated)
            logger.info("%s", describe_epoch(run.history[-1], params.num_epochs, is_best))
    except Stopped:
        run.save()
        logger.info("Saved %s. To go on: python train.py --model_dir %s", run.place, run.model_dir)
        raise
    run.summaries.close()
    finish(run.model_dir, run.history, params)


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
    is_new = bool(args.base) and not (model_dir / "params.json").exists()
    if args.base:
        create_experiment(TASKS, model_dir, Path(args.base), args.set, args.data_dir)
    with taken_back(model_dir, is_new):
        task, params, *_ = load_experiment(TASKS, model_dir, args.data_dir)
        device = choose_device(args.device)
        check_writable(model_dir)
    with locked(model_dir), taken_back(model_dir, is_new):
        run_experiment(model_dir, task, params, device, args)


def run_experiment(
    model_dir: Path, task: Task, params: TrainingParams, device: torch.device, args: argparse.Namespace
) -> None:
    checkpoint, weights = choose_start(model_dir, params, args.restore_file, args.restart)
    history = checkpoint["history"] if checkpoint else []
    restore_file = checkpoint["restore_file"] if checkpoint else args.restore_file
    before, now = read_run(model_dir), describe_run(params, device, restore_file)
    if checkpoint and not is_finished(history, params):
        set_logger(model_dir / "train.log")
    if checkpoint:
        mend(model_dir, checkpoint, best_epoch(history, params.monitor)["epoch"] if history else 0)
    if is_finished(history, params):
        if before.get("status") != "finished":  # it was stopped after its last epoch
            with recorded(model_dir, now):
                write_results(model_dir, history, params.monitor)
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
    if start := checkpoint or weights:
        restore_weights(net, start)
    elif hasattr(net, "load_pretrained"):
        net.load_pretrained()
    if checkpoint:
        check_same_files(model_dir, params, checkpoint, loaders)
    else:
        keep_previous(model_dir)  # only now: whatever could be wrong with the new run has been found
        set_logger(model_dir / "train.log")
    with recorded(model_dir, now), stop.deferred():
        run = Run(model_dir, net, loaders, task, params, device, restore_file)
        if checkpoint:
            warn_of_another_machine(before, now)
            run.resume(checkpoint)
        else:
            if weights:
                run.save()  # at once: they may be in previous/ now
            example, _ = loaders["val"].dataset.__getitems__(next(iter(loaders["val"].batch_sampler)))
            logger.info("%s", summarize(net, to_device(example, device)))
        train_and_evaluate(run, loaders["val"], task)


if __name__ == "__main__":
    run_command(main)
