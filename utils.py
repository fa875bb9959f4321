"""What the commands share: errors, parameters, logging, files that are whole or absent, and checkpoints.

torch is imported where it is needed and not at the top: a table of results or a misspelt parameter
should not have to wait for it.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import io
import json
import logging
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, model_validator
from tqdm import tqdm

if TYPE_CHECKING:
    import torch
    from typing_extensions import Self

logger = logging.getLogger(__name__)


# ---------------------------------------------------------------------------------------------- errors


class UserError(Exception):
    """Something that the user can put right. The text says what was expected and what to do; exit status 2."""

    exit_status = 2


class Diverged(UserError):
    """The loss stopped being a number; exit status 3."""

    exit_status = 3


def run_command(main: Callable[[], None]) -> None:
    """Run a command's `main`, turning UserError and Ctrl-C into a message and an exit status."""
    set_logger()
    try:
        main()
    except UserError as error:
        logger.error("%s", error)
        sys.exit(error.exit_status)
    except KeyboardInterrupt:
        logger.error("Interrupted.")
        sys.exit(130)
    except Exception:
        logger.exception("This is a bug in the program, not in what it was given:")
        sys.exit(1)


def did_you_mean(name: str, known: Any) -> str:
    """` Did you mean X?`, or nothing when no known name is close."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {close[0]}?" if close else ""


# ------------------------------------------------------------------------------------------ parameters


class StrictModel(BaseModel):
    """Values are taken as they are written: "32" is not 32, unknown names are refused, NaN is no number."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, frozen=True)


class TrainingParams(StrictModel):
    """The parameters that every task shares. A task's `Params` extends them."""

    task: str = Field("image_classification", description="The folder of model/ that knows the data and the network.")
    data_dir: str = Field("data", description="The built data set; --data_dir on the command line goes before it.")

    learning_rate: float = Field(1e-3, gt=0, description="Step size of the optimizer; the peak, under a scheduler.")
    batch_size: int = Field(32, ge=1, description="Examples per optimizer step.")
    num_epochs: int = Field(20, ge=1, description="Passes over the training split.")
    seed: int = Field(230, ge=0, le=2**32 - 1, description="Decides initial weights, order, augmentation and dropout.")

    optimizer: Literal["sgd", "adam", "adamw", "nadam", "radam", "adamax", "rmsprop", "adagrad", "adadelta"] = Field(
        "adam", description="torch.optim's optimizer of that name."
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum of sgd (Nesterov's) and rmsprop.")
    weight_decay: float = Field(0.0, ge=0, description="Decay of the weights; biases and norms are left alone.")
    clip_grad_norm: float = Field(0.0, ge=0, description="Scale gradients down to this total norm; 0 never does.")

    scheduler: Literal["none", "step", "cosine", "onecycle", "plateau"] = Field(
        "none", description="How the learning rate falls: torch.optim.lr_scheduler's scheduler of that name."
    )
    warmup_epochs: float = Field(0.0, ge=0, description="Epochs over which the learning rate first rises.")
    step_epochs: int = Field(10, ge=1, description="step: epochs between two falls of the learning rate.")
    gamma: float = Field(0.1, gt=0, lt=1, description="step, plateau: what the learning rate is multiplied by.")
    plateau_patience: int = Field(5, ge=0, description="plateau: epochs without improvement that are tolerated.")
    early_stopping_patience: int = Field(0, ge=0, description="Stop after so many epochs without a new best; 0 never.")

    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="Arithmetic of the network; auto takes bfloat16 where the hardware computes in it."
    )
    fused_optimizer: bool = Field(True, description="Update all weights in one kernel, where the optimizer has one.")
    num_workers: int = Field(0, ge=0, description="Loader processes; 0 is fastest while the data fits in memory.")
    save_summary_steps: int = Field(100, ge=1, description="Steps between gradient norms in TensorBoard.")

    monitor: str = Field("loss", description="The metric that chooses the best weights; only a loss is minimised.")

    _data: Any = PrivateAttr(None)

    @property
    def data(self) -> Any:
        """What the data decides (classes, sizes, vocabularies): the task's DataParams, once `with_data` set them."""
        return self._data

    def with_data(self, data: Any) -> Self:
        self._data = data
        return self

    @model_validator(mode="after")
    def _warmup_leaves_room(self) -> Self:
        if self.warmup_epochs >= self.num_epochs and self.warmup_epochs > 0:
            raise ValueError(f"warmup_epochs: expected less than num_epochs ({self.num_epochs})")
        return self


ModelType = TypeVar("ModelType", bound=BaseModel)


@dataclass
class JsonFile:
    """A flat JSON object as it was written: its values, where each stands, and what is already wrong with it."""

    path: Path
    values: dict[str, Any] = field(default_factory=dict)
    where: dict[str, str] = field(default_factory=dict)  # key -> "line 4" or "--set"
    problems: list[str] = field(default_factory=list)

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
        file.values.pop("$schema", None)  # an editor's, not ours
        return file

    def override(self, assignments: list[str]) -> None:
        """Apply `key=value` words of a command line; a value is JSON, or else a plain string."""
        for assignment in assignments:
            key, equals, text = assignment.partition("=")
            if not equals or not key:
                raise UserError(f"--set {assignment}: expected key=value, such as learning_rate=0.01.")
            try:
                self.values[key] = json.loads(text)
            except json.JSONDecodeError:
                self.values[key] = text
            self.where[key] = "--set"

    def validate(self, model: type[ModelType]) -> ModelType:
        """Check the values against `model`. Raises UserError that lists every problem with its line."""
        problems = list(self.problems)
        try:
            validated = model.model_validate(self.values)
        except ValidationError as error:
            problems += [self._explain(problem, model) for problem in error.errors()]
        if problems:
            problems.sort(key=lambda text: int(text.split()[1]) if text.startswith("line ") else 0)
            count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
            raise UserError("\n  ".join([f"{self.path}: {count}", *problems]))
        return validated

    def _explain(self, problem: Any, model: type[BaseModel]) -> str:
        if not problem["loc"]:  # a check between fields names the field itself
            key, _, text = problem["msg"].removeprefix("Value error, ").partition(": ")
            return f"{self.where.get(key, 'default')}  {key}: {text}"
        key, value = str(problem["loc"][0]), problem["input"]
        place = f"{self.where.get(key, 'missing')}  {key}: "
        if problem["type"] == "missing":
            return place + "not there."
        if problem["type"] == "extra_forbidden":
            return place + f"unknown parameter.{did_you_mean(key, model.model_fields)}"
        schema = model.model_json_schema()["properties"][key]
        return place + f"expected {describe(schema)}, got {_quote(value)}.{_unquoted_hint(value, schema)}"


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
NAMES_OF_BOUNDS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}


