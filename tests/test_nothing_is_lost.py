"""Runs that are stopped, killed, damaged, or short of room: what is saved, gone on with, and said."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import pty
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import engine.checkpoints as checkpoints
import engine.run as engine_run
import engine.start as engine_start
import evaluate
import train
import utils
from engine.checkpoints import fetch_checkpoint, list_checkpoints, save_checkpoint
from engine.experiments import load_experiment
from engine.loaders import fetch_dataloaders
from engine.locks import locked
from engine.optimizers import clip_gradients
from engine.run import Diverged, Run
from model import TASKS
from tests.conftest import (
    ROOT,
    Result,
    assert_same_run,
    last_checkpoint,
    read_json,
    refused,
    run,
    spoil,
    stop_after,
    train_ok,
)

Experiment = Callable[..., Path]

BATCHES = 6  # of 8 images, 48 in train
BATCHES_OF_VAL = 2


# -------------------------------------------------------------------------------------- the same again


@pytest.fixture
def no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """A finished run draws no curves. These take two thirds of a small run's time, and have tests of their own."""
    monkeypatch.setattr(engine_start, "draw_curves", lambda *_: None)


@pytest.mark.usefixtures("no_picture")
def test_stopped_at_any_batch(experiment: Experiment, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of train and of val, of the first and of a later epoch."""
    whole = experiment("whole", dropout_rate=0.3)
    train_ok(whole)
    for batches in range(1, 2 * (BATCHES + BATCHES_OF_VAL)):
        parts = experiment(f"stopped{batches}", dropout_rate=0.3)
        result = stop_after(batches, parts, monkeypatch)
        epochs, batch = divmod(batches, BATCHES + BATCHES_OF_VAL)
        assert result.status == 143
        assert "Stopped by SIGTERM" in result.err
        assert read_json(parts / "run.json")["status"] == "interrupted"
        saved = last_checkpoint(parts)
        assert (saved["epoch"], saved["batch"]) == (epochs, min(batch, BATCHES))
        where = f"in epoch {epochs + 1}, after batch {batch} of 6" if batch else f"after epoch {epochs}"
        if batch >= BATCHES:
            where = f"in epoch {epochs + 1}, before its validation"
        assert f"Going on {where}" in train_ok(parts)
        assert_same_run(whole, parts)
        assert not [path for path in parts.rglob("*.partial")]


VARIANTS: list[dict[str, Any]] = [
    {"scheduler": "onecycle", "optimizer": "adamw", "num_epochs": 4, "horizontal_flip": True},
    {"scheduler": "plateau", "plateau_patience": 0, "optimizer": "sgd", "net": "resnet", "dropout_rate": 0.5},
    {"scheduler": "cosine", "warmup_epochs": 1.5, "precision": "bfloat16", "optimizer": "rmsprop", "num_workers": 2},
    {"scheduler": "step", "step_epochs": 1, "clip_grad_norm": 0.1, "fused_optimizer": False, "optimizer": "nadam"},
    {"num_epochs": 30, "learning_rate": 1e-12, "early_stopping_patience": 2, "augmentation": 0.0},
]
TAGGERS: list[dict[str, Any]] = [
    {},
    {"crf": True, "char_features": "cnn", "bidirectional": True, "dropout_rate": 0.3, "scheduler": "onecycle"},
    {"rnn": "gru", "num_layers": 2, "char_features": "lstm", "recurrent_dropout": 0.3, "word_dropout": 0.2},
    {"num_workers": 1, "word_dropout": 1.0, "dropout_rate": 0.5, "scheduler": "plateau", "plateau_patience": 0},
]


CASES: list[Any] = [("experiment", params) for params in VARIANTS] + [("tagger", params) for params in TAGGERS]
QUICK = (0, 1, 5, 6)  # two of each task


@pytest.mark.parametrize(
    ("kind", "params"),
    [case if i in QUICK else pytest.param(*case, marks=pytest.mark.slow) for i, case in enumerate(CASES)],
)
@pytest.mark.usefixtures("no_picture")
def test_stopped_again_and_again(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, kind: str, params: dict[str, Any]
) -> None:
    write = request.getfixturevalue(kind)
    whole, parts = (write(name, **{"num_epochs": 3, **params}) for name in ("whole", "parts"))
    train_ok(whole)
    statuses: list[int] = []
    while not statuses or statuses[-1] != 0:
        statuses.append(stop_after(4, parts, monkeypatch).status)
        assert len(statuses) < 50
    assert set(statuses) == {0, 143}
    assert len(statuses) > 4
    assert_same_run(whole, parts)


def test_a_longer_run_goes_on_from_within_an_epoch(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, parts = experiment("whole", num_epochs=4), experiment("parts")
    train_ok(whole)
    assert stop_after(3, parts, monkeypatch).status == 143
    shutil.copy(whole / "params.json", parts)
    train_ok(parts)
    assert_same_run(whole, parts)


def test_files_that_change_under_a_run(
    experiment: Experiment, tagger: Experiment, data: Path, shared_text: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    """After they were built, which dataset_params.json knows nothing of. A copy in another place is the same data."""
    text = tmp_path / "text"
    shutil.copytree(shared_text, text)
    labels, photo = text / "val" / "labels.txt", next((data / "train_signs").iterdir())
    cases = [(experiment(data_dir=str(data)), photo), (tagger(data_dir=str(text)), labels)]
    for model_dir, path in cases:
        assert stop_after(3, model_dir, monkeypatch).status == 143
        whole = path.read_bytes()
        path.write_bytes(whole.replace(b"B-per", b"B-org") if path is labels else whole + b"\0")
        refused(run("train", "--model_dir", model_dir), f"{path.parent}: changed since the run here began", "--restart")
        path.write_bytes(whole)
        if path is labels:
            words = (text / "words.txt").read_text().splitlines()
            (text / "words.txt").write_text("\n".join(reversed(words)) + "\n")
            refused(run("train", "--model_dir", model_dir), "words: ", "at place 1")
            (text / "words.txt").write_text("\n".join(words) + "\n")
        assert "Going on" in train_ok(model_dir)


def test_checkpoints_within_an_epoch(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every checkpoint_minutes; two are kept, and none of an epoch that is finished. They change nothing."""
    whole, often = experiment("whole"), experiment("often", checkpoint_minutes=1e-9)
    train_ok(whole)
    names: list[list[str]] = []
    real = engine_run.save_checkpoint

    def save_and_look(checkpoint: Any, model_dir: Path, is_best: bool) -> None:
        real(checkpoint, model_dir, is_best)
        names.append([path.name for path in list_checkpoints(model_dir / "last_weights")])

    monkeypatch.setattr(engine_run, "save_checkpoint", save_and_look)
    train_ok(often)
    assert len(names) == 2 * (BATCHES + 1)
    assert names[0] == ["epoch_0000_batch_000001.pt"]
    assert names[5] == ["epoch_0000_batch_000005.pt", "epoch_0000_batch_000006.pt"]
    assert names[6] == ["epoch_0001.pt"]
    assert names[8] == ["epoch_0001.pt", "epoch_0001_batch_000001.pt", "epoch_0001_batch_000002.pt"]
    assert names[13] == ["epoch_0001.pt", "epoch_0002.pt"]
    assert_same_run(whole, often)


def test_tensorboard_has_each_step_once(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    model_dir = experiment(save_summary_steps=1)
    assert stop_after(9, model_dir, monkeypatch).status == 143
    checkpoint = list_checkpoints(model_dir / "last_weights")[-1]
    checkpoint.unlink()  # as if it had been killed later than its last checkpoint
    checkpoint.with_suffix(".sha256").unlink()
    # TensorBoard reads files by their names, which begin with the second. Within one, those of a process are ordered as
    # text: 10 before 9. A run that goes on is another process, which takes longer than that to begin.
    time.sleep(1 - time.time() % 1)
    train_ok(model_dir)
    events = EventAccumulator(str(model_dir / "train_summaries"))
    events.Reload()
    assert [event.step for event in events.Scalars("learning_rate")] == list(range(1, 13))
    assert [event.step for event in events.Scalars("loss")] == [6, 12]


# --------------------------------------------------------------------------------------------- signals


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_other_signals(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch, number: int, status: int, capfd: Any
) -> None:
    model_dir = experiment()
    assert stop_after(3, model_dir, monkeypatch, number=number).status == status
    assert last_checkpoint(model_dir)["batch"] == 3
    assert "finished" not in train_ok(model_dir)


def wait_for_line(process: subprocess.Popen[str], words: str) -> None:
    assert process.stderr is not None
    assert any(words in line for line in process.stderr)


def test_a_second_signal_stops_at_once(experiment: Experiment, start: Any) -> None:
    whole, model_dir = experiment("whole"), experiment("stopped")
    process = start(BATCHES + BATCHES_OF_VAL + 3, model_dir)
    process.send_signal(signal.SIGINT)
    wait_for_line(process, "a second signal stops at once")
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 143
    assert (last_checkpoint(model_dir)["epoch"], last_checkpoint(model_dir)["batch"]) == (1, 0)
    train_ok(model_dir)
    train_ok(whole)
    assert_same_run(whole, model_dir)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_real_kill(experiment: Experiment, start: Any, workers: int) -> None:
    """It costs the batches since the last checkpoint, and leaves no lock, though its workers may live on a little."""
    whole, model_dir = experiment("whole"), experiment("killed", checkpoint_minutes=1e-9, num_workers=workers)
    process = start(BATCHES + BATCHES_OF_VAL + 3, model_dir)
    partial = model_dir / "last_weights" / ".epoch_0001_batch_000003.pt.123.partial"
    partial.write_bytes(b"what it was writing")
    process.kill()
    process.wait()
    assert "Going on in epoch 2, after batch 2 of 6" in train_ok(model_dir)
    assert not partial.exists()
    train_ok(whole)
    assert_same_run(whole, model_dir)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_to_all_processes(experiment: Experiment, start: Any, number: int, status: int) -> None:
    """Ctrl-C in a terminal reaches the loader's workers too, and what a cluster sends often does."""
    model_dir = experiment(num_workers=2)
    process = start(2, model_dir)
    os.killpg(process.pid, number)
    wait_for_line(process, "a second signal stops at once")
    (model_dir / "go").touch()
    assert process.wait(60) == status
    assert last_checkpoint(model_dir)["batch"] == 2


def test_a_reader_that_gets_the_signal_too(experiment: Experiment, start: Any) -> None:
    """As `2>&1 | tee log` does: what is written when the signal comes reaches nobody."""
    model_dir = experiment()
    process = start(2, model_dir)
    for stream in (process.stdout, process.stderr):
        stream.close()
    process.send_signal(signal.SIGINT)
    (model_dir / "go").touch()
    assert process.wait(60) == 130
    assert read_json(model_dir / "run.json")["status"] == "interrupted"
    assert last_checkpoint(model_dir)["batch"] == 2


def test_a_terminal_that_goes_away(experiment: Experiment, tmp_path: Path) -> None:
    """The line that ssh breaks off, or a laptop that closes: what is written to it fails, and yet all is saved."""
    model_dir = experiment(num_epochs=10_000)
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        os.execv(sys.executable, [sys.executable, "train.py", "--model_dir", str(model_dir)])
    seen = b""
    while b"epoch     2/10000" not in seen:
        assert select.select([terminal], [], [], 60)[0], seen
        seen += os.read(terminal, 10_000)
    os.close(terminal)
    for _ in range(600):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            break
        time.sleep(0.1)
    else:
        os.kill(pid, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(status) == 129
    assert read_json(model_dir / "run.json")["status"] == "interrupted"
    assert "To go on: python train.py --model_dir" in (model_dir / "train.log").read_text()


def test_a_reader_that_has_had_enough(experiment: Experiment) -> None:
    """`train.py | head -1` trains to the end."""
    model_dir = experiment()
    command = f"{sys.executable} train.py --model_dir {model_dir} | head -1; exit ${{PIPESTATUS[0]}}"
    result = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert read_json(model_dir / "run.json")["status"] == "finished"


def test_standard_output_on_a_full_disk(experiment: Experiment) -> None:
    command = f"{sys.executable} train.py --model_dir {experiment()} > /dev/full"
    result = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True)
    refused(Result(result.returncode, "", result.stderr), "<stdout>: cannot be written to (No space left on device)")


def test_a_table_that_nobody_reads_to_the_end(trained: Path) -> None:
    command = f"{sys.executable} synthesize_results.py --parent_dir {trained.parent} | true; echo ${{PIPESTATUS[0]}}"
    result = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert (result.stdout.strip(), result.stderr) in (("141", ""), ("0", ""))  # it may have been quicker


def test_stopped_while_a_checkpoint_is_read(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, and without taking the checkpoint for a damaged one."""
    model_dir = experiment()
    assert stop_after(12, model_dir, monkeypatch).status == 143
    with monkeypatch.context() as patch:
        patch.setattr(torch, "load", lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM))
        assert run("train", "--model_dir", model_dir).status == 143
    assert "Going on in epoch 2, after batch 4 of 6" in train_ok(model_dir)
    assert not list(model_dir.rglob("*.damaged"))


def test_stopped_evaluation_writes_nothing(trained: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model_dir = tmp_path / "evaluated"
    shutil.copytree(trained, model_dir)
    before = sorted(model_dir.rglob("*"))
    monkeypatch.setattr(evaluate, "autocast", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    assert run("evaluate", "--model_dir", model_dir).status == 143
    assert {*model_dir.rglob("*")} == {*before, model_dir / "evaluate.log"}


def test_stopped_after_the_last_epoch(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("a bug")

    model_dir = experiment()
    with monkeypatch.context() as patch:
        patch.setattr(engine_start, "draw_curves", fail)
        assert run("train", "--model_dir", model_dir).status == 1
    assert read_json(model_dir / "run.json")["status"] == "failed"
    assert "finished, 2 epochs" in train_ok(model_dir)
    assert read_json(model_dir / "run.json")["status"] == "finished"
    assert (model_dir / "curves.png").exists()


# ------------------------------------------------------------------------------------------- checkpoints


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def empty_the_digest(path: Path) -> None:
    path.with_suffix(".sha256").write_bytes(b"")


def forget_the_rest(path: Path) -> None:
    path.with_suffix(".sha256").unlink()
    torch.save({"state_dict": torch.load(path, weights_only=True)["state_dict"]}, path)


@pytest.mark.parametrize("damage", [truncate, empty, flip_a_bit, empty_the_digest, forget_the_rest])
@pytest.mark.usefixtures("no_picture")
def test_the_newest_checkpoint_is_damaged(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch, damage: Callable[[Path], None]
) -> None:
    """It is named, and the one before it is used, be that within an epoch or at the end of one."""
    whole = experiment("whole", num_epochs=3)
    train_ok(whole)
    for batches, before in ((BATCHES + BATCHES_OF_VAL + 3, "epoch_0001.pt"), (2 * 8, "epoch_0001.pt")):
        parts = experiment(f"parts{batches}", num_epochs=3)
        assert stop_after(batches, parts, monkeypatch).status == 143
        newest = list_checkpoints(parts / "last_weights")[-1]
        damage(newest)
        if (parts / "best_weights" / newest.name).exists():
            damage(parts / "best_weights" / newest.name)
        out = train_ok(parts)
        assert f"{newest}: " in out
        assert newest.with_suffix(".damaged").exists()
        assert (parts / "train.log").read_text().count(f"{newest}: damaged, set aside") == 1
        assert f"Going on after epoch 1 ({parts / 'last_weights' / before})" in out
        assert_same_run(whole, parts)


def test_best_weights_serve_when_the_last_are_damaged(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are saved first and hold the same, so that an epoch is not lost."""
    model_dir = experiment("parts", num_epochs=3)
    assert stop_after(8, model_dir, monkeypatch).status == 143
    empty(model_dir / "last_weights" / "epoch_0001.pt")
    assert f"Going on after epoch 1 ({model_dir / 'best_weights' / 'epoch_0001.pt'})" in train_ok(model_dir)


def test_killed_between_the_two_copies(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    """best_weights/ has the last epoch already, last_weights/ not yet: then it gets that too."""
    model_dir = experiment(monitor="loss")
    train_ok(model_dir)
    assert list_checkpoints(model_dir / "best_weights")[0].name == "epoch_0002.pt"
    for path in (model_dir / "last_weights").glob("epoch_0002.*"):
        path.unlink()
    assert "taken from" in train_ok(model_dir)
    assert last_checkpoint(model_dir)["epoch"] == 2


@pytest.mark.parametrize("damage", [truncate, Path.unlink])
def test_best_weights_that_are_gone_or_damaged(
    experiment: Experiment, damage: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They come back from last_weights/, while it has that epoch; after that it is said that they are lost."""
    model_dir, real = experiment(), train.evaluate
    losses = iter([1.0, 2.0])
    with monkeypatch.context() as patch:
        patch.setattr(train, "evaluate", lambda *args: {**real(*args), "accuracy": 0.5, "loss": next(losses)})
        train_ok(model_dir)
    (best,) = list_checkpoints(model_dir / "best_weights")
    assert best.name == "epoch_0001.pt"
    digest = best.with_suffix(".sha256").read_text()
    damage(best)
    assert f"{best}: gone or damaged, taken from" in train_ok(model_dir)
    assert best.with_suffix(".sha256").read_text() == digest
    assert run("evaluate", "--model_dir", model_dir).status == 0
    damage(best)
    refused(run("evaluate", "--model_dir", model_dir), "There are others: --restore_file last")
    assert run("evaluate", "--model_dir", model_dir, "--restore_file", "last").status == 0
    (model_dir / "last_weights" / best.name).rename(model_dir / "last_weights" / "elsewhere")
    out = train_ok(model_dir)
    assert f"{best}: gone or damaged, and there is no copy" in out


def test_a_checkpoint_without_a_digest(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    model_dir = experiment()
    assert stop_after(3, model_dir, monkeypatch).status == 143
    newest = list_checkpoints(model_dir / "last_weights")[-1]
    newest.with_suffix(".sha256").unlink()
    assert f"{newest}: has no .sha256 beside it" in train_ok(model_dir)


def test_another_number_of_threads(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    model_dir = experiment()
    assert stop_after(3, model_dir, monkeypatch).status == 143
    told = read_json(model_dir / "run.json")
    (model_dir / "run.json").write_text(json.dumps({**told, "threads": 77}))
    assert f"threads: 77 then, {torch.get_num_threads()} now" in train_ok(model_dir)


def test_no_checkpoint_is_whole(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    model_dir = experiment()
    assert stop_after(12, model_dir, monkeypatch).status == 143
    for path in model_dir.rglob("*.pt"):
        truncate(path)
    refused(run("train", "--model_dir", model_dir), "no checkpoint is whole", "--restart")
    train_ok(model_dir, "--restart")


def test_best_weights_that_are_damaged_are_not_evaluated(trained: Path, tmp_path: Path) -> None:
    model_dir = tmp_path / "damaged"
    shutil.copytree(trained, model_dir)
    path = next((model_dir / "best_weights").glob("*.pt"))
    flip_a_bit(path)
    refused(run("evaluate", "--model_dir", model_dir), str(path), "damaged")


class Payload:
    """What an untrusted hand might put into a checkpoint: loading it makes a folder."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.folder),)


def test_a_payload_is_never_executed(experiment: Experiment, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model_dir = experiment()
    assert stop_after(12, model_dir, monkeypatch).status == 143
    path = list_checkpoints(model_dir / "last_weights")[-1]
    torch.save({**torch.load(path), "history": Payload(tmp_path / "executed")}, path)
    shutil.copy(path, tmp_path / "weights.pt")
    path.with_suffix(".sha256").unlink()
    for command in ("train", "evaluate"):
        result = run(command, "--model_dir", model_dir, "--restore_file", tmp_path / "weights.pt")
        refused(result, "weights.pt: not a checkpoint", "would run posix.mkdir")
    assert f"{path}: not a checkpoint" in train_ok(model_dir)  # and the one before it is used
    assert not (tmp_path / "executed").exists()
    torch.load(tmp_path / "weights.pt", weights_only=False)
    assert (tmp_path / "executed").exists()  # so the payload was a real one


def test_digests_are_those_that_sha256sum_checks(trained: Path) -> None:
    for folder in ("best_weights", "last_weights"):
        command = "sha256sum --check --strict *.sha256"
        result = subprocess.run(["bash", "-c", command], cwd=trained / folder, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr


def test_epochs_are_numbers_not_names(tmp_path: Path) -> None:
    (tmp_path / "last_weights").mkdir()
    (tmp_path / "last_weights" / "epoch_final.pt").touch()  # somebody's own
    for epoch in (9999, 10_000):
        save_checkpoint({"epoch": epoch, "batch": 0, "state_dict": {}}, tmp_path, is_best=True)
    for which in ("best", "last"):
        assert Path(fetch_checkpoint(tmp_path, which)["path"]).name == "epoch_10000.pt"


def test_a_better_checkpoint_takes_the_place_of_the_one_that_is_being_read(
    trained: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """evaluate.py beside a run that is going on."""
    model_dir = tmp_path / "moving"
    shutil.copytree(trained, model_dir)
    (path,) = list_checkpoints(model_dir / "best_weights")
    newer = path.with_name("epoch_0099.pt")
    real = checkpoints.load_checkpoint

    def move_first(path: Path) -> Any:
        if path.name != newer.name:
            path.rename(newer)
        return real(path)

    monkeypatch.setattr(checkpoints, "load_checkpoint", move_first)
    assert fetch_checkpoint(model_dir, "best")["path"] == str(newer)


# ------------------------------------------------------------------------------------------ restore_file


def test_weights_that_had_just_been_moved(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after the old run went to previous/, before the new one had a checkpoint: the weights are found there."""
    model_dir = experiment(num_epochs=1)
    train_ok(model_dir)

    def fail(*_: Any) -> None:
        raise RuntimeError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(engine_start, "Run", fail)
        assert run("train", "--model_dir", model_dir, "--restore_file", "best").status == 1
    assert not (model_dir / "best_weights").exists()
    train_ok(model_dir, "--restore_file", "best")
    refused(run("evaluate", "--model_dir", experiment("new")), "no best weights")  # this is for a new run alone


def test_killed_at_the_very_end(experiment: Experiment, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All epochs are done, only the curves are not drawn: --restore_file does not train them again."""
    model_dir, weights = experiment(), next((trained / "best_weights").glob("*.pt"))

    def fail(*_: Any) -> None:
        raise RuntimeError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(engine_start, "draw_curves", fail)
        assert run("train", "--model_dir", model_dir, "--restore_file", weights).status == 1
    assert "finished, 2 epochs" in train_ok(model_dir, "--restore_file", weights)
    assert not (model_dir / "previous").exists()


@pytest.mark.parametrize("source", ["best", "path"])
def test_a_run_from_other_weights_goes_on_too(
    experiment: Experiment, trained: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    """The same command again goes on with it, even if it was killed before its first checkpoint."""
    flags = ["--restore_file", next((trained / "best_weights").glob("*.pt")) if source == "path" else "best"]
    folders = [experiment(name) for name in ("whole", "parts")]
    for folder in folders:
        shutil.copytree(trained / "best_weights", folder / "best_weights")
    whole, parts = folders
    train_ok(whole, *flags)

    def fail(*_: Any) -> None:
        raise RuntimeError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(train, "train", fail)
        assert run("train", "--model_dir", parts, *flags).status == 1
    assert "Going on after epoch 0" in stop_after(5, parts, monkeypatch, *flags).out
    assert "Going on in epoch 1, after batch 5 of 6" in train_ok(parts, *flags)
    assert_same_run(whole, parts)
    assert len(list((parts / "previous").iterdir())) == 1
    assert "Going on" not in train_ok(parts, *flags)  # finished: so this asks for a new one
    assert len(list((parts / "previous").iterdir())) == 2


# -------------------------------------------------------------------------------------------- divergence


DIVERGENCES: dict[str, Callable[[torch.Tensor, Any], torch.Tensor]] = {
    "the loss is nan": lambda loss, _: loss * float("nan"),
    "the loss is inf": lambda loss, _: loss * float("inf"),
    "norm of its gradient nan": lambda loss, outputs: loss + (0 * logits_of(outputs)).sum().sqrt() * 0,
    "norm of its gradient inf": lambda loss, _: loss + 1e25 * (loss - loss.detach()),
}


def logits_of(outputs: Any) -> torch.Tensor:
    return getattr(outputs, "logits", outputs)


@pytest.mark.parametrize("words", DIVERGENCES)
@pytest.mark.parametrize(
    ("kind", "named"),
    [("image_classification", "train_signs: 0_IMG_train"), ("sequence_tagging", "train/sentences.txt")],
)
@pytest.mark.usefixtures("no_picture")
def test_divergence(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, kind: str, named: str, words: str
) -> None:
    """It stops before the step, says which examples, and what is on disk is what a run had that stopped there."""
    write = request.getfixturevalue("experiment" if kind == "image_classification" else "tagger")
    options: dict[str, Any] = {"checkpoint_minutes": 1e-9, "batch_size": 8, "scheduler": "cosine"}
    whole, model_dir = write("whole", **options), write("diverges", **options)
    train_ok(whole)
    with monkeypatch.context() as patch:
        spoil(patch, kind, 4, DIVERGENCES[words])
        result = run("train", "--model_dir", model_dir)
        assert result.status == 3
        for word in (words, "Step 4 (epoch 1, batch 4)", "learning rate of 0.0", named, "--set learning_rate="):
            assert word in result.err
        again = run("train", "--model_dir", model_dir)
    assert read_json(model_dir / "run.json")["status"] == "diverged"
    assert again.err == result.err  # the same step, from the checkpoint before it
    train_ok(model_dir)
    assert_same_run(whole, model_dir)


def test_a_learning_rate_that_is_too_large(experiment: Experiment) -> None:
    model_dir = experiment(learning_rate=1e30, optimizer="sgd", num_epochs=5, batch_size=2)
    assert run("train", "--model_dir", model_dir).status == 3
    for path in model_dir.rglob("*.pt"):
        weights = torch.load(path, weights_only=True)["state_dict"]
        assert all(weight.isfinite().all() for weight in weights.values())


def test_divergence_on_val(experiment: Experiment) -> None:
    """After the only step of an epoch, which only val can show."""
    model_dir = experiment(learning_rate=1e30, optimizer="sgd", batch_size=48)
    result = run("train", "--model_dir", model_dir)
    assert result.status == 3
    assert "The loss on val is nan after epoch 1" in result.err
    assert not list(model_dir.rglob("*.pt"))


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_divergence_where_nobody_waits(experiment: Experiment, optimizer: str) -> None:
    """As on a GPU: the step is skipped by the optimizer itself, and Diverged comes with the next look."""
    loaded = load_experiment(TASKS, experiment(optimizer=optimizer))
    task, params, *_ = loaded
    loader = fetch_dataloaders(task, ["train"], params)["train"]
    dataset: Any = loader.dataset
    net = task.Net(params)
    run = Run(loaded, net, {"train": loader}, torch.device("cpu"))
    run.check_every, run.optimizer_skips = 64, True

    def step(factor: float) -> None:
        run.optimizer.zero_grad()
        loss = task.loss_fn(net(dataset.images[:8]), dataset.labels[:8]) * factor
        loss.backward()
        run.check_finite(loss, clip_gradients(run.optimizer, 0))
        run.optimizer.step()
        run.batches_done += 1

    before = [p.clone() for p in net.parameters()]
    step(1.0)
    weights = [p.clone() for p in net.parameters()]
    assert not all(torch.equal(p, old) for p, old in zip(weights, before, strict=True))
    step(float("nan"))
    assert all(torch.equal(p, old) for p, old in zip(net.parameters(), weights, strict=True))
    with pytest.raises(Diverged, match=r"Step 2 .*the loss is nan"):
        run.save()
    for _ in range(run.check_every - 3):
        step(1.0)
    with pytest.raises(Diverged, match="Step 2 "):
        step(1.0)


@pytest.mark.parametrize("optimizer", ["adam", "nadam"])
def test_an_optimizer_that_cannot_skip_a_step_is_waited_for(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch, optimizer: str
) -> None:
    """On a GPU. Of these two, torch has a fused kernel, which can skip, for adam only."""
    loaded = load_experiment(TASKS, experiment(optimizer=optimizer))
    loader = fetch_dataloaders(loaded.task, ["train"], loaded.params)["train"]
    monkeypatch.setattr(engine_run, "choose_precision", lambda *_: torch.float32)
    run = Run(loaded, loaded.task.Net(loaded.params), {"train": loader}, torch.device("cuda"))
    with contextlib.nullcontext() if optimizer == "adam" else pytest.raises(Diverged, match="Step 1 "):
        run.check_finite(torch.tensor(float("nan")), torch.tensor(1.0))
    assert (optimizer == "adam") == bool(run.unchecked and getattr(run.optimizer, "found_inf", 0))


def test_weights_that_overflow_are_not_saved(experiment: Experiment) -> None:
    """Loss and gradient of the step are finite, and a checkpoint is due right after it."""
    model_dir = experiment(learning_rate=1e45, optimizer="sgd", checkpoint_minutes=1e-9)
    result = run("train", "--model_dir", model_dir)
    assert result.status == 3
    for word in ("Step 1: some weights of ", "fc2.weight", "NaN or infinite", "--set learning_rate=1e+44"):
        assert word in result.err
    assert read_json(model_dir / "run.json")["status"] == "diverged"
    assert not list(model_dir.rglob("*.pt"))


def test_running_variances_that_overflow_are_not_saved(experiment: Experiment) -> None:
    loaded = load_experiment(TASKS, experiment())
    loader = fetch_dataloaders(loaded.task, ["train"], loaded.params)["train"]
    net = loaded.task.Net(loaded.params)
    run = Run(loaded, net, {"train": loader}, torch.device("cpu"))
    net.state_dict()["body.bn1.running_var"][0] = float("inf")
    with pytest.raises(Diverged, match=r"body\.bn1\.running_var"):
        run.save()
    assert not list(run.model_dir.rglob("*.pt"))


@pytest.mark.parametrize("commit", ["0123abc", None])
def test_code_that_changed_is_said(experiment: Experiment, monkeypatch: pytest.MonkeyPatch, commit: str | None) -> None:
    """Unless nobody knows the code that the run began with."""
    model_dir = experiment()
    real = engine_start.describe_run
    monkeypatch.setattr(engine_start, "describe_run", lambda *args: {**real(*args), "git_commit": commit})
    assert stop_after(3, model_dir, monkeypatch).status == 143
    monkeypatch.setattr(engine_start, "describe_run", lambda *args: {**real(*args), "git_commit": "4567def"})
    out = train_ok(model_dir)
    assert ("git_commit: 0123abc then, 4567def now" in out) == (commit is not None)
    assert "by rounding" not in out


# ------------------------------------------------------------------------------- two runs in one folder


def test_a_second_run_in_the_same_folder(experiment: Experiment, start: Any) -> None:
    model_dir = experiment()
    process = start(3, model_dir)
    for flags in ([], ["--restart"], ["--restore_file", "last"]):
        result = run("train", "--model_dir", model_dir, *flags)
        refused(result, f"{model_dir}: another run", f"process {process.pid} on {socket.gethostname()}, since 20")
    process.send_signal(signal.SIGTERM)
    (model_dir / "go").touch()
    assert process.wait(60) == 143
    assert "Going on in epoch 1, after batch 3 of 6" in train_ok(model_dir)


def test_another_run_that_has_not_said_who_it_is(experiment: Experiment) -> None:
    model_dir = experiment()
    with locked(model_dir):
        (model_dir / ".lock.json").unlink()
        refused(run("train", "--model_dir", model_dir), "another run is going on here")
    train_ok(model_dir)


def test_two_that_make_the_same_new_experiment(experiment: Experiment, tmp_path: Path) -> None:
    """The one that comes second takes nothing away from the first."""
    (tmp_path / "new").mkdir()
    with locked(tmp_path / "new"):
        words = ["--model_dir", tmp_path / "new", "--base", experiment()]
        refused(run("train", *words), "another run is going on here")
        assert (tmp_path / "new" / ".lock").exists()
        assert (tmp_path / "new" / ".lock.json").exists()


def test_what_else_is_in_the_folder_stays(experiment: Experiment, tmp_path: Path, data: Path) -> None:
    for path in (data / "val_signs").iterdir():
        path.unlink()
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "notes.md").touch()
    result = run("train", "--model_dir", tmp_path / "new", "--base", experiment(), "--data_dir", data)
    refused(result, "the val split is empty")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["notes.md"]


def test_a_new_experiment_that_cannot_start_leaves_no_lock(experiment: Experiment, tmp_path: Path, data: Path) -> None:
    for path in (data / "val_signs").iterdir():
        path.unlink()
    result = run("train", "--model_dir", tmp_path / "new", "--base", experiment(), "--data_dir", data)
    refused(result, "the val split is empty")
    assert not (tmp_path / "new").exists()


# ---------------------------------------------------------------------------------------------- full disks


def fill_the_disk(patch: pytest.MonkeyPatch, name: str) -> None:
    """From now on there is no room for a file whose name begins like that."""
    real = os.fsync

    def full(descriptor: int) -> None:
        if Path(os.readlink(f"/proc/self/fd/{descriptor}")).name.startswith(name):
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    patch.setattr(os, "fsync", full)


@pytest.mark.parametrize("name", [".epoch_0002.pt", ".epoch_0002.sha", ".history", ".run.json", ".metrics", ".curves"])
def test_full_disk(experiment: Experiment, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    whole, model_dir = experiment("whole"), experiment("full")
    train_ok(whole)
    assert stop_after(8 + 1, model_dir, monkeypatch).status == 143
    with monkeypatch.context() as patch:
        fill_the_disk(patch, name)
        result = run("train", "--model_dir", model_dir)
        refused(result, name[1:5], "the disk is full (", " bytes needed, ", " free")
        assert result.err.count("\n") <= 2
    assert not list(model_dir.rglob("*.partial"))
    for path in model_dir.rglob("*.pt"):
        assert checkpoints.load_checkpoint(path)["state_dict"]
    train_ok(model_dir)
    assert_same_run(whole, model_dir)


@pytest.mark.parametrize("room", [0, 100, 5_000, 20_000])
@pytest.mark.usefixtures("no_picture")
def test_full_disk_in_the_middle_of_a_checkpoint(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    """Not when it is flushed but when a piece of it is written, which torch.save reports as an error of its own."""
    model_dir = experiment()
    assert stop_after(8 + 1, model_dir, monkeypatch).status == 143

    class SmallFile(io.FileIO):
        def write(self, content: Any) -> int:
            if self.tell() + len(content) > room:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(content)

    def open_small(path: Any, mode: str) -> Any:
        return io.BufferedWriter(SmallFile(path, mode)) if ".epoch" in str(path) else open(path, mode)

    with monkeypatch.context() as patch:
        patch.setattr(utils, "open", open_small, raising=False)
        refused(run("train", "--model_dir", model_dir), "epoch_0002.pt: the disk is full", " free")
    assert not list(model_dir.rglob("*.partial"))
    assert "Going on in epoch 2" in train_ok(model_dir)


def test_full_disk_while_stopping(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    model_dir = experiment()
    with monkeypatch.context() as patch:
        fill_the_disk(patch, ".epoch")
        refused(stop_after(3, model_dir, patch), "the disk is full")
    assert read_json(model_dir / "run.json")["status"] == "failed"


@pytest.mark.parametrize("where", ["train.log", "events"])
def test_full_disk_while_logging(experiment: Experiment, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """One message; neither a traceback for each line, nor a run that goes on without a record."""
    model_dir = experiment()

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if where == "train.log":
        monkeypatch.setattr(utils._LogFile, "flush", full)
    else:
        from torch.utils.tensorboard import SummaryWriter

        monkeypatch.setattr(SummaryWriter, "flush", full)
    result = run("train", "--model_dir", model_dir)
    refused(result, "the disk is full (", " free")
    assert result.err.count("the disk is full") == 1


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root may mount a file system")
def test_full_file_system(experiment: Experiment, tmp_path: Path) -> None:
    """A real one, full at whatever moment comes first; with room, the run goes on."""
    whole = experiment("whole", num_epochs=3)
    train_ok(whole)
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", place], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"a file system cannot be mounted here: {mounted.stderr}")
    try:
        model_dir = place / "experiment"
        shutil.copytree(experiment("small", num_epochs=3), model_dir)
        ballast, failures = place / "ballast", 0
        for room in range(0, 900_000, 60_000):
            ballast.write_bytes(b"")
            ballast.write_bytes(bytes(shutil.disk_usage(place).free - room))
            result = subprocess.run(
                [sys.executable, ROOT / "train.py", "--model_dir", model_dir], cwd=ROOT, capture_output=True, text=True
            )
            assert not list(model_dir.rglob("*.partial"))
            if result.returncode == 0:
                break
            failures += 1
            refused(Result(result.returncode, result.stdout, result.stderr), "full", " free")
        assert failures > 3
        assert_same_run(whole, model_dir)
    finally:
        subprocess.run(["umount", place], check=True)
