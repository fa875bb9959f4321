"""Files that export.py wrote -> networks that answer, with onnxruntime and without torch."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from engine.predicting import About, Arrays, Predictor, learnt
from engine.tasks import Tasks
from utils import UserError, logger

VERSION = 1  # of what stands in an exported file beside the graph
INSTALL = "pip install -r requirements-export.txt"
SINGLE = "inputs"  # name of the input of a graph whose network takes one tensor
# An exported file ends in the SHA-256 of all bytes before it. To programs that read ONNX it is one more entry of the
# metadata: field 14 of a ModelProto, 74 bytes long, with the key "sha256" and a value of 64 bytes.
SEAL = b"\x72\x4a\x0a\x06sha256\x12\x40"


def load_onnx(tasks: Tasks, path: Path, top: int = 1, device: str = "auto") -> Predictor:
    """See `load_predictor` of predict.py."""
    if device not in ("auto", "cpu"):
        raise UserError(f"--device {device}: an ONNX file runs on the CPU. Use the weights for another device.")
    try:
        content = path.read_bytes()
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
        raise UserError(f"{path}: {reason}.") from None
    if is_sealed(content) and sealed(content[: -len(SEAL) - 64]) != content:
        raise UserError(f"{path}: damaged: its bytes are not those that export.py wrote (SHA-256). Export it again.")
    network = OnnxNetwork(content, str(path))
    values = network.metadata
    if "task" not in values:
        raise UserError(f"{path}: an ONNX file, but not one that export.py wrote: it does not say what goes into it.")
    if values.get("version") != str(VERSION):
        raise UserError(f"{path}: written by another version of export.py. Export it again with this one.")
    try:
        params, data, about = (json.loads(values[name]) for name in ("params", "data", "about"))
        params, data, about = {**params}, {**data}, About(**{**about, "path": str(path)})
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{path}: damaged: its metadata is not what export.py wrote. Export it again.") from None
    if not is_sealed(content):
        logger.warning("%s: changed by another program since export.py wrote it.", path)
    task, params = learnt(tasks, values["task"], params, data, path)
    return Predictor(task.name, task.Processing(params, top), network, about)


def sealed(content: bytes) -> bytes:
    """A serialized ONNX model, with its digest behind it."""
    return content + SEAL + hashlib.sha256(content).hexdigest().encode()


def is_sealed(content: bytes) -> bool:
    """Whether export.py wrote a file, judged by its end."""
    return content[:-64].endswith(SEAL)


class OnnxNetwork:
    """Takes and returns arrays, as `engine.torch_network.TorchNetwork` does.

    Args:
        content: of an ONNX file.
        name: of the file, for messages.

    Raises:
        UserError: it is not an ONNX file, or onnxruntime is not installed.
    """

    def __init__(self, content: bytes, name: str):
        try:
            import onnxruntime
        except ImportError:
            raise UserError(f"{name}: onnxruntime is not installed. Install it with: {INSTALL}") from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads()
        options.log_severity_level = 3  # errors
        try:
            self.session: Any = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own classes, one for each kind of damage
            reason = str(error).splitlines()[0][:200] if content else "it is empty"
            raise UserError(f"{name}: cannot be read as an ONNX file ({reason}).") from None
        self.metadata: dict[str, str] = self.session.get_modelmeta().custom_metadata_map
        self.inputs = [node.name for node in self.session.get_inputs()]
        self.outputs = [node.name for node in self.session.get_outputs()]

    def __call__(self, inputs: Arrays) -> dict[str, np.ndarray]:
        arrays = named(inputs)
        feed = {name: arrays[name] for name in self.inputs}  # the graph leaves out what it does not use
        return dict(zip(self.outputs, self.session.run(self.outputs, feed), strict=True))


def named(inputs: Arrays) -> dict[str, np.ndarray]:
    """The inputs of a batch by the names that they have in a graph."""
    return inputs if isinstance(inputs, dict) else {SINGLE: inputs}


def num_threads() -> int:
    """What OMP_NUM_THREADS says, as for torch; 0, one thread for each core, if it says nothing."""
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    return int(first) if first.isdecimal() else 0
