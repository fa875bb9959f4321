"""An experiment: a folder with a params.json, and what runs leave in it. Does not import torch."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from collections.abc import Set
from pathlib import Path
from typing import Any, NamedTuple

from engine.commands import command_line
from engine.params import MAY_CHANGE, WITHOUT_EFFECT, JsonFile, did_you_mean, differences
from engine.tasks import Task, Tasks
from utils import UserError, check_writable, save_json


class Experiment(NamedTuple):
    """A folder, its task, its checked parameters, and in `params.data` what the data set decides."""

    task: Task
    params: Any
    model_dir: Path
    params_to_write: dict[str, Any] | None = None  # as params.json when the run starts; None if it is there


def load_experiment(
    tasks: Tasks,
    model_dir: str | Path,
    data_dir: str | None = None,
    base: str | None = None,
    assignments: list[str] | None = None,
) -> Experiment:
    """Read and check an experiment. With `base`, plan a new one: the parameters of `base` with `assignments` applied.

    The data set is `data_dir`, or the one that params.json names, or that of the last run here, or the default.

    Raises:
        UserError: params.json or the data set is missing, or anything in them is wrong.
    """
    model_dir, params_to_write = Path(model_dir), None
    if assignments and not base:
        goes_on = {assignment.split("=")[0] for assignment in assignments} <= MAY_CHANGE and read_run(model_dir)
        target = model_dir if goes_on else model_dir.with_name("NEW")
        vary = command_line("train.py", "--model_dir", target, "--base", model_dir, "--set", *assignments)
        what = "to train it further" if goes_on else "the experiment to vary, and a --model_dir of its own"
        raise UserError(f"--set goes with --base DIR: {what}:\n  {vary}")
    if base:
        params_to_write = plan_experiment(tasks, model_dir, Path(base), assignments or [], data_dir)
    if params_to_write:
        file = JsonFile(model_dir / "params.json", params_to_write)
    else:
        file = read_params_file(tasks, model_dir, data_dir)
    params = check_params(tasks, file)
    if data_dir is None and "data_dir" not in params.model_fields_set:
        data_dir = read_run(model_dir).get("params", {}).get("data_dir")
    if data_dir is not None:
        params = params.model_copy(update={"data_dir": data_dir})
    task = tasks[params.task]
    params = params.with_data(load_data_params(task, Path(params.data_dir))).resolve()
    return Experiment(task, params, model_dir, params_to_write)


def create_experiment(
    tasks: Tasks, model_dir: Path, base: Path, assignments: list[str], data_dir: str | None = None
) -> None:
    """Write the params.json that `plan_experiment` returns. Raises UserError."""
    values = plan_experiment(tasks, model_dir, base, assignments, data_dir, may_change=WITHOUT_EFFECT)
    if values is not None:
        check_writable(model_dir)
        save_json(values, model_dir / "params.json")


def plan_experiment(
    tasks: Tasks,
    model_dir: Path,
    base: Path,
    assignments: list[str],
    data_dir: str | None = None,
    may_change: Set[str] = MAY_CHANGE,
) -> dict[str, Any] | None:
    """The params.json of an experiment that varies another: that of `base` with `key=value` assignments applied.

    If `model_dir` has a params.json, it must agree with `base` and `assignments`, except for the parameters that
    `may_change`. Those without effect on what is learnt are updated. Others, such as num_epochs, are updated only if
    `assignments` names them. Without `data_dir`, the file keeps its own.

    Returns:
        The values to write, or None if the file says the same already.

    Raises:
        UserError: a value is wrong, the data set is missing, or `model_dir` has other parameters.
    """
    file = read_params_file(tasks, base, data_dir)
    file.override(assignments)
    params = check_params(tasks, file)
    path, asked_data = model_dir / "params.json", {"data_dir": data_dir} if data_dir else {}
    if path.exists():
        there = JsonFile.read(path).values
        # what `there` says, or leaves at its default, stays unless it is assigned
        stay = {"data_dir"} | {name for name in may_change - WITHOUT_EFFECT if file.where.get(name) != "--set"}
        asked = {name: value for name, value in file.values.items() if name not in stay}
        asked |= {name: there[name] for name in stay & there.keys()} | asked_data
        changed = differences(there, asked, ("there", "asked for"), missing="default")
        if fixed := [change for name, change in changed.items() if name not in may_change]:
            raise UserError(
                "\n  ".join([f"{path}: there already, with other parameters", *fixed])
                + "\nChoose another --model_dir, or edit that file and leave out --base."
            )
        return asked if changed else None
    load_data_params(tasks[params.task], Path(data_dir or params.data_dir))  # fail now if the data set is missing
    return file.values | asked_data


def read_params(tasks: Tasks, model_dir: Path) -> Any:
    """The checked parameters of `model_dir`/params.json, without the data. Raises UserError."""
    return check_params(tasks, read_params_file(tasks, model_dir))


def read_params_file(tasks: Tasks, model_dir: Path, data_dir: str | None = None) -> JsonFile:
    """Raises UserError if there is none; the message says which experiments there are to vary, for `data_dir`."""
    path = model_dir / "params.json"
    if path.exists():
        return JsonFile.read(path)
    there = [other.parent.name for other in model_dir.parent.glob("*/params.json")]
    examples = ", ".join(f"--base {base} ({name})" for name, base in examples_for(tasks, data_dir).items())
    raise UserError(
        f"{path}: no such file.{did_you_mean(model_dir.name, there)} An experiment is a folder with a params.json. A"
        " search also has a search.json."
        + (f"\ntrain.py makes one that varies another: {examples}" if examples else "")
    )


def check_params(tasks: Tasks, file: JsonFile) -> Any:
    """The parameters in `file`, as its task's `Params`. Raises UserError."""
    task = task_of(tasks, file)
    return file.validate(task.Params, defaults={"task": task.name})