def describe(schema: Mapping[str, Any]) -> str:
    """What a field's JSON schema accepts, in words: `an integer >= 1`, `one of adam, sgd`."""
    if "enum" in schema:
        return "one of " + ", ".join(schema["enum"])
    bounds = [f"{sign} {schema[bound]}" for bound, sign in NAMES_OF_BOUNDS.items() if bound in schema]
    return f"{NAMES_OF_TYPES.get(schema.get('type', ''), 'another value')} {' and '.join(bounds)}".rstrip()


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


# --------------------------------------------------------------------------------------------- logging


class _Console(logging.StreamHandler[Any]):
    """Prints above a progress bar instead of through it; errors go to stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr if record.levelno >= logging.ERROR else sys.stdout)


def set_logger(log_file: Path | None = None) -> None:
    """Log to the console and, given a file, append the same to it with the time before each line."""
    root = logging.getLogger()
    for ours in ("utils", "model"):  # matplotlib and others are heard from WARNING on
        logging.getLogger(ours).setLevel(logging.INFO)
    if not any(isinstance(handler, _Console) for handler in root.handlers):
        root.addHandler(_Console())
        for stream in (sys.stdout, sys.stderr):  # a file name that is no Unicode is no reason to stop
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        logging.captureWarnings(True)
    if log_file is not None:
        handler = logging.FileHandler(log_file, encoding="utf-8", errors="backslashreplace")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s: %(message)s"))
        root.addHandler(handler)


# ----------------------------------------------------------------------------------------------- files


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write a file that is, at every moment, either the old one or the new one, whole."""
    data = content.encode() if isinstance(content, str) else content
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(partial, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def save_json(values: Any, path: Path) -> None:
    write_atomically(path, json.dumps(values, indent=4) + "\n")


def read_run(model_dir: Path) -> dict[str, Any]:
    """What the last run in `model_dir` left in run.json; empty when there was none."""
    path = model_dir / "run.json"
    return JsonFile.read(path).values if path.is_file() else {}


def check_writable(folder: Path) -> None:
    """Make `folder` if need be. Raises UserError now rather than after the first epoch."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".writable.{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(f"{folder}: cannot be written to ({error.strerror}). Choose another folder.") from None


# ----------------------------------------------------------------------------------------- checkpoints

KEEP_LAST = 5
CHECKPOINT_HINT = "Expected weights that train.py saved, such as experiments/base_model/best_weights/epoch_0012.pt."


def save_checkpoint(checkpoint: dict[str, Any], model_dir: Path, is_best: bool) -> None:
    """Save to last_weights/, where the last five epochs are kept, and to best_weights/ if it is the best so far.

    Args:
        checkpoint: tensors and plain values only, so that it loads with `weights_only=True`; `epoch` names the file.
    """
    import torch

    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    content = buffer.getbuffer()
    digest = hashlib.sha256(content).hexdigest()
    for folder, keep in [("last_weights", KEEP_LAST)] + [("best_weights", 1)] * is_best:
        path = model_dir / folder / f"epoch_{checkpoint['epoch']:04d}.pt"
        path.parent.mkdir(exist_ok=True)
        write_atomically(_digest_of(path), digest + "\n")  # first, so that no checkpoint is ever without one
        if folder == "last_weights":
            write_atomically(path, bytes(content))
            written = path
        else:
            _link(written, path)
        for old in sorted(path.parent.glob("epoch_*.pt"))[:-keep]:
            old.unlink()
            _digest_of(old).unlink(missing_ok=True)


def _digest_of(path: Path) -> Path:
    return path.with_suffix(".sha256")


def _link(source: Path, target: Path) -> None:
    """A second name for the same file; a copy where the file system has no links."""
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        os.link(source, partial)
    except OSError:
        shutil.copyfile(source, partial)
    os.replace(partial, target)


def find_checkpoint(model_dir: Path, restore_file: str) -> Path:
    """The path of `best`, `last`, or a path given as such. Raises UserError when there is none."""
    if restore_file not in ("best", "last"):
        if not Path(restore_file).is_file():
            raise UserError(f"--restore_file {restore_file}: no such file. Expected best, last, or a path.")
        return Path(restore_file)
    found = sorted((model_dir / f"{restore_file}_weights").glob("epoch_*.pt"))
    if not found:
        raise UserError(f"{model_dir}: no {restore_file} weights. Train first: python train.py --model_dir {model_dir}")
    return found[-1]


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint into CPU memory; nothing in it is executed.

    Raises:
        UserError: the file is no checkpoint, or its bytes are not the ones that were saved.
    """
    import torch

    content = path.read_bytes()
    digest_file = _digest_of(path)
    if digest_file.exists() and digest_file.read_text().strip() != hashlib.sha256(content).hexdigest():
        raise UserError(f"{path}: damaged: its bytes are not those that were saved.")
    try:
        checkpoint = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load lets out whatever its parsers met; all of it means the same
        reason = str(error).strip().split("\n")[0][:120]
        raise UserError(f"{path}: not a checkpoint ({reason or type(error).__name__}). {CHECKPOINT_HINT}") from None
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise UserError(f"{path}: not a checkpoint (it holds no state_dict). {CHECKPOINT_HINT}")
    return {**checkpoint, "path": str(path)}


def restore_weights(net: torch.nn.Module, checkpoint: dict[str, Any]) -> None:
    """Put a checkpoint's weights into `net`. Raises UserError that names every parameter that does not fit."""
    ours, theirs = net.state_dict(), checkpoint["state_dict"]
    problems = [f"{name}: only in the checkpoint" for name in theirs.keys() - ours.keys()]
    problems += [f"{name}: not in the checkpoint" for name in ours.keys() - theirs.keys()]
    for name in ours.keys() & theirs.keys():
        if ours[name].shape != theirs[name].shape:
            problems.append(f"{name}: {list(theirs[name].shape)} in the checkpoint, {list(ours[name].shape)} here")
    if problems:
        raise UserError("\n  ".join([f"{checkpoint['path']}: weights of another architecture", *sorted(problems)]))
    net.load_state_dict(theirs)


# ------------------------------------------------------------------------------------------- progress


class Progress:
    """A progress bar that shows numbers without slowing the loop: they are computed once a second at most."""

    def __init__(self, iterable: Any, description: str, total: int | None = None, every: float = 1.0):
        self.bar = tqdm(iterable, description, total, leave=False, disable=not sys.stderr.isatty())
        self.every, self.last = every, time.monotonic()

    def __iter__(self) -> Iterator[Any]:
        return iter(self.bar)

    def show(self, numbers: Callable[[], Mapping[str, float]]) -> None:
        now = time.monotonic()
        if not self.bar.disable and now - self.last > self.every:
            self.bar.set_postfix({name: f"{value:.3f}" for name, value in numbers().items()}, refresh=False)
            self.last = now
