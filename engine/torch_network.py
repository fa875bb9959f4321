"""Checkpoints -> networks that answer, with torch."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from engine.checkpoints import fetch_checkpoint, load_checkpoint, restore_weights
from engine.devices import autocast, choose_device, choose_precision, to_device
from engine.predicting import About, Arrays, Predictor, learnt
from engine.tasks import Task, Tasks
from utils import UserError


def load_checkpointed(tasks: Tasks, place: Path, device_name: str = "auto", top: int = 1) -> Predictor:
    """The best weights of an experiment's folder, or a checkpoint. See `load_predictor` of predict.py."""
    if not place.exists():
        raise UserError(f"{place}: no such experiment, and no such file.")
    checkpoint = fetch_checkpoint(place, "best") if place.is_dir() else load_checkpoint(place)
    path = Path(checkpoint["path"])
    if not checkpoint.get("params") or not checkpoint.get("data"):
        raise UserError(f"{path}: weights alone, without the parameters and data that they were trained with.")
    task, params = learnt(tasks, checkpoint["params"].get("task", ""), checkpoint["params"], checkpoint["data"], path)
    device = choose_device(device_name)
    net = task.Net(params)
    restore_weights(net, checkpoint)
    network = TorchNetwork(task, net.to(device).eval(), device, choose_precision(device, params.precision))
    return Predictor(task.name, task.Processing(params, top), network, about(checkpoint, path))


def about(checkpoint: dict[str, Any], path: Path) -> About:
    history, epoch = checkpoint.get("history") or [], checkpoint.get("epoch")
    metrics = history[epoch - 1]["val"] if epoch and len(history) >= epoch else None
    written = time.localtime(path.stat().st_mtime)
    return About(str(path), epoch, checkpoint.get("trained") or time.strftime("%Y-%m-%d %H:%M:%S", written), metrics)


class TorchNetwork:
    """Takes and returns arrays. Computes as evaluate.py does: same precision, same device."""

    def __init__(self, task: Task, net: nn.Module, device: torch.device, precision: torch.dtype):
        self.net, self.device, self.precision = net, device, precision
        self.answers = answers_of(task)

    @torch.inference_mode()
    def __call__(self, inputs: Arrays) -> dict[str, np.ndarray]:
        if isinstance(inputs, dict):
            tensors: Any = {name: torch.from_numpy(array) for name, array in inputs.items()}
        else:
            tensors = torch.from_numpy(inputs)
        with autocast(self.device, self.precision):
            outputs = self.net(to_device(tensors, self.device))
        return to_arrays(self.answers(outputs))


def answers_of(task: Task) -> Any:
    """`answers` of the task's net.py, outputs -> dict of tensors; if it has none, the outputs are the answer."""
    return task.optional("answers") or _the_outputs


def _the_outputs(outputs: Tensor) -> dict[str, Tensor]:
    return {"outputs": outputs.float()}


def to_arrays(tensors: dict[str, Tensor]) -> dict[str, np.ndarray]:
    return {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}
