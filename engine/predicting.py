"""Using what was trained: raw inputs -> records. Does not import torch, so that an ONNX file is used without it."""

from __future__ import annotations

import contextlib
import itertools
import os
import queue
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from engine.answers import (
    NOT_FINITE,
    Record,
    as_text,
    bold,
    class_records,
    is_finite,
    kept,
    number_records,
    target_names,
)
from engine.params import JsonFile
from engine.tasks import Task, Tasks
from utils import UserError

Arrays = np.ndarray | dict[str, np.ndarray]

WINDOW = 32  # batches whose inputs are read, and sorted by length, together
MOST_IN_MEMORY = 4096  # inputs
SHOWN = 200  # characters of a text that could not be read
PATIENCE = 0.1  # seconds that a live input waits for the next one
SLOW = 0.001  # seconds; inputs that take longer to read are read by several threads


class Unreadable(NamedTuple):
    """Takes the place of an input that cannot be read."""

    input: Any
    error: str


class Example(NamedTuple):
    """An input that was read.

    Attributes:
        input: what its record shows: a path, a text, a row.
        content: what `Processing.collate` makes batches of.
        length: examples of similar length share a batch, to reduce padding.
    """

    input: Any
    content: Any
    length: int = 0


class Options(NamedTuple):
    """How a command line says that texts are to be read.

    Attributes:
        file: a file with one text a line; `-` is standard input.
        tokenized: words stand between spaces already.
        columns: the file has CoNLL's columns.
        text_column: the column of a table that has the texts, by name or number from 1.
        encoding: of the file.
    """

    file: str | None = None
    tokenized: bool = False
    columns: bool = False
    text_column: str | None = None
    encoding: str = "utf-8"


def refuse_text_options(options: Options, takes: str) -> None:
    """Raises UserError if a command line says how texts are to be read, but the network `takes` something else."""
    if options != Options():
        flags = "--file, --columns, --text_column, --tokenized and --encoding"
        raise UserError(f"{flags} are for text; this network takes {takes}.")


class Processing(ABC):
    """What comes before the network and after it. A task's predict.py has a subclass called `Processing`.

    Attributes:
        accepts: what an input is; decides how commands and the page of serve.py take inputs.
        about: how raw inputs become what the network takes; stands in exported files, for people.
        inputs, outputs: name -> shape and meaning, as in "batch_size x length: numbers of words", of what the network
            takes and of what `answers` of net.py returns. Exported files say so, and call their free axes so. A network
            that takes one tensor takes "inputs".
        writes: whether the network can write text, see `write`.
        top: how many classes a record lists.
    """

    accepts: ClassVar[Literal["images", "texts", "rows"]]
    writes: ClassVar[bool] = False
    about: ClassVar[str] = ""
    inputs: ClassVar[Mapping[str, str]] = {}
    outputs: ClassVar[Mapping[str, str]] = {"outputs": "batch_size x num_classes: scores, softmax makes probabilities"}

    def __init__(self, params: Any, top: int = 1):
        self.params, self.top = params, top
        classes = getattr(getattr(params, "data", None), "classes", [])
        self.width = min(24, max(map(len, classes), default=0))  # of a class, where lines are shown

    @abstractmethod
    def read(self, words: Sequence[str], options: Options) -> Iterator[Any]:
        """The raw inputs that the words of a command line name, one by one; an `Unreadable` in place of a bad one.

        Raises:
            UserError: nothing can be read at all.
        """

    @abstractmethod
    def preprocess(self, raw: Any) -> Example:
        """Read one input. Raises UserError that says why it cannot be read."""

    @abstractmethod
    def collate(self, contents: Sequence[Any]) -> Arrays:
        """The `content` of some examples -> the inputs of the network, as its Dataset makes them."""

    def make_batches(self, batches: Sequence[Sequence[Any]]) -> Iterable[Arrays]:
        """What `collate` returns, for each of some batches. A task may make them together, to be faster."""
        return map(self.collate, batches)

    def postprocess(self, outputs: Mapping[str, np.ndarray]) -> list[Record]:
        """What the network says of a batch -> a record for each example, with `prediction` and `probability`.

        Args:
            outputs: what `answers` of the task's net.py returns; {"outputs": ...} where it has none. Unless a task says
                otherwise, these are scores of params.data.classes; numbers, if there are no classes.
        """
        data, array = self.params.data, outputs["outputs"]
        if classes := getattr(data, "classes", None):
            return class_records(array, classes, self.top)
        mean, std = getattr(data, "label_mean", [0.0]), getattr(data, "label_std", [1.0])
        return number_records(array, target_names(data, array.shape[1]), mean, std)

    @abstractmethod
    def examples(self, count: int, length: int, rng: np.random.Generator) -> list[Any]:
        """Made-up raw inputs, on which export.py traces a network and compares it with the exported graph.

        They should cover what the data decided: known and unknown words, empty cells.

        Args:
            count: how many.
            length: of the first example; the others are at most as long. Longer examples must make every variable
                dimension larger (of words, also the number of letters). Ignored if all examples have the same size.
        """

    def write(self, network: Any, prompt: str, style: Any, samples: int = 1) -> Iterator[list[str]]:
        """Go on from `prompt`: at each step, what each sample gets.

        Args:
            network: takes and returns arrays, see `Predictor`.
            style: an `engine.writing.Style`.
        """
        raise NotImplementedError

    def unknown_in(self, prompt: str) -> list[str]:
        """The parts of a prompt that the network does not know."""
        return []

    def complete(self, example: Example, record: Record) -> Record:
        """The record of an example, with what only the example knows."""
        return {"input": example.input, **record}

    def show(self, record: Record, color: bool = False) -> str:
        """A record as a line for a person."""
        prediction, probability = as_text(record["prediction"]), record["probability"]
        if isinstance(record["prediction"], str):
            entries = [*record.get("probabilities", {prediction: probability}).items()]
        else:
            entries = [(prediction, probability)]
        columns = [f"{name:<{self.width}}" + ("" if p is None else f" {p:.4f}") for name, p in entries]
        return "  ".join([bold(columns[0], color), *columns[1:], as_text(record["input"])])

    def conll(self, record: Record) -> str:
        """A record in CoNLL's columns. Raises UserError if there are no tags."""
        raise UserError("--format conll is for tagged text. Take text, jsonl or csv.")

    def cells(self, record: Record) -> dict[str, Any]:
        """A record as a row of a CSV file: column -> value."""
        given, prediction = record["input"], record["prediction"]
        row = kept(given) if isinstance(given, Mapping) else {"input": given}
        if isinstance(prediction, Mapping):
            row |= {f"predicted {target}": as_text(value) for target, value in prediction.items()}
        else:
            row["prediction"] = as_text(prediction)
        if record["probability"] is not None:
            row["probability"] = f"{record['probability']:.4f}"
        probabilities = record.get("probabilities", {})
        if isinstance(prediction, str):
            for place, (name, probability) in enumerate(list(probabilities.items())[1:], start=2):
                row |= {f"prediction {place}": name, f"probability {place}": f"{probability:.4f}"}
        else:
            row |= {f"probability of {label}": f"{probability:.4f}" for label, probability in probabilities.items()}
        return row


