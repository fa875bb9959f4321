"""Checkpoints -> networks that answer, with torch."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from engine.checkpoints import EXPORT_VERSION, fetch_checkpoint, load_checkpoint, restore_weights
from engine.devices import autocast, choose_device, choose_precision, keep_freed_memory, to_device
from engine.predicting import About, Arrays, Predictor, learnt
from engine.tasks import Task, Tasks
from utils import UserError


class Restored(NamedTuple):
    """A network with the weights of a checkpoint, on the CPU, in float32, as evaluation uses it."""

    task: Task
    params: Any
    net: nn.Module
    about: About
    checkpoint: dict[str, Any]


def restore_net(tasks: Tasks, place: Path) -> Restored:
    """The network of an experiment's best weights, or of a checkpoint.

    Raises:
        UserError: see `load_predictor` of predict.py.
    """
    if not place.exists():
        raise UserError(f"{place}: no such experiment, and no such file.")
    if place.is_dir() and not (place / "params.json").exists():
        raise UserError(f"{place}: not an experiment (it has no params.json). Expected --model_dir or --weights.")
    checkpoint = fetch_checkpoint(place, "best") if place.is_dir() else load_checkpoint(place)
    path = Path(checkpoint["path"])
    if checkpoint.get("exported", EXPORT_VERSION) != EXPORT_VERSION:
        raise UserError(f"{path}: written by another version of export.py. Export it again with this one.")
    values, data = checkpoint.get("params"), checkpoint.get("data")
    if not (values and isinstance(values, dict) and data and isinstance(data, dict)):
        raise UserError(f"{path}: weights alone, without the parameters and data that they were trained with.")
    task, params = learnt(tasks, values.get("task", ""), values, data, path)
    net = task.Net(params)
    restore_weights(net, checkpoint)
    return Restored(task, params, net.eval(), about(checkpoint, path), checkpoint)


def load_checkpointed(tasks: Tasks, place: Path, device_name: str = "auto", top: int = 1) -> Predictor:
    """The best weights of an experiment's folder, or a checkpoint. See `load_predictor` of predict.py."""
    task, params, net, about, _ = restore_net(tasks, place)
    device = choose_device(device_name)
    keep_freed_memory()
    network = TorchNetwork(task, net.to(device), device, choose_precision(device, params.precision))
    return Predictor(task.name, task.Processing(params, top), network, about)


def predictor_of(task: Task, params: Any, net: nn.Module) -> Predictor:
    """A network that is in memory already, ready to answer."""
    device = next(net.parameters()).device
    network = TorchNetwork(task, net.eval(), device, choose_precision(device, params.precision))
    return Predictor(task.name, task.Processing(params), network, About("memory"))


def about(checkpoint: dict[str, Any], path: Path) -> About:
    history, epoch = checkpoint.get("history") or [], checkpoint.get("epoch")
    metrics = history[epoch - 1]["val"] if epoch and len(history) >= epoch else checkpoint.get("metrics")
    written = time.localtime(path.stat().st_mtime)
    return About(str(path), epoch, checkpoint.get("trained") or time.strftime("%Y-%m-%d %H:%M:%S", written), metrics)


class TorchNetwork:
    """Takes and returns arrays. Computes as evaluate.py does: same precision, same device."""

    def __init__(self, task: Task, net: nn.Module, device: torch.device, precision: torch.dtype):
        self.task, self.net, self.device, self.precision = task, net, device, precision
        self.answers, self.influence = answers_of(task), task.optional("influence")
        self.can_explain = self.influence is not None

    @property
    def in_float32(self) -> TorchNetwork:
        """The same network in full precision. For steps so small that casting the weights would take longest."""
        return TorchNetwork(self.task, self.net, self.device, torch.float32)

    @torch.inference_mode()
    def __call__(self, inputs: Arrays) -> dict[str, np.ndarray]:
        return to_arrays(self.answers(self._compute(to_device(to_tensors(inputs), self.device))))

    def explain(self, inputs: Arrays) -> dict[str, np.ndarray]:
        """The same, and "influence": what `influence` of the task's net.py says, if it has one (`can_explain`)."""
        tensors = to_device(to_tensors(inputs), self.device)
        with torch.no_grad():
            outputs = self._compute(tensors)
        return to_arrays({**self.answers(outputs), "influence": self.influence(self.net, tensors, outputs)})

    def _compute(self, tensors: Any) -> Any:
        with autocast(self.device, self.precision):
            return self.net(tensors)


def answers_of(task: Task) -> Any:
    """`answers` of the task's net.py, outputs -> dict of tensors; if it has none, the outputs are the answer."""
    return task.optional("answers") or _the_outputs


def _the_outputs(outputs: Tensor) -> dict[str, Tensor]:
    return {"outputs": outputs.float()}


def to_tensors(arrays: Arrays) -> Any:
    if isinstance(arrays, dict):
        return {name: torch.from_numpy(array) for name, array in arrays.items()}
    return torch.from_numpy(arrays)


def to_arrays(tensors: dict[str, Tensor]) -> dict[str, np.ndarray]:
    return {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}
