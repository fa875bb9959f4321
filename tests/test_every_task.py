"""What every task promises, tested on each one of model.TASKS: a new task is covered as soon as it is listed there."""

from __future__ import annotations

import csv
import dataclasses
import importlib
import itertools
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine.experiments import load_experiment
from engine.loaders import fetch_dataloaders
from engine.metrics import metrics_of, totals_of
from engine.optimizers import make_optimizer
from engine.predicting import Options
from engine.torch_network import TorchNetwork
from model import TASKS
from predict import load_predictor
from tests.conftest import ROOT, assert_same_run, last_checkpoint, read_json, refused, run, spoil, stop_after, train_ok

EXAMPLES = 150  # of a sample, in all; about
SMALL = {"num_epochs": 2, "batch_size": 16}


def make_small(sample: Any, patch: pytest.MonkeyPatch) -> None:
    """Let a task's sample.py make few examples: its NUM_ROWS, NUM_... or SIZES, a number for each split."""
    sizes = getattr(sample, "SIZES", {})
    for split, size in sizes.items():
        patch.setitem(sizes, split, max(24, size * EXAMPLES // sum(sizes.values())))
    for name in dir(sample):
        if name.startswith("NUM_") and isinstance(getattr(sample, name), int):
            patch.setattr(sample, name, min(EXAMPLES, getattr(sample, name)))


def build_sample(name: str, folder: Path, seed: int) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        make_small(importlib.import_module(f"model.{name}.sample"), patch)
        result = run("build_dataset", "--task", name, "--sample", "--output_dir", folder, "--seed", seed)
    assert result.status == 0, result.err
    return folder


@pytest.fixture(scope="session", params=TASKS)
def name(request: pytest.FixtureRequest) -> str:
    if TASKS[request.param].optional("write_sample") is None:
        pytest.skip(f"{request.param} has no write_sample to make data for these tests with")
    return request.param


@pytest.fixture(scope="session")
def built(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A built sample, not to be changed."""
    return build_sample(name, tmp_path_factory.mktemp(name) / "built", 1)


@pytest.fixture(scope="session")
def other(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sample of another seed, not to be changed."""
    return build_sample(name, tmp_path_factory.mktemp(name) / "other", 2)


@pytest.fixture(scope="session")
def whole(name: str, built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment after a run that nothing interrupted, not to be changed."""
    model_dir = tmp_path_factory.mktemp(name) / "whole"
    model_dir.mkdir()
    (model_dir / "params.json").write_text(json.dumps({"task": name, "data_dir": str(built), **SMALL}))
    train_ok(model_dir)
    return model_dir


@pytest.fixture
def finished(whole: Path, tmp_path: Path) -> Path:
    """A copy of `whole` that a test may change."""
    return Path(shutil.copytree(whole, tmp_path / "finished"))


@pytest.fixture
def experiment(name: str, built: Path, tmp_path: Path) -> Callable[..., Path]:
    """`experiment("a", learning_rate=0.1)` writes an experiment of the task."""

    def write(folder: str, **params: Any) -> Path:
        (tmp_path / folder).mkdir(parents=True)
        values = {"task": name, "data_dir": str(built), **SMALL, **params}
        (tmp_path / folder / "params.json").write_text(json.dumps(values))
        return tmp_path / folder

    return write


def batches_of_epoch(model_dir: Path) -> tuple[int, int]:
    """How many batches an epoch of the experiment has in train, and in val."""
    task, params, *_ = load_experiment(TASKS, model_dir)
    train, val = fetch_dataloaders(task, ["train", "val"], params).values()
    return len(train), len(val)


def test_builds_its_sample(name: str, built: Path) -> None:
    found = read_json(built / "dataset_params.json")
    assert found["task"] == name
    assert found["sizes"].keys() == {"train", "val", "test"}
    assert all(size > 0 for size in found["sizes"].values())


def test_the_same_seed_builds_the_same_sample(name: str, built: Path, other: Path, tmp_path: Path) -> None:
    again = build_sample(name, tmp_path / "again", 1)
    same, others = (read_json(folder / "dataset_params.json")["digest"] for folder in (again, other))
    assert read_json(built / "dataset_params.json")["digest"] == same != others


def test_trains(name: str, whole: Path) -> None:
    task, params, *_ = load_experiment(TASKS, whole)
    assert read_json(whole / "run.json")["status"] == "finished"
    history = [json.loads(line) for line in (whole / "history.jsonl").read_text().splitlines()]
    assert [entry["epoch"] for entry in history] == [1, 2]
    assert history[0]["val"].keys() == {"loss", *metrics_of(task, params)}
    assert params.monitor in history[0]["val"]
    assert history[1]["train"]["loss"] < history[0]["train"]["loss"]


def check_plain(value: Any) -> None:
    if isinstance(value, dict):
        value = [*value.keys(), *value.values()]
    if isinstance(value, list | tuple):
        for part in value:
            check_plain(part)
    else:
        assert value is None or type(value) in (str, int, float, bool, torch.Tensor), type(value)


def test_a_checkpoint_holds_what_a_prediction_needs(name: str, whole: Path) -> None:
    """Weights, parameters and what the data decided; plain values, of which loading executes nothing."""
    task, params, *_ = load_experiment(TASKS, whole)
    checkpoint = last_checkpoint(whole, "best")  # with weights_only=True
    check_plain(checkpoint)
    learnt = task.Params.model_validate(checkpoint["params"])
    learnt = learnt.with_data(task.DataParams.model_validate(checkpoint["data"]))
    assert learnt == params
    assert learnt.data == params.data
    task.Net(learnt).load_state_dict(checkpoint["state_dict"])


@pytest.mark.parametrize("epoch", [1, 2])
def test_stopped_and_gone_on_is_the_same_run(
    whole: Path, experiment: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, epoch: int
) -> None:
    """Bitwise, whether it was stopped within the first epoch or within a later one."""
    parts, (train, val) = experiment("parts"), batches_of_epoch(whole)
    assert train > 2
    assert stop_after((epoch - 1) * (train + val) + 2, parts, monkeypatch).status == 143
    assert (last_checkpoint(parts)["epoch"], last_checkpoint(parts)["batch"]) == (epoch - 1, 2)
    assert f"Going on in epoch {epoch}, after batch 2 of {train}" in train_ok(parts)
    assert_same_run(whole, parts)


@pytest.mark.slow
def test_killed_and_gone_on_is_the_same_run(whole: Path, experiment: Callable[..., Path], start: Any) -> None:
    parts, (train, val) = experiment("parts", checkpoint_minutes=1e-9), batches_of_epoch(whole)
    process = start(train + val + 3, parts)
    process.send_signal(signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL
    assert f"Going on in epoch 2, after batch 2 of {train}" in train_ok(parts)
    assert_same_run(whole, parts)


def test_changed_data_do_not_go_on(
    built: Path, other: Path, experiment: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The examples are others than when the run began, and dataset_params.json does not tell."""
    data = Path(shutil.copytree(built, tmp_path / "data"))
    model_dir = experiment("changed", data_dir=str(data))
    assert stop_after(2, model_dir, monkeypatch).status == 143
    shutil.rmtree(data)
    shutil.copytree(built, data, ignore=shutil.ignore_patterns("train*", "val*"))
    for path in (path for split in ("train", "val") for path in other.glob(f"{split}*")):
        (shutil.copytree if path.is_dir() else shutil.copy)(path, data / path.name)
    result = run("train", "--model_dir", model_dir)
    refused(result)
    assert any(reason in result.err for reason in ("changed since the run here began", "were built")), result.err
    shutil.rmtree(data)
    shutil.copytree(built, data)
    assert "Going on" in train_ok(model_dir)  # with the old examples it does


def test_divergence_names_its_examples(
    name: str, whole: Path, experiment: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model_dir = experiment("diverges")
    task, params, *_ = load_experiment(TASKS, model_dir)
    loader: Any = fetch_dataloaders(task, ["train"], params)["train"]
    loader.batch_sampler.set_epoch(0, 2)
    examples = loader.dataset.describe(next(iter(loader.batch_sampler)).indices.tolist())
    with monkeypatch.context() as patch:
        spoil(patch, name, 3, lambda loss, _: loss * float("nan"))
        result = run("train", "--model_dir", model_dir)
    assert result.status == 3
    assert "Traceback" not in result.err
    assert "Step 3 (epoch 1, batch 3): the loss is nan" in result.err
    assert f"The batch was {examples}." in result.err
    assert read_json(model_dir / "run.json")["status"] == "diverged"
    train_ok(model_dir)
    assert_same_run(whole, model_dir)


def test_evaluates(finished: Path) -> None:
    """On val, it gives what training measured there."""
    metrics = finished / "metrics_eval_best_weights.json"
    during = read_json(metrics)
    metrics.unlink()
    for split in ("val", "test"):
        result = run("evaluate", "--model_dir", finished, "--split", split)
        assert result.status == 0, result.err
        (predictions,) = finished.glob(f"predictions_{split}.*")
        assert predictions.stat().st_size > 0
    assert read_json(metrics) == pytest.approx(during)
    assert read_json(finished / "metrics_test_best_weights.json").keys() == during.keys()


def text_of(data: Path, split: str) -> str:
    """The text of a split that was built of characters."""
    characters = [line or "\n" for line in (data / "tokens.txt").read_text().split("\n")[:-1]]
    return "".join(characters[number] for number in (data / split / "tokens.bin").read_bytes())


def words_of(name: str, data: Path, split: str) -> tuple[list[str], Options]:
    """What names the examples of a split on predict.py's command line."""
    folder, accepts = data / split, TASKS[name].Processing.accepts
    if accepts == "texts":
        if (folder / "tokens.bin").exists():
            if TASKS[name].optional("load_text"):
                return text_of(data, split).split("\n")[:-1], Options()
            return (data / "tokens.txt").read_text().split(), Options()
        if (folder / "sentences.txt").exists():
            return [], Options(file=str(folder / "sentences.txt"), tokenized=True)
        return [], Options(
            file=str(folder / "texts.txt"), tokenized=read_json(data / "dataset_params.json")["tokenized"]
        )
    return [str(folder / "rows.csv" if accepts == "rows" else data / f"{split}_signs")], Options()


def test_predicts_what_evaluation_says(name: str, built: Path, finished: Path, tmp_path: Path) -> None:
    """To the last digit, from the experiment alone, or from a checkpoint alone: the data set is away."""
    assert run("evaluate", "--model_dir", finished).status == 0
    if TASKS[name].optional("load_text"):  # which is evaluated as a whole
        (tmp_path / "text.txt").write_text(text_of(built, "test"))
        (finished / "params.json").write_text(json.dumps(read_json(finished / "params.json") | {"data_dir": "gone"}))
        result = run("predict", "--model_dir", finished, "--score", tmp_path / "text.txt")
        numbers = read_json(finished / "metrics_test_best_weights.json")
        assert result.out == "  ".join(f"{key} {numbers[key]:.4f}" for key in numbers if key != "epoch") + "\n"
        return
    (path,) = finished.glob("predictions_test.*")
    words, options = words_of(name, Path(shutil.copytree(built, tmp_path / "elsewhere")), "test")
    words += ["--file", options.file] if options.file else []
    words += ["--tokenized"] if options.tokenized else []
    (checkpoint,) = (finished / "best_weights").glob("*.pt")
    for file in (checkpoint, checkpoint.with_suffix(".sha256")):
        shutil.copy(file, tmp_path)
    params = read_json(finished / "params.json")
    (finished / "params.json").write_text(json.dumps({**params, "data_dir": "gone"}))
    for place in (["--model_dir", finished], ["--weights", tmp_path / checkpoint.name]):
        if path.suffix == ".csv":
            result = run("predict", *place, *words, "--format", "csv")
            said = [(row["prediction"], row["probability"]) for row in csv.DictReader(result.out.splitlines())]
            evaluated = csv.DictReader(path.read_text().splitlines())
            assert said == [(row["prediction"], row["probability"]) for row in evaluated]
        else:
            result = run("predict", *place, *words, "--format", "conll")
            lines = [line.split(" ") for line in path.read_text().splitlines()]
            assert result.out.splitlines()[:-1] == [" ".join(line[::2]) for line in lines]
        assert result.status == 0, result.err
        assert len(said if path.suffix == ".csv" else lines) > 10


def test_answers_in_python(name: str, finished: Path, built: Path) -> None:
    predictor = load_predictor(finished, top=2)
    inputs = list(itertools.islice(predictor.processing.read(*words_of(name, built, "val")), 3))
    records = predictor(inputs)
    for record in records:
        assert list(record)[:3] == ["input", "prediction", "probability"]
        assert 0 <= record["probability"] <= 1
        assert json.loads(json.dumps(record)) == record  # plain values
        assert predictor.processing.show(record)
    assert [record["prediction"] for record in records] == [predictor([raw])[0]["prediction"] for raw in inputs]


def test_stands_in_the_table(finished: Path) -> None:
    assert run("evaluate", "--model_dir", finished).status == 0
    result = run("synthesize_results", "--parent_dir", finished.parent, "--format", "json")
    assert result.status == 0, result.err
    (row,) = json.loads(result.out)
    assert "finished" in row.values()
    assert set(read_json(finished / "metrics_test_best_weights.json").values()) & set(row.values())


@pytest.mark.parametrize(
    "name", [*(pytest.param(task, marks=pytest.mark.slow) for task in list(TASKS)[:-1]), list(TASKS)[-1]], indirect=True
)
def test_is_searched(name: str, experiment: Callable[..., Path]) -> None:
    parent = experiment("search", num_epochs=1)
    words = ["--parent_dir", parent, "--set", "learning_rate=0.001,0.01", "--jobs", 1, "--device", "cpu"]
    result = run("search_hyperparams", *words)
    assert result.status == 0, result.err
    trials = [path.parent for path in parent.glob("*/run.json")]
    assert sorted(read_json(trial / "params.json")["learning_rate"] for trial in trials) == [0.001, 0.01]
    assert {read_json(trial / "run.json")["status"] for trial in trials} == {"finished"}
    assert read_json(parent / "best" / "params.json")["learning_rate"] in (0.001, 0.01)


def test_overfits_one_batch(built: Path, experiment: Callable[..., Path]) -> None:
    """With its default network: the loss falls to a tenth, and whatever is to be maximised comes close to perfect."""
    loaded = load_experiment(TASKS, experiment("overfits", learning_rate=0.01))
    task, params, *_ = loaded
    torch.manual_seed(params.seed)
    net, loader = task.Net(params), fetch_dataloaders(task, ["train"], params, evaluating=True)["train"]
    count = task.optional("num_items") or torch.Tensor.numel
    inputs, labels = next(batch for batch in loader if count(batch[1]) > 0)
    optimizer = make_optimizer(net, params)

    def measure() -> dict[str, float]:
        totals = totals_of(task, params)
        net.eval()
        with torch.no_grad():
            outputs = net(inputs)
            totals.add(outputs, labels, task.loss_fn(outputs, labels))
        net.train()
        return totals.compute()

    before = after = measure()
    perfect = {name for name, metric in metrics_of(task, params).items() if metric.goal == "maximize"}
    for _ in range(50):
        for _ in range(20):
            optimizer.zero_grad()
            task.loss_fn(net(inputs), labels).backward()
            optimizer.step()
        after = measure()
        if after["loss"] < before["loss"] / 10 and all(after[name] > 0.95 for name in perfect):
            return
    raise AssertionError(f"{before} before, {after} after 1000 steps")


def are_alike(a: Any, b: Any) -> bool:
    """Whether two records are equal, but for rounding."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(are_alike(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(are_alike, a, b))
    return a == (pytest.approx(b, rel=1e-3, abs=1e-4) if isinstance(b, float) else b)


@pytest.mark.parametrize("file", ["model.onnx", "model.pt"])
def test_exported_it_predicts_the_same(name: str, whole: Path, tmp_path: Path, file: str) -> None:
    format = "torch" if file == "model.pt" else "onnx"
    result = run("export", "--model_dir", whole, "--output", tmp_path / file, "--format", format)
    assert result.status == 0, result.err
    original, exported = load_predictor(whole, "cpu"), load_predictor(tmp_path / file, "cpu")
    for predictor in (original, exported):
        if isinstance(predictor.network, TorchNetwork):
            predictor.network.precision = torch.float32
    assert (exported.task, exported.params, exported.params.data) == (name, original.params, original.params.data)
    assert exported.about == dataclasses.replace(original.about, path=str(tmp_path / file))
    for count, length in ((1, 1), (1, 9), (20, 15)):
        examples = original.processing.examples(count, length, np.random.default_rng(0))
        expected, found = original(examples), exported(examples)
        assert len(found) == count
        assert not any("error" in record for record in found)
        assert are_alike(found, expected)


ANSWER = """
import sys
sys.modules["torch"] = None  # importing it fails
import numpy as np
from predict import load_predictor
predictor = load_predictor(sys.argv[1])
examples = predictor.processing.examples(2, 5, np.random.default_rng(0))
print(len([record for record in predictor(examples) if "error" not in record]))
"""


def test_an_onnx_file_answers_without_torch(whole: Path, tmp_path: Path) -> None:
    assert run("export", "--model_dir", whole, "--output", tmp_path / "model.onnx").status == 0
    command = [sys.executable, "-c", ANSWER, str(tmp_path / "model.onnx")]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", check=True).stdout == "2\n"


def tensors_of(batch: Any) -> Iterator[torch.Tensor]:
    if isinstance(batch, torch.Tensor):
        yield batch
    else:
        for part in batch.values() if isinstance(batch, dict) else batch:
            yield from tensors_of(part)


def are_equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Bitwise; NaN, which a task may have as a label, equals NaN."""
    return a.shape == b.shape and torch.allclose(a, b, rtol=0, atol=0, equal_nan=True)


def test_workers_make_the_same_batches(experiment: Callable[..., Path]) -> None:
    """In every epoch: what is augmented or dropped depends on it."""
    loaders = []
    for num_workers in (0, 2):
        task, params, *_ = load_experiment(TASKS, experiment(f"workers{num_workers}", num_workers=num_workers))
        loaders.append(fetch_dataloaders(task, ["train", "val"], params))
    for split in ("train", "val"):
        firsts = []
        for epoch in (0, 1):
            for loader in loaders:
                loader[split].batch_sampler.set_epoch(epoch)  # type: ignore[union-attr]
            made = [[list(tensors_of(batch)) for batch in loader[split]] for loader in loaders]
            loaders[1][split]._iterator = None  # ends the workers, or a failed test would wait for them
            for here, there in zip(*made, strict=True):
                assert len(here) > 1
                assert all(map(are_equal, here, there))
                firsts.append(here)
        half = len(firsts) // 2
        alike = [are_equal(a, b) for a, b in zip(firsts[0], firsts[half], strict=True)]
        assert all(alike) == (split == "val")  # train is shuffled afresh
