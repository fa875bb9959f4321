"""Experiments and their results, found below a folder."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

from engine.experiments import read_params
from engine.ranking import Goal, rank
from model import TASKS
from utils import UserError

# files of metrics, and what the names of their columns begin with
METRICS_FILES = {"metrics_eval_best_weights.json": "", "metrics_test_best_weights.json": "test "}
NOT_EXPERIMENTS = {"previous", "last_weights", "best_weights", "train_summaries", "eval_summaries"}


class Result(NamedTuple):
    """What one experiment has measured."""

    name: str  # path relative to the parent
    status: str
    metrics: dict[str, float]
    params: dict[str, Any]
    monitor: str
    goal: Goal
    is_restored: bool = False  # it began from the weights of another
    error: str = ""

    @property
    def task(self) -> str:
        return self.params.get("task", "")


def find_results(parent_dir: Path) -> list[Result]:
    """The results of every folder with a params.json below `parent_dir`, and of `parent_dir` once it was trained."""
    found = []
    for folder, subfolders, files in os.walk(parent_dir):
        subfolders[:] = sorted(name for name in subfolders if name not in NOT_EXPERIMENTS and name[0] != ".")
        is_parent = Path(folder) == parent_dir or not {"search.json", "search.log"}.isdisjoint(files)
        # best/ of a search; nobody has trained it yet
        is_proposal = Path(folder).name == "best" and (Path(folder).parent / "search.log").exists()
        if "run.json" in files or ("params.json" in files and not is_parent and not is_proposal):
            found.append(read_result(Path(folder), os.path.relpath(folder, parent_dir)))
    return found


def read_result(folder: Path, name: str) -> Result:
    """What one folder holds. A file that cannot be read shows in the status and does not stop the table."""
    broken: list[str] = []

    def read(file: str) -> dict[str, Any]:
        try:
            value = json.loads((folder / file).read_text(encoding="utf-8-sig"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError):
            value = None
        if not isinstance(value, dict):
            broken.append(file)
            return {}
        return value

    run = read("run.json")
    params = run.get("params", {})
    if not run:
        try:
            params = read_params(TASKS, folder).model_dump()
        except UserError:
            broken.append("params.json")
    metrics: dict[str, float] = {}
    for file, prefix in METRICS_FILES.items():
        values = read(file)
        if values.get("epoch", metrics.get("epoch")) != metrics.get("epoch", values.get("epoch")):
            continue  # evaluated before training went on to better weights
        for metric, value in values.items():
            if isinstance(value, int | float) and prefix + metric != "test epoch":
                metrics[prefix + metric] = value
    status = {"": "not trained", "running": "unfinished"}.get(run.get("status", ""), run.get("status", ""))
    if status not in ("finished", "not trained"):
        epochs = read("metrics_eval_last_weights.json").get("epoch", 0)
        status += f" after epoch {epochs} of {params.get('num_epochs', '?')}"
    if broken:
        status = f"unreadable: {', '.join(broken)}"
    monitor = run.get("monitor", "accuracy")
    goal = run.get("goal", "minimize" if monitor == "loss" else "maximize")
    return Result(name, status, metrics, params, monitor, goal, bool(run.get("restore_file")), run.get("error", ""))


def best_first(results: list[Result]) -> list[Result]:
    """Sort by the metric on val that each is judged by, then by the loss. Results without the metric come last."""

    def key(result: Result) -> tuple[Any, ...]:
        is_missing, *numbers = rank(result.metrics, result.monitor, result.goal)
        return is_missing, result.monitor, *numbers, result.name

    return sorted(results, key=key)


def by_task(results: list[Result]) -> list[list[Result]]:
    groups: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        groups[result.task].append(result)
    return list(groups.values())
