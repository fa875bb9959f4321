"""Trained networks -> files to use elsewhere: an ONNX graph, checked against the network, or slim weights for torch."""

from __future__ import annotations

import contextlib
import copy
import importlib
import io
import json
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.checkpoints import load_checkpoint, save_weights
from engine.onnx_network import INSTALL, SINGLE, VERSION, OnnxNetwork, is_sealed, named, sealed
from engine.predicting import Arrays, Processing
from engine.torch_network import Restored, TorchNetwork, answers_of, to_tensors
from utils import UserError, check_writable, write_atomically

OPSET = 17  # of ONNX; onnxruntime knows it from 1.12 (2022) on
TOLERANCE = 1e-4  # allowed between graph and network; relative where numbers are larger than 1
TRACED = (3, 7), (9, 30)  # sizes, as (examples, length); every axis in which these batches differ is left free
CHECKED = (1, 1), (2, 5), (1, 40), (33, 20)  # other sizes, at which the graph is compared with the network
TRIES = 3  # batches of a size, in one of which the integers must be equal

Network = Callable[[Arrays], dict[str, np.ndarray]]
SUFFIXES = {"onnx": ".onnx", "torch": ".pt"}  # of the formats' files


def check_output(path: Path, format: str) -> None:
    """Raises UserError if `path` cannot become an exported file, or would replace a file that is not one."""
    suffix = SUFFIXES[format]
    if path.is_dir():
        raise UserError(f"--output {path}: a folder. Expected the name of a file, such as {path / 'model'}{suffix}.")
    if path.suffix != suffix:
        raise UserError(f"--output {path}: expected a name that ends in {suffix}, for --format {format}.")
    if not path.parent.is_dir():
        raise UserError(f"--output {path}: there is no folder {path.parent}.")
    check_writable(path.parent)
    if path.exists() and not is_exported(path):
        raise UserError(f"--output {path}: this file exists, and export.py did not write it. Choose another name.")


def is_exported(path: Path) -> bool:
    """Whether export.py wrote this file."""
    if path.suffix == SUFFIXES["onnx"]:
        return is_sealed(path.read_bytes())
    with contextlib.suppress(UserError):
        return "exported" in load_checkpoint(path)
    return False


def check_installed() -> None:
    """Raises UserError if a package is missing that exporting to ONNX needs."""
    for package in ("onnx", "onnxruntime"):
        try:
            importlib.import_module(package)
        except ImportError:
            raise UserError(f"{package} is not installed, which --format onnx needs: {INSTALL}") from None


# ------------------------------------------------------------------------------------------------ torch


def export_torch(trained: Restored, path: Path) -> None:
    """Write the weights, and what else a prediction needs. The state of the optimizer stays behind."""
    kept = {name: trained.checkpoint[name] for name in ("state_dict", "params", "data")}
    save_weights({**kept, **trained.about.without_path()}, path)


# ------------------------------------------------------------------------------------------------- ONNX


class Report(NamedTuple):
    """How an exported graph compares with its network.

    Attributes:
        difference: the largest between their answers.
        milliseconds: examples in a batch -> median time of the network, and of the graph.
    """

    difference: float
    milliseconds: dict[int, tuple[float, float]]


def export_onnx(trained: Restored, path: Path) -> Report:
    """Write the network as an ONNX graph that says what goes in and what comes out.

    Raises:
        UserError: the network cannot be exported, or the graph does not compute the same. No file is written.
    """
    processing: Processing = trained.task.Processing(trained.params)
    network = TorchNetwork(trained.task, trained.net, torch.device("cpu"), torch.float32)
    content = to_onnx(trained, network, processing)
    graph = OnnxNetwork(content, str(path))
    difference = max(compare(network, graph, processing, count, length) for count, length in CHECKED)
    write_atomically(path, content)
    medians = {}
    for count in (1, 32):
        first, second = time_in_turn(network, graph, batch_of(processing, count, 20))
        medians[count] = statistics.median(first), statistics.median(second)
    return Report(difference, medians)