def made_up_word(rng: np.random.Generator, longest: int) -> str:
    """1 to `longest` letters."""
    return "".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), rng.integers(1, longest + 1)))


# ------------------------------------------------------------------------------------------- predicting


@dataclass
class About:
    """What is known of trained weights."""

    path: str
    epoch: int | None = None
    trained: str | None = None  # when, as 2026-01-31 12:00:00
    metrics: dict[str, float] | None = None  # on val, after that epoch

    def without_path(self) -> dict[str, Any]:
        """What an exported file says of its weights: it may be moved."""
        return {name: value for name, value in asdict(self).items() if name != "path"}


class Predictor:
    """Answers with a trained network: `predictor(inputs)` returns a record for each input.

    Attributes:
        task: its name.
        processing: what the task's predict.py offers.
        network: arrays, the inputs of a batch -> what `answers` of the task's net.py returns, as arrays.
        about: of the weights.
    """

    def __init__(
        self, task: str, processing: Processing, network: Callable[[Arrays], dict[str, np.ndarray]], about: About
    ):
        self.task, self.processing, self.network, self.about = task, processing, network, about
        self.params = processing.params

    @property
    def can_explain(self) -> bool:
        """Whether the network can say which parts of an input decided."""
        return getattr(self.network, "can_explain", False)

    @cached_property
    def explaining(self) -> Predictor:
        """The same, but its records also say which parts of the input decided. Raises UserError if it cannot."""
        if not self.can_explain:
            known = hasattr(self.network, "can_explain")  # of exported graphs, it is not
            kind = f"a network for {self.task.replace('_', ' ')}" if known else "an exported graph"
            raise UserError(
                f"{self.about.path}: {kind} cannot explain its predictions. Trained weights of text classification can."
            )
        network: Any = self.network
        return Predictor(self.task, self.processing, network.explain, self.about)

    def __call__(self, inputs: Any) -> list[Record]:
        """A record for each input, in order: `input`, `prediction`, `probability`, and what the task adds.

        The record of an input that cannot be read has an `error` in place of the last two. Inputs are paths of images
        (or bytes, PIL images, arrays of height x width x 3), texts (or lists of words), or dicts of columns.
        """
        is_one_image = isinstance(inputs, np.ndarray) and inputs.ndim == 3
        if is_one_image or isinstance(inputs, str | bytes | Path | Mapping) or not isinstance(inputs, Iterable):
            inputs = [inputs]
        return list(self.stream(inputs))

    def stream(self, inputs: Iterable[Any], is_live: bool = False) -> Iterator[Record]:
        """The same, a window of inputs at a time.

        Args:
            is_live: inputs may come slowly, as somebody types them; so those that are there are not kept waiting.
        """
        size = min(WINDOW * self.params.batch_size, MOST_IN_MEMORY)
        chunks = as_they_come(inputs, size) if is_live else in_chunks(inputs, size)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for chunk in chunks:
                yield from self._answer_all(self._read_all(chunk, pool))

    def preprocess(self, raw: Any) -> Example | Unreadable:
        """Read one input."""
        if isinstance(raw, Unreadable):
            return raw
        try:
            return self.processing.preprocess(raw)
        except UserError as error:
            return Unreadable(name_of(raw), str(error))

    def answer(self, examples: Sequence[Example]) -> list[Record]:
        """The records of some examples, computed as one batch."""
        (records,) = self.answer_batches([examples])
        return records

    def answer_batches(self, batches: Sequence[Sequence[Example]]) -> Iterator[list[Record]]:
        """The records of the examples of each batch."""
        made = self.processing.make_batches([[example.content for example in batch] for batch in batches])
        for examples, inputs in zip(batches, made, strict=True):
            records = self.processing.postprocess(self.network(inputs))
            yield [
                self.processing.complete(example, record)
                if is_finite(record)
                else {"input": example.input, "error": NOT_FINITE}
                for example, record in zip(examples, records, strict=True)
            ]

    def _read_all(self, chunk: list[Any], pool: ThreadPoolExecutor) -> list[Example | Unreadable]:
        # small images are read faster by one thread, since Python's lock changes hands more often than it is worth
        first, seconds = [], []
        for raw in chunk[:3]:
            started = time.perf_counter()
            first.append(self.preprocess(raw))
            seconds.append(time.perf_counter() - started)
        return [*first, *(pool.map if min(seconds) > SLOW else map)(self.preprocess, chunk[3:])]

    def _answer_all(self, examples: list[Example | Unreadable]) -> list[Record]:
        records: list[Record] = [
            {"input": example.input, "error": example.error} if isinstance(example, Unreadable) else {}
            for example in examples
        ]
        batches = self.sort_into_batches(examples)
        answers = self.answer_batches([[example for _, example in batch] for batch in batches]) if batches else []
        for batch, answered in zip(batches, answers, strict=True):
            for (i, _), record in zip(batch, answered, strict=True):
                records[i] = record
        return records

    def sort_into_batches(self, examples: Sequence[Example | Unreadable]) -> list[list[tuple[int, Example]]]:
        """Those that can be read, with their places, in batches of similar length."""
        readable = [(i, example) for i, example in enumerate(examples) if isinstance(example, Example)]
        readable.sort(key=lambda pair: -pair[1].length)
        size = self.params.batch_size
        return [readable[start : start + size] for start in range(0, len(readable), size)]


