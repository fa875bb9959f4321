"""A small data set, a trained experiment, and a way to run the commands inside the test process."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

# Before torch is imported, here and in the processes that tests start: networks this small gain nothing from threads,
# and threads that wait in a spin take the core from whoever is tested beside them.
os.environ.update(OMP_NUM_THREADS="1", GOMP_SPINCOUNT="10000")

import pytest
import torch
from hypothesis import settings

import engine.run as engine_run
import evaluate
from engine.checkpoints import list_checkpoints
from engine.commands import run_command
from model.sequence_tagging.sample import write_sentences
from tests.helpers import draw_photos, timeless

# Whoever starts the tests with & in a script, or with nohup, has them ignore signals that they test.
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
settings.register_profile("untimed", deadline=None)  # machines are shared and noisy
settings.load_profile("untimed")

ROOT = Path(__file__).parent.parent
# the name of a folder in Latin-1, which Linux takes; elsewhere all names are Unicode
NOT_UTF8 = os.fsdecode(b"H\xe4nde") if sys.platform == "linux" else "Hände"
SMALL_TAGGER = {"num_epochs": 2, "batch_size": 16, "embedding_dim": 8, "lstm_hidden_dim": 8, "learning_rate": 0.02}
SMALL = {"batch_size": 8, "num_epochs": 2, "num_channels": 4, "learning_rate": 0.01}  # a run of a second


class Result(NamedTuple):
    status: int
    out: str
    err: str


def run(command: str, *arguments: Any) -> Result:
    """Run `python {command}.py {arguments}` in this process."""
    out, err = io.StringIO(), io.StringIO()
    argv, sys.argv = sys.argv, [f"{command}.py", *map(str, arguments)]
    status = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            run_command(importlib.import_module(command).main)
    except SystemExit as stop:
        status = int(stop.code or 0)
    finally:
        sys.argv = argv
        for handler in list(logging.getLogger().handlers):
            if isinstance(handler, logging.FileHandler):
                handler.close()
                logging.getLogger().removeHandler(handler)
    return Result(status, out.getvalue(), err.getvalue())


class Terminal(io.StringIO):
    """What `run` takes for a terminal, in place of io.StringIO; COLUMNS says how wide it is."""

    def isatty(self) -> bool:
        return True


def refused(result: Result, *words: str) -> None:
    """The command ended with status 2 and one message that says all of `words`, and no traceback."""
    assert result.status == 2, result
    assert "Traceback" not in result.err
    for word in words:
        assert word in result.err, result.err


def train_ok(model_dir: Path, *flags: Any) -> str:
    result = run("train", "--model_dir", model_dir, *flags)
    assert result.status == 0, result.err
    return result.out


def write_params(folder: Path, **params: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "params.json").write_text(json.dumps({**SMALL, **params}, indent=4))
    return folder


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())


def last_checkpoint(model_dir: Path, which: str = "last") -> dict[str, Any]:
    path = list_checkpoints(model_dir / f"{which}_weights")[-1]
    return torch.load(path, weights_only=True)


def assert_same_weights(first: Path, second: Path) -> None:
    a, b = last_checkpoint(first)["state_dict"], last_checkpoint(second)["state_dict"]
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def stop_after(
    batches: int, model_dir: Path, monkeypatch: pytest.MonkeyPatch, *flags: Any, number: int = signal.SIGTERM
) -> Any:
    """Train `model_dir`, and send the signal while the batch of that number, of train or of val, is being computed."""
    real, seen = engine_run.autocast, 0

    def counting(*arguments: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen == batches:
            os.kill(os.getpid(), number)
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(engine_run, "autocast", counting)
        patch.setattr(evaluate, "autocast", counting)
        return run("train", "--model_dir", model_dir, *flags)


def assert_same_run(first: Path, second: Path) -> None:
    """Weights, optimizer, schedule, generators, history and choice of the best: bitwise the same."""
    for which in ("last", "best"):
        assert timeless(last_checkpoint(first, which)) == timeless(last_checkpoint(second, which))
    histories = [(folder / "history.jsonl").read_text().splitlines() for folder in (first, second)]
    first_lines, second_lines = ([timeless(json.loads(line)) for line in lines] for lines in histories)
    assert first_lines == second_lines
    for name in ("metrics_eval_best_weights.json", "metrics_eval_last_weights.json"):
        assert read_json(first / name) == read_json(second / name)


def spoil(
    monkeypatch: pytest.MonkeyPatch, kind: str, step: int, how: Callable[[torch.Tensor, Any], torch.Tensor]
) -> None:
    """From training step `step` on, the loss is how(loss, outputs)."""
    net = importlib.import_module(f"model.{kind}.net")
    real, seen = net.loss_fn, 0

    def loss_fn(outputs: Any, labels: Any) -> torch.Tensor:
        nonlocal seen
        seen += torch.is_grad_enabled()
        loss = real(outputs, labels)
        return how(loss, outputs) if seen >= step and torch.is_grad_enabled() else loss

    monkeypatch.setattr(net, "loss_fn", loss_fn)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_photos(tmp_path_factory.mktemp("raw") / "SIGNS")


@pytest.fixture(scope="session")
def shared_data(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A built data set, not to be changed: 48 + 12 + 15 images of 3 classes, 16x16."""
    data = tmp_path_factory.mktemp("data") / "built"
    result = run("build_dataset", "--data_dir", photos, "--output_dir", data, "--size", 16)
    assert result.status == 0, result.err
    return data