def batch_of(processing: Processing, count: int, length: int, seed: int = 0) -> Arrays:
    """The inputs of a batch of made-up examples."""
    examples = processing.examples(count, length, np.random.default_rng([seed, count, length]))
    return processing.collate([processing.preprocess(raw).content for raw in examples])


def to_onnx(trained: Restored, network: Network, processing: Processing) -> bytes:
    """The network, and all that is known of it, as the content of an ONNX file."""
    first, second = (batch_of(processing, *size) for size in TRACED)
    answers = network(first)
    free = {
        **free_axes(named(first), named(second), processing.inputs),
        **free_axes(answers, network(second), processing.outputs),
    }
    file: Any = io.BytesIO()  # the exporter takes one, though its annotation names paths alone
    graph, names = Graph(trained, named(first)), [*named(first)]
    try:
        with quiet_exporter(), torch.no_grad():
            # With dynamo=True, torch 2.14 takes the length of the example for the length of every text.
            torch.onnx.export(
                graph.eval(),
                tuple(to_tensors(named(first)).values()),
                file,
                dynamo=False,
                opset_version=OPSET,
                input_names=names,
                output_names=[*answers],
                dynamic_axes=free,
            )
    except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"The network of {trained.task.name} cannot be exported to ONNX: {reason}") from None
    return describe(file.getvalue(), trained, processing)


class Graph(nn.Module):
    """A network and the `answers` of its task: tensors, one for each input -> tensors, one for each answer."""

    def __init__(self, trained: Restored, inputs: Mapping[str, Any]):
        super().__init__()
        self.net, self.answers, self.names = without_bags(trained.net), answers_of(trained.task), [*inputs]

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        inputs = dict(zip(self.names, tensors, strict=True))
        answers = self.answers(self.net(inputs[SINGLE] if self.names == [SINGLE] else inputs))
        return tuple(answer.float() if answer.is_floating_point() else answer for answer in answers.values())


def without_bags(net: nn.Module) -> Any:
    """A copy of a network that sums embeddings in two steps. Of nn.EmbeddingBag, torch's exporter makes a loop over the
    examples, which is several times slower."""
    net = copy.deepcopy(net)
    for module in [*net.modules()]:
        for name, child in module.named_children():
            if isinstance(child, nn.EmbeddingBag) and child.mode == "sum" and child.padding_idx is None:
                setattr(module, name, SummedEmbedding(child))
    return net


class SummedEmbedding(nn.Module):
    """Computes what an nn.EmbeddingBag does. Other calls go to the bag unchanged."""

    def __init__(self, bag: nn.EmbeddingBag):
        super().__init__()
        self.bag = bag

    def forward(self, indices: Tensor, *others: Tensor) -> Tensor:
        if indices.ndim != 2 or others:
            return self.bag(indices, *others)
        return F.embedding(indices, self.bag.weight).sum(dim=1)  # batch_size x dim


def free_axes(
    first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray], shapes: Mapping[str, str]
) -> dict[str, dict[int, str]]:
    """The axes in which two batches differ, and their names: {"words": {0: "batch_size", 1: "length"}}.

    Args:
        shapes: see `Processing.inputs`; an axis that has no name there is called "words_1".
    """
    free = {}
    for name, array in first.items():
        axes = shapes.get(name, "").split(":")[0].split(" x ")
        if len(axes) != array.ndim or not all(axes):
            axes = [f"{name}_{i}" for i in range(array.ndim)]
        free[name] = {i: axes[i] for i in range(array.ndim) if array.shape[i] != second[name].shape[i]}
    return free


@contextlib.contextmanager
def quiet_exporter() -> Iterator[None]:
    """Without warnings that no user can act on: torch's exporter is the older of two, and uses parts of torch that are
    deprecated; with other lengths than it was traced with, its graph may be wrong, which is checked here."""
    with warnings.catch_warnings():
        for message in (
            "You are using the legacy TorchScript-based ONNX export",
            "The feature will be removed. Please remove usage of this function",
            "`torch.jit.script`",
            "Exporting a model to ONNX with a batch_size other than 1",
            "Constant folding - Only steps=1",  # what is not folded is computed each time
        ):
            warnings.filterwarnings("ignore", message)
        # torch's own checks of the sizes that it is given
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning, module=r"torch\.nn\.modules\.rnn")
        yield


