"""train.py and evaluate.py: what they leave behind, go on with, and refuse."""

from __future__ import annotations

import csv
import itertools
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import engine.devices as engine_devices
import engine.run as engine_run
from engine.checkpoints import list_checkpoints
from engine.experiments import check_params, load_experiment, plan_experiment
from engine.loaders import fetch_dataloaders
from engine.params import JsonFile
from engine.ranking import best_epoch
from model import TASKS
from tests.conftest import (
    ROOT,
    assert_same_weights,
    last_checkpoint,
    read_json,
    refused,
    run,
    spoil,
    stop_after,
    train_ok,
    write_params,
)
from tests.helpers import draw_photo

Experiment = Callable[..., Path]


# --------------------------------------------------------------------------------------- what is left


def test_outputs(trained: Path) -> None:
    for name in ("train.log", "run.json", "curves.png", "metrics_eval_best_weights.json"):
        assert (trained / name).stat().st_size > 0
    run_json = read_json(trained / "run.json")
    assert run_json["status"] == "finished"
    assert run_json["params"]["num_epochs"] == 2
    assert run_json["versions"]["torch"] == torch.__version__
    history = [json.loads(line) for line in (trained / "history.jsonl").read_text().splitlines()]
    assert [entry["epoch"] for entry in history] == [1, 2]
    assert read_json(trained / "metrics_eval_last_weights.json") == {"epoch": 2, **history[1]["val"]}
    best = max(history, key=lambda entry: (entry["val"]["accuracy"], -entry["val"]["loss"]))
    assert read_json(trained / "metrics_eval_best_weights.json") == {"epoch": best["epoch"], **best["val"]}
    assert last_checkpoint(trained, "best")["epoch"] == best["epoch"]
    checkpoint = last_checkpoint(trained)
    assert checkpoint["data"]["classes"] == ["0", "1", "2"]
    assert checkpoint["params"] == run_json["params"]
    assert not [path for path in trained.rglob(".*") if path.name != ".lock"]  # no temporary files


def test_console_and_log_say_the_same(experiment: Experiment) -> None:
    model_dir = experiment()
    console = train_ok(model_dir)
    log = (model_dir / "train.log").read_text()
    for line in console.splitlines():
        assert line in log
    assert "body.conv1" in console
    assert "epoch 2/2 | train loss" in console


