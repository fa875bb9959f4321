"""The networks: sizes, learning, and what the optimizers and schedules make of params.json."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import types
from typing import Any

import pytest
import torch
from torch import nn

from engine.devices import keep_freed_memory
from engine.optimizers import OPTIMIZERS, Schedule, make_optimizer
from engine.summary import summarize
from model import TASKS
from model.image_classification.net import Net, loss_fn
from model.image_classification.params import DataParams, Params
from tests.conftest import ROOT


def make_params(classes: int = 3, image_size: int = 16, **params: Any) -> Params:
    data = DataParams(
        task="image_classification",
        classes=[str(i) for i in range(classes)],
        image_size=image_size,
        sizes={"train": 8},
        mean=[0.5, 0.5, 0.5],
        std=[0.2, 0.2, 0.2],
        digest="",
    )
    return Params(**{"num_channels": 4, **params}).with_data(data)


@pytest.mark.parametrize("net", ["cnn", "resnet"])
@pytest.mark.parametrize(("classes", "image_size", "channels"), [(2, 8, 1), (6, 64, 4), (11, 37, 3)])
def test_any_size_and_number_of_classes(net: str, classes: int, image_size: int, channels: int) -> None:
    model = Net(make_params(classes, image_size, net=net, num_channels=channels))
    outputs = model(torch.randint(256, (5, 3, image_size, image_size), dtype=torch.uint8))
    assert outputs.shape == (5, classes)
    torch.testing.assert_close(outputs.exp().sum(1), torch.ones(5))


def test_pixels_are_scaled_by_the_network() -> None:
    """uint8 and float pixels are the same to it, and a layout is no difference."""
    torch.manual_seed(0)
    model = Net(make_params()).eval()
    images = torch.randint(256, (4, 3, 16, 16), dtype=torch.uint8)
    torch.testing.assert_close(model(images), model(images.float()))
    plain = Net(make_params(channels_last=False)).eval()
    plain.load_state_dict(model.state_dict())
    torch.testing.assert_close(model(images), plain(images))


def test_constant_channel_is_no_division_by_zero() -> None:
    params = make_params()
    params.with_data(params.data.model_copy(update={"std": [0.0, 0.2, 0.2]}))
    assert Net(params)(torch.zeros(2, 3, 16, 16)).isfinite().all()


def test_dropout_rate_is_the_probability_of_dropping() -> None:
    model = Net(make_params(dropout_rate=0.8))
    dropped = [layer(torch.ones(10_000)) == 0 for layer in model.modules() if isinstance(layer, nn.Dropout)]
    assert [mask.float().mean().item() for mask in dropped] == [pytest.approx(0.8, abs=0.03)]


def test_shipped_resnet_has_at_most_a_million_parameters() -> None:
    from engine.experiments import read_params

    params = read_params(TASKS, ROOT / "experiments" / "signs_resnet")
    params.with_data(make_params(6, 64).data)
    assert sum(p.numel() for p in Net(params).parameters()) <= 1_000_000


@pytest.mark.parametrize("net", ["cnn", "resnet"])
def test_overfits_one_batch(net: str) -> None:
    torch.manual_seed(0)
    model = Net(make_params(net=net, dropout_rate=0.0))
    images, labels = torch.randint(256, (16, 3, 16, 16), dtype=torch.uint8), torch.randint(3, (16,))
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(60):
        loss = loss_fn(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05
    assert (model(images).argmax(1) == labels).all()


def test_loss_is_the_mean_negative_log_likelihood() -> None:
    outputs = torch.log(torch.tensor([[0.7, 0.3], [0.2, 0.8]]))
    expected = -(torch.log(torch.tensor(0.7)) + torch.log(torch.tensor(0.2))) / 2
    torch.testing.assert_close(loss_fn(outputs, torch.tensor([0, 0])), expected)


def test_summary_counts_what_is_there() -> None:
    model = Net(make_params(6, 64, num_channels=32))
    text = summarize(model, torch.zeros(2, 3, 64, 64))
    assert "batch x 128 x 16 x 16" in text
    assert f"{sum(p.numel() for p in model.parameters()):,} parameters" in text
    assert model.training


# ---------------------------------------------------------------------------- optimizers and schedules


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_learns(name: str) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(4, 1)
    learning_rate = 1.0 if name == "adadelta" else 0.05  # it scales its steps itself
    params = Params(optimizer=name, learning_rate=learning_rate, momentum=0.5, weight_decay=1e-4)  # type: ignore[arg-type]
    optimizer = make_optimizer(layer, params)
    inputs = torch.randn(64, 4)
    targets = inputs.sum(1, keepdim=True)
    losses = []
    for _ in range(40):
        loss = (layer(inputs) - targets).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.95 * losses[0]


def test_optimizer_without_compiler_is_torchs() -> None:
    """The same steps, the same state, and nothing of torch.compile imported for it."""
    code = """
