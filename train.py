"""Train the network of an experiment, a folder with a params.json. Everything that the run produces lands there.

    python train.py --model_dir experiments/base_model
    python train.py --model_dir experiments/lr_0.01 --base experiments/base_model --set learning_rate=0.01

The same command resumes a run that was interrupted. On a CPU with the same number of threads, the result is the same as
without the interruption. Ctrl-C and SIGTERM stop it after the batch and save; if it is killed, only the batches since
the last checkpoint are lost.
"""

from __future__ import annotations

import argparse

from engine.commands import run_command
from engine.experiments import load_experiment
from engine.optimizers import clip_gradients
from engine.run import Run
from engine.start import open_run
from evaluate import evaluate
from model import TASKS


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_dir", default="experiments/base_model", help="folder of the experiment (%(default)s)")
    parser.add_argument("--data_dir", help="built data set (that of params.json, or of the last run)")
    parser.add_argument("--restore_file", help="new run from these weights: best, last, or a path")
    parser.add_argument("--restart", action="store_true", help="start again; what is there moves to previous/")
    parser.add_argument("--base", metavar="DIR", help="make --model_dir a new experiment with this one's parameters")
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="with --base: what differs from it"
    )
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, mps (the fastest there is)")
    return parser.parse_args()


def train(run: Run) -> dict[str, float]:
    """Train one epoch, or the rest of an interrupted one.

    `run.task` is the folder of model/ that params.json names; its net.py holds Net, loss_fn and metrics.

    Returns:
        Loss and metrics on the training split, measured batch by batch before each step.

    Raises:
        Stopped: a signal came. The run is between two batches, and is saved.
        Diverged: a loss or gradient is NaN or infinite. On a GPU this is noticed up to 64 steps late, but before
            anything is saved. Weights are checked before they are saved.
    """
    run.net.train()
    for inputs, labels in run.batches():
        with run.autocast():
            outputs = run.net(inputs)
            loss = run.task.loss_fn(outputs, labels)
        run.optimizer.zero_grad()
        loss.backward()
        gradient_norm = clip_gradients(run.optimizer, run.params.clip_grad_norm)
        run.check_finite(loss, gradient_norm)
        run.optimizer.step()
        run.schedule.step()
        run.after_step(outputs, labels, loss, gradient_norm)
    return run.totals.compute()


def main() -> None:
    args = parse_args()
    experiment = load_experiment(TASKS, args.model_dir, args.data_dir, base=args.base, assignments=args.set)
    # new, from other weights, or resumed; of a finished run no epochs are left (engine/start.py)
    with open_run(experiment, args.device, args.restore_file, args.restart) as run:
        while run.has_epochs_left():
            train_metrics = train(run)
            val_metrics = evaluate(run.net, run.loaders["val"], run.task, run.params, run.device)
            run.end_epoch(train_metrics, val_metrics)  # history, checkpoint, results


if __name__ == "__main__":
    run_command(main)
