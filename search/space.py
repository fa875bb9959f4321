"""What is searched: search.json, checked against the parameters of the task."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from pydantic import Field

from engine.commands import command_line
from engine.experiments import check_params, load_data_params, read_params_file
from engine.params import (
    WITHOUT_EFFECT,
    JsonFile,
    Problem,
    StrictModel,
    did_you_mean,
    list_problems,
    parse_value,
    split_assignment,
)
from engine.ranking import Goal
from model import TASKS
from utils import UserError


class SearchFile(StrictModel):
    """search.json. `read_space` checks the entries of `space` against the parameters of the task."""

    metric: dict[str, str] = Field({}, description="Its name, and its goal: maximize or minimize.")
    method: Literal["grid", "random", "tpe"] = Field("tpe", description="How settings are chosen.")
    num_trials: int = Field(40, ge=1, description="Settings to try; a grid tries them all.")
    seed: int = Field(230, ge=0, description="Decides which settings are tried.")
    seeds: int = Field(1, ge=1, description="Runs of each setting, with consecutive seeds; their mean counts.")
    prune: bool = Field(True, description="Stop bad runs early.")
    space: dict[str, Any] = Field(description="The values of each parameter: a list, or min and max, with step or log.")


NOT_SEARCHED = ("task", "data_dir", "monitor")


@dataclass(frozen=True)
class Search:
    """A search whose files have been checked."""

    parent_dir: Path
    params: Any  # of the parent's params.json; `data_dir` is the one that was asked for
    data_digest: str
    method: str
    num_trials: int
    seed: int
    seeds: int
    prune: bool
    metric: str
    asked_goal: Goal | None  # in search.json
    space: dict[str, BaseDistribution]

    @property
    def goal(self) -> Goal:
        """Whether more or less of the metric is better: as asked for, or as the task's Params say."""
        return self.asked_goal or ("minimize" if self.metric in self.params.minimized else "maximize")

    def describe(self) -> dict[str, Any]:
        """What may not change within a study."""
        space = {name: describe_values(values) for name, values in self.space.items()}
        fixed = {name: value for name, value in self.params.model_dump().items() if name not in WITHOUT_EFFECT}
        data = f"digest {self.data_digest[:12]}"
        return {**fixed, "data": data, "metric": self.metric, "goal": self.goal, "seeds": self.seeds, **space}

    @property
    def first_rung(self) -> int:
        """The epoch after which a run is judged for the first time: a quarter of the shortest run."""
        searched = self.space.get("num_epochs")
        if isinstance(searched, CategoricalDistribution):
            return max(1, min(map(int, searched.choices)) // 4)  # type: ignore[arg-type]
        return max(1, (searched.low if isinstance(searched, IntDistribution) else self.params.num_epochs) // 4)

    def grid(self) -> Iterator[dict[str, Any]]:
        """All settings of a grid, as the study stores them."""
        for values in itertools.product(*map(grid_values, self.space.values())):
            yield dict(zip(self.space, values, strict=True))

    def setting_of(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters of a run, from those of a trial.

        Values of a continuous range keep three digits, so that the name of a folder says the whole value.
        """
        setting = dict(params)
        for name, values in self.space.items():
            if isinstance(values, CategoricalDistribution):
                setting[name] = from_choice(params[name])
            elif isinstance(values, FloatDistribution):
                value = float(f"{params[name]:.3g}") if values.step is None else round(params[name], 12)
                setting[name] = min(max(value, values.low), values.high)
        return setting

    def folders_of(self, setting: Mapping[str, Any]) -> list[Path]:
        """The folders of a setting's runs, one per seed: learning_rate_0.001-batch_size_32."""
        name = "-".join(f"{key}_{show(value)}" for key, value in setting.items())
        seeds = [self.params.seed + i for i in range(self.seeds)]
        return [self.parent_dir / (name if self.seeds == 1 else f"{name}-seed_{seed}") for seed in seeds]


def show(value: Any) -> str:
    """A value in letters that any file system takes: 0.001, 64x64 for a list, none for an empty one."""
    if isinstance(value, list):
        return "x".join(map(show, value)) or "none"
    text = f"{value:.12g}" if isinstance(value, float) else str(value)
    return "".join(letter if letter.isalnum() or letter in "._-+" else "_" for letter in text)


JSON_TEXT = ("[", "{", '"')  # how the JSON text of a list, an object, or a string begins


def to_choice(value: Any) -> Any:
    """`value` as a study stores it. A list is stored as JSON text, since Optuna takes only plain values."""
    return json.dumps(value) if str(value).startswith(JSON_TEXT) else value


def from_choice(choice: Any) -> Any:
    """The value that `to_choice` stored."""
    return json.loads(choice) if str(choice).startswith(JSON_TEXT) else choice


def read_search(
    parent_dir: Path,
    assignments: Sequence[str] = (),
    method: str | None = None,
    num_trials: int | None = None,
    data_dir: str | None = None,
) -> Search:
    """The search of `parent_dir`: its search.json, or a grid of `key=value,value` assignments.

    Raises:
        UserError: params.json or search.json is missing, anything in them is wrong, or there is no data.
    """
    base = read_params_file(TASKS, parent_dir, data_dir)
    params = check_params(TASKS, base)
    params = params.model_copy(update={"data_dir": data_dir or params.data_dir})
    file = grid_of(parent_dir, assignments) if assignments else read_search_file(parent_dir)
    for name, value in {"method": method, "num_trials": num_trials}.items():
        if value is not None:
            file.values[name], file.where[name] = value, f"--{name}"
    asked = file.validate(SearchFile)
    space, problems = read_space(asked, file, base, params)
    problems += [file.locate(problem) for problem in check_rest(asked, base, params)]
    if problems:
        raise UserError(list_problems(file.heading or str(file.path), problems))
    count = asked.num_trials
    if asked.method == "grid":
        count = math.prod(len(grid_values(values)) for values in space.values())
        if num_trials not in (None, count):
            raise UserError(f"--num_trials {num_trials}: a grid tries all its settings, here {count}.")
    data = load_data_params(TASKS[params.task], Path(params.data_dir))
    params = params.with_data(data).resolve()
    metric = asked.metric.get("name", params.monitor)
    goal: Any = asked.metric.get("goal")
    how = {name: getattr(asked, name) for name in ("method", "seed", "seeds", "prune")}
    return Search(parent_dir, params, data.digest, num_trials=count, metric=metric, asked_goal=goal, space=space, **how)


def read_search_file(parent_dir: Path) -> JsonFile:
    path = parent_dir / "search.json"
    if not path.is_file():
        raise UserError(
            f"{path}: no such file. It says what to search, such as\n"
            '  {"num_trials": 20, "space": {"learning_rate": {"min": 1e-4, "max": 1e-1, "log": true}}}\n'
            "For a quick grid: "
            + command_line("search_hyperparams.py", "--parent_dir", parent_dir, "--set", "learning_rate=1e-3,1e-2")
        )
    return JsonFile.read(path)


def grid_of(parent_dir: Path, assignments: Sequence[str]) -> JsonFile:
    """The search.json that `key=value,value` words of the command line stand for."""
    heading, space = f"--set {' '.join(assignments)}", {}
    for assignment in assignments:
        key, text = split_assignment(assignment, "key=value,value, such as learning_rate=1e-3,1e-2")
        if key in space:
            raise UserError(f"{heading}: a parameter twice. Expected key=value,value.")
        space[key] = [parse_value(word) for word in split_values(text)]
    values = {"method": "grid", "space": space}
    return JsonFile(parent_dir / "search.json", values, dict.fromkeys(values, "--set"), heading=heading)


def split_values(text: str) -> list[str]:
    """The words of `text` between its commas; those inside brackets or quotes belong to a word."""
    words, depth, is_quoted = [""], 0, False
    for letter in text:
        is_quoted ^= letter == '"'
        depth += 0 if is_quoted else (letter in "[{") - (letter in "]}")
        if letter == "," and depth == 0 and not is_quoted:
            words.append("")
        else:
            words[-1] += letter
    return words


def check_rest(asked: SearchFile, base: JsonFile, params: Any) -> list[Problem]:
    """What is wrong with a search apart from the entries of its space."""
    metric, problems = asked.metric.get("name", params.monitor), []
    if asked.metric.keys() - {"name", "goal"} or asked.metric.get("goal", "maximize") not in ("maximize", "minimize"):
        problems.append(Problem("metric", 'expected {"name": "accuracy", "goal": "maximize"}, or minimize.'))
    if metric != params.monitor and (problem := find_problem("monitor", metric, base.values, params)):
        problems.append(Problem("metric", problem))
    if asked.seeds > 1 and "seed" in asked.space:
        problems.append(Problem("seeds", "more than 1, while seed is searched."))
    if not asked.space:
        problems.append(Problem("space", "empty. Nothing to search."))
    return problems


def read_space(
    asked: SearchFile, file: JsonFile, base: JsonFile, params: Any
) -> tuple[dict[str, BaseDistribution], list[str]]:
    """The values of each searched parameter, and what is wrong with the entries of others, with their lines."""
    space: dict[str, BaseDistribution] = {}
    problems = []
    for name, entry in asked.space.items():
        try:
            space[name] = read_values(name, entry, asked.method == "grid", base.values, params)
        except UserError as error:
            line = "" if file.heading else find_line(file.path, name)
            problems.append(f"{line}{name}: {error}")
    return space, problems


def find_line(path: Path, name: str) -> str:
    """ "line 4  ", where the parameter `name` is first written in the file."""
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    return next((f"line {i}  " for i, line in enumerate(lines, 1) if f'"{name}"' in line), "")


def find_problem(name: str, value: Any, others: Mapping[str, Any], params: Any) -> str:
    """Why the task refuses this value of a parameter, beside the values of `others`; "" if it takes it."""
    _, problems = JsonFile(Path(), {**others, name: value}).check(type(params), {"task": params.task})
    return next((problem.text if problem.key == name else f"{problem.key}: {problem.text}" for problem in problems), "")


def read_values(name: str, entry: Any, is_grid: bool, others: Mapping[str, Any], params: Any) -> BaseDistribution:
    """The distribution that `entry` describes. Raises UserError if it is none, or leaves the parameter's bounds."""
    fields = type(params).model_fields
    if name not in fields:
        raise UserError(f"unknown parameter.{did_you_mean(name, fields)}")
    if name in NOT_SEARCHED:
        raise UserError("cannot be searched.")

    def check(value: Any) -> None:
        if problem := find_problem(name, value, others, params):
            raise UserError(problem)

    if isinstance(entry, list):
        for value in entry:
            check(value)
        if not entry or len(set(map(show, entry))) < len(entry):  # each has a folder of its own
            raise UserError(f"expected a list of different values, got {json.dumps(entry)}.")
        return CategoricalDistribution([to_choice(value) for value in entry])
    if not isinstance(entry, dict) or not {"min", "max"} <= entry.keys() <= {"min", "max", "step", "log"}:
        raise UserError(
            'expected a list of values, or {"min": 1e-4, "max": 1e-1, "log": true} (or "step": 0.1),'
            f" got {json.dumps(entry)}."
        )
    return read_range(entry, fields[name].annotation is int, is_grid, check)


def read_range(
    entry: dict[str, Any], is_integer: bool, is_grid: bool, check: Callable[[Any], None]
) -> IntDistribution | FloatDistribution:
    low, high, step, log = entry["min"], entry["max"], entry.get("step"), entry.get("log", False)
    numbers = [low, high] if step is None else [low, high, step]
    if not isinstance(log, bool) or not all(map(is_number, numbers)):
        raise UserError("expected numbers for min, max and step, and true or false for log.")
    if low > high:
        raise UserError(f"min {low:g} is larger than max {high:g}.")
    if log and (low <= 0 or step is not None):
        raise UserError("log needs a min above 0, and no step.")
    if step is not None and step <= 0:
        raise UserError(f"step {step:g} is not above 0.")
    check(low)
    check(high)
    if is_grid and step is None and (log or not is_integer):
        raise UserError("a grid needs a step, or a list of values.")
    if is_integer and not isinstance(step, int | None):
        raise UserError(f"step {step:g} is no integer.")
    if step is not None:  # max need not be one of the values
        high = round(low + math.floor((high - low) / step + 1e-9) * step, 12)
    return IntDistribution(low, high, log, step or 1) if is_integer else FloatDistribution(low, high, log, step)


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def grid_values(values: BaseDistribution) -> list[Any]:
    """All values, as the study stores them."""
    if isinstance(values, CategoricalDistribution):
        return list(values.choices)
    assert isinstance(values, IntDistribution | FloatDistribution)
    assert values.step is not None
    count = math.floor((values.high - values.low) / values.step + 1e-9) + 1
    return [round(values.low + i * values.step, 12) for i in range(count)]


def describe_values(values: BaseDistribution) -> str:
    if isinstance(values, CategoricalDistribution):
        return ", ".join(map(str, values.choices))
    assert isinstance(values, IntDistribution | FloatDistribution)
    kind = " (log)" if values.log else f" in steps of {values.step:g}" if values.step else ""
    return f"{values.low:g} to {values.high:g}{kind}"