def describe(content: bytes, trained: Restored, processing: Processing) -> bytes:
    """An ONNX file with metadata: what is needed to use it, for programs and for people. Ends in a digest."""
    import onnx

    model = onnx.load_from_string(content)
    model.doc_string = processing.about
    for nodes, texts in ((model.graph.input, processing.inputs), (model.graph.output, processing.outputs)):
        for node in nodes:
            node.doc_string = texts.get(node.name, "")
    values = {
        "version": VERSION,
        "task": trained.task.name,
        "params": trained.checkpoint["params"],
        "data": trained.checkpoint["data"],
        "about": trained.about.without_path(),
        "processing": processing.about,
        "inputs": processing.inputs,
        "outputs": processing.outputs,
        "opset": OPSET,
        "torch": torch.__version__,
    }
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()}
    onnx.helper.set_model_props(model, texts)
    onnx.checker.check_model(model)
    return sealed(model.SerializeToString())


# ---------------------------------------------------------------------------------------------- checking


def compare(network: Network, graph: Network, processing: Processing, count: int, length: int) -> float:
    """The largest difference between the answers of a network and its graph to `count` examples of that length.

    Integers must be equal. Where two have the same score, rounding decides, and the two may choose differently. Other
    examples have no such tie. So the integers must be equal in one of `TRIES` batches, the other numbers in all.

    Raises:
        UserError: they differ too much, or the graph cannot compute at this size.
    """
    largest = 0.0
    where = f"in a batch of {count} (length {length})"
    for seed in range(1, TRIES + 1):
        inputs = batch_of(processing, count, length, seed)
        expected = network(inputs)
        try:
            found = graph(inputs)
        except Exception as error:  # onnxruntime's own classes
            raise UserError(f"The exported graph fails {where}: {str(error).splitlines()[0][:300]}. {WHY}") from None
        for name, numbers in expected.items():
            if found[name].shape != numbers.shape:
                shapes = f"{[*found[name].shape]} instead of {[*numbers.shape]}"
                raise UserError(f"The exported graph is wrong {where}: {name} has the shape {shapes}. {WHY}")
            if numbers.dtype.kind == "f":
                difference = largest_difference(numbers, found[name])
                if not difference <= TOLERANCE:
                    raise UserError(f"The exported graph is wrong {where}: {name} differs by {difference:.2g}. {WHY}")
                largest = max(largest, difference)
        unequal = [name for name, a in expected.items() if a.dtype.kind != "f" and (a != found[name]).any()]
        if not unequal:
            return largest
    raise UserError(f"The exported graph is wrong {where}: {', '.join(unequal)} not equal. {WHY}")


WHY = (
    "Nothing was written. Usual reasons are a loop in Python over the steps of a text, or a size that `forward` turns"
    " into a number: what they do is fixed when the network is traced."
)


def largest_difference(a: np.ndarray, b: np.ndarray) -> float:
    """Between two arrays; relative where numbers are larger than 1. NaN if only one of two numbers is NaN."""
    with np.errstate(invalid="ignore"):
        differences = np.abs(a - b) / np.maximum(1, np.abs(a))
    same = (a == b) | (np.isnan(a) & np.isnan(b))  # infinite numbers too
    return float(np.where(same, 0, differences).max(initial=0))


def time_in_turn(
    network: Network, graph: Network, inputs: Arrays, seconds: float = 0.3
) -> tuple[list[float], list[float]]:
    """Milliseconds of each call of both, called in turn for about so many seconds."""
    times: tuple[list[float], list[float]] = ([], [])
    for way in (network, graph):
        way(inputs)  # the first call is slower
    end = time.perf_counter() + seconds
    while len(times[0]) < 3 or time.perf_counter() < end:
        for way, taken in zip((network, graph), times, strict=True):
            start = time.perf_counter()
            way(inputs)
            taken.append(1000 * (time.perf_counter() - start))
    return times