def in_chunks(inputs: Iterable[Any], size: int) -> Iterator[list[Any]]:
    inputs = iter(inputs)
    while chunk := list(itertools.islice(inputs, size)):
        yield chunk


def as_they_come(inputs: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Chunks of what came within PATIENCE of each other, at most `size`. A thread waits for the inputs."""
    came: queue.Queue[Any] = queue.Queue(size)

    def wait() -> None:
        try:
            for raw in inputs:
                came.put([raw])
        except BaseException as error:
            came.put(error)
        came.put(None)

    threading.Thread(target=wait, daemon=True).start()
    while (item := came.get()) is not None:
        chunk: list[Any] = []
        with contextlib.suppress(queue.Empty):
            while isinstance(item, list):
                chunk += item
                item = came.get(timeout=PATIENCE) if len(chunk) < size else []
                if not item:
                    break
        if chunk:
            yield chunk
        if isinstance(item, BaseException):
            raise item
        if item is None:
            return


def name_of(raw: Any) -> Any:
    """What a record calls an input that could not be read."""
    if isinstance(raw, str):
        return raw if len(raw) <= SHOWN else raw[:SHOWN] + "..."
    if isinstance(raw, Mapping):
        return raw
    return str(raw) if isinstance(raw, Path) else getattr(raw, "name", type(raw).__name__)


def learnt(tasks: Tasks, name: str, params: Mapping[str, Any], data: Mapping[str, Any], path: Path) -> tuple[Task, Any]:
    """The task, and the parameters that weights were trained with, from plain values. Raises UserError if they are not
    known here."""
    if name not in list(tasks):
        raise UserError(f"{path}: weights of the task {name}, which is not here. There is {', '.join(tasks)}.")
    known, known_data = (
        JsonFile(path, dict(values), heading=f"{path}: weights of another version: its {part}").validate(model)
        for values, part, model in ((params, "params", tasks[name].Params), (data, "data", tasks[name].DataParams))
    )
    return tasks[name], known.with_data(known_data)