import sys, torch
from model.image_classification.params import DataParams, Params
from engine.devices import keep_freed_memory
from engine.optimizers import OPTIMIZERS, make_optimizer
def steps(make):
    torch.manual_seed(0)
    layer = torch.nn.Linear(3, 1)
    optimizer = make(layer)
    for _ in range(3):
        loss = layer(torch.ones(2, 3)).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())
    return layer.weight
names = ["sgd", "adamw", "rmsprop"]
params = {name: Params(optimizer=name, momentum=0.0, fused_optimizer=False) for name in names}
ours = {name: steps(lambda layer: make_optimizer(layer, params[name])) for name in names}
assert "torch._dynamo" not in sys.modules
for name in names:
    theirs = steps(lambda layer: OPTIMIZERS[name](layer.parameters(), lr=1e-3, weight_decay=0.0))
    assert torch.equal(ours[name], theirs), name
"""
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_weight_decay_leaves_biases_alone() -> None:
    layer = nn.Linear(4, 1)
    groups = make_optimizer(layer, Params(weight_decay=0.1)).param_groups
    assert {group["weight_decay"]: group["params"] for group in groups} == {0.1: [layer.weight], 0.0: [layer.bias]}


def rates(params: Params, steps_per_epoch: int = 10, metric: float = 0.0) -> list[float]:
    """The learning rate of every step of a run."""
    optimizer = make_optimizer(nn.Linear(1, 1), params)
    schedule = Schedule(optimizer, params, steps_per_epoch)
    found = []
    for _ in range(params.num_epochs):
        for _ in range(steps_per_epoch):
            optimizer.step()
            schedule.step()
            found.append(schedule.learning_rate)
        schedule.end_epoch(metric)
    return found


def test_schedules() -> None:
    common: dict[str, Any] = {"learning_rate": 1.0, "num_epochs": 8}
    assert rates(Params(**common)) == [1.0] * 80
    step = rates(Params(**common, scheduler="step", step_epochs=3, gamma=0.5))
    assert step[::10] == pytest.approx([1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25])
    cosine = rates(Params(**common, scheduler="cosine"))
    assert cosine == sorted(cosine, reverse=True)
    assert cosine[0] == 1.0
    assert cosine[40] == pytest.approx(0.5)
    assert 0 < cosine[-1] < 0.001
    onecycle = rates(Params(**common, scheduler="onecycle", warmup_epochs=2))
    assert onecycle.index(max(onecycle)) in (19, 20)
    assert max(onecycle) == pytest.approx(1.0, rel=1e-3)  # the very top may fall between two steps
    assert onecycle[-1] < 0.002
    assert all(rate > 0 for rate in rates(Params(num_epochs=1, scheduler="onecycle", warmup_epochs=0.5), 1))
    plateau = rates(Params(**common, scheduler="plateau", plateau_patience=1, gamma=0.5))  # the metric stands still
    assert plateau[::10] == pytest.approx([1, 1, 1, 0.5, 0.5, 0.25, 0.25, 0.125])


@pytest.mark.parametrize("scheduler", ["none", "onecycle"])
def test_warmup_is_shortened_in_a_short_run(scheduler: str, caplog: pytest.LogCaptureFixture) -> None:
    common: dict[str, Any] = {"learning_rate": 1.0, "num_epochs": 3, "scheduler": scheduler}
    with caplog.at_level("INFO"):
        assert rates(Params(**common, warmup_epochs=4)) == rates(Params(**common, warmup_epochs=1.5))
    assert [record.message for record in caplog.records] == [
        "The warm-up is shortened from 4 to 1.5 epochs, half of the run."
    ]


@pytest.mark.parametrize("scheduler", ["none", "step", "cosine", "plateau"])
def test_warmup_rises_to_the_rate_without_it(scheduler: str) -> None:
    common: dict[str, Any] = {"learning_rate": 1.0, "num_epochs": 8, "scheduler": scheduler}
    warm, cold = rates(Params(**common, warmup_epochs=1.5)), rates(Params(**common))
    for i in range(15):
        assert warm[i] == pytest.approx(cold[i] * (i + 1) / 15)
    assert warm[15:] == pytest.approx(cold[15:])


@pytest.mark.parametrize(("takes", "calls"), [(1, [(-3, 32 * 2**20), (-1, 2**31 - 1)]), (0, [(-3, 32 * 2**20)])])
@pytest.mark.skipif(sys.platform != "linux", reason="another C library")
def test_memory_that_is_freed_is_kept(monkeypatch: pytest.MonkeyPatch, takes: int, calls: list[Any]) -> None:
    """If the C library does not take the first setting, the second would do harm."""
    made: list[Any] = []

    def mallopt(name: int, value: int) -> int:
        made.append((name, value))
        return takes

    monkeypatch.setattr(ctypes, "CDLL", lambda _: types.SimpleNamespace(mallopt=mallopt))
    keep_freed_memory()
    assert made == calls
