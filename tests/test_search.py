"""search_hyperparams.py: what is tried, survived, recorded and refused."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from optuna.trial import TrialState
from pydantic import Field
from sqlalchemy import text

import search.driver as search_driver
import search.space as search_space
import search.study as search_study
import search.workers as search_workers
from engine.locks import locked
from engine.params import TrainingParams
from search.driver import Driver
from search.trials import Trial
from search.workers import Runner, Worker, choose_jobs, count_cores, list_gpus, work
from tests.conftest import (
    NOT_UTF8,
    ROOT,
    Result,
    Terminal,
    assert_same_weights,
    read_json,
    refused,
    run,
    train_ok,
    write_params,
)
from utils import UserError

Parent = Callable[..., Path]
CORES = max(1, count_cores() // 2)  # of each run, since searches here have --jobs 2


@pytest.fixture
def parent(tmp_path: Path, shared_data: Path) -> Parent:
    """`parent(space={...}, num_trials=4)` writes a folder with params.json and, if there is a space, search.json."""

    def write(params: dict[str, Any] | None = None, **search: Any) -> Path:
        folder = write_params(tmp_path / "search", **{"data_dir": str(shared_data), **(params or {})})
        if search:
            (folder / "search.json").write_text(json.dumps(search))
        return folder

    return write


@pytest.fixture(autouse=True)
def driver_is_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """All searches of this process share one server. It has read how many cores a run has, so that is one number."""
    monkeypatch.setenv("OMP_NUM_THREADS", str(CORES))
    monkeypatch.setattr(search_driver, "ASK_EVERY", 0.5)
    monkeypatch.setattr(search_driver, "LOOK_EVERY", 0.05)  # these runs have short epochs


def search(parent_dir: Path, *flags: Any) -> Result:
    """A search whose driver is this process."""
    return run("search_hyperparams", "--parent_dir", parent_dir, "--jobs", 2, *flags)


def start_search(parent_dir: Path, *flags: Any) -> subprocess.Popen[str]:
    """A search whose driver is a process of its own, to be killed or signalled."""
    words = [sys.executable, "search_hyperparams.py", "--parent_dir", parent_dir, "--jobs", 2, *flags]
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    return subprocess.Popen(
        list(map(str, words)), cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def interrupted_search(parent_dir: Path, is_time: Callable[[], bool], runs: Sequence[Path] = ()) -> Result:
    """A search whose driver, this process, gets SIGTERM when it is time; and so do the `runs`, just before."""

    def stop() -> None:
        wait_until(is_time)
        for pid in [*(read_json(folder / ".lock.json")["process"] for folder in runs), os.getpid()]:
            os.kill(pid, signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, lambda *_: None)  # if the search is over by then
    thread = threading.Thread(target=stop)
    thread.start()
    try:
        return search(parent_dir)
    finally:
        thread.join()
        signal.signal(signal.SIGTERM, before)


def trials(parent_dir: Path) -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name=parent_dir.name, storage=f"sqlite:///{parent_dir / 'study.db'}").trials


def name_of(trial: optuna.trial.FrozenTrial) -> str:
    return "-".join(f"{k}_{v:.3g}" if isinstance(v, float) else f"{k}_{v}" for k, v in trial.params.items())


def states(parent_dir: Path) -> list[str]:
    return [trial.state.name for trial in trials(parent_dir)]


# ------------------------------------------------------------------------------------------------ search


def test_a_grid_from_the_command_line(parent: Parent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = parent()
    flags = ["--set", "learning_rate=1e-3,1e-2", "optimizer=adam,sgd", "--no_prune"]
    result = search(folder, *flags)
    assert result.status == 0, result.err
    names = [f"learning_rate_{rate}-optimizer_{name}" for rate in ("0.001", "0.01") for name in ("adam", "sgd")]
    for name in names:
        assert read_json(folder / name / "run.json")["status"] == "finished"
        assert (folder / name / "best_weights").is_dir()
    assert read_json(folder / names[1] / "params.json") == {
        **read_json(folder / "params.json"),
        "learning_rate": 0.001,
        "optimizer": "sgd",
    }
    # each is what train.py alone makes of it
    alone = write_params(tmp_path / "alone", **read_json(folder / names[3] / "params.json"))
    subprocess.run(
        [sys.executable, "train.py", "--model_dir", alone],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": str(CORES)},
        check=True,
        stdout=subprocess.DEVNULL,
    )
    assert_same_weights(alone, folder / names[3])

    found = trials(folder)
    values = {name: read_json(folder / name / "metrics_eval_best_weights.json")["accuracy"] for name in names}
    assert {name_of(trial): trial.value for trial in found} == values
    best = max(values.values())
    assert f"Best finished trial: accuracy {best:.4f}" in result.out
    assert read_json(folder / "best" / "params.json") in [read_json(folder / n / "params.json") for n in names]
    assert {line.split("|")[1].strip() for line in result.out.splitlines() if line.startswith("| learn")} == set(names)
    last = result.out.strip().splitlines()[-1].split()
    assert last[:3] == ["python", "train.py", "--model_dir"]
    train_ok(*map(Path, last[3:4]), *last[4:])

    table = run("synthesize_results", "--parent_dir", folder.parent).out
    assert sorted(re.findall(r"^\| (\S+) +\| finished", table, re.MULTILINE)) == sorted(
        [*(f"search/{name}" for name in names), "search/best", "alone"]
    )
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.pt")}
    monkeypatch.setenv("COLUMNS", "70")
    monkeypatch.setattr(io, "StringIO", Terminal)
    again = search(folder, *flags)
    assert again.status == 0, again.err
    assert "| learn" not in again.out  # on a terminal, the table is fitted to it
    assert len(re.findall(r"^0\.0?01-(?:adam|sgd) +finished  .{,50}$", again.out, re.MULTILINE)) == 4
    assert states(folder) == ["COMPLETE"] * 4
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.pt")} == before


@pytest.mark.parametrize("method", ["random", "tpe"])
def test_ranges(parent: Parent, method: str) -> None:
    space = {
        "learning_rate": {"min": 1e-4, "max": 1e-1, "log": True},
        "num_channels": {"min": 2, "max": 6, "step": 2},
        "dropout_rate": {"min": 0.1, "max": 0.5, "step": 0.2},
    }
    folder = parent({"num_epochs": 1}, method=method, num_trials=3, space=space)
    result = search(folder)
    assert result.status == 0, result.err
    assert states(folder) == ["COMPLETE"] * 3
    for trial in trials(folder):
        params = read_json(folder / name_of(trial) / "params.json")
        assert name_of(trial).startswith(f"learning_rate_{params['learning_rate']:.3g}-num_channels_")
        assert params["num_channels"] in (2, 4, 6)
        assert params["dropout_rate"] in (0.1, 0.3, 0.5)
        assert params["learning_rate"] == float(f"{trial.params['learning_rate']:.3g}")
    assert search(folder, "--num_trials", 4).status == 0
    assert states(folder) == ["COMPLETE"] * 4


def test_values_are_those_that_are_written(parent: Parent) -> None:
    """Only values of continuous ranges are rounded to three digits."""
    space = {"momentum": [0.9995, 0.99951], "learning_rate": {"min": 0.1, "max": 0.1003, "step": 0.0001}}
    folder = parent({"num_epochs": 1, "optimizer": "sgd"}, method="grid", space=space)
    checked = search_space.read_search(folder)
    assert checked.num_trials == 8
    assert search_space.grid_values(checked.space["learning_rate"]) == [0.1, 0.1001, 0.1002, 0.1003]
    setting = checked.setting_of({"momentum": 0.9995, "learning_rate": 0.1003})
    assert checked.folders_of(setting) == [folder / "momentum_0.9995-learning_rate_0.1003"]
    uneven = {"num_channels": {"min": 16, "max": 60, "step": 16}, "dropout_rate": {"min": 0, "max": 0.55, "step": 0.1}}
    checked = search_space.read_search(parent({}, method="grid", space=uneven))
    assert [search_space.grid_values(values)[-1] for values in checked.space.values()] == [48, 0.5]
    narrow = parent({}, space={"learning_rate": {"min": 0.123456, "max": 0.1235}})
    checked = search_space.read_search(narrow)
    assert checked.setting_of({"learning_rate": 0.12346})["learning_rate"] == 0.123456  # not below its range


def test_a_driver_on_another_host_left_a_trial(parent: Parent) -> None:
    """It was killed while it asked, and its container has another name now. The lock is free, so it is dead."""
    folder = parent({"num_epochs": 1}, method="grid", space={"learning_rate": [1e-3, 1e-2]})
    checked = search_space.read_search(folder)
    study = search_study.open_study(checked, f"sqlite:///{folder / 'study.db'}", search_study.STUDY, prune=False)
    study.study.ask()  # no parameters are stored yet
    assert search(folder).status == 0
    assert states(folder) == ["COMPLETE"] * 2
    assert sorted(trial.params["learning_rate"] for trial in trials(folder)) == [1e-3, 1e-2]


def test_other_parameters_are_another_study(parent: Parent) -> None:
    space = {"learning_rate": [1e-3, 1e-2]}
    folder = parent({"num_epochs": 1}, method="grid", space=space)
    assert search(folder).status == 0
    parent({"num_epochs": 2}, method="grid", space=space)
    refused(search(folder), "num_epochs: 1 then, 2 now")


def test_a_signal_to_driver_and_runs(parent: Parent) -> None:
    """No trial fails, and all runs are saved."""
    folder = parent({"num_epochs": 400}, method="grid", space=GOOD)
    folders = [folder / "learning_rate_0.001", folder / "learning_rate_0.01"]
    result = interrupted_search(folder, lambda: all((f / "history.jsonl").exists() for f in folders), folders)
    assert result.status == 143, result.err
    assert [read_json(f / "run.json")["status"] for f in folders] == ["interrupted"] * 2
    assert states(folder) == ["RUNNING"] * 2


@pytest.mark.slow
def test_a_signal_to_driver_and_runs_together(parent: Parent) -> None:
    """A cluster takes its machine back and signals all processes. No trial fails, and all runs are saved.

    The runs are in the middle of slow batches, and are told to stop by the cluster, by the driver, and by its end.
    """
    folder = parent({"num_epochs": 400, "num_channels": 128}, method="grid", space={"learning_rate": [1e-3, 1e-2]})
    process = start_search(folder, "--no_prune")
    folders = [folder / "learning_rate_0.001", folder / "learning_rate_0.01"]
    wait_until(lambda: all((f / "history.jsonl").exists() for f in folders))
    runs = [read_json(f / ".lock.json")["process"] for f in folders]
    for pid in (*runs, parent_of(runs[0]), process.pid):
        os.kill(pid, signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode == 143
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in runs))
    assert [read_json(f / "run.json")["status"] for f in folders] == ["interrupted"] * 2
    assert [read_json(f / "run.json")["threads"] for f in folders] == [CORES] * 2  # the runs share the cores
    assert states(folder) == ["RUNNING"] * 2


def test_the_best_of_another_machine(parent: Parent) -> None:
    """Its folder is on that machine. Its setting is in the study."""
    folder = parent({"num_epochs": 1}, method="grid", space={"learning_rate": [1e-3, 1e-2]})
    assert search(folder).status == 0
    for name in ("learning_rate_0.001", "learning_rate_0.01", "best"):
        shutil.rmtree(folder / name)
    result = search(folder)
    assert result.status == 0, result.err
    assert f"its weights are on {socket.gethostname()}" in result.out
    assert read_json(folder / "best" / "params.json")["learning_rate"] in (1e-3, 1e-2)


def test_the_same_setting_twice_at_a_time(parent: Parent) -> None:
    """There are fewer settings than trials, so some are chosen again, while they run or later. No trial fails."""
    folder = parent({"num_epochs": 1}, method="random", num_trials=6, space={"optimizer": ["adam", "sgd"]})
    result = search(folder)
    assert result.status == 0, result.err
    assert states(folder) == ["COMPLETE"] * 6
    assert len({trial.value for trial in trials(folder)}) <= 2
    for name in ("adam", "sgd"):  # each was trained, and not started again to hear that it is finished
        assert "finished" not in (folder / f"optimizer_{name}" / "console.txt").read_text()


def test_a_pruned_setting_is_not_trained_on_when_it_comes_again(parent: Parent) -> None:
    space = {"learning_rate": [1e-2, 1e-12]}
    folder = parent({"num_epochs": 9, "num_channels": 32}, method="random", num_trials=12, space=space, seed=3)
    result = search(folder, "--jobs", 1)
    assert result.status == 0, result.err
    of_one = {(trial.params["learning_rate"], trial.state.name) for trial in trials(folder)}
    assert len(of_one) == 2, of_one
    pruned = [trial for trial in trials(folder) if trial.state == TrialState.PRUNED]
    assert len(pruned) > 1
    assert len({tuple(trial.intermediate_values.items()) for trial in pruned}) == 1
    assert len((folder / name_of(pruned[0]) / "history.jsonl").read_text().splitlines()) < 9


def test_a_finished_run_stays_finished(parent: Parent) -> None:
    """A new study, in which it has other competitors, does not prune it."""
    folder = parent({"num_epochs": 5}, method="grid", space={"learning_rate": [1e-2, 1e-12, 1e-11]})
    assert search(folder, "--jobs", 1, "--no_prune").status == 0
    (folder / "study.db").unlink()
    result = search(folder, "--jobs", 1)
    assert result.status == 0, result.err
    assert states(folder) == ["COMPLETE"] * 3
    assert [read_json(path)["status"] for path in folder.glob("*/run.json")] == ["finished"] * 3


def test_what_has_no_effect_may_change(parent: Parent) -> None:
    """A run that was interrupted goes on with the new value."""
    space = {"learning_rate": [1e-3]}
    folder = parent({"num_epochs": 40}, method="grid", space=space)
    assert interrupted_search(folder, (folder / "learning_rate_0.001" / "history.jsonl").exists).status == 143
    parent({"num_epochs": 40, "save_summary_steps": 7}, method="grid", space=space)
    result = search(folder)
    assert result.status == 0, result.err
    assert states(folder) == ["COMPLETE"]
    assert read_json(folder / "learning_rate_0.001" / "params.json")["save_summary_steps"] == 7
    assert "Going on" in (folder / "learning_rate_0.001" / "train.log").read_text()


@pytest.mark.parametrize("how", ["--data_dir", "params.json"])
def test_data_that_were_moved(parent: Parent, data: Path, tmp_path: Path, how: str) -> None:
    """Trials that are new, and those that were interrupted in their second seed, find them where they are now."""
    params = {"num_epochs": 25, "data_dir": str(data)}
    space = {"method": "grid", "seeds": 2, "prune": False, "space": {"learning_rate": [1e-3, 1e-2, 3e-2]}}
    folder = parent(params, **space)
    folders = [folder / f"learning_rate_{rate}-seed_{seed}" for rate in (0.001, 0.01, 0.03) for seed in (230, 231)]
    assert interrupted_search(folder, (folders[1] / "history.jsonl").exists).status == 143
    assert read_json(folders[1] / "run.json")["status"] == "interrupted"
    assert not folders[4].exists()
    moved = data.rename(tmp_path / "moved")
    refused(search(folder), f"{data}: no data set here")
    if how == "params.json":
        parent(params | {"data_dir": str(moved)}, **space)
    result = search(folder, *(["--data_dir", moved] if how == "--data_dir" else []))
    assert result.status == 0, result.out + result.err
    assert states(folder) == ["COMPLETE"] * 3
    assert "Going on" in (folders[1] / "train.log").read_text()
    for run_folder in (*folders, folder / "best"):
        assert read_json(run_folder / "params.json")["data_dir"] == str(moved)
    assert "finished" in train_ok(folders[1])
    train_ok(folder / "best")
    data = moved.rename(data)
    assert f"{folder / 'best'} was trained already" in search(folder, "--data_dir", data).out


def test_other_data_are_another_study(parent: Parent, shared_data: Path, tmp_path: Path) -> None:
    folder = parent({"num_epochs": 1}, method="grid", space={"learning_rate": [1e-3]})
    assert search(folder).status == 0
    other = shutil.copytree(shared_data, tmp_path / "other")
    assert search(folder, "--data_dir", other).status == 0  # the same, elsewhere
    values = read_json(other / "dataset_params.json") | {"digest": "ab" * 32}
    (other / "dataset_params.json").write_text(json.dumps(values))
    refused(search(folder, "--data_dir", other), "data: digest", "abababababab now")


def test_what_was_to_be_pruned_is_not_judged_again(parent: Parent) -> None:
    """The driver was killed while the run was saving."""
    folder = parent({"num_epochs": 9}, method="random", num_trials=2, space={"learning_rate": {"min": 1e-3, "max": 1}})
    space = search_space.read_search(folder)
    study = search_study.open_study(space, search_study.study_url(folder), search_study.STUDY, prune=True)
    driver = Driver(study, Runner.__new__(Runner), jobs=1)
    outcomes = []
    for accuracy in (0.9, 0.1):
        asked = study.ask()
        assert asked is not None
        trial = Trial(space, asked)
        trial.worker = Worker(trial.folder, types.SimpleNamespace(exitcode=0))
        driver.judge(trial, {"epoch": 2, "val": {"accuracy": accuracy}})
        outcomes.append(trial.outcome)
    assert outcomes == ["", "pruned"]
    assert search(folder).status == 0
    assert states(folder) == ["COMPLETE", "PRUNED"]
    assert not (folder / name_of(trials(folder)[1])).exists()


def test_equals_are_ordered_as_in_the_table(parent: Parent) -> None:
    """The study knows the loss of each trial, and of equal trials the one of lower loss is better."""
    folder = parent({"num_epochs": 6}, method="grid", space={"learning_rate": [1e-4, 3e-4, 1e-3]})
    assert search(folder, "--no_prune").status == 0
    found = trials(folder)
    for trial in found:
        metrics = read_json(folder / name_of(trial) / "metrics_eval_best_weights.json")
        assert trial.user_attrs["loss"] == metrics["loss"]
        trial.value = 0.5
    best = search_study.best_of(search_space.read_search(folder), found)
    assert best is not None
    assert best.user_attrs["loss"] == min(trial.user_attrs["loss"] for trial in found)
    assert best != found[0]


def test_seeds(parent: Parent) -> None:
    """The value of a setting is the mean of its seeds."""
    folder = parent({"num_epochs": 1}, method="grid", seeds=2, space={"learning_rate": [1e-3, 1e-2]})
    assert search(folder).status == 0
    for trial in trials(folder):
        names = [f"learning_rate_{trial.params['learning_rate']:.3g}-seed_{seed}" for seed in (230, 231)]
        found = [read_json(folder / name / "metrics_eval_best_weights.json")["accuracy"] for name in names]
        assert trial.value == pytest.approx(sum(found) / 2)
        assert read_json(folder / names[1] / "params.json")["seed"] == 231


def test_another_metric(parent: Parent) -> None:
    """It chooses the best weights of each run too."""
    metric = {"name": "loss", "goal": "minimize"}
    folder = parent({"num_epochs": 1}, method="grid", metric=metric, space={"learning_rate": [1e-3, 1e-2]})
    result = search(folder)
    assert result.status == 0
    values = [trial.value for trial in trials(folder) if trial.value is not None]
    assert f"Best finished trial: loss {min(values):.4f}" in result.out
    assert read_json(folder / "learning_rate_0.01" / "run.json")["monitor"] == "loss"


def test_bad_trials_are_pruned(parent: Parent) -> None:
    """A run is pruned by the signal that also interrupts it, so it keeps its checkpoint."""
    rates = [1e-2, 1e-12, 1e-11, 1e-10, 1e-9, 1e-8]
    folder = parent({"num_epochs": 9}, method="grid", space={"learning_rate": rates})
    assert search(folder, "--jobs", 1).status == 0
    pruned = [trial for trial in trials(folder) if trial.state == TrialState.PRUNED]
    assert len(pruned) >= 2
    for trial in pruned:
        run_folder = folder / name_of(trial)
        assert read_json(run_folder / "run.json")["status"] == "pruned"
        assert 1 <= len((run_folder / "history.jsonl").read_text().splitlines()) < 9
        assert list((run_folder / "last_weights").glob("*.pt"))


def test_a_search_may_say_that_nothing_is_pruned(parent: Parent) -> None:
    space = {"learning_rate": [1e-2, 1e-12, 1e-11]}
    folder = parent({"num_epochs": 9}, method="grid", space=space, prune=False)
    assert search(folder, "--jobs", 1).status == 0
    assert states(folder) == ["COMPLETE"] * 3


class Params(TrainingParams):
    """Of a task whose networks have hidden layers."""

    hidden_dims: list[int] = Field([64], description="Units of each hidden layer.")
    words: list[str] = Field([], description="What is looked for.")
    name: str = Field("", description="What it is called.")


LISTS: dict[str, list[Any]] = {"hidden_dims": [[], [64], [64, 64]], "learning_rate": [0.1, 0.01]}


@pytest.fixture
def lists(parent: Parent, monkeypatch: pytest.MonkeyPatch) -> Parent:
    """`lists(space={...})` writes a search of a task that has parameters which are lists."""
    task = types.SimpleNamespace(name="lists", Params=Params)
    monkeypatch.setattr(search_space, "TASKS", {"lists": task})
    monkeypatch.setattr(search_space, "load_data_params", lambda *_: types.SimpleNamespace(digest="ab" * 32))

    def write(**search: Any) -> Path:
        folder = parent(**search)
        (folder / "params.json").write_text('{"task": "lists", "num_epochs": 4}')
        return folder

    return write


@pytest.mark.parametrize("method", ["grid", "random", "tpe"])
def test_a_parameter_that_is_a_list(lists: Parent, method: str) -> None:
    """The study stores text, the runs get the list, and the name of the folder says it."""
    read = search_space.read_search(lists(method=method, num_trials=6, space=LISTS))
    assert read.describe()["hidden_dims"] == "[], [64], [64, 64]"
    url = search_study.study_url(read.parent_dir)
    study = search_study.open_study(read, url, search_study.STUDY, prune=False)
    settings = []
    for _ in range(6):
        asked = study.ask()
        assert asked is not None
        settings.append(read.setting_of(asked.params))
        study.study.tell(asked, 0.5)
    assert all(setting["hidden_dims"] in LISTS["hidden_dims"] for setting in settings)
    names = {json.dumps(setting): read.folders_of(setting)[0].name for setting in settings}
    assert len(set(names.values())) == len(names)
    if method == "grid":
        parts = [f"hidden_dims_{dims}-learning_rate_{rate}" for dims in ("none", "64", "64x64") for rate in (0.1, 0.01)]
        assert list(names.values()) == parts
        assert settings == [{"hidden_dims": d, "learning_rate": r} for d in LISTS["hidden_dims"] for r in (0.1, 0.01)]
    again = search_study.open_study(read, url, search_study.STUDY, prune=False)
    assert again.ask() is None
    assert search_study.best_of(read, again.trials()) is not None


def test_hidden_layers_are_searched(tmp_path: Path) -> None:
    """From the command line to the table, the picture and the page."""
    data, folder = tmp_path / "table", tmp_path / "search"
    built = run("build_dataset", "--task", "tabular_prediction", "--sample", "--output_dir", data)
    assert built.status == 0, built.err
    folder.mkdir()
    params = {"task": "tabular_prediction", "data_dir": str(data), "num_epochs": 1, "monitor": "accuracy"}
    (folder / "params.json").write_text(json.dumps(params))
    result = search(folder, "--set", "hidden_dims=[],[4],[4,4]")
    assert result.status == 0, result.err
    names = {"hidden_dims_none": [], "hidden_dims_4": [4], "hidden_dims_4x4": [4, 4]}
    for name, dims in names.items():
        assert read_json(folder / name / "run.json")["params"]["hidden_dims"] == dims
        assert f"| {name} " in result.out
    assert "| [4, 4] " in result.out
    assert read_json(folder / "best" / "params.json")["hidden_dims"] in names.values()
    page = run("synthesize_results", "--parent_dir", folder, "--plot", "--html", folder / "report.html")
    assert page.status == 0, page.err
    assert "[4, 4]" in (folder / "report.html").read_text()
    assert (folder / "results.png").is_file()
    again = search(folder, "--set", "hidden_dims=[],[4],[4,4]")
    assert again.status == 0, again.err
    assert states(folder) == ["COMPLETE"] * 3


def test_lists_on_the_command_line(lists: Parent) -> None:
    folder = lists()
    words = ["hidden_dims=[],[64],[64,64]", 'words=["a,b"],["c"]', "name=x,y", "learning_rate=1e-3,0.1"]
    space = search_space.read_search(folder, words).space
    read = {name: list(map(search_space.from_choice, search_space.grid_values(space[name]))) for name in space}
    assert read == {
        "hidden_dims": [[], [64], [64, 64]],
        "words": [["a,b"], ["c"]],
        "name": ["x", "y"],
        "learning_rate": [1e-3, 0.1],
    }
    for word, problem in (
        ("hidden_dims=64,[64]", "hidden_dims: expected a list, each an integer, got 64"),
        ("hidden_dims=[1.5]", "hidden_dims: expected a list, each an integer, got [1.5]"),
        ("hidden_dims=[64],[64]", "hidden_dims: expected a list of different values"),
        ("learning_rate=1e-3,", 'learning_rate: expected a number > 0, got ""'),
    ):
        with pytest.raises(UserError) as error:
            search_space.read_search(folder, [word])
        assert problem in str(error.value)


@pytest.mark.parametrize(
    "value", [[], [64], [[1, 2], [3]], {"a": 1}, "[64]", '"', "{", "", "adam", None, True, 3, 0.1, "naïve, or not"]
)
def test_every_value_comes_back_from_the_study(value: Any) -> None:
    choice = search_space.to_choice(value)
    assert choice is None or isinstance(choice, bool | int | float | str)
    assert search_space.from_choice(choice) == value


def test_values_whose_folders_would_be_the_same_are_refused(lists: Parent) -> None:
    folder = lists(space={"name": ["a b", "a_b"]})
    with pytest.raises(UserError, match="name: expected a list of different values"):
        search_space.read_search(folder)


def test_a_parameter_that_is_newer_than_the_study(parent: Parent) -> None:
    """At its default it changes nothing, so the study goes on."""
    folder = parent({"num_epochs": 1}, method="grid", space={"learning_rate": [1e-3]})
    read, url = search_space.read_search(folder), search_study.study_url(folder)
    study = search_study.open_study(read, url, search_study.STUDY, prune=False).study
    study.set_user_attr("search", {name: value for name, value in read.describe().items() if name != "momentum"})
    search_study.open_study(read, url, search_study.STUDY, prune=False)
    parent({"num_epochs": 1, "momentum": 0.5}, method="grid", space={"learning_rate": [1e-3]})
    with pytest.raises(UserError, match=r"momentum: 0\.9 then, 0\.5 now"):
        search_study.open_study(search_space.read_search(folder), url, search_study.STUDY, prune=False)


def test_a_grid_that_was_entered_at_the_beginning(parent: Parent) -> None:
    """Earlier versions of this program entered all settings first. If one was killed meanwhile, the rest follows."""
    folder = parent({}, method="grid", space={"learning_rate": [1e-3, 1e-2, 1e-1]})
    read = search_space.read_search(folder)
    study = search_study.open_study(read, search_study.study_url(folder), search_study.STUDY, prune=False)
    for rate in (1e-3, 1e-2):
        study.study.enqueue_trial({"learning_rate": rate})
    asked = [study.ask() for _ in range(4)]
    assert [trial and trial.params["learning_rate"] for trial in asked] == [1e-3, 1e-2, 1e-1, None]


def test_what_optuna_has_no_public_name_for(parent: Parent) -> None:
    """If this fails with a new version of Optuna: `id_of` in search/study.py is the only place that uses the name."""
    folder = parent({}, method="grid", space=GOOD)
    url = search_study.study_url(folder)
    study = search_study.open_study(search_space.read_search(folder), url, search_study.STUDY, prune=False)
    asked = study.ask()
    assert asked is not None
    (frozen,) = study.trials()
    assert hasattr(asked, "_trial_id"), "Optuna renamed Trial._trial_id"
    assert search_study.id_of(asked) == search_study.id_of(frozen)
    resumed = optuna.Trial(study.study, search_study.id_of(frozen))
    assert (resumed.number, resumed.params) == (asked.number, asked.params), "optuna.Trial is made otherwise now"
    assert callable(study.storage.record_heartbeat), "Optuna renamed RDBStorage.record_heartbeat"


# ---------------------------------------------------------------------------------------------- failures


def test_a_trial_that_fails_does_not_end_the_search(parent: Parent) -> None:
    folder = parent({"optimizer": "sgd"}, method="grid", space={"learning_rate": [1e30, 1e-2]})
    result = search(folder)
    assert result.status == 0, result.err
    failed = [trial for trial in trials(folder) if trial.state == TrialState.FAIL]
    assert len(failed) == 1
    assert "the loss is" in failed[0].user_attrs["reason"] or "loss on val is" in failed[0].user_attrs["reason"]
    assert "1 done, 1 failed of 2" in result.out
    assert "diverged" in result.out  # in the table


def test_five_failures_for_the_same_reason_end_it(parent: Parent) -> None:
    folder = parent({"optimizer": "sgd"}, method="grid", space={"learning_rate": [1e20 * 2**n for n in range(8)]})
    refused(search(folder), "5 trials in a row failed for the same reason", "the norm of its gradient")
    assert states(folder).count("FAIL") == 5


@pytest.mark.slow
def test_a_killed_driver_leaves_no_orphans_and_loses_nothing(parent: Parent, tmp_path: Path) -> None:
    params = {"num_epochs": 400}
    folder = parent(params, method="grid", space={"learning_rate": [1e-3, 1e-2]})
    process = start_search(folder, "--no_prune")
    folders = [folder / "learning_rate_0.001", folder / "learning_rate_0.01"]
    wait_until(lambda: all((f / "history.jsonl").exists() for f in folders))
    running = [read_json(f / ".lock.json")["process"] for f in folders]
    process.kill()
    process.communicate()
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in running))
    assert [read_json(f / "run.json")["status"] for f in folders] == ["interrupted"] * 2
    assert states(folder) == ["RUNNING"] * 2

    process = start_search(folder, "--no_prune")
    wait_until(lambda: all("Going on" in (f / "train.log").read_text() for f in folders))
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 143
    assert "Traceback" not in err
    assert states(folder) == ["RUNNING"] * 2
    assert [read_json(f / "run.json")["status"] for f in folders] == ["interrupted"] * 2


@pytest.mark.slow
def test_never_more_at_once_than_asked(parent: Parent) -> None:
    """The runs of a driver that was killed may still be saving. They count."""
    rates = [1e-3, 2e-3, 3e-3, 4e-3, 5e-3]
    folder = parent({"num_epochs": 30}, method="grid", space={"learning_rate": rates})
    most = 0
    for is_killed in (True, True, False):
        process = start_search(folder, "--no_prune")
        begun = len(list(folder.glob("*/train.log")))
        while process.poll() is None:
            most = max(most, len([path for path in folder.glob("*/.lock.json") if path.parent != folder]))
            if is_killed and len(list(folder.glob("*/train.log"))) > begun + 1:
                process.kill()
            time.sleep(0.01)
    assert process.returncode == 0
    assert most == 2
    assert states(folder) == ["COMPLETE"] * 5


def test_runs_of_a_driver_that_was_killed_are_waited_for(parent: Parent) -> None:
    folder = parent({"num_epochs": 1}, method="grid", space=GOOD)
    study = search_study.open_study(
        search_space.read_search(folder), search_study.study_url(folder), search_study.STUDY, prune=False
    )
    assert study.ask() is not None
    saving = folder / "learning_rate_0.001"
    saving.mkdir()
    begun, started = threading.Event(), list[Path]()

    def save() -> None:
        with locked(saving):
            begun.set()
            time.sleep(1)
            started.extend(folder.glob("learning_rate_*"))

    thread = threading.Thread(target=save)
    thread.start()
    begun.wait()
    result = search(folder, "--jobs", 1)
    thread.join()
    assert result.status == 0, result.err
    assert "Waiting for runs that are still going on: learning_rate_0.001" in result.out
    assert started == [saving]  # the other setting was not started meanwhile
    assert states(folder) == ["COMPLETE"] * 2


def test_a_seed_that_is_done_is_not_trained_again(parent: Parent) -> None:
    """The driver was killed after the first of two."""
    folder = parent({"num_epochs": 1, "seed": 7}, method="grid", space={"learning_rate": [1e-3]}, seeds=2)
    read = search_space.read_search(folder)
    assert search_study.open_study(read, search_study.study_url(folder), search_study.STUDY, prune=False).ask()
    first, second = (folder / f"learning_rate_0.001-seed_{seed}" for seed in (7, 8))
    train_ok(first, "--base", folder, "--set", "learning_rate=1e-3", "seed=7")
    before = sorted((path, path.stat().st_mtime_ns) for path in first.rglob("*.pt"))
    result = search(folder)
    assert result.status == 0, result.err
    assert sorted((path, path.stat().st_mtime_ns) for path in first.rglob("*.pt")) == before
    values = [read_json(path / "metrics_eval_best_weights.json")["accuracy"] for path in (first, second)]
    assert trials(folder)[0].value == pytest.approx(sum(values) / 2)


@pytest.mark.slow
def test_seeds_go_on_where_they_were(parent: Parent) -> None:
    """Seeds that are done are not trained again."""
    folder = parent({"num_epochs": 25, "seed": 7}, method="grid", space={"learning_rate": [1e-3]}, seeds=3)
    second = folder / "learning_rate_0.001-seed_8"
    process = start_search(folder)
    wait_until(lambda: (second / "history.jsonl").exists())
    process.kill()
    process.wait()
    first = folder / "learning_rate_0.001-seed_7"
    before = sorted((path, path.stat().st_mtime_ns) for path in first.rglob("*.pt"))
    assert before
    result = search(folder)
    assert result.status == 0, result.err
    assert sorted((path, path.stat().st_mtime_ns) for path in first.rglob("*.pt")) == before
    assert "Going on" in (second / "train.log").read_text()
    values = [
        read_json(folder / f"learning_rate_0.001-seed_{seed}" / "metrics_eval_best_weights.json")["accuracy"]
        for seed in (7, 8, 9)
    ]
    assert trials(folder)[0].value == pytest.approx(sum(values) / 3)


def test_the_process_that_starts_runs_is_killed(parent: Parent) -> None:
    """Nobody saw how its runs ended, so nothing is recorded, and they can go on."""
    folder = parent({"num_epochs": 400}, method="grid", space={"learning_rate": [1e-3, 1e-2]})
    process = start_search(folder)
    folders = [folder / "learning_rate_0.001", folder / "learning_rate_0.01"]
    wait_until(lambda: all((f / "history.jsonl").exists() for f in folders))
    runs = [read_json(f / ".lock.json")["process"] for f in folders]
    os.kill(parent_of(runs[0]), signal.SIGKILL)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "The process that starts the runs was killed" in err
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in runs))
    assert states(folder) == ["RUNNING"] * 2
    assert [read_json(f / "run.json")["status"] for f in folders] == ["interrupted"] * 2


def test_out_of_memory(parent: Parent) -> None:
    folder = parent({"num_epochs": 1}, method="grid", space={"num_channels": [2, 1_000_000]})
    result = search(folder)
    assert result.status == 0, result.err
    assert sorted(states(folder)) == ["COMPLETE", "FAIL"]
    assert "can't allocate memory" in result.out
    assert "a smaller batch_size or network" in (folder / "num_channels_1000000" / "console.txt").read_text()


@pytest.mark.parametrize("searched", [[4, 60], {"min": 4, "max": 60}])
def test_the_first_rung_is_within_the_shortest_run(parent: Parent, searched: Any) -> None:
    folder = parent({"num_epochs": 100}, method="random", space={"num_epochs": searched})
    assert search_space.read_search(folder).first_rung == 1
    (folder / "search.json").write_text(json.dumps({"space": {"learning_rate": [1e-3, 1e-2]}}))
    assert search_space.read_search(folder).first_rung == 25


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """`machine(hip="6.4", torch="0\\n1")` acts one: what torch was built for, and what torch or nvidia-smi lists."""
    for name in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)

    def script(name: str, listed: str | None) -> str:
        path = tmp_path / name
        path.write_text("#!/bin/sh\n" + ("exit 1" if listed is None else f"printf '{listed}\\n'"))
        path.chmod(0o755)
        return str(path)

    def act(
        cuda: str | None = None,
        hip: str | None = None,
        torch: str | None = None,
        nvidia_smi: str | None = None,
        platform: str = "linux",
    ) -> None:
        monkeypatch.setattr(search_workers, "torch_build", lambda: {"cuda": cuda, "hip": hip})
        monkeypatch.setattr(search_workers.sys, "executable", script("python", torch))
        monkeypatch.setattr(search_workers.sys, "platform", platform)
        script("nvidia-smi", nvidia_smi)
        monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")

    return act


def test_gpus_without_nvidia_smi(machine: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch is asked, where it may know of one."""
    machine(hip="6.4", torch="0 1")
    assert list_gpus() == list_gpus("cuda") == ["0", "1"]
    monkeypatch.setenv("HIP_VISIBLE_DEVICES", "2, 3")
    assert list_gpus() == ["2", "3"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")  # ROCm prefers its own name
    assert list_gpus() == ["2", "3"]
    machine(cuda="13.0", torch="0")
    assert list_gpus() == ["7"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.delenv("HIP_VISIBLE_DEVICES")
    monkeypatch.setattr(os.path, "exists", lambda path: path == "/dev/nvidiactl")  # a container, say
    assert list_gpus() == ["0"]
    machine(torch="0", platform="darwin")
    assert list_gpus() == list_gpus("mps") == ["0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # says nothing about a Mac's GPU
    assert list_gpus() == ["0"]
    assert list_gpus("cpu") == []


def test_a_machine_without_a_gpu(machine: Callable[..., None], monkeypatch: pytest.MonkeyPatch, parent: Parent) -> None:
    """Torch is not asked, unless a GPU is asked for. Then the search ends before it begins."""
    monkeypatch.setattr(os.path, "exists", lambda _: False)
    for cuda in (None, "13.0"):
        machine(cuda=cuda, torch="9")
        assert list_gpus() == []
    machine(cuda="13.0")
    folder = parent(method="grid", space=GOOD)
    for device in ("cuda", "mps"):
        refused(search(folder, "--device", device), f"--device {device}: not available here")
    machine(torch="9")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")  # as clusters set it, although torch was built for the CPU
    assert list_gpus() == []
    refused(search(folder, "--device", "cuda"), "--device cuda: not available here")
    machine(cuda="13.0", nvidia_smi="0", torch="0")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert list_gpus() == []
    refused(search(folder, "--device", "cuda"), "--device cuda: not available here")
    assert sorted(path.name for path in folder.iterdir()) == ["params.json", "search.json"]


def test_what_torch_was_built_for() -> None:
    build = search_workers.torch_build()
    assert (build["cuda"], build["hip"]) == (torch.version.cuda, torch.version.hip)
    listed = search_workers.ask(sys.executable, "-c", search_workers.LIST_GPUS, "auto")
    assert len(listed) == (torch.cuda.device_count() or torch.backends.mps.is_available())


def test_a_run_sees_its_gpu_alone(machine: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "setsid", lambda: None)
    monkeypatch.setattr(search_workers, "is_locked", lambda _: True)  # it ends before it trains
    for hip, name in ((None, "CUDA_VISIBLE_DEVICES"), ("6.4", "HIP_VISIBLE_DEVICES")):
        machine(hip=hip)
        monkeypatch.setenv("HIP_VISIBLE_DEVICES", "2,3")
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
        with pytest.raises(SystemExit):
            work("train", "", [], "3")
        assert os.environ[name] == "3"


def test_each_run_has_a_gpu_of_its_own(
    machine: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`nvidia-smi` is a script here. The GPU that a run sees is set before CUDA starts."""
    machine(cuda="13.0", nvidia_smi="0\\n1\\n2")
    assert list_gpus() == ["0", "1", "2"]
    machine(nvidia_smi="0")  # of which a torch for CPUs knows nothing
    assert list_gpus() == []
    machine(cuda="13.0")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-8ab")
    assert list_gpus() == ["2", "GPU-8ab"]
    assert choose_jobs(None, list_gpus()) == 2
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert list_gpus() == []
    assert choose_jobs(3, ["0"]) == 3

    started = []

    class Process:
        def __init__(self, args: tuple[Any, ...], **_: Any):
            started.append(args[3])

        def start(self) -> None:
            pass

    runner = Runner.__new__(Runner)
    runner.command, runner.gpus, runner.context = "train", ["2", "GPU-8ab"], types.SimpleNamespace(Process=Process)
    for slot in range(3):
        runner.start(tmp_path, [], slot)
    assert started == ["2", "GPU-8ab", "2"]


def parent_of(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def wait_until(condition: Callable[[], bool]) -> None:
    for _ in range(1200):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("it did not happen within two minutes")


# --------------------------------------------------------------------------------------------- bad input

GOOD = {"learning_rate": [1e-3, 1e-2]}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"space": {"learning_rte": [1]}}, ["learning_rte: unknown parameter. Did you mean learning_rate?"]),
        ({"space": {"learning_rate": [0.1, -1]}}, ["learning_rate: expected a number > 0, got -1"]),
        ({"space": {"batch_size": {"min": 0, "max": 8}}}, ["batch_size: expected an integer >= 2, got 0"]),
        ({"space": {"batch_size": {"min": 8, "max": 1}}}, ["batch_size: min 8 is larger than max 1"]),
        ({"space": {"batch_size": {"min": 1.5, "max": 8}}}, ["batch_size: expected an integer", "1.5"]),
        ({"space": {"learning_rate": {"min": 0, "max": 8, "log": True}}}, ["log needs a min above 0"]),
        ({"space": {"learning_rate": {"min": 1, "max": 8, "step": 0}}}, ["step 0 is not above 0"]),
        ({"space": {"learning_rate": {"min": 1, "max": "8"}}}, ["learning_rate: expected numbers"]),
        ({"space": {"learning_rate": {"low": 1}}}, ["learning_rate: expected a list of values"]),
        ({"space": {"learning_rate": []}}, ["learning_rate: expected a list of different values, got []"]),
        ({"space": {"learning_rate": [1, 1]}}, ["learning_rate: expected a list of different values"]),
        ({"space": {"learning_rate": {"min": 1e-3, "max": 1}}, "method": "grid"}, ["a grid needs a step"]),
        ({"space": {"batch_size": {"min": 2, "max": 8, "step": 1.5}}}, ["step 1.5 is no integer"]),
        ({"space": {"learning_rate": {"min": 1, "max": 8, "step": float("inf")}}}, ["expected numbers for min, max"]),
        ({"space": {"monitor": ["loss", "accuracy"]}}, ["monitor: cannot be searched"]),
        ({"space": {"seed": [1, 2]}, "seeds": 2}, ["seeds: more than 1"]),
        ({"space": {}}, ["space: empty"]),
        ({"space": GOOD, "metod": "tpe"}, ["metod: unknown parameter. Did you mean method?"]),
        ({"space": GOOD, "method": "guess"}, ["method: expected one of grid, random, tpe"]),
        ({"space": GOOD, "num_trials": 0}, ["num_trials: expected an integer >= 1, got 0"]),
        ({"space": GOOD, "metric": {"name": "acuracy"}}, ["metric: expected one of", "Did you mean accuracy?"]),
        ({"space": GOOD, "metric": {"name": "loss", "goal": "down"}}, ["metric: expected", "minimize"]),
        ({"num_trials": 3}, ["space: not there"]),
    ],
)
def test_what_is_wrong_with_a_space(parent: Parent, values: dict[str, Any], words: list[str]) -> None:
    folder = parent(**values)
    refused(run("search_hyperparams", "--parent_dir", folder), "search.json: 1 problem", *words)
    assert sorted(path.name for path in folder.iterdir()) == ["params.json", "search.json"]


def test_a_wrong_space_is_named_with_its_line(parent: Parent) -> None:
    folder = parent()
    (folder / "search.json").write_text('{"method": "tpe",\n "space": {\n   "learning_rte": [0.1]}}')
    refused(search(folder), "  line 3  learning_rte: unknown parameter. Did you mean learning_rate?")


def test_bad_input(parent: Parent, tmp_path: Path) -> None:
    refused(run("search_hyperparams", "--parent_dir", tmp_path / "nowhere"), "nowhere/params.json: no such file")
    folder = parent()
    refused(run("search_hyperparams", "--parent_dir", folder), "search.json: no such file", "--set learning_rate=")
    good = ["--parent_dir", folder, "--set", "learning_rate=1e-3,1e-2"]
    refused(run("search_hyperparams", *good, "--jobs", 0), "--jobs 0: expected 1 or more")
    refused(run("search_hyperparams", *good, "--num_trials", 0), "--num_trials 0")
    refused(run("search_hyperparams", "--parent_dir", folder, "--set", "learning_rate"), "expected key=value,value")
    refused(run("search_hyperparams", *good, "--data_dir", tmp_path / "none"), "none: no data set here")
    for url in (
        "postgresql://me:secret@no.such.host:5432/studies",
        "postgresql://no.such.host/studies?user=me&password=secret",
    ):
        result = run("search_hyperparams", *good, "--storage", url)
        refused(result, "--storage postgresql://no.such.host/studies: cannot be reached")
        assert "secret" not in result.err + result.out
    result = run("search_hyperparams", *good, "--storage", "postgresql://me:s{ecr}et@no.such.host/studies")
    refused(result, "cannot be reached")
    assert "ecr" not in result.err + result.out
    for url in ("me:secret@host", "postgresql:me:secret@host/db"):
        result = run("search_hyperparams", *good, "--storage", url)
        refused(result, "--storage")
        assert "secret" not in result.err + result.out
    for url, word in (
        ("sqlite://", "names no file"),
        (f"sqlite:///{tmp_path}/none/study.db", f"no folder {tmp_path}/none"),
        ("oracle://me:secret@host/db", 'PostgreSQL needs: pip install "psycopg[binary]"'),
    ):
        refused(run("search_hyperparams", *good, "--storage", url), word)
    refused(run("search_hyperparams", *good, "--num_trials", 5), "a grid tries all its settings, here 2")
    refused(run("search_hyperparams", *good, "learning_rate=1"), "a parameter twice")
    assert [path.name for path in folder.iterdir()] == ["params.json"]


def test_a_damaged_study(parent: Parent) -> None:
    folder = parent({"num_epochs": 1}, method="grid", space={"learning_rate": [1e-3]})
    (folder / "study.db").write_text("This was one.")
    refused(search(folder), f"{folder}/study.db: cannot be used", "Moved away, it is made anew")
    (folder / "study.db").unlink()
    assert search(folder).status == 0
    assert states(folder) == ["COMPLETE"]


@pytest.mark.parametrize("name", ["what?", "{now}", "100%20", "a b #1", "ä"])
def test_odd_names(parent: Parent, tmp_path: Path, name: str) -> None:
    """Letters that mean something in a URL mean nothing in the name of a folder."""
    folder = parent({"num_epochs": 1}, method="grid", space={"learning_rate": [1e-3]}).rename(tmp_path / name)
    before = set(tmp_path.iterdir())
    result = search(folder)
    assert result.status == 0, result.err
    assert (folder / "study.db").is_file()
    assert set(tmp_path.iterdir()) == before


def test_a_name_that_is_not_utf8(parent: Parent, tmp_path: Path) -> None:
    folder = parent(method="grid", space=GOOD).rename(tmp_path / NOT_UTF8)
    url = search_study.study_url(folder)
    assert search_study.open_study(search_space.read_search(folder), url, search_study.STUDY, prune=False).ask()
    assert (folder / "study.db").is_file()


def test_code_that_changed_is_said(parent: Parent, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = parent({"num_epochs": 1}, method="random", num_trials=1, space={"learning_rate": [1e-3, 1e-2]})
    monkeypatch.setattr(search_study, "git_commit", lambda: "0123abc")
    for num_trials in (1, 1):
        assert "git_commit" not in search(folder, "--num_trials", num_trials).out
    monkeypatch.setattr(search_study, "git_commit", lambda: "4567def")
    assert "git_commit: 0123abc then, 4567def now" in search(folder, "--num_trials", 2).out


def test_two_drivers_and_another_space(parent: Parent) -> None:
    folder = parent({"num_epochs": 1}, method="grid", space=GOOD)
    assert search(folder).status == 0
    with locked(folder):
        refused(run("search_hyperparams", "--parent_dir", folder), "another run is going on here")
    parent({"num_epochs": 1}, method="grid", space={"learning_rate": [1e-3], "batch_size": [4]})
    result = run("search_hyperparams", "--parent_dir", folder)
    refused(result, "learning_rate: 0.001, 0.01 then, 0.001 now", "batch_size: 8 then, 4 now", "new folder")


# ------------------------------------------------------------------------------------- several machines

POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[str]:
    """The URL of a server of the test's own."""
    if not POSTGRES or importlib.util.find_spec("psycopg") is None:
        pytest.skip("there is no PostgreSQL server here (Debian: apt-get install postgresql), or no psycopg")
    folder = Path(tempfile.mkdtemp())  # which another user may enter, unlike tmp_path
    user = "postgres" if os.geteuid() == 0 else None  # the server does not run as root
    if user:
        shutil.chown(folder, user)
    with socket.socket() as any_port:
        any_port.bind(("127.0.0.1", 0))
        port = any_port.getsockname()[1]

    def call(name: str, *words: str) -> None:
        subprocess.run([POSTGRES[-1] / name, *words], user=user, cwd=folder, check=True, stdout=subprocess.DEVNULL)

    call("initdb", "-D", f"{folder}/db", "-U", "me", "-A", "trust")
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1"
    call("pg_ctl", "-D", f"{folder}/db", "-l", f"{folder}/log", "-w", "-o", options, "start")
    try:
        yield f"postgresql://me:secret@127.0.0.1:{port}/postgres"
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):  # the test itself has stopped it
            call("pg_ctl", "-D", f"{folder}/db", "-m", "immediate", "stop")
        shutil.rmtree(folder)


@pytest.mark.slow
def test_two_drivers_share_a_study(parent: Parent, postgres: str) -> None:
    """Each setting is tried once, by one of them."""
    rates = [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2]
    folder = parent({"num_epochs": 3}, method="grid", space={"learning_rate": rates})
    flags = ["--storage", postgres, "--jobs", 1, "--no_prune"]
    other = start_search(folder, *flags)
    wait_until(lambda: any(folder.glob("*/history.jsonl")))
    result = search(folder, *flags)
    _, err = other.communicate(timeout=280)
    assert (result.status, other.returncode) == (0, 0), result.err + err
    url = postgres.replace("postgresql", "postgresql+psycopg")
    found = optuna.load_study(study_name="search", storage=url).trials
    assert sorted(trial.params["learning_rate"] for trial in found) == rates
    assert {trial.state.name for trial in found} == {"COMPLETE"}
    assert len({tuple(trial.user_attrs["driver"]) for trial in found}) == 2
    assert not (folder / "study.db").exists()


def test_a_driver_that_draws_one_too_many(parent: Parent, postgres: str) -> None:
    """Two drivers may both see that one trial is left. The later one gives its own up."""
    folder = parent({}, method="random", num_trials=1, space={"learning_rate": {"min": 1e-3, "max": 1e-2}})
    space = search_space.read_search(folder)
    study = search_study.open_study(space, postgres, "search", prune=False)
    ask_of_study = study.study.ask

    def ask_late(*args: Any) -> optuna.Trial:
        study.study.ask = ask_of_study  # type: ignore[method-assign]
        assert study.ask() is not None  # the other driver
        return ask_of_study(*args)

    study.study.ask = ask_late  # type: ignore[method-assign,assignment]
    assert study.ask() is None
    assert study.ask() is None
    assert [trial.state.name for trial in study.trials()] == ["RUNNING", "FAIL"]
    assert search_study.is_lost(study.trials()[1])


def kill_server(url: str) -> None:
    port = url.rpartition(":")[2].partition("/")[0]
    for status in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if f"-p\0{port}" in status.read_text():
                os.kill(int(status.parent.name), signal.SIGQUIT)  # "immediate": as if the machine had failed


def test_the_database_of_an_open_study_goes_away(parent: Parent, postgres: str) -> None:
    space = search_space.read_search(parent({}, method="grid", space=GOOD))

    def use() -> None:
        with search_study.opened_study(space, postgres, prune=False) as study:
            assert study.ask() is not None
            kill_server(postgres)
            for _ in range(100):  # it takes a moment to die
                study.trials()
                time.sleep(0.1)

    with pytest.raises(UserError) as error:
        use()
    assert "127.0.0.1/postgres: cannot be reached" in str(error.value)
    assert str(error.value).endswith("The same command goes on.")
    assert "secret" not in str(error.value)


@pytest.mark.slow
def test_the_database_goes_away(parent: Parent, postgres: str, tmp_path: Path) -> None:
    """The runs save and stop, and go on once it is back."""
    folder = parent({"num_epochs": 80}, method="grid", space={"learning_rate": [1e-3]})
    process = start_search(folder, "--storage", postgres, "--no_prune")
    wait_until(lambda: (folder / "learning_rate_0.001" / "history.jsonl").exists())
    kill_server(postgres)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2, err
    assert "cannot be reached" in err
    assert "The same command goes on." in err
    assert "secret" not in err
    assert "invalid data in the commit" not in err  # what Optuna says of any such error
    assert read_json(folder / "learning_rate_0.001" / "run.json")["status"] == "interrupted"


def test_drivers_that_ask_at_the_same_time_draw_different_settings(parent: Parent, postgres: str) -> None:
    """A setting is a function of the number of its trial, not of how many trials there were when it was drawn."""
    folder = parent({}, method="random", num_trials=9, space={"learning_rate": {"min": 1e-3, "max": 1e-2}})
    space = search_space.read_search(folder)
    studies = [search_study.open_study(space, postgres, name, prune=False) for name in ("alone", "together")]
    alone = [asked.params for _ in range(2) if (asked := studies[0].ask())]
    ask_of_study, together = studies[1].study.ask, []

    def ask_late() -> optuna.Trial:
        studies[1].study.ask = ask_of_study  # type: ignore[method-assign]
        other = studies[1].ask()
        assert other is not None
        together.append(other.params)
        return ask_of_study()

    studies[1].study.ask = ask_late  # type: ignore[method-assign,assignment]
    asked = studies[1].ask()
    assert asked is not None
    assert [*together, asked.params] == alone
    assert alone[0] != alone[1]


@pytest.mark.slow
def test_two_drivers_on_one_disk_choose_the_same_setting(parent: Parent, postgres: str) -> None:
    """One of them trains it, and the other takes its result."""
    folder = parent({"num_epochs": 9}, method="random", num_trials=8, space={"optimizer": ["adam", "sgd"]})
    other = start_search(folder, "--storage", postgres, "--no_prune")
    wait_until(lambda: any(folder.glob("*/.lock.json")))
    result = search(folder, "--storage", postgres, "--no_prune")
    outputs = [*other.communicate(timeout=280), result.out, result.err]
    assert (result.status, other.returncode) == (0, 0), outputs
    found = optuna.load_study(study_name="search", storage=postgres.replace("postgresql", "postgresql+psycopg")).trials
    assert {trial.state.name for trial in found if not search_study.is_lost(trial)} == {"COMPLETE"}, outputs
    assert len({(trial.params["optimizer"], trial.value) for trial in found if trial.value is not None}) == 2


@pytest.mark.slow
@pytest.mark.parametrize("is_judged", [False, True])
def test_a_trial_that_was_given_to_another_driver(parent: Parent, postgres: str, is_judged: bool) -> None:
    """It happens before the trial is judged, or after its last rung. The other trials go on.

    Nobody has entered the setting again, as if the other driver had been killed in between. So it is tried again.
    """
    folder = parent({"num_epochs": 160}, method="grid", space={"learning_rate": [1e-3, 1e-2]})
    process = start_search(folder, "--storage", postgres, "--no_prune")
    wait_until((folder / "learning_rate_0.001" / "history.jsonl").exists)
    study = optuna.load_study(study_name="search", storage=postgres.replace("postgresql", "postgresql+psycopg"))
    (trial,) = [trial for trial in study.trials if trial.params["learning_rate"] == 1e-3]
    if is_judged:
        wait_until(lambda: 120 in study.trials[trial.number].intermediate_values)
    study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    assert sorted(trial.state.name for trial in study.trials) == ["COMPLETE", "COMPLETE", "FAIL"]
    done = [trial for trial in study.trials if trial.state == TrialState.COMPLETE]
    assert sorted(trial.params["learning_rate"] for trial in done) == [1e-3, 1e-2]
    assert ("was given to another driver" in out) == (not is_judged)


def test_a_judged_trial_that_was_given_to_another_driver(parent: Parent) -> None:
    """Its run is stopped, and its result, if it has one already, changes nothing."""
    folder = parent({"num_epochs": 9}, method="random", num_trials=2, space=GOOD)
    study = search_study.open_study(
        search_space.read_search(folder), search_study.study_url(folder), search_study.STUDY, prune=True
    )
    driver = Driver(study, Runner.__new__(Runner), jobs=1)
    asked = study.ask()
    assert asked is not None
    study.study.tell(asked.number, state=TrialState.FAIL)
    trial = Trial(study.search, asked)
    trial.worker = Worker(trial.folder, types.SimpleNamespace(exitcode=0))
    driver.judge(trial, {"epoch": 2, "val": {"accuracy": 0.5}})
    assert trial.outcome == "lost"
    driver.tell(trial, TrialState.COMPLETE, 0.9, 0.1)
    (recorded,) = study.trials()
    assert (recorded.state, recorded.value, recorded.user_attrs.get("loss")) == (TrialState.FAIL, None, None)


def test_a_driver_killed_before_its_first_heartbeat(parent: Parent, postgres: str) -> None:
    folder = parent({}, method="grid", space={"learning_rate": [1e-3]})
    space = search_space.read_search(folder)
    study = search_study.open_study(space, postgres, "search", prune=False)
    study.study.ask()
    assert [trial.state.name for trial in study.trials()] == ["RUNNING"]
    for table, column in (("trials", "datetime_start"), ("trial_heartbeats", "heartbeat")):
        study.beat([])
        assert [trial.state.name for trial in study.trials()] == ["RUNNING"]
        with study.storage.engine.begin() as connection:
            connection.execute(text(f"update {table} set {column} = {column} - interval '10 minutes'"))
        study.beat([])
    assert [trial.state.name for trial in study.trials()] == ["FAIL", "WAITING"]
    again = study.ask()
    assert again is not None
    assert again.params == {"learning_rate": 1e-3}


def test_a_driver_that_fell_silent(parent: Parent, postgres: str) -> None:
    """Another driver tries its settings again, as other trials. Those that were lost do not count."""
    folder = parent({"num_epochs": 1}, method="grid", space={"learning_rate": [1e-3]})
    space = search_space.read_search(folder)
    study = search_study.open_study(space, postgres, "search", prune=False)
    lost = study.ask()
    assert lost is not None
    lost.set_user_attr("driver", ["another machine", 1])
    with study.storage.engine.begin() as connection:
        connection.execute(text("update trial_heartbeats set heartbeat = heartbeat - interval '10 minutes'"))
    result = search(folder, "--storage", postgres)
    assert result.status == 0, result.err
    states = sorted(trial.state.name for trial in optuna.load_study(study_name="search", storage=study.storage).trials)
    assert states == ["COMPLETE", "FAIL"]
