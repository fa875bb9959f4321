"""A table of all experiments below a folder, best first; one for each task.

python synthesize_results.py --parent_dir experiments
python synthesize_results.py --parent_dir experiments --format csv --output results.csv
python synthesize_results.py --parent_dir experiments/learning_rate --plot --html report.html
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
import os
import re
import statistics
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tabulate import tabulate

from model import read_params
from utils import UserError, logger, run_command, write_atomically

# what of each metrics file becomes a column, and how the column is called
METRICS_FILES = {"metrics_eval_best_weights.json": "", "metrics_test_best_weights.json": "test "}
NOT_EXPERIMENTS = {"previous", "last_weights", "best_weights", "train_summaries", "eval_summaries"}


class Experiment(NamedTuple):
    name: str  # path relative to the parent
    status: str
    metrics: dict[str, float]
    params: dict[str, Any]
    monitor: str
    is_restored: bool = False  # it began from the weights of another


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parent_dir", default="experiments", help="folder that holds the experiments (%(default)s)")
    parser.add_argument("--format", default="markdown", choices=FORMATS, help="how to write the table (%(default)s)")
    parser.add_argument("--output", help="file to write the table to, besides printing it")
    parser.add_argument("--plot", action="store_true", help="draw the results into results.png, in the parent folder")
    parser.add_argument("--html", help="file for a page with everything, which opens from disk")
    return parser.parse_args()


def find_experiments(parent_dir: Path) -> list[Experiment]:
    """Every folder below `parent_dir` that has a params.json, and `parent_dir` itself once it was trained."""
    found = []
    for folder, subfolders, files in os.walk(parent_dir):
        subfolders[:] = sorted(name for name in subfolders if name not in NOT_EXPERIMENTS and name[0] != ".")
        is_parent = Path(folder) == parent_dir or not {"search.json", "search.log"}.isdisjoint(files)
        # what a search leaves to be trained
        is_proposal = Path(folder).name == "best" and (Path(folder).parent / "search.log").exists()
        if "run.json" in files or ("params.json" in files and not is_parent and not is_proposal):
            found.append(read_experiment(Path(folder), os.path.relpath(folder, parent_dir)))
    return found


def read_experiment(folder: Path, name: str) -> Experiment:
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
            params = read_params(folder).model_dump()
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
    return Experiment(name, status, metrics, params, run.get("monitor", "accuracy"), bool(run.get("restore_file")))


def best_first(experiments: list[Experiment]) -> list[Experiment]:
    """By the metric that each is judged by, on val, then by the loss; those without come last."""

    def key(experiment: Experiment) -> tuple[Any, ...]:
        metrics = {name: value for name, value in experiment.metrics.items() if not math.isnan(value)}
        value = metrics.get(experiment.monitor)
        if value is None:
            return True, experiment.monitor, experiment.name
        sign = 1 if experiment.monitor == "loss" else -1
        return False, experiment.monitor, sign * value, metrics.get("loss", math.inf), experiment.name

    return sorted(experiments, key=key)


def make_table(experiments: list[Experiment]) -> tuple[list[str], list[list[Any]]]:
    """Column names and rows: name, metrics, the hyperparameters that are not the same everywhere, and the status."""
    experiments = best_first(experiments)
    judged_by = [experiment.monitor for experiment in experiments if experiment.monitor in experiment.metrics]
    metrics = list(dict.fromkeys([*judged_by, *(name for e in experiments for name in e.metrics)]))
    params = list(dict.fromkeys(name for experiment in experiments for name in experiment.params))
    different = [name for name in params if len({json.dumps(e.params.get(name)) for e in experiments if e.params}) > 1]
    rows = [
        [
            e.name,
            *(e.metrics.get(name) for name in metrics),
            *(e.params.get(name) for name in different),
            describe_status(e),
        ]
        for e in experiments
    ]
    return ["experiment", *metrics, *different, "status"], rows


def describe_status(experiment: Experiment) -> str:
    return experiment.status + (", from other weights" if experiment.is_restored else "")


class Spread(float):
    """The mean of some runs, which knows their standard deviation."""

    deviation: float

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        mean = cls(statistics.mean(values))
        mean.deviation = statistics.stdev(values) if len(values) > 1 else 0.0
        return mean


def merge_seeds(experiments: list[Experiment]) -> list[Experiment]:
    """One for all that differ in their seed alone, with mean and deviation of what they measured."""
    groups: dict[str, list[Experiment]] = defaultdict(list)
    for e in experiments:
        same = {name: value for name, value in e.params.items() if name != "seed"}
        groups[json.dumps(same) if e.metrics and not e.is_restored else e.name].append(e)
    merged: list[Experiment] = []
    for group in groups.values():
        seeds = {e.params.get("seed") for e in group}
        merged += [merge(group)] if len(seeds) == len(group) > 1 else group
    return merged


def merge(group: list[Experiment]) -> Experiment:
    metrics: dict[str, float] = {}
    for name in dict.fromkeys(name for e in group for name in e.metrics):
        values = [e.metrics[name] for e in group if name in e.metrics]
        metrics[name] = Spread.of(values)
    done = sum(e.status == "finished" for e in group)
    status = "finished" if done == len(group) else f"{done} of {len(group)} finished"
    params = {name: value for name, value in group[0].params.items() if name != "seed"}
    name = re.sub(r"[-_]?seed_?\d+", "", group[0].name)
    return Experiment(f"{name} ({len(group)} seeds)", status, metrics, params, group[0].monitor)


def show(value: Any) -> str:
    """A number as a person reads it: 0.9833, 0.003, 1e-05."""
    if isinstance(value, Spread):
        return f"{value:.4f} ± {value.deviation:.4f}"
    if isinstance(value, float):
        if len(repr(value)) <= 7:
            return repr(value)
        return f"{value:.4f}" if abs(value) >= 0.001 else f"{value:.3g}"
    return "" if value is None else str(value)


def as_text(tablefmt: str) -> Callable[[list[str], list[list[Any]]], str]:
    def write(header: list[str], rows: list[list[Any]]) -> str:
        cells = [[show(value) for value in row] for row in rows]
        numeric = [any(isinstance(row[i], int | float) for row in rows) for i in range(len(header))]
        align = ["right" if is_numeric else "left" for is_numeric in numeric] if rows else None
        return tabulate(cells, header, tablefmt=tablefmt, disable_numparse=True, colalign=align)

    return write


def as_csv(header: list[str], rows: list[list[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return text.getvalue().rstrip("\n")


def as_json(header: list[str], rows: list[list[Any]]) -> str:
    return json.dumps([dict(zip(header, row, strict=True)) for row in rows], indent=4)


FORMATS: dict[str, Callable[[list[str], list[list[Any]]], str]] = {
    "markdown": as_text("github"),
    "csv": as_csv,
    "json": as_json,
    "latex": as_text("latex"),
}


def main() -> None:
    args = parse_args()
    parent_dir = Path(args.parent_dir)
    if not parent_dir.is_dir():
        raise UserError(f"--parent_dir {parent_dir}: no such folder.")
    groups = defaultdict(list)
    for experiment in find_experiments(parent_dir):
        # the columns of two tasks have little in common; but a program that reads the file wants one
        groups["" if args.format in ("csv", "json") else experiment.params.get("task", "")].append(experiment)
    for_programs = args.format in ("csv", "json")
    tables = [make_table(group if for_programs else merge_seeds(group)) for group in groups.values()]
    table = "\n\n".join(FORMATS[args.format](*table) for table in tables or [make_table([])])
    print(table if groups or args.format != "markdown" else f"No experiments below {parent_dir}.")
    if args.output:
        try:
            write_atomically(Path(args.output), table + "\n")
        except OSError as error:
            raise UserError(f"--output {args.output}: cannot be written ({error.strerror}).") from None
    if args.plot or args.html:
        import results_page

        ranked = [best_first(group) for group in groups.values()]
        if args.plot:
            drawn = []
            for group in ranked:
                name = "results.png" if len(ranked) == 1 else f"results_{group[0].params.get('task')}.png"
                drawn += [parent_dir / name] * results_page.draw(group, parent_dir, parent_dir / name)
            if not drawn:
                raise UserError(f"{parent_dir}: no experiment here was trained, so there is nothing to draw.")
            logger.info("%s", ", ".join(map(str, drawn)))
        if args.html:
            try:
                results_page.write_page([(group, *make_table(group)) for group in ranked], parent_dir, Path(args.html))
            except OSError as error:
                raise UserError(f"--html {args.html}: cannot be written ({error.strerror}).") from None
            logger.info("%s", args.html)


if __name__ == "__main__":
    run_command(main)