@pytest.fixture
def data(photos: Path, tmp_path: Path) -> Path:
    """A built data set of the test's own."""
    data = tmp_path / "built"
    assert run("build_dataset", "--data_dir", photos, "--output_dir", data, "--size", 16).status == 0
    return data


@pytest.fixture(scope="session")
def trained(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment after its run of 2 epochs, not to be changed."""
    model_dir = write_params(tmp_path_factory.mktemp("trained") / "small")
    result = run("train", "--model_dir", model_dir, "--data_dir", shared_data)
    assert result.status == 0, result.err
    return model_dir


@pytest.fixture
def experiment(tmp_path: Path, shared_data: Path) -> Callable[..., Path]:
    """`experiment(name, num_epochs=3)` writes an experiment on the shared data."""

    def write(name: str = "experiment", **params: Any) -> Path:
        return write_params(tmp_path / name, **{"data_dir": str(shared_data), **params})

    return write


@pytest.fixture(scope="session")
def shared_text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A built data set of few sentences, not to be changed. Test has a tag that train has not."""
    folder = tmp_path_factory.mktemp("text")
    sizes = {"train": 100, "val": 30, "test": 31}
    for split, sentences in write_sentences(230).items():
        (folder / "raw" / split).mkdir(parents=True)
        chosen = sentences[: sizes[split]]
        lines = {"sentences": [" ".join(s.words) for s in chosen], "labels": [" ".join(s.tags) for s in chosen]}
        if split == "test":
            lines["sentences"][-1], lines["labels"][-1] = "10\u00a0000 cheers for Zoë !", "O O O B-art O"
        for name, side in lines.items():
            (folder / "raw" / split / f"{name}.txt").write_text("".join(line + "\n" for line in side), encoding="utf-8")
    words = ["--task", "sequence_tagging", "--data_dir", folder / "raw", "--output_dir", folder / "built"]
    assert run("build_dataset", *words).status == 0
    return folder / "built"


@pytest.fixture
def tagger(tmp_path: Path, shared_text: Path) -> Callable[..., Path]:
    """`tagger(name, crf=True)` writes an experiment on the shared text."""

    def write(name: str = "tagger", **params: Any) -> Path:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        values = {"task": "sequence_tagging", "data_dir": str(shared_text), **SMALL_TAGGER, **params}
        (folder / "params.json").write_text(json.dumps(values, indent=4))
        return folder

    return write


@pytest.fixture(scope="session")
def shared_reviews(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A built data set of 300 short reviews, not to be changed."""
    data = tmp_path_factory.mktemp("reviews") / "built"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("model.text_classification.sample.NUM_REVIEWS", 300)
        result = run("build_dataset", "--task", "text_classification", "--sample", "--output_dir", data)
    assert result.status == 0, result.err
    return data


@pytest.fixture(scope="session")
def critic(shared_reviews: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`critic(level="char")` trains a sum over words, or what is set otherwise, on the shared reviews."""

    def train(**params: Any) -> Path:
        folder = tmp_path_factory.mktemp("critic") / "reviews"
        folder.mkdir()
        values = {"task": "text_classification", "data_dir": str(shared_reviews), "net": "bag", "ngram_length": 1}
        values |= {"num_epochs": 8, "learning_rate": 0.05, "embedding_dim": 8, "lstm_hidden_dim": 8}
        (folder / "params.json").write_text(json.dumps({**values, **params}), encoding="utf-8")
        train_ok(folder)
        return folder

    return train


@pytest.fixture(scope="session")
def reviews(critic: Callable[..., Path]) -> Path:
    """An experiment that classifies reviews, not to be changed."""
    return critic()


# run train.py, and in the batch of that number wait until there is a file called go
SLOW = """
import os, sys, time, engine.run, evaluate, train
from engine.commands import run_command
real, seen, sleep_at = engine.run.autocast, 0, int(sys.argv.pop(1))
def sleepy(*arguments):
    global seen
    seen += 1
    if seen == sleep_at:
        print("HERE", flush=True)
        while not os.path.exists(os.path.join(sys.argv[-1], "go")):
            time.sleep(0.1)
    return real(*arguments)
engine.run.autocast = evaluate.autocast = sleepy
run_command(train.main)
"""


@pytest.fixture
def start() -> Iterator[Callable[[int, Path], subprocess.Popen[str]]]:
    """`start(3, model_dir)` trains in another process, and returns while that waits in its third batch."""
    started = []

    def begin(batch: int, model_dir: Path) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", SLOW, str(batch), "--model_dir", str(model_dir)]
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        started.append(process)
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("HERE"):
                return process
        raise AssertionError(process.communicate())

    yield begin
    for process in started:
        process.kill()
        process.communicate()
