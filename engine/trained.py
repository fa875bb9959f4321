"""What is known of trained weights, whatever computes with them. Does not import torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from engine.params import JsonFile
from engine.tasks import Task, Tasks
from utils import UserError

Arrays = np.ndarray | dict[str, np.ndarray]


@dataclass
class About:
    """What is known of trained weights."""

    path: str
    epoch: int | None = None
    trained: str | None = None  # when, as 2026-01-31 12:00:00
    metrics: dict[str, float] | None = None  # on val, after that epoch


class Trained(NamedTuple):
    """A network that answers.

    Attributes:
        network: arrays, the inputs of a batch -> what `answers` of the task's net.py returns, as arrays.
    """

    task: Task
    params: Any
    network: Callable[[Arrays], dict[str, np.ndarray]]
    about: About


def learnt_params(tasks: Tasks, params: Mapping[str, Any], data: Mapping[str, Any], path: Path) -> tuple[Task, Any]:
    """The task and the parameters that weights were trained with, from plain values.

    Raises:
        UserError: the task or a parameter is not known here.
    """
    try:
        task = tasks[params.get("task", "")]
    except UserError as error:
        raise UserError(f"{path}: weights of another task: {error}") from None
    learnt, learnt_data = (
        JsonFile(path, dict(values), heading=f"{path}: weights of another version: its {name}").validate(model)
        for values, name, model in ((params, "params", task.Params), (data, "data", task.DataParams))
    )
    return task, learnt.with_data(learnt_data)