def task_of(tasks: Tasks, file: JsonFile) -> Task:
    """The task that a params.json names.

    The files of CS230 name none. They belong to the first task that knows all their parameters; if one is misspelt, to
    the first that knows most of them, so that the error message is about the most likely task.

    Raises:
        UserError: there is no such task.
    """
    if "task" not in file.values:
        return max(tasks.values(), key=lambda task: len(file.values.keys() & task.Params.model_fields.keys()))
    try:
        return tasks[str(file.values["task"])]
    except UserError as error:
        raise UserError(f"{file.path}: 1 problem\n  {file.where.get('task', 'default')}  task: {error}") from None


def how_to_build(task: Task, data_dir: Path) -> str:
    """What to do if `data_dir` is no built data set."""
    if data_dir.is_file() or (data_dir.is_dir() and any(data_dir.iterdir())):
        build = ("build_dataset.py", "--task", task.name, "--data_dir", data_dir)
        built = Path("data") / f"built_{data_dir.resolve().stem}"
        return f"If it is raw, build one from it:\n  {command_line(*build, '--output_dir', built)}"
    build = ("build_dataset.py", "--task", task.name, "--output_dir", data_dir)
    lines = (
        "If it was moved, say where it is with --data_dir. Or build one from raw files, or make a sample:",
        command_line(*build, "--data_dir", "RAW_FILES"),
    )
    return "\n  ".join([*lines, command_line(*build, "--sample")])


def load_data_params(task: Task, data_dir: Path) -> Any:
    """Read `data_dir`/dataset_params.json. Raises UserError if it is missing, or of another task."""
    path = data_dir / "dataset_params.json"
    if not path.is_file():
        raise UserError(f"{data_dir}: no data set here (no {path.name}). {how_to_build(task, data_dir)}")
    file = JsonFile.read(path)
    built_for = file.values.get("task", task.name)
    if built_for != task.name:
        raise UserError(
            f"{data_dir}: built for the task {built_for}, but the experiment's params.json is of the task {task.name}."
            f' Take an experiment of {built_for}: its params.json says "task": "{built_for}".'
        )
    return file.validate(task.DataParams).complete(data_dir)


def check_same_data(checkpoint: dict[str, Any], data: Any) -> None:
    """Raises UserError when classes, words or tags differ from those that the checkpoint was trained with."""
    learnt, values = checkpoint.get("data", {}), data.model_dump()
    for name in data.decides_network:
        then, now = learnt.get(name), values[name]
        if then in (None, now):
            continue
        if isinstance(now, dict):
            then, now = ([f"{key}: {value}" for key, value in entries.items()] for entries in (then, now))
        if isinstance(now, list):  # show the first place where they differ, since they may be long
            pairs = enumerate(zip(then, now, strict=False))
            place = next((i for i, (a, b) in pairs if a != b), min(len(then), len(now)))
            then, now = (f"{str(v[place : place + 1])[:200]} at place {place + 1} of {len(v)}" for v in (then, now))
        where = checkpoint.get("params", {}).get("data_dir", "another data set")
        raise UserError(f"{name}: {now}, but {checkpoint['path']} was trained on {where} with {then}.")


def read_run(model_dir: Path) -> dict[str, Any]:
    """What run.json says of the last run in `model_dir`; empty if there was none. Raises UserError if it is broken."""
    path = model_dir / "run.json"
    return JsonFile.read(path).values if path.is_file() else {}


def git_commit() -> str | None:
    """The commit of this code, with -dirty behind it if files were changed since; None if nobody knows."""
    if not shutil.which("git"):
        return None
    git = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    answer = subprocess.run(git, cwd=Path(__file__).parent, capture_output=True, encoding="utf-8")
    return answer.stdout.strip() or None


def read_history(model_dir: Path) -> list[dict[str, Any]]:
    """The entries of history.jsonl, one per epoch; an empty list if it is missing or damaged."""
    try:
        return [json.loads(line) for line in (model_dir / "history.jsonl").read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError):
        return []


def examples_for(tasks: Tasks, data_dir: str | None = None) -> dict[str, Path]:
    """A shipped experiment for the task of `data_dir`; for every task if that is no built data set."""
    path, names = Path(data_dir or "") / "dataset_params.json", list(tasks)
    if data_dir and path.is_file():
        task = JsonFile.read(path).values.get("task")
        names = [name for name in names if name == task] or names
    found = {name: example_of(tasks, tasks[name]) for name in names}
    return {name: example for name, example in found.items() if example}


def example_of(tasks: Tasks, task: Task, folder: Path = Path("experiments")) -> Path | None:
    """A shipped experiment to begin from: the first one of the task in alphabetical order, None if there is none.

    One that names its data is somebody's own.
    """
    for path in sorted(folder.glob("*/params.json")):
        with contextlib.suppress(UserError):  # skip invalid files
            file = JsonFile.read(path)
            is_own = "data_dir" in file.values or (path.parent / "search.json").exists()
            if not is_own and task_of(tasks, file) is task:
                return path.parent
    return None
