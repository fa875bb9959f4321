"""params.json: what may be set in every task, and what is wrong with a file. A task's params.py adds its own."""

from __future__ import annotations

import contextlib
import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PrivateAttr, ValidationError

from utils import UserError

if TYPE_CHECKING:
    from typing_extensions import Self


class StrictModel(BaseModel):
    """No conversions: the string "32" is not the number 32. Unknown names, NaN and Infinity are refused."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, frozen=True)


# parameters that do not affect what is learnt, so that they may change while a run or a search goes on
WITHOUT_EFFECT = {"data_dir", "num_workers", "checkpoint_minutes", "save_summary_steps"}
# parameters that may change between a run and its continuation
MAY_CHANGE = WITHOUT_EFFECT | {"num_epochs", "early_stopping_patience"}


class TrainingParams(StrictModel):
    """The parameters that every task shares. A task's `Params` extends them."""

    task: str = Field("", description="The folder of model/ that knows the data and the network.")
    data_dir: str = Field("data", description="The built data set; --data_dir overrides it.")

    learning_rate: float = Field(1e-3, gt=0, description="Step size of the optimizer; the peak, under a scheduler.")
    batch_size: int = Field(32, ge=1, description="Examples per optimizer step.")
    num_epochs: int = Field(20, ge=1, description="Passes over the training split.")
    seed: int = Field(230, ge=0, le=2**32 - 1, description="Decides initial weights, order, augmentation and dropout.")

    optimizer: Literal["sgd", "adam", "adamw", "nadam", "radam", "adamax", "rmsprop", "adagrad", "adadelta"] = Field(
        "adam", description="torch.optim's optimizer of that name."
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum of sgd (Nesterov's) and rmsprop.")
    learning_rate_scale: dict[str, NonNegativeFloat] = Field(
        {},
        description="What learning_rate is multiplied by in parts of the network, by the beginning of their names;"
        " 0 freezes them.",
    )
    weight_decay: float = Field(0.0, ge=0, description="Decay of the weights; biases and norms are left alone.")
    clip_grad_norm: float = Field(0.0, ge=0, description="Scale gradients down to this total norm; 0 never does.")

    scheduler: Literal["none", "step", "cosine", "onecycle", "plateau"] = Field(
        "none", description="How the learning rate falls: torch.optim.lr_scheduler's scheduler of that name."
    )
    warmup_epochs: float = Field(
        0.0, ge=0, description="Epochs over which the learning rate first rises; at most half of num_epochs."
    )
    step_epochs: int = Field(10, ge=1, description="step: epochs between two falls of the learning rate.")
    gamma: float = Field(0.1, gt=0, lt=1, description="step, plateau: what the learning rate is multiplied by.")
    plateau_patience: int = Field(5, ge=0, description="plateau: epochs without improvement that are tolerated.")
    early_stopping_patience: int = Field(0, ge=0, description="Stop after so many epochs without a new best; 0 never.")

    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="Arithmetic of the network; auto takes bfloat16 where the hardware computes in it."
    )
    fused_optimizer: bool = Field(True, description="Update all weights in one kernel, where the optimizer has one.")
    num_workers: int = Field(0, ge=0, description="Loader processes; 0 is fastest while the data fits in memory.")
    checkpoint_minutes: float = Field(10.0, gt=0, description="Minutes between checkpoints within a long epoch.")
    save_summary_steps: int = Field(100, ge=1, description="Steps between gradient norms in TensorBoard.")

    monitor: str = Field("loss", description="The metric that chooses the best weights, on val.")

    minimized: ClassVar[frozenset[str]] = frozenset({"loss"})  # values of monitor of which less is better

    _data: Any = PrivateAttr(None)

    @property
    def data(self) -> Any:
        """What the data decides (classes, sizes, vocabularies): the task's DataParams, once `with_data` set them."""
        return self._data

    def with_data(self, data: Any) -> Self:
        self._data = data
        return self

    def resolve(self) -> Self:
        """These parameters, with what `data` decides in the place of "auto". A task may override it."""
        return self


class DataParams(StrictModel):
    """What the data of every task decides: `dataset_params.json`. A task's `DataParams` extends it."""

    decides_network: ClassVar[tuple[str, ...]] = ()  # fields that must be the same to use weights with other data

    task: str
    sizes: dict[str, int]  # examples per split
    digest: str  # SHA-256 over all that was built

    def complete(self, data_dir: Path) -> Self:
        """These values, completed from other files of `data_dir`. A task may override it."""
        return self

    def as_learnt(self, learnt: dict[str, Any]) -> Self:
        """The data as a network sees it that `learnt` from other data. For a task whose examples are kept raw."""
        return self


ModelType = TypeVar("ModelType", bound=BaseModel)


@dataclass
class JsonFile:
    """A flat JSON object as it was written: its values, where each stands, and what is already wrong with it."""

    path: Path
    values: dict[str, Any] = field(default_factory=dict)
    where: dict[str, str] = field(default_factory=dict)  # key -> "line 4" or "--set"
    problems: list[str] = field(default_factory=list)
    heading: str = ""  # of the problems, if not the path

    @classmethod
    def read(cls, path: str | Path) -> JsonFile:
        """Raises UserError when the file is missing, unreadable, or not one JSON object."""
        path = Path(path)
        try:
            content = path.read_bytes()
            text = content.decode(json.detect_encoding(content))  # knows byte order marks
            value = json.loads(text)
        except FileNotFoundError:
            raise UserError(f"{path}: no such file.") from None
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror}).") from None
        except UnicodeDecodeError as error:
            raise UserError(f"{path}: not a text file (byte {error.start} is not {error.encoding}).") from None
        except json.JSONDecodeError as error:
            raise UserError(f"{path}: not JSON: line {error.lineno}, column {error.colno}: {error.msg}.") from None
        except RecursionError:
            raise UserError(f"{path}: nested too deeply.") from None
        if not isinstance(value, dict):
            raise UserError(f'{path}: expected an object like {{"learning_rate": 1e-3}}, got {json.dumps(value)[:40]}.')

        file = cls(path)
        for key, value, line in _top_level(text):
            if key in file.values:
                file.problems.append(f"line {line}  {key}: written twice, first on {file.where[key]}. Remove one.")
            file.values[key], file.where[key] = value, f"line {line}"
        file.values.pop("$schema", None)  # for editors; the project does not use it
        return file

    def override(self, assignments: list[str]) -> None:
        """Apply `key=value` words of a command line; a value is JSON, or else a plain string."""
        for assignment in assignments:
            key, text = split_assignment(assignment, "key=value, such as learning_rate=0.01")
            self.values[key], self.where[key] = parse_value(text), "--set"
        if assignments:
            self.heading = f"{self.path} with --set {' '.join(assignments)}"

    def validate(self, model: type[ModelType], defaults: Mapping[str, Any] = {}) -> ModelType:
        """Check the values against `model`. Raises UserError that lists every problem with its line."""
        validated, problems = self.check(model, defaults)
        if validated is None or self.problems:
            raise UserError(
                list_problems(self.heading or str(self.path), [*self.problems, *map(self.locate, problems)])
            )
        return validated

    def check(self, model: type[ModelType], defaults: Mapping[str, Any] = {}) -> tuple[ModelType | None, list[Problem]]:
        """The values as a `model`, or None and what is wrong with them."""
        try:
            return model.model_validate({**defaults, **self.values}), []
        except ValidationError as error:
            return None, [_explain(problem, model, self.values) for problem in error.errors()]

    def locate(self, problem: Problem) -> str:
        """`line 4  batch_size: expected an integer >= 1, got 0.`"""
        return f"{self.where.get(problem.key, problem.place)}  {problem.key}: {problem.text}"


