"""Experiments and their results, found below a folder."""

from __future__ import annotations

import json
import math
import os
import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any, NamedTuple

from engine.experiments import read_params
from engine.ranking import Goal, rank
from model import TASKS
from utils import UserError

# metrics on val (called eval there) or test of the data that an experiment was trained on, or of another data set
METRICS_FILE = re.compile(r"metrics_(eval|test)_best_weights(?:_on_(.+))?\.json")
NOT_TRAINED = "not trained"
NOT_EXPERIMENTS = {"previous", "last_weights", "best_weights", "train_summaries", "eval_summaries"}


class Result(NamedTuple):
    """What one experiment has measured."""

    name: str  # path relative to the parent
    status: str
    metrics: dict[str, float]  # "val f1", "test f1", "test f1 on other_data", and the epoch of the best weights
    params: dict[str, Any]
    monitor: str
    goal: Goal
    digest: str = ""  # of the data set it was trained on
    is_restored: bool = False  # it began from the weights of another
    error: str = ""

    @property
    def task(self) -> str:
        return self.params.get("task", "")

    @property
    def data_dir(self) -> str:
        return os.path.abspath(self.params["data_dir"]) if "data_dir" in self.params else ""

    @property
    def is_trained(self) -> bool:
        return self.status != NOT_TRAINED


class Group(NamedTuple):
    """Results that can be compared, since they are of one task on one data set. The best comes first."""

    task: str
    data: str  # name of the data set
    metric: str  # ranks the results, by its value on val: what most of them monitor
    goal: Goal
    results: list[Result]

    @property
    def title(self) -> str:
        data = f" on {self.data}" if self.data else ""
        ranked = "" if self.metric == "auto" else f", ranked by val {self.metric}"  # auto: none of them is trained
        return f"{self.task or 'unknown task'}{data}{ranked}"

    @property
    def ranking_columns(self) -> tuple[str, str]:
        return f"val {self.metric}", f"test {self.metric}"


def find_results(parent_dir: Path) -> list[Result]:
    """The results of every folder with a params.json below `parent_dir`, and of `parent_dir` once it was trained."""
    found = []
    for folder, subfolders, files in os.walk(parent_dir):
        subfolders[:] = sorted(name for name in subfolders if name not in NOT_EXPERIMENTS and name[0] != ".")
        is_parent = Path(folder) == parent_dir or not {"search.json", "search.log"}.isdisjoint(files)
        # best/ of a search; nobody has trained it yet
        is_proposal = Path(folder).name == "best" and (Path(folder).parent / "search.log").exists()
        if "run.json" in files or ("params.json" in files and not is_parent and not is_proposal):
            found.append(read_result(Path(folder), os.path.relpath(folder, parent_dir), files))
    return found


def read_result(folder: Path, name: str, files: list[str]) -> Result:
    """What one folder with these `files` holds. One that cannot be read shows in the status, and the rest counts."""
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
    for match in filter(None, map(METRICS_FILE.fullmatch, sorted(files))):  # sorted: the own val comes first
        split, other = match[1].replace("eval", "val"), f" on {match[2]}" if match[2] else ""
        values = read(match[0])
        epoch = values.pop("epoch", None)
        if epoch is not None and metrics.setdefault("epoch", epoch) != epoch:
            continue  # evaluated before training went on to better weights
        metrics |= {f"{split} {key}{other}": v for key, v in values.items() if isinstance(v, int | float)}
    status = {"": NOT_TRAINED, "running": "unfinished"}.get(run.get("status", ""), run.get("status", ""))
    if status not in ("finished", NOT_TRAINED):
        epochs = read("metrics_eval_last_weights.json").get("epoch", 0)
        status += f" after epoch {epochs} of {params.get('num_epochs', '?')}"
    if broken:
        status = f"unreadable: {', '.join(broken)}"
    monitor = run.get("monitor", params.get("monitor", "accuracy"))
    goal = run.get("goal", "minimize" if monitor == "loss" else "maximize")
    digest, is_restored = run.get("data_digest", ""), bool(run.get("restore_file"))
    return Result(name, status, metrics, params, monitor, goal, digest, is_restored, run.get("error", ""))


def group_results(results: list[Result]) -> list[Group]:
    """A group for each task and data set. The same digest is the same data, whatever its path.

    An experiment without a digest, as before its first run, belongs to those that were trained on its `data_dir`.
    """
    digests = {(result.task, result.data_dir): result.digest for result in results if result.digest}
    groups: dict[tuple[str, str], list[Result]] = defaultdict(list)
    for result in results:
        digest = result.digest or digests.get((result.task, result.data_dir))
        groups[result.task, digest or result.data_dir].append(result)
    names = Counter((group[0].task, Path(group[0].data_dir).name) for group in groups.values())
    return [make_group(group, names[group[0].task, Path(group[0].data_dir).name] == 1) for group in groups.values()]


def make_group(results: list[Result], is_only_name: bool) -> Group:
    """Rank results of one task and data set. If another data set has the same name, path and digest tell them apart."""
    digest = next((f", digest {result.digest[:8]}" for result in results if result.digest), "")
    first = results[0]
    data = Path(first.data_dir).name if is_only_name else f"{first.params.get('data_dir')}{digest}"
    monitors = Counter((result.monitor, result.goal) for result in results if result.is_trained)
    metric, goal = monitors.most_common(1)[0][0] if monitors else (first.monitor, first.goal)
    return Group(first.task, data, metric, goal, rank_results(results, metric, goal))


def rank_results(results: list[Result], metric: str, goal: Goal) -> list[Result]:
    """Sort by the metric on val, then by the loss, the best first. Results without the metric come last."""

    def key(result: Result) -> tuple[Any, ...]:
        on_val = {name: result.metrics.get(f"val {name}", math.nan) for name in (metric, "loss")}
        return *rank(on_val, metric, goal), result.name

    return sorted(results, key=key)
