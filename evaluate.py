"""Evaluate the weights of an experiment on a split of its data.

python evaluate.py --model_dir experiments/base_model
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from engine.checkpoints import fetch_checkpoint, restore_weights
from engine.commands import run_command
from engine.devices import autocast, choose_device, choose_precision
from engine.experiments import check_same_data, load_experiment
from engine.loaders import batches_on, fetch_dataloaders
from engine.metrics import totals_of
from engine.reports import Report, names_of_results, report_of
from engine.tasks import Task
from model import TASKS
from utils import Progress, check_writable, logger, save_json, set_logger


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_dir", default="experiments/base_model", help="folder of the experiment (%(default)s)")
    parser.add_argument("--data_dir", help="built data set to evaluate on (the one it was trained on)")
    parser.add_argument("--split", default="test", choices=["train", "val", "test"], help="which part (%(default)s)")
    parser.add_argument("--restore_file", default="best", help="best, last, or the path of a checkpoint (%(default)s)")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, mps (the fastest there is)")
    return parser.parse_args()


@torch.inference_mode()
def evaluate(
    net: nn.Module, loader: DataLoader[Any], task: Task, params: Any, device: torch.device, report: Report | None = None
) -> dict[str, float]:
    """The loss and metrics of `net` over every example of `loader`. A `report` collects the outputs too."""
    net.eval()
    precision = choose_precision(device, params.precision)
    totals = totals_of(task, params)
    for inputs, labels in batches_on(device, Progress(loader, "evaluating")):
        with autocast(device, precision):
            outputs = net(inputs)
            loss = task.loss_fn(outputs, labels)
        totals.add(outputs, labels, loss)
        if report is not None:
            report.add(outputs)
    return totals.compute()


def main() -> None:
    args = parse_args()
    task, params, model_dir, _ = load_experiment(TASKS, args.model_dir, args.data_dir)
    device = choose_device(args.device)
    checkpoint = fetch_checkpoint(model_dir, args.restore_file)
    params.with_data(params.data.as_learnt(checkpoint.get("data", {})))
    check_same_data(checkpoint, params.data)
    check_writable(model_dir)
    set_logger(model_dir / "evaluate.log")

    loader = fetch_dataloaders(task, [args.split], params, device, evaluating=True)[args.split]
    net = task.Net(params).to(device)
    restore_weights(net, checkpoint)
    report = report_of(task, loader, params, net)
    numbers = evaluate(net, loader, task, params, device, report)

    logger.info("%s on the %s split of %s:", checkpoint["path"], args.split, params.data_dir)
    predictions, metrics = names_of_results(args.split, args.restore_file, checkpoint, params)
    logger.info("\n%s\n", report.write(model_dir, predictions))
    logger.info("  ".join(f"{name} {value:.4f}" for name, value in numbers.items()))
    save_json({"epoch": checkpoint.get("epoch"), **numbers}, model_dir / metrics)


if __name__ == "__main__":
    run_command(main)