class Problem(NamedTuple):
    """What is wrong with one value."""

    key: str
    text: str
    place: str = "default"  # of a key that the file does not have


def split_assignment(assignment: str, expected: str) -> tuple[str, str]:
    """The two sides of a `key=value` word of a command line. Raises UserError that says what was `expected`."""
    key, equals, text = assignment.partition("=")
    if not equals or not key:
        raise UserError(f"--set {assignment}: expected {expected}.")
    return key, text


def parse_value(text: str) -> Any:
    """The value that `text` writes: JSON, or else a plain string."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def list_problems(heading: str, problems: Iterable[str]) -> str:
    """One message for all of them, in the order of their lines."""
    ordered = sorted(problems, key=lambda text: int(text.split()[1]) if text.startswith("line ") else 0)
    count = "1 problem" if len(ordered) == 1 else f"{len(ordered)} problems"
    return "\n  ".join([f"{heading}: {count}", *ordered])


def _explain(problem: Any, model: type[BaseModel], values: Mapping[str, Any]) -> Problem:
    """pydantic's description of a problem with one of `values`, in words that name what was expected."""
    if not problem["loc"]:  # a check of several fields names the field itself
        key, _, text = problem["msg"].removeprefix("Value error, ").partition(": ")
        return Problem(key, text)
    key = str(problem["loc"][0])  # what follows is a place inside the value, as in a list
    value = values.get(key)
    if problem["type"] == "missing":
        return Problem(key, "not there.", "missing")
    if problem["type"] == "extra_forbidden":
        return Problem(key, f"unknown parameter.{did_you_mean(key, model.model_fields)}")
    schema = model.model_json_schema()["properties"][key]
    return Problem(key, f"expected {describe(schema)}, got {_quote(value)}.{_unquoted_hint(value, schema)}")