def test_tensorboard(trained: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = {}
    for folder in ("train_summaries", "eval_summaries"):
        events = EventAccumulator(str(trained / folder))
        events.Reload()
        found[folder] = {tag: events.Scalars(tag) for tag in events.Tags()["scalars"]}
    names = last_checkpoint(trained)["optim_dict"]
    assert found["train_summaries"].keys() >= {"loss", "accuracy", "learning_rate", "gradient_norm/body.conv1.weight"}
    norms = [tag for tag in found["train_summaries"] if tag.startswith("gradient_norm/")]
    assert len(norms) == sum(len(group["params"]) for group in names["param_groups"])
    history = [json.loads(line) for line in (trained / "history.jsonl").read_text().splitlines()]
    for split, folder in (("train", "train_summaries"), ("val", "eval_summaries")):
        values = [event.value for event in found[folder]["loss"]]
        assert values == pytest.approx([entry[split]["loss"] for entry in history], rel=1e-6)


def test_gradient_norms_are_those_before_clipping(experiment: Experiment) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    norms = []
    for clip in (0.0, 1e-3):
        model_dir = experiment(f"clip_{clip}", num_epochs=1, save_summary_steps=1, clip_grad_norm=clip)
        train_ok(model_dir)
        events = EventAccumulator(str(model_dir / "train_summaries"))
        events.Reload()
        names = [tag for tag in events.Tags()["scalars"] if tag.startswith("gradient_norm")]
        norms.append({name: events.Scalars(name)[0].value for name in names})  # of the first step
    assert norms[1] == pytest.approx(norms[0], rel=1e-4)
    total = norms[0].pop("gradient_norm")
    assert total == pytest.approx(sum(norm**2 for norm in norms[0].values()) ** 0.5, rel=1e-4)
    assert total > 0.01


@pytest.mark.parametrize("threads", [1, 2])
def test_cores_that_others_use_are_said_once(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    waited = itertools.count(0, 1000)
    monkeypatch.setattr(engine_devices, "seconds_without_core", lambda: next(waited))
    monkeypatch.setattr(engine_devices, "SPAN", 0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    out = train_ok(experiment(num_epochs=3))
    assert out.count("more threads want to run than there are cores") == (threads > 1)


def test_time_without_a_core_is_counted() -> None:
    """Two processes that share one core each go without it half of the time."""
    probe = """
import os, time
from engine.devices import seconds_without_core
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
if os.fork() == 0:
    end = time.monotonic() + 0.5
    while time.monotonic() < end:
        pass
    os._exit(0)
before, end = seconds_without_core(), time.monotonic() + 0.4
while time.monotonic() < end:
    pass
print(seconds_without_core() - before)
"""
    if not Path("/proc/thread-self/schedstat").exists():
        pytest.skip("this system does not count it")
    output = subprocess.run([sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert float(output) > 0.05


def test_only_the_last_five_are_kept(experiment: Experiment) -> None:
    model_dir = experiment(num_epochs=7)
    train_ok(model_dir)
    kept = sorted(path.name for path in (model_dir / "last_weights").glob("*.pt"))
    assert kept == [f"epoch_{epoch:04d}.pt" for epoch in range(3, 8)]
    assert len(list((model_dir / "best_weights").glob("*.pt"))) == 1
    for folder in ("last_weights", "best_weights"):
        names = {path.stem for path in (model_dir / folder).glob("*.pt")}
        assert {path.stem for path in (model_dir / folder).glob("*.sha256")} == names


def test_early_stopping(experiment: Experiment) -> None:
    model_dir = experiment(num_epochs=30, learning_rate=1e-12, early_stopping_patience=2, augmentation=0.0)
    train_ok(model_dir)
    history = (model_dir / "history.jsonl").read_text().splitlines()
    best = read_json(model_dir / "metrics_eval_best_weights.json")["epoch"]
    assert len(history) == best + 2 < 30
    assert "finished, " in train_ok(model_dir)


def test_best_is_the_one_with_the_lower_loss_of_equals_and_never_nan() -> None:
    """Of those that are equal in every respect it is the earliest."""
    history: list[Any] = [
        {"epoch": i + 1, "val": {"loss": -value, "accuracy": value}}
        for i, value in enumerate([float("nan"), 0.5, 0.7, 0.7, float("nan")])
    ]
    assert best_epoch(history, "accuracy", "maximize")["epoch"] == 3
    assert best_epoch(history, "loss", "minimize")["epoch"] == 3
    history[3]["val"]["loss"] -= 0.1
    assert best_epoch(history, "accuracy", "maximize")["epoch"] == 4


# ------------------------------------------------------------------------------------------ the same again


def test_workers_make_no_difference(experiment: Experiment) -> None:
    folders = [experiment(f"workers{n}", num_workers=n, dropout_rate=0.3, horizontal_flip=True) for n in (0, 2)]
    for folder in folders:
        train_ok(folder)
    assert_same_weights(*folders)
    other = experiment("seed", seed=1, dropout_rate=0.3, horizontal_flip=True)
    train_ok(other)
    with pytest.raises(AssertionError):
        assert_same_weights(folders[0], other)


@pytest.mark.parametrize("method", ["forkserver", pytest.param("spawn", marks=pytest.mark.slow)])
def test_a_data_set_reaches_workers_that_are_not_forked(method: str, experiment: Experiment, shared_data: Path) -> None:
    task, params, *_ = load_experiment(TASKS, experiment(num_workers=1))
    for _ in range(2):  # decoded at first, then mapped from the cache
        loader = fetch_dataloaders(task, ["val"], params)["val"]
        loader.multiprocessing_context = method
        (images, _), *_ = loader
        dataset: Any = loader.dataset
        assert torch.equal(images, dataset.images[: len(images)])


def test_finished_run_says_so_and_touches_nothing(trained: Path, shared_data: Path) -> None:
    def times() -> dict[Path, int]:
        return {
            path: path.stat().st_mtime_ns for path in trained.rglob("*") if path.is_file() and ".lock" not in path.name
        }

    before = times()
    out = train_ok(trained)
    assert "finished, 2 epochs" in out
    assert "--restart" in out
    assert times() == before


def test_more_epochs_go_on(experiment: Experiment) -> None:
    model_dir, whole = experiment("more"), experiment("whole", num_epochs=4)
    train_ok(model_dir)
    shutil.copy(whole / "params.json", model_dir)
    assert "Going on after epoch 2" in train_ok(model_dir)
    train_ok(whole)
    assert_same_weights(model_dir, whole)


def test_set_raises_the_number_of_epochs(experiment: Experiment, tmp_path: Path) -> None:
    """Of a run that `--base` has begun. What is not assigned stays as it is there."""
    base, whole, new = experiment("base"), experiment("whole", num_epochs=4), tmp_path / "new"
    train_ok(new, "--base", base)
    assert "Going on after epoch 2" in train_ok(new, "--base", base, "--set", "num_epochs=4")
    assert "finished, 4 epochs" in train_ok(new, "--base", base)
    train_ok(whole)
    assert_same_weights(new, whole)


def test_set_does_not_raise_the_number_of_epochs_of_a_stretched_schedule(
    experiment: Experiment, tmp_path: Path
) -> None:
    base, new = experiment("base", scheduler="onecycle"), tmp_path / "new"
    train_ok(new, "--base", base)
    before = (new / "params.json").read_text()
    result = run("train", "--model_dir", new, "--base", base, "--set", "num_epochs=4")
    refused(result, "num_epochs: 2 then, 4 now", "onecycle stretches", "--restart")
    assert (new / "params.json").read_text() == before


def test_a_base_that_changes_does_not_train_a_run_further(experiment: Experiment, tmp_path: Path) -> None:
    """Although the run's params.json leaves the number of epochs at its default."""
    base, new = experiment("base"), tmp_path / "new"
    values = read_json(base / "params.json")
    new.mkdir()
    (new / "params.json").write_text(json.dumps({name: values[name] for name in values if name != "num_epochs"}))
    before = (new / "params.json").read_text()
    experiment("base", num_epochs=33)
    assert plan_experiment(TASKS, new, base, []) is None
    assert (new / "params.json").read_text() == before


@pytest.mark.parametrize("epochs", [(1, 2), (2, 9)])
def test_a_shortened_warmup_fixes_the_number_of_epochs(experiment: Experiment, epochs: tuple[int, int]) -> None:
    model_dir = experiment(warmup_epochs=4, num_epochs=epochs[0])
    train_ok(model_dir)
    experiment(warmup_epochs=4, num_epochs=epochs[1])
    refused(run("train", "--model_dir", model_dir), "num_epochs: ", "a warm-up of half the run")


@pytest.mark.parametrize("name", ["base_model", "signs_resnet", "ner_bilstm_crf"])
def test_a_shipped_experiment_takes_any_number_of_epochs(name: str) -> None:
    """The first thing that a newcomer tries."""
    file = JsonFile.read(ROOT / "experiments" / name / "params.json")
    file.override(["num_epochs=1"])
    assert check_params(TASKS, file).num_epochs == 1


def test_other_parameters_do_not_go_on(experiment: Experiment) -> None:
    model_dir = experiment(scheduler="cosine")
    train_ok(model_dir)
    experiment(scheduler="cosine", learning_rate=0.5, num_epochs=5)
    refused(run("train", "--model_dir", model_dir), "learning_rate: 0.01 then, 0.5 now", "num_epochs", "--restart")


def test_other_data_do_not_go_on(experiment: Experiment, data: Path, photos: Path, shared_data: Path) -> None:
    """Neither another folder nor the same one built anew."""
    model_dir = experiment(data_dir=str(data), scheduler="onecycle")
    train_ok(model_dir)
    found = (data / "dataset_params.json").read_text()
    (data / "dataset_params.json").write_text(re.sub(r'"digest": "...', '"digest": "new', found))
    refused(run("train", "--model_dir", model_dir), f"data: {data} then, {data} now, and not the same", "--restart")
    result = run("train", "--model_dir", model_dir, "--data_dir", shared_data)
    assert result.status == 0  # the same images in another place: only where they lie has changed
    train_ok(model_dir, "--restart")


def test_what_cannot_start_moves_nothing(experiment: Experiment, trained: Path, tmp_path: Path) -> None:
    model_dir = experiment("wide", num_channels=8)
    train_ok(model_dir)
    before = sorted(model_dir.rglob("*"))
    weights = next((trained / "best_weights").glob("*.pt"))
    refused(run("train", "--model_dir", model_dir, "--restore_file", weights), "another architecture")
    refused(run("train", "--model_dir", model_dir, "--restart", "--data_dir", tmp_path), "no data set")
    assert sorted(model_dir.rglob("*")) == before


def test_fewer_epochs_than_are_done(experiment: Experiment) -> None:
    model_dir = experiment(num_epochs=3)
    train_ok(model_dir)
    experiment(num_epochs=2)
    refused(run("train", "--model_dir", model_dir), "num_epochs: 3 then, 2 now")


def test_history_has_the_rate_of_its_epoch(experiment: Experiment) -> None:
    model_dir = experiment(num_epochs=4, scheduler="step", step_epochs=2, learning_rate=0.01, gamma=0.1)
    train_ok(model_dir)
    history = [json.loads(line) for line in (model_dir / "history.jsonl").read_text().splitlines()]
    assert [entry["learning_rate"] for entry in history] == pytest.approx([0.01, 0.01, 0.001, 0.001])


def test_restart_keeps_the_old_run(experiment: Experiment) -> None:
    model_dir = experiment()
    train_ok(model_dir)
    (model_dir / "notes.txt").write_text("mine")
    train_ok(model_dir, "--restart")
    (previous,) = (model_dir / "previous").iterdir()
    assert (previous / "last_weights" / "epoch_0002.pt").exists()
    assert (previous / "train.log").exists()
    assert (model_dir / "notes.txt").exists()
    assert_same_weights(model_dir, previous)


@pytest.mark.parametrize("source", ["best", "last", "path"])
def test_restore_file_starts_from_those_weights(experiment: Experiment, trained: Path, source: str) -> None:
    model_dir = experiment(num_epochs=1, learning_rate=1e-12)
    shutil.copytree(trained / "best_weights", model_dir / "best_weights")
    shutil.copytree(trained / "last_weights", model_dir / "last_weights")
    path = next((trained / "best_weights").glob("*.pt"))
    train_ok(model_dir, "--restore_file", path if source == "path" else source)
    start = last_checkpoint(trained, "last" if source == "last" else "best")["state_dict"]
    end = last_checkpoint(model_dir)["state_dict"]
    assert last_checkpoint(model_dir)["epoch"] == 1
    torch.testing.assert_close(end["body.conv1.weight"], start["body.conv1.weight"])


def test_base_and_set(experiment: Experiment, tmp_path: Path) -> None:
    base = experiment("base", num_epochs=1)
    new = ["--base", base, "--set", "learning_rate=0.02", "optimizer=sgd"]
    train_ok(tmp_path / "new", *new)
    assert read_json(tmp_path / "new" / "params.json") == {
        **read_json(base / "params.json"),
        "learning_rate": 0.02,
        "optimizer": "sgd",
    }
    assert "finished" in train_ok(tmp_path / "new", *new)  # the same command again
    refused(
        run("train", "--model_dir", tmp_path / "new", "--base", base, "--set", "seed=3"),
        "with other parameters",
        "seed: default there, 3 asked for",
    )
    refused(
        run("train", "--model_dir", tmp_path / "x", "--base", base, "--set", "sed=3"), "--set  sed: unknown", "seed"
    )
    refused(run("train", "--model_dir", base, "--set", "seed=3"), "--base")
    nowhere = run("train", "--model_dir", tmp_path / "x", "--base", base, "--data_dir", tmp_path / "nowhere")
    refused(nowhere, "no data set")
    assert not (tmp_path / "x").exists()


# --------------------------------------------------------------------------------------------- evaluate


def test_evaluate_is_exact(trained: Path, shared_data: Path) -> None:
    result = run("evaluate", "--model_dir", trained)
    assert result.status == 0, result.err
    metrics = read_json(trained / "metrics_test_best_weights.json")
    rows = list(csv.DictReader((trained / "predictions_test.csv").open()))
    assert sorted(row["file"] for row in rows) == sorted(path.name for path in (shared_data / "test_signs").iterdir())
    assert all(row["label"] == row["file"][0] for row in rows)
    right = sum(row["label"] == row["prediction"] for row in rows)
    assert metrics["accuracy"] == pytest.approx(right / len(rows))
    assert f"accuracy {right / len(rows):.4f}" in result.out
    assert "| class" in result.out
    with Image.open(trained / "confusion_matrix.png") as image:
        assert image.width > 300
    assert (trained / "mistakes.png").exists() == (right < len(rows))


def test_evaluate_other_splits_and_weights(trained: Path, tmp_path: Path) -> None:
    trained = shutil.copytree(trained, tmp_path / "trained")
    metrics = trained / "metrics_eval_last_weights.json"
    during = read_json(metrics)
    metrics.unlink()
    assert run("evaluate", "--model_dir", trained, "--split", "val", "--restore_file", "last").status == 0
    assert read_json(metrics) == pytest.approx(during)
    assert run("evaluate", "--model_dir", trained, "--split", "train").status == 0
    files = [row["file"] for row in csv.DictReader((trained / "predictions_train.csv").open())]
    assert files == sorted(files)


def test_results_on_other_data_have_names_of_their_own(trained: Path, photos: Path, tmp_path: Path) -> None:
    trained = shutil.copytree(trained, tmp_path / "trained")
    assert run("evaluate", "--model_dir", trained, "--split", "val").status == 0
    before = {path: path.read_bytes() for path in trained.glob("*_*") if path.is_file()}
    words = ["--data_dir", photos, "--output_dir", tmp_path / "others", "--size", 16, "--seed", 7]
    assert run("build_dataset", *words).status == 0
    for split in ("val", "test"):
        flags = ["--split", split, "--data_dir", tmp_path / "others"]
        assert run("evaluate", "--model_dir", trained, *flags).status == 0
    assert {path: path.read_bytes() for path in before} == before
    for name in ("metrics_eval_best_weights_on_others.json", "metrics_test_best_weights_on_others.json"):
        assert (trained / name).exists()
    assert (trained / "predictions_test_on_others.csv").exists()


def test_set_reaches_the_params_of_a_run_that_goes_on(experiment: Experiment, tmp_path: Path) -> None:
    """What has no effect on learning may change, and params.json says so."""
    words = ["--base", experiment("base"), "--set"]
    train_ok(tmp_path / "new", *words, "save_summary_steps=7")
    train_ok(tmp_path / "new", *words, "save_summary_steps=9")
    assert read_json(tmp_path / "new" / "params.json")["save_summary_steps"] == 9


def test_checkpoint_is_plain_values(trained: Path) -> None:
    """It loads without executing anything, onto any device."""
    assert last_checkpoint(trained)["random_states"]["cpu"].dtype == torch.uint8


# -------------------------------------------------------------------------------------------- bad input


def pasted(text: str) -> list[list[str]]:
    """The words of each command that `text` proposes, as a shell reads them."""
    return [shlex.split(command) for command in re.findall(r"python \w+\.py .*", text)]


def test_proposed_commands_can_be_pasted(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch, data: Path, tmp_path: Path
) -> None:
    """Also where folders have blanks in their names."""
    built = data.rename(tmp_path / "my data")
    model_dir = experiment("my runs", data_dir=str(built))
    where = ["--model_dir", str(model_dir)]
    assert pasted(stop_after(3, model_dir, monkeypatch).out) == [["python", "train.py", *where]]
    write_params(model_dir, data_dir=str(built), learning_rate=0.5)
    new = ["--model_dir", str(tmp_path / "NEW"), "--base", str(model_dir)]
    weights = ["--restore_file", str(list_checkpoints(model_dir / "last_weights")[-1])]
    assert pasted(run("train", *where).err) == [["python", "train.py", *new, "--data_dir", str(built), *weights]]
    assert pasted(run("train", *where, "--set", "seed=3").err) == [["python", "train.py", *new, "--set", "seed=3"]]
    further = ["--base", str(model_dir), "--set", "num_epochs=3"]
    assert pasted(run("train", *where, "--set", "num_epochs=3").err) == [["python", "train.py", *where, *further]]
    assert pasted(run("train", *where, "--restart").out) == [["python", "evaluate.py", *where]]
    write_params(model_dir, data_dir=str(built), learning_rate=1e30, optimizer="sgd")
    with monkeypatch.context() as patch:
        spoil(patch, "image_classification", 1, lambda loss, _: loss * float("nan"))
        smaller = ["--set", "learning_rate=1e+29", "clip_grad_norm=1"]
        proposed = [["python", "train.py", *new, "--data_dir", str(built), *smaller]]
        assert pasted(run("train", *where, "--restart").err) == proposed
    assert pasted(run("evaluate", *where).err) == [["python", "train.py", *where]]
    build = ["python", "build_dataset.py", "--task", "image_classification", "--output_dir", str(tmp_path / "no data")]
    proposed = [[*build, "--data_dir", "RAW_FILES"], [*build, "--sample"]]
    assert pasted(run("train", *where, "--data_dir", tmp_path / "no data").err) == proposed
    search = ["--parent_dir", str(model_dir), "--set", "learning_rate=1e-3,1e-2"]
    proposed = [["python", "search_hyperparams.py", *search]]
    assert pasted(run("search_hyperparams", "--parent_dir", model_dir).err) == proposed


def test_built_data_set_can_be_trained_on_by_what_is_printed(photos: Path, tmp_path: Path) -> None:
    output = ["--output_dir", tmp_path / "my photos"]
    result = run("build_dataset", "--data_dir", photos, "--size", "16", *output)
    train = ["--model_dir", "experiments/my photos", "--base", "experiments/base_model", "--data_dir", str(output[1])]
    assert pasted(result.out) == [["python", "train.py", *train]]


def test_raw_files_are_not_built_yet(experiment: Experiment, photos: Path) -> None:
    result = run("train", "--model_dir", experiment(), "--data_dir", photos)
    build = ["build_dataset.py", "--task", "image_classification", "--data_dir", str(photos)]
    assert pasted(result.err) == [["python", *build, "--output_dir", "data/built_SIGNS"]]


def test_raw_data_may_be_the_folder_here_or_a_file(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model_dir, table = experiment(), tmp_path / "houses.csv"
    table.write_text("a,b\n1,2\n")
    monkeypatch.chdir(tmp_path)
    for data_dir, built in ((".", f"data/built_{tmp_path.name}"), (table, "data/built_houses")):
        result = run("train", "--model_dir", model_dir, "--data_dir", data_dir)
        assert pasted(result.err)[0][-3:] == [str(data_dir), "--output_dir", built]


@pytest.mark.parametrize("command", ["train", "evaluate", "search_hyperparams"])
def test_no_experiment_proposes_one_for_the_data(command: str, shared_text: Path, tmp_path: Path) -> None:
    flag = "--parent_dir" if command == "search_hyperparams" else "--model_dir"
    result = run(command, flag, tmp_path / "nowhere", "--data_dir", shared_text)
    refused(result, "nowhere/params.json: no such file", "--base experiments/ner_bilstm_crf (sequence_tagging)")
    assert "image_classification" not in result.err
    result = run(command, flag, tmp_path / "nowhere")
    refused(result, "--base experiments/base_model (image_classification), --base experiments/ner_bilstm_crf")


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_missing_data(command: str, tmp_path: Path, experiment: Experiment) -> None:
    model_dir = experiment()
    result = run(command, "--model_dir", model_dir, "--data_dir", tmp_path / "nowhere")
    refused(result, "nowhere: no data set", "--sample", "build_dataset.py")
    assert [path.name for path in model_dir.iterdir()] == ["params.json"]


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_spoilt_data(command: str, data: Path, experiment: Experiment, trained: Path, tmp_path: Path) -> None:
    model_dir = tmp_path / "spoilt"
    shutil.copytree(trained, model_dir)
    flags = ["--model_dir", model_dir, "--data_dir", data, *(["--restart"] if command == "train" else [])]
    split = data / ("train_signs" if command == "train" else "test_signs")
    images = sorted(split.iterdir())

    whole = images[3].read_bytes()
    images[3].write_bytes(whole[:300])
    refused(run(command, *flags), str(images[3]))
    draw_photo(images[3], 0, (17, 17))
    refused(run(command, *flags), str(images[3]), "17x17 pixels, not 16x16")
    images[3].write_bytes(whole)
    stray = split / "7_IMG_1.jpg"
    stray.write_bytes(whole)
    refused(run(command, *flags), str(stray), "outside the classes (0, 1, 2)")
    stray.unlink()
    images[3].unlink()
    refused(run(command, *flags), f"{split}: {len(images) - 1} images, but {len(images)} were built")
    for path in split.iterdir():
        path.unlink()
    refused(run(command, *flags), f"{split}: ", "empty")
    (data / "dataset_params.json").write_text('{"classes": 3}')
    refused(run(command, *flags), "dataset_params.json: 7 problems", "classes: expected a list, each a string, got 3.")


def test_an_image_that_changes_is_read_again(data: Path, experiment: Experiment) -> None:
    model_dir = experiment(data_dir=str(data))
    train_ok(model_dir)
    assert len(list((data / ".cache").glob("*.uint8"))) == 2
    next((data / "train_signs").iterdir()).write_bytes(b"spoilt after the first use")
    refused(run("train", "--model_dir", model_dir, "--restart"), "train_signs", "cannot be used")


def test_read_only_data_is_no_obstacle(data: Path, experiment: Experiment) -> None:
    (data / ".cache").write_text("a file where the cache should be")
    model_dir = experiment(data_dir=str(data))
    assert "no cache" in train_ok(model_dir)


def test_last_batch_of_one(experiment: Experiment) -> None:
    model_dir = experiment(batch_size=47)  # of 48 training images
    train_ok(model_dir)
    assert read_json(model_dir / "run.json")["status"] == "finished"


def test_model_dir_that_cannot_be_written(experiment: Experiment, tmp_path: Path, monkeypatch: Any) -> None:
    base = experiment()
    (tmp_path / "file").touch()
    refused(run("train", "--model_dir", tmp_path / "file" / "new", "--base", base), "cannot be written to")

    def touch(self: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "touch", touch)  # root may write everywhere: a read-only folder has to be acted
    refused(run("train", "--model_dir", base), f"{base}: cannot be written to (Permission denied)")
    assert [path.name for path in base.iterdir()] == ["params.json"]


def test_weights_of_another_architecture(trained: Path, experiment: Experiment, shared_data: Path) -> None:
    wide = experiment("wide", num_channels=8)
    path = next((trained / "best_weights").glob("*.pt"))
    result = run("evaluate", "--model_dir", wide, "--restore_file", path)
    refused(result, "another architecture", "body.conv1.weight: [4, 3, 3, 3] in the checkpoint, [8, 3, 3, 3] here")
    resnet = experiment("resnet", net="resnet")
    result = run("train", "--model_dir", resnet, "--restore_file", path)
    refused(result, "body.fc1.weight: only in the checkpoint", "body.block1.conv1.weight: not in the checkpoint")


def test_data_of_other_classes(trained: Path, data: Path) -> None:
    text = (data / "dataset_params.json").read_text()
    (data / "dataset_params.json").write_text(text.replace('"2"', '"3"'))
    refused(
        run("evaluate", "--model_dir", trained, "--data_dir", data),
        "classes: ['3'] at place 3 of 3",
        "with ['2']",
    )


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04 torn", "list", "numbers", "foreign"])
def test_no_checkpoint(content: Any, experiment: Experiment, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        contents: dict[str, Any] = {
            "list": [1, 2],
            "numbers": {"state_dict": {"body.conv1.weight": 3}},
            "foreign": {"state_dict": Path("an object, not a plain value")},
        }
        torch.save(contents[content], path)
    for command in ("train", "evaluate"):
        refused(run(command, "--model_dir", experiment(), "--restore_file", path), str(path))


def test_nothing_trained_yet(experiment: Experiment) -> None:
    refused(run("evaluate", "--model_dir", experiment()), "no best weights", "train.py")
    refused(run("train", "--model_dir", experiment(), "--restore_file", "last"), "no last weights")


def test_device_that_is_not_there(experiment: Experiment) -> None:
    refused(run("train", "--model_dir", experiment(), "--device", "quantum"), "--device quantum")
    refused(run("train", "--model_dir", experiment(), "--device", "meta"), "expected cpu, cuda or mps")
    if not torch.cuda.is_available():
        refused(run("train", "--model_dir", experiment(), "--device", "cuda"), "--device cuda: not available")


def test_a_bug_is_not_hidden(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    model_dir = experiment()
    monkeypatch.setattr(engine_run, "make_optimizer", lambda *_: 1 / 0)
    result = run("train", "--model_dir", model_dir)
    assert result.status == 1
    assert "ZeroDivisionError" in result.err
    assert "ZeroDivisionError" in (model_dir / "train.log").read_text()
    assert read_json(model_dir / "run.json")["status"] == "failed"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_cuda(experiment: Experiment) -> None:
    model_dir = experiment(num_epochs=5)
    train_ok(model_dir, "--device", "cuda")
    assert run("evaluate", "--model_dir", model_dir, "--device", "cpu").status == 0
