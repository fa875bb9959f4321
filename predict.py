"""Use what was trained. From Python: `predictor = load_predictor("experiments/base_model")`."""

from __future__ import annotations

from pathlib import Path

from engine.predicting import Predictor
from model import TASKS


def load_predictor(place: str | Path, device: str = "auto", top: int = 1) -> Predictor:
    if Path(place).suffix == ".onnx":
        from engine.onnx_network import load_onnx  # without torch

        return load_onnx(TASKS, Path(place), top, device)
    from engine.torch_network import load_checkpointed

    return load_checkpointed(TASKS, Path(place), device, top)
