"""What is searched: search.json, checked."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from pydantic import Field

from engine.experiments import check_params, load_data_params, read_params_file
from engine.params import WITHOUT_EFFECT, JsonFile, StrictModel, did_you_mean
from model import TASKS
from utils import UserError


class SearchFile(StrictModel):
    """search.json, but for the entries of its space, which `read_space` checks against the task's parameters."""

    metric: dict[str, str] = Field({}, description="name and goal (maximize, minimize); what the task is judged by.")
    method: Literal["grid", "random", "tpe"] = Field("tpe", description="How settings are chosen.")
    num_trials: int = Field(40, ge=1, description="Settings to try; a grid tries them all.")
    seed: int = Field(230, ge=0, description="Decides which settings are tried.")
    seeds: int = Field(1, ge=1, description="Runs of each setting, with seeds one above the other; their mean counts.")
    prune: bool = Field(True, description="Stop bad runs early.")
    space: dict[str, Any] = Field(description="The values of each parameter: a list, or min, max, and step or log.")


NOT_SEARCHED = ("task", "data_dir", "monitor")


@dataclass(frozen=True)
class Search:
    """What is searched, all checked."""

    parent_dir: Path
    method: str
    num_trials: int
    seed: int
    seeds: int
    metric: str
    goal: Literal["maximize", "minimize"]
    space: dict[str, BaseDistribution]
    params: Any  # of the parent's params.json
    data_digest: str
    prune: bool

    def describe(self) -> dict[str, Any]:
        """What may not change within a study."""
        space = {name: describe_values(values) for name, values in self.space.items()}
        fixed = {name: value for name, value in self.params.model_dump().items() if name not in WITHOUT_EFFECT}
        data = f"digest {self.data_digest[:12]}"
        return {**fixed, "data": data, "metric": self.metric, "goal": self.goal, "seeds": self.seeds, **space}

    @property
    def first_rung(self) -> int:
        """The epochs after which a run is judged for the first time."""
        searched = self.space.get("num_epochs")
        if isinstance(searched, CategoricalDistribution):
            return max(1, min(map(int, searched.choices)) // 4)  # type: ignore[arg-type]
        return max(1, (searched.low if isinstance(searched, IntDistribution) else self.params.num_epochs) // 4)

    def setting_of(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """What is trained with: of a continuous range three digits, so that a folder's name says the value."""
        setting = dict(params)
        for name, values in self.space.items():
            if isinstance(values, FloatDistribution):
                value = float(f"{params[name]:.3g}") if values.step is None else round(params[name], 12)
                setting[name] = min(max(value, values.low), values.high)
        return setting

    def folders_of(self, setting: Mapping[str, Any]) -> list[Path]:
        """The folders of a setting's runs, one per seed: learning_rate_0.001-batch_size_32."""
        name = "-".join(f"{key}_{show(value)}" for key, value in setting.items())
        seeds = [self.params.seed + i for i in range(self.seeds)]
        return [self.parent_dir / (name if self.seeds == 1 else f"{name}-seed_{seed}") for seed in seeds]


def show(value: Any) -> str:
    text = f"{value:.12g}" if isinstance(value, float) else str(value)
    return "".join(letter if letter.isalnum() or letter in "._-+" else "_" for letter in text)


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
    base = read_params_file(parent_dir)
    params = check_params(TASKS, base)
    path = parent_dir / "search.json"
    if assignments:
        choices = dict(map(split_assignment, assignments))
        if len(choices) < len(assignments):
            raise UserError(f"--set {' '.join(assignments)}: a parameter twice. Expected key=value,value.")
        file = JsonFile(path, {"method": "grid", "space": choices})
        file.where, file.heading = dict.fromkeys(file.values, "--set"), f"--set {' '.join(assignments)}"
    elif path.is_file():
        file = JsonFile.read(path)
    else:
        raise UserError(
            f"{path}: no such file. It says what to search, such as\n"
            '  {"num_trials": 20, "space": {"learning_rate": {"min": 1e-4, "max": 1e-1, "log": true}}}\n'
            f"For a quick grid: python search_hyperparams.py --parent_dir {parent_dir} --set learning_rate=1e-3,1e-2"
        )
    for name, value in (("method", method), ("num_trials", num_trials)):
        if value is not None:
            file.values[name], file.where[name] = value, f"--{name}"
    checked = file.validate(SearchFile)
    metric = checked.metric.get("name", params.monitor)
    goal: Any = checked.metric.get("goal", "minimize" if metric == "loss" else "maximize")
    problems = []
    if checked.metric.keys() - {"name", "goal"} or goal not in ("maximize", "minimize"):
        problems.append('metric: expected {"name": "accuracy", "goal": "maximize"}, or minimize.')
    if metric != params.monitor:
        try:
            check_value("monitor", metric, [base])
        except UserError as error:
            problems.append(f"metric: {str(error).removeprefix('monitor: ')}")
    if checked.seeds > 1 and "seed" in checked.space:
        problems.append("seeds: more than 1, while seed is searched.")
    if not checked.space:
        problems.append("space: empty. Nothing to search.")
    space: dict[str, BaseDistribution] = {}
    bases = [base, *vary(base, checked.space)]
    for name, entry in checked.space.items():
        try:
            space[name] = read_values(name, entry, bases, params, checked.method)
        except UserError as error:
            problems.append(f"{'' if assignments else find_line(path, name)}{error}")
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise UserError("\n  ".join([f"{file.heading or path}: {count}", *problems]))
    settings = math.prod(len(grid_values(values)) for values in space.values()) if checked.method == "grid" else None
    if settings and num_trials not in (None, settings):
        raise UserError(f"--num_trials {num_trials}: a grid tries all its settings, here {settings}.")
    data = load_data_params(TASKS[params.task], Path(data_dir or params.data_dir))
    return Search(
        parent_dir,
        checked.method,
        settings or checked.num_trials,
        checked.seed,
        checked.seeds,
        metric,
        goal,
        space,
        params,
        data.digest,
        checked.prune,
    )


def find_line(path: Path, name: str) -> str:
    """ "line 4  ", where the parameter `name` is first written in the file."""
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    return next((f"line {i}  " for i, line in enumerate(lines, 1) if f'"{name}"' in line), "")


def split_assignment(assignment: str) -> tuple[str, list[Any]]:
    key, equals, text = assignment.partition("=")
    if not equals or not key or not text:
        raise UserError(f"--set {assignment}: expected key=value,value, such as learning_rate=1e-3,1e-2.")
    return key, [parse_value(word) for word in text.split(",")]


def parse_value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def read_values(name: str, entry: Any, bases: Sequence[JsonFile], params: Any, method: str) -> BaseDistribution:
    """The distribution that `entry` describes. Raises UserError if it is none, or leaves the parameter's bounds."""
    fields = type(params).model_fields
    if name not in fields:
        raise UserError(f"{name}: unknown parameter.{did_you_mean(name, fields)}")
    if name in NOT_SEARCHED:
        raise UserError(f"{name}: cannot be searched.")
    if isinstance(entry, list):
        if not entry or len({json.dumps(value) for value in entry}) < len(entry):
            raise UserError(f"{name}: expected a list of different values, got {json.dumps(entry)}.")
        for value in entry:
            check_value(name, value, bases)
        return CategoricalDistribution(entry)
    if not isinstance(entry, dict) or not {"min", "max"} <= entry.keys() <= {"min", "max", "step", "log"}:
        raise UserError(
            f'{name}: expected a list of values, or {{"min": 1e-4, "max": 1e-1, "log": true}} (or "step": 0.1),'
            f" got {json.dumps(entry)}."
        )
    low, high, step, log = entry["min"], entry["max"], entry.get("step"), entry.get("log", False)
    numbers = [value for value in (low, high, step) if value is not None]
    if not isinstance(log, bool) or any(
        isinstance(n, bool) or not isinstance(n, int | float) or not math.isfinite(n) for n in numbers
    ):
        raise UserError(f"{name}: expected numbers for min, max and step, and true or false for log.")
    if low > high:
        raise UserError(f"{name}: min {low:g} is larger than max {high:g}.")
    if log and (low <= 0 or step is not None):
        raise UserError(f"{name}: log needs a min above 0, and no step.")
    if step is not None and step <= 0:
        raise UserError(f"{name}: step {step:g} is not above 0.")
    for value in (low, high):
        check_value(name, value, bases)
    is_integer = fields[name].annotation is int
    if method == "grid" and step is None and not (is_integer and not log):
        raise UserError(f"{name}: a grid needs a step, or a list of values.")
    if is_integer and not isinstance(step, int | None):
        raise UserError(f"{name}: step {step:g} is no integer.")
    if step is not None:  # max need not be one of the values
        high = round(low + math.floor((high - low) / step + 1e-9) * step, 12)
    if is_integer:
        return IntDistribution(low, high, log, 1 if step is None else step)
    return FloatDistribution(low, high, log, step)


def vary(base: JsonFile, space: Mapping[str, Any]) -> Iterator[JsonFile]:
    """`base` with the ends of what is searched: one value may need another, such as warm-up fewer epochs than all."""
    ends = [
        entry if isinstance(entry, list) else [entry.get("min"), entry.get("max")] if isinstance(entry, dict) else []
        for entry in space.values()
    ]
    for values in itertools.islice(itertools.product(*ends), 1000):
        yield JsonFile(base.path, base.values | dict(zip(space, values, strict=True)), base.where)


def check_value(name: str, value: Any, bases: Sequence[JsonFile]) -> None:
    """Raises UserError if the task does not take this value of the parameter `name`, with any of `bases`."""
    problem = ""
    for base in bases:
        try:
            check_params(TASKS, JsonFile(base.path, {**base.values, name: value}, {**base.where, name: "space"}))
            return
        except UserError as error:
            problem = problem or str(error)
    raise UserError(problem.partition("space  ")[2].split("\n")[0] or problem)


def grid_values(values: BaseDistribution) -> list[Any]:
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
