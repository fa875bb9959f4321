"""The drawn hands are a real little problem: too hard for a linear classifier, learnt by the shipped experiment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from engine.experiments import load_experiment
from engine.loaders import fetch_dataloaders
from model import TASKS
from tests.conftest import ROOT, read_json, run

pytestmark = pytest.mark.slow  # the whole sample is drawn, and whole experiments are run


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("sample") / "built"
    assert run("build_dataset", "--sample", "--output_dir", data).status == 0
    return data


def pixels_and_labels(loader: Any) -> tuple[Tensor, Tensor]:
    return loader.dataset.images.flatten(1).float() / 127.5 - 1, loader.dataset.labels


def test_sizes(sample: Path) -> None:
    found = read_json(sample / "dataset_params.json")
    assert found["sizes"] == {"train": 864, "val": 216, "test": 120}
    assert found["classes"] == list("012345")


def test_a_linear_classifier_fails(sample: Path) -> None:
    """The best of several strengths of weight decay, chosen on test itself, is not good."""
    task, params, *_ = load_experiment(TASKS, ROOT / "experiments" / "base_model", str(sample))
    loaders = fetch_dataloaders(task, ["train", "test"], params, evaluating=True)
    (x, y), (test_x, test_y) = (pixels_and_labels(loaders[split]) for split in ("train", "test"))
    accuracies = []
    for weight_decay in (0.0, 0.01, 0.1, 1.0):
        weights = torch.zeros(6, x.shape[1], requires_grad=True)
        optimizer = torch.optim.AdamW([weights], 1e-3, weight_decay=weight_decay)
        for _ in range(100):
            loss = F.cross_entropy(x @ weights.T, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        accuracies.append(((test_x @ weights.T).argmax(1) == test_y).float().mean().item())
    assert max(accuracies) < 0.7, accuracies


def test_the_shipped_experiment_learns_it(sample: Path, tmp_path: Path) -> None:
    model_dir = tmp_path / "base_model"
    result = run("train", "--model_dir", model_dir, "--base", ROOT / "experiments" / "base_model", "--data_dir", sample)
    assert result.status == 0, result.err
    assert run("evaluate", "--model_dir", model_dir).status == 0
    assert read_json(model_dir / "metrics_test_best_weights.json")["accuracy"] > 0.97
