"""The tasks, by name. A task is a folder of this one; each of its files is imported when it is first needed."""

from __future__ import annotations

import json
from collections.abc import Collection
from importlib import import_module
from pathlib import Path
from typing import Any

from engine.params import WITHOUT_EFFECT, JsonFile, did_you_mean
from utils import UserError, check_writable, save_json

TASKS = ("image_classification", "sequence_tagging")

# what a task offers, and the file of its folder that holds it
PARTS = {
    "Params": "params",
    "DataParams": "params",
    "add_build_arguments": "dataset",
    "build": "dataset",
    "fetch_dataloader": "data_loader",
    "Net": "net",
    "loss_fn": "net",
    "metrics": "net",
    "Report": "report",
}


class Task:
    """The task `name`: `Task("image_classification").Net` is model/image_classification/net.py's `Net`."""

    def __init__(self, name: str):
        if name not in TASKS:
            raise UserError(f"{name}: no such task.{did_you_mean(name, TASKS)} The tasks are: {', '.join(TASKS)}.")
        self.name = name

    def __getattr__(self, part: str) -> Any:
        if part not in PARTS:
            raise AttributeError(f"a task has no {part}")
        return getattr(import_module(f"model.{self.name}.{PARTS[part]}"), part)


def load_experiment(model_dir: Path, data_dir: str | None = None) -> tuple[Task, Any]:
    """The task and the checked parameters of `model_dir`/params.json, with what the data decides attached.

    The data set is `data_dir`, or the one that params.json names, or that of the last run here, or the task's default.

    Raises:
        UserError: params.json or the data set is missing, or anything in them is wrong.
    """
    params = read_params(model_dir)
    task = Task(params.task)
    if data_dir is None and "data_dir" not in params.model_fields_set:
        data_dir = read_run(model_dir).get("params", {}).get("data_dir")
    if data_dir is not None:
        params = params.model_copy(update={"data_dir": data_dir})
    return task, params.with_data(load_data_params(task, Path(params.data_dir)))


def create_experiment(model_dir: Path, base: Path, assignments: list[str], data_dir: str | None = None) -> bool:
    """Write `model_dir`/params.json: that of `base` with `key=value` assignments applied, all checked.

    Returns:
        Whether it is new. One that is there already must say the same, but for what has no effect on what is learnt,
        which becomes what is asked for.

    Raises:
        UserError: a value is wrong, the data set is not there, or `model_dir` has other parameters already.
    """
    file = read_params_file(base)
    file.override(assignments)
    params = check_params(file)
    path = model_dir / "params.json"
    if path.exists():
        there = JsonFile.read(path).values
        asked = file.values | {name: there[name] for name in {"data_dir"} & there.keys()}
        names = sorted(name for name in there.keys() | asked.keys() if there.get(name) != asked.get(name))
        if set(names) - WITHOUT_EFFECT:
            different = [
                f"{name}: {there.get(name, 'default')} there, {asked.get(name, 'default')} asked for" for name in names
            ]
            raise UserError(
                "\n  ".join([f"{path}: there already, with other parameters", *different])
                + "\nChoose another --model_dir, or edit that file and leave out --base."
            )
        if names:
            save_json(asked, path)
        return False
    load_data_params(Task(params.task), Path(data_dir or params.data_dir))  # or there is nothing to try
    check_writable(model_dir)
    save_json(file.values | ({"data_dir": data_dir} if data_dir else {}), path)
    return True


def read_params(model_dir: Path) -> Any:
    """The checked parameters of `model_dir`/params.json, without the data. Raises UserError."""
    return check_params(read_params_file(model_dir))


def read_params_file(model_dir: Path) -> JsonFile:
    path = model_dir / "params.json"
    if not path.exists():
        there = [other.parent.name for other in model_dir.parent.glob("*/params.json")]
        raise UserError(
            f"{path}: no such file.{did_you_mean(model_dir.name, there)} An experiment is a folder with a"
            " params.json; to make one that varies another:\n"
            f"  python train.py --model_dir {model_dir} --base experiments/base_model --set learning_rate=0.01"
        )
    return JsonFile.read(path)


def check_params(file: JsonFile) -> Any:
    """The parameters in `file`, as its task's `Params`. Raises UserError."""
    name = file.values["task"] if "task" in file.values else task_of(file.values.keys())
    try:
        task = Task(str(name))
    except UserError as error:
        raise UserError(f"{file.path}: 1 problem\n  {file.where.get('task', 'default')}  task: {error}") from None
    return file.validate(task.Params, defaults={"task": task.name})


def task_of(names: Collection[str]) -> str:
    """The task of a params.json that does not say: the first of those that know most of its parameters."""
    return max(TASKS, key=lambda name: len(set(names) & Task(name).Params.model_fields.keys()))


def load_data_params(task: Task, data_dir: Path) -> Any:
    """Read `data_dir`/dataset_params.json. Raises UserError when the data set is not there, or another task's."""
    path = data_dir / "dataset_params.json"
    if not path.is_file():
        flags = f"--output_dir {data_dir}" + (f" --task {task.name}" if task.name != TASKS[0] else "")
        raise UserError(
            f"{data_dir}: no data set here (no {path.name}). Build one from raw files, or draw a sample:\n"
            f"  python build_dataset.py {flags} --data_dir RAW_FILES\n"
            f"  python build_dataset.py {flags} --sample"
        )
    file = JsonFile.read(path)
    built_for = file.values.get("task", task.name)
    if built_for != task.name:
        raise UserError(
            f"{data_dir}: built for the task {built_for}, but the experiment's params.json is of the task {task.name}."
            f' Take an experiment of that task: its params.json says "task": "{built_for}".'
        )
    return file.validate(task.DataParams).complete(data_dir)


def check_same_data(checkpoint: dict[str, Any], data: Any) -> None:
    """Raises UserError when `data` numbers its classes, words or tags otherwise than `checkpoint` learnt them."""
    for name in data.decides_network:
        then, now = checkpoint.get("data", {}).get(name), getattr(data, name)
        if then in (None, now):
            continue
        if isinstance(now, list):  # the first place where they part, since they may be long
            place = next((i for i, pair in enumerate(zip(then, now, strict=False)) if pair[0] != pair[1]), None)
            place = min(len(then), len(now)) if place is None else place
            then, now = (f"{values[place : place + 1]} at place {place + 1} of {len(values)}" for values in (then, now))
        where = checkpoint.get("params", {}).get("data_dir", "another data set")
        raise UserError(f"{name}: {now}, but {checkpoint['path']} was trained on {where} with {then}.")


def read_history(model_dir: Path) -> list[dict[str, Any]]:
    """The entries of history.jsonl, one per epoch; none where it is not there, or torn."""
    try:
        return [json.loads(line) for line in (model_dir / "history.jsonl").read_text().splitlines()]
    except (OSError, ValueError):
        return []


def read_run(model_dir: Path) -> dict[str, Any]:
    """What the last run in `model_dir` left in run.json; empty when there was none."""
    path = model_dir / "run.json"
    return JsonFile.read(path).values if path.is_file() else {}
