"""Ways to train for an epoch, timed in turn in one process."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from engine.devices import autocast, choose_precision
from engine.experiments import Experiment
from engine.loaders import fetch_dataloaders
from engine.optimizers import make_optimizer
from engine.run import Run
from engine.tasks import Task
from train import train

Way = Callable[[], Any]


def new(task: Task, params: Any, device: torch.device) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(params.seed)
    net = task.Net(params).to(device)
    return net, make_optimizer(net, params)


def train_way(task: Task, params: Any, device: torch.device) -> Way:
    """train.py's `train` over an epoch, everything in but TensorBoard's gradient norms and checkpoints."""
    params = params.model_copy(update={"save_summary_steps": 10**9, "checkpoint_minutes": 1e9, "num_epochs": 10**4})
    loaders = fetch_dataloaders(task, ["train"], params, device)
    net, _ = new(task, params, device)
    run = Run(Experiment(task, params, Path(tempfile.mkdtemp())), net, loaders, device)

    def epoch() -> None:
        run.begin_epoch()
        train(run)

    return epoch


def bare_way(task: Task, params: Any, batches: Sequence[tuple[Any, Any]], device: torch.device) -> Way:
    """The limit: batches that lie in memory, network, loss, backward, clipping, optimizer step, and nothing else."""
    net, optimizer = new(task, params, device)
    precision = choose_precision(device, params.precision)

    def epoch() -> None:
        net.train()
        for inputs, labels in batches:
            with autocast(device, precision):
                loss = task.loss_fn(net(inputs), labels)
            optimizer.zero_grad()
            loss.backward()
            if params.clip_grad_norm:
                nn.utils.clip_grad_norm_(net.parameters(), params.clip_grad_norm)
            optimizer.step()

    return epoch


def measure(ways: dict[str, Way], num_examples: int, rounds: int, device: torch.device) -> dict[str, list[float]]:
    """Examples per second of each way, in each round."""
    for way in ways.values():
        way()  # warm up: caches, threads, memory
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            if device.type == "cuda":
                torch.cuda.synchronize()
            speeds[name].append(num_examples / (time.perf_counter() - start))
    return speeds


def ratio(speeds: dict[str, list[float]], name: str, other: str) -> float:
    """The median, over the rounds, of how much faster `name` was than `other`."""
    return statistics.median(a / b for a, b in zip(speeds[name], speeds[other], strict=True))


def print_speeds(speeds: dict[str, list[float]], unit: str, limits: dict[str, str]) -> None:
    """A line for each way; `limits` says of which way's speed, and as what, the share is printed."""
    for name, values in speeds.items():
        shares = [f"{ratio(speeds, name, limit):8.3g}x {called}" for limit, called in limits.items()]
        print(f"  {name:32s}{statistics.median(values):8.0f} {unit}{''.join(shares)}")
