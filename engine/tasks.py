"""What a task offers, and how the engine finds it. docs/adding_a_task.md explains each part."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from engine.params import did_you_mean
from utils import UserError

# part of a task -> the file of its folder that holds it
PARTS = {
    "Params": "params",
    "DataParams": "params",
    "build": "dataset",
    "Dataset": "data_loader",
    "Net": "net",
    "loss_fn": "net",
    "metrics": "net",
    "Processing": "predict",
}
OPTIONAL_PARTS = {
    "add_build_arguments": "dataset",
    "num_items": "net",
    "answers": "net",
    "influence": "net",
    "demonstrate": "write",
    "finish": "write",
    "load_text": "data_loader",
    "Report": "report",
    "write_sample": "sample",
}


class Task:
    """One kind of problem: a folder with a file for each step that the data takes.

    A part is imported when it is first needed, so that building a data set does not import torch.
    `Task("model", "image_classification").Net` is `Net` of model/image_classification/net.py.
    """

    def __init__(self, package: str, name: str):
        self.package, self.name = f"{package}.{name}", name

    def __getattr__(self, part: str) -> Any:
        if part not in PARTS:
            raise AttributeError(f"a task has no {part}")
        value = self._find(part, PARTS[part])
        if value is None:
            file = self.package.replace(".", "/") + f"/{PARTS[part]}.py"
            raise TypeError(f"{file} has no {part}, which every task needs: see docs/adding_a_task.md")
        return value

    def check(self) -> None:
        """Raises TypeError when a part is missing. It imports all of them."""
        for part in PARTS:
            getattr(self, part)

    def optional(self, part: str) -> Any:
        """A part that a task may leave out; None if it does."""
        return self._find(part, OPTIONAL_PARTS[part])

    def _find(self, part: str, file: str) -> Any:
        module = f"{self.package}.{file}"
        return getattr(import_module(module), part, None) if find_spec(module) else None


class Tasks(Mapping[str, Task]):
    """The tasks of a package, by name, in the order in which they are listed."""

    def __init__(self, package: str, names: Sequence[str]):
        self.tasks = {name: Task(package, name) for name in names}

    def __getitem__(self, name: str) -> Task:
        """Raises UserError if there is no task of that name."""
        if name not in self.tasks:
            hint = did_you_mean(name, self.tasks)
            raise UserError(f"{name}: no such task.{hint} The tasks are: {', '.join(self.tasks)}.")
        return self.tasks[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tasks)

    def __len__(self) -> int:
        return len(self.tasks)