def differences(
    before: Mapping[str, Any],
    now: Mapping[str, Any],
    words: tuple[str, str] = ("then", "now"),
    missing: str = "nothing",
) -> dict[str, str]:
    """`batch_size: 32 then, 64 now` for each key whose values differ, by key."""
    return {
        name: f"{name}: {before.get(name, missing)} {words[0]}, {now.get(name, missing)} {words[1]}"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    }


def _top_level(text: str) -> Iterator[tuple[str, Any, int]]:
    """(key, value, line) of each member of the JSON object in `text`, duplicates included."""
    decoder, at = json.JSONDecoder(), text.index("{") + 1
    while match := re.compile(r'[\s,]*(?=")').match(text, at):
        key, at = decoder.raw_decode(text, match.end())
        line = text.count("\n", 0, at) + 1
        colon = re.compile(r"\s*:\s*").match(text, at)
        assert colon is not None  # json.loads accepted the text
        value, at = decoder.raw_decode(text, colon.end())
        yield key, value, line


NAMES_OF_TYPES = {
    "integer": "an integer",
    "number": "a number",
    "string": "a string",
    "boolean": "true or false",
    "array": "a list",
    "object": "an object",
}
NAMES_OF_BOUNDS = {
    "minimum": ">=",
    "exclusiveMinimum": ">",
    "maximum": "<=",
    "exclusiveMaximum": "<",
    "multipleOf": "a multiple of",
}


def describe(schema: Mapping[str, Any]) -> str:
    """What a field's JSON schema accepts, in words: `an integer >= 1`, `one of adam, sgd`, `a list, each a number`."""
    if "enum" in schema:
        return "one of " + ", ".join(schema["enum"])
    bounds = [f"{sign} {schema[bound]}" for bound, sign in NAMES_OF_BOUNDS.items() if bound in schema]
    inner = schema.get("items") or schema.get("additionalProperties")
    each = f", each {describe(inner)}" if isinstance(inner, dict) and inner else ""
    return f"{NAMES_OF_TYPES.get(schema.get('type', ''), 'another value')} {' and '.join(bounds)}".rstrip() + each


def _quote(value: Any) -> str:
    return json.dumps(value) + (" (a string)" if isinstance(value, str) else "")


def _unquoted_hint(value: Any, schema: Mapping[str, Any]) -> str:
    wants_a_word = "enum" in schema or schema.get("type") == "string"
    if wants_a_word and isinstance(value, str):
        return did_you_mean(value, schema.get("enum", []))
    with contextlib.suppress(TypeError, json.JSONDecodeError):  # not a string, or no number inside it
        if not wants_a_word and isinstance(json.loads(value), int | float | bool):
            return f" Write {value} without quotes."
    return ""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` Did you mean X?`, or nothing when no known name is close."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {close[0]}?" if close else ""
