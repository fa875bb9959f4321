"""Files that export.py wrote -> networks that answer, with onnxruntime and without torch."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from engine.predicting import About, Arrays, Predictor, learnt
from engine.tasks import Tasks
from utils import UserError

VERSION = 1  # of what stands in an exported file beside the graph
INSTALL = "pip install -r requirements-export.txt"


def load_onnx(tasks: Tasks, path: Path, top: int = 1) -> Predictor:
    """See `load_predictor` of predict.py."""
    if not path.is_file():
        raise UserError(f"{path}: no such file.")
    network = OnnxNetwork(path)
    metadata = network.metadata
    if "task" not in metadata:
        raise UserError(f"{path}: an ONNX file, but not one that export.py wrote: it does not say what goes into it.")
    if metadata.get("version") != str(VERSION):
        raise UserError(f"{path}: written by another version of export.py. Export it again with this one.")
    task, params = learnt(tasks, metadata["task"], json.loads(metadata["params"]), json.loads(metadata["data"]), path)
    about = About(**{**json.loads(metadata["about"]), "path": str(path)})
    return Predictor(task.name, task.Processing(params, top), network, about)


class OnnxNetwork:
    """Takes and returns arrays, as `engine.torch_network.TorchNetwork` does."""

    def __init__(self, path: Path):
        try:
            import onnxruntime
        except ImportError:
            raise UserError(f"{path}: onnxruntime is not installed. Install it with: {INSTALL}") from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS", 0))  # 0: one for each core
        options.log_severity_level = 3  # errors
        try:
            self.session: Any = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own classes, one for each kind of damage
            raise UserError(f"{path}: cannot be read as an ONNX file ({str(error).splitlines()[0]:.200}).") from None
        self.metadata: dict[str, str] = self.session.get_modelmeta().custom_metadata_map
        self.inputs = [node.name for node in self.session.get_inputs()]
        self.outputs = [node.name for node in self.session.get_outputs()]

    def __call__(self, inputs: Arrays) -> dict[str, np.ndarray]:
        arrays = inputs if isinstance(inputs, dict) else {"inputs": inputs}
        feed = {name: arrays[name] for name in self.inputs}  # the graph leaves out what it does not use
        return dict(zip(self.outputs, self.session.run(self.outputs, feed), strict=True))
