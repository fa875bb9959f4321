"""What the engine and a task promise each other, tested on a task of a few lines and on tables of numbers."""

from __future__ import annotations

import gc
import io
import itertools
import json
import os
import subprocess
import sys
import tracemalloc
import types
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import build_dataset
import engine.start as engine_start
import evaluate
import predict
import train
from engine.checkpoints import list_checkpoints, save_checkpoint
from engine.experiments import load_experiment
from engine.loaders import ArrayDataset, Batch, Dataset, fetch_dataloaders
from engine.metrics import Metric, Totals, goal_of, ratio
from engine.params import TrainingParams
from engine.tasks import Tasks
from model import TASKS
from tests.conftest import ROOT, Result, last_checkpoint, read_json, refused, run, stop_after, train_ok

# A task at its smallest: from the size of a house to its price, which may be negative
PARTS = {
    "params": """
from engine.params import DataParams, TrainingParams
class Params(TrainingParams):
    data_dir: str = "data/houses"
""",
    "dataset": """
import numpy as np
from engine.building import SPLITS, save_arrays
def build(source, folder, args):
    rows = np.loadtxt(source / "houses.txt", dtype=np.float32)
    for split, part in zip(SPLITS, np.split(rows, [30, 40])):
        save_arrays(folder, split, part[:, 1:], inputs=part[:, :1])
    return {"sizes": {"train": 30, "val": 10, "test": 10}}
""",
    "data_loader": """
from engine.loaders import ArrayDataset as Dataset
""",
    "net": """
import torch
from engine.metrics import number_metrics
class Net(torch.nn.Linear):
    def __init__(self, params):
        super().__init__(1, 1)
loss_fn = torch.nn.functional.mse_loss
metrics = number_metrics()
""",
    "predict": """
import numpy as np
from engine.rows import RowProcessing
class Processing(RowProcessing):
    columns = numbers = ["size"]
    def encode(self, table):
        return table.numbers([0]).astype(np.float32)
""",
    "sample": """
import numpy as np
def write_sample(folder, seed):
    sizes = np.random.default_rng(seed).normal(size=50)
    np.savetxt(folder / "houses.txt", np.stack([sizes, 3 * sizes - 1], axis=1))
""",
}
numbers = itertools.count()


@pytest.fixture
def houses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Tasks]:
    """`houses(net=None)` makes a package with the task, without a net.py; the commands know that task alone."""

    def make(**files: str | None) -> Tasks:
        package = f"tasks_{next(numbers)}"  # another each time, since Python imports a module once
        (tmp_path / package / "houses").mkdir(parents=True)
        for folder in (tmp_path / package, tmp_path / package / "houses"):
            (folder / "__init__.py").touch()
        for file, text in {**PARTS, **files}.items():
            if text is not None:
                (tmp_path / package / "houses" / f"{file}.py").write_text(text)
        tasks = Tasks(package, ["houses"])
        monkeypatch.syspath_prepend(tmp_path)
        for command in (build_dataset, train, evaluate, predict):
            monkeypatch.setattr(command, "TASKS", tasks)
        return tasks

    return make


def build_houses(tmp_path: Path) -> Result:
    return run("build_dataset", "--task", "houses", "--sample", "--output_dir", tmp_path / "built")


def write_experiment(folder: Path, **params: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "params.json").write_text(json.dumps({"num_epochs": 3, "batch_size": 8, **params}))
    return folder


# ------------------------------------------------------------------------------------------- a task's parts


def test_a_task_of_a_few_lines(houses: Callable[..., Tasks], tmp_path: Path) -> None:
    """All that is not in PARTS is the engine's: splits, loaders, runs, a report of numbers."""
    houses()
    built = build_houses(tmp_path)
    assert built.status == 0, built.err
    model_dir = write_experiment(tmp_path / "a", task="houses", data_dir=str(tmp_path / "built"), learning_rate=0.1)
    train_ok(model_dir)
    result = run("evaluate", "--model_dir", model_dir)
    assert result.status == 0, result.err
    assert "| target 1 |" in result.out
    assert len((model_dir / "predictions_test.csv").read_text().splitlines()) == 1 + 10
    (tmp_path / "new.csv").write_text("town,size\nKent,0\n,1.5\n")
    result = run("predict", "--model_dir", model_dir, tmp_path / "new.csv", "--format", "jsonl")
    assert result.status == 0, result.err
    weights = last_checkpoint(model_dir, "best")["state_dict"]
    slope, price = weights["weight"].item(), weights["bias"].item()
    answers = [json.loads(line)["prediction"] for line in result.out.splitlines()]
    assert answers == pytest.approx([price, price + 1.5 * slope], abs=0.02)


@pytest.mark.parametrize(
    ("file", "part"),
    [("params", "Params"), ("dataset", "build"), ("data_loader", "Dataset"), ("net", "Net"), ("predict", "Processing")],
)
@pytest.mark.parametrize("is_there", [True, False])
def test_a_part_that_is_missing(houses: Callable[..., Tasks], file: str, part: str, is_there: bool) -> None:
    """Be it the file or something in it: the message says what belongs where."""
    tasks = houses(**{file: "x = 1" if is_there else None})
    with pytest.raises(TypeError, match=rf"houses/{file}.py has no {part}, which every task needs"):
        getattr(tasks["houses"], part)


def test_a_part_that_no_task_has(houses: Callable[..., Tasks]) -> None:
    with pytest.raises(AttributeError, match="a task has no Nett"):
        _ = houses()["houses"].Nett


def test_a_value_that_build_forgets(houses: Callable[..., Tasks], tmp_path: Path) -> None:
    """It is told when the data set is built, not when it is first trained on; and nothing is left."""
    houses(dataset=PARTS["dataset"].replace('return {"sizes": {"train": 30, "val": 10, "test": 10}}', "return {}"))
    result = build_houses(tmp_path)
    assert result.status == 1  # the author's mistake, not the user's
    assert "build of houses returned what DataParams does not take: sizes: not there." in result.err
    assert not (tmp_path / "built").exists()
    houses(dataset=PARTS["dataset"].replace('"sizes": {', '"colour": "red", "sizes": {'))
    result = build_houses(tmp_path)
    assert result.status == 1
    assert "DataParams does not take: colour: unknown parameter." in result.err


@pytest.mark.parametrize("name", ["folder", "labels"])
def test_an_attribute_that_a_dataset_does_not_set(houses: Callable[..., Tasks], tmp_path: Path, name: str) -> None:
    """It is told before the first step, not when a report or a message needs it."""

    class Bare(Dataset):
        def __init__(self, *_: Any):
            setattr(self, {"folder": "labels", "labels": "folder"}[name], tmp_path)

        def __len__(self) -> int:
            return 1

        def __getitems__(self, batch: Any) -> Any:
            return batch, batch

        def digest(self) -> str:
            return ""

        def describe(self, indices: Any) -> str:
            return ""

    task = types.SimpleNamespace(name="houses", Dataset=Bare)
    with pytest.raises(TypeError, match=f"the Dataset of houses does not set {name}"):
        fetch_dataloaders(task, ["train"], TrainingParams())  # type: ignore[arg-type]


def test_a_sample_that_a_task_does_not_have(houses: Callable[..., Tasks], tmp_path: Path) -> None:
    houses(sample=None)
    refused(build_houses(tmp_path), "--sample: the task houses has no sample", "--data_dir")
    assert not (tmp_path / "built").exists()
    np.savetxt(tmp_path / "houses.txt", np.ones((50, 2)))
    words = ["--task", "houses", "--data_dir", tmp_path, "--output_dir"]
    refused(run("build_dataset", *words, tmp_path / "built"), "neither may be inside the other")
    (tmp_path / "raw").mkdir()
    (tmp_path / "houses.txt").rename(tmp_path / "raw" / "houses.txt")
    words[3] = tmp_path / "raw"
    assert run("build_dataset", *words, tmp_path / "built").status == 0


# ------------------------------------------------------------------------------------------------ data sets


class Whole(Dataset):
    def __len__(self) -> int:
        return 3

    def __getitems__(self, batch: Batch) -> tuple[Any, Any]:
        return batch.indices, batch.indices

    def digest(self) -> str:
        return "the same"

    def describe(self, indices: Any) -> str:
        return "three numbers"


@pytest.mark.parametrize("method", ["__len__", "__getitems__", "digest", "describe"])
def test_a_data_set_that_lacks_a_method_cannot_be_made(method: str) -> None:
    assert len(Whole()) == 3
    lacking = type("Lacking", (Whole,), {method: getattr(Dataset, method)})
    with pytest.raises(TypeError, match=rf"abstract.* {method}|{method}.* abstract"):
        lacking()


def test_one_example_is_a_batch_of_its_own() -> None:
    inputs, labels = Whole()[2]
    assert (inputs.tolist(), labels.tolist()) == ([2], [2])


# -------------------------------------------------------------------------------------------------- metrics


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A built regression of two targets: 64 + 16 + 20 rows. Half of the standardised labels are negative."""
    folder = tmp_path_factory.mktemp("regression")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(100, 3))
    y = np.stack([x @ [1, -2, 0.5] * 10 - 300, np.abs(x).sum(axis=1)], axis=1) + rng.normal(size=(100, 2))
    rows = "".join(",".join(f"{value:.5f}" for value in row) + "\n" for row in np.concatenate([x, y], axis=1))
    (folder / "table.csv").write_text("a,b,c,price,size\n" + rows)
    words = ["--task", "tabular_prediction", "--data_dir", folder / "table.csv", "--output_dir", folder / "built"]
    assert run("build_dataset", *words, "--label_columns", "price", "size").status == 0
    return folder / "built"


@pytest.fixture
def regression(tmp_path: Path, table: Path) -> Callable[..., Path]:
    """`regression("a", monitor="rmse")` writes an experiment on `table`."""

    def write(folder: str, **params: Any) -> Path:
        values = {"task": "tabular_prediction", "data_dir": str(table), "learning_rate": 0.01, **params}
        return write_experiment(tmp_path / folder, **values)

    return write


def test_a_monitor_that_is_no_metric_of_the_data(regression: Callable[..., Path]) -> None:
    """Before anything is trained, or written."""
    model_dir = regression("accurate", monitor="accuracy")
    result = run("train", "--model_dir", model_dir)
    refused(result, "monitor: expected one of loss, rmse, mae, r2, got accuracy.")
    assert [path.name for path in model_dir.iterdir()] == ["params.json"]
    task, params, *_ = load_experiment(TASKS, regression("a"))
    assert goal_of(task, params, "rmse") == "minimize"
    assert goal_of(task, params, "r2") == "maximize"
    with pytest.raises(Exception, match=r"got rsme\. Did you mean rmse\?"):
        goal_of(task, params, "rsme")


def test_a_metric_of_which_less_is_better(regression: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The best weights, early stopping and plateau go by it; and of equals the lower loss is the better."""
    model_dir = regression(
        "less",
        monitor="rmse",
        num_epochs=20,
        scheduler="plateau",
        plateau_patience=0,
        gamma=0.5,
        early_stopping_patience=2,
    )
    found = iter([(5.0, 1.0), (3.0, 3.0), (3.0, 2.0), (4.0, 0.1), (9.0, 0.0), (1.0, 0.0)])  # rmse, loss

    def measured(*_: Any) -> dict[str, float]:
        rmse, loss = next(found)
        return {"loss": loss, "rmse": rmse, "mae": 1.0, "r2": 0.0}

    monkeypatch.setattr(train, "evaluate", measured)
    train_ok(model_dir)
    history = [json.loads(line) for line in (model_dir / "history.jsonl").read_text().splitlines()]
    assert len(history) == 5  # epoch 3 was the best, and the two behind it were not better
    assert read_json(model_dir / "metrics_eval_best_weights.json")["epoch"] == 3
    assert last_checkpoint(model_dir, "best")["epoch"] == 3
    rates = [entry["learning_rate"] for entry in history]
    assert rates == pytest.approx([0.01, 0.01, 0.01, 0.005, 0.0025])  # falls after an epoch without improvement


def test_metrics_that_share_count_but_not_keep() -> None:
    """Each gets what was kept for it, and so has a number of its own."""

    def count(batches: list[torch.Tensor]) -> torch.Tensor:
        kept = torch.cat(batches)
        return torch.stack([kept.sum(), torch.tensor(float(len(kept)))])

    def outputs_of(outputs: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        return outputs

    def labels_of(_: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return labels

    metrics = {"outputs": Metric(outputs_of, count, ratio), "labels": Metric(labels_of, count, ratio)}
    metrics["twice"] = Metric(outputs_of, count, lambda counts: 2 * ratio(counts))
    totals = Totals(metrics)
    for i in range(3):
        totals.add(torch.full((4,), float(i)), torch.full((4,), 10.0 + i), torch.tensor(0.0))
    again = Totals(metrics)
    again.load_state_dict(totals.state_dict(), torch.device("cpu"))
    for these in (totals, again):
        assert these.compute() == {"loss": 0.0, "outputs": 1.0, "labels": 11.0, "twice": 2.0}


def test_the_loss_of_negative_numbers(regression: Callable[..., Path], table: Path) -> None:
    """It is the mean over all of them: a label below 0 is padding only where a task's num_items says so."""
    model_dir = regression("numbers", batch_size=7, precision="float32")  # the last batch is a shorter one
    train_ok(model_dir)
    task, params, *_ = load_experiment(TASKS, model_dir)
    net = task.Net(params)
    net.load_state_dict(last_checkpoint(model_dir)["state_dict"])
    for split, name in (("val", "metrics_eval_last_weights.json"), ("test", "metrics_test_last_weights.json")):
        assert run("evaluate", "--model_dir", model_dir, "--split", split, "--restore_file", "last").status == 0
        dataset: Any = ArrayDataset(table, split, params, False)
        assert (dataset.labels < 0).float().mean() > 0.2
        expected = ((net.eval()(dataset.inputs) - dataset.labels) ** 2).double().mean().item()
        assert read_json(model_dir / name)["loss"] == pytest.approx(expected, rel=1e-5)


def test_padding_is_what_num_items_leaves_out() -> None:
    """Labels below 0 do not count in the loss of a tagger."""
    num_items = TASKS["sequence_tagging"].optional("num_items")
    assert int(num_items(torch.tensor([[1, 0, -1], [2, -1, -1]]))) == 3
    assert TASKS["tabular_prediction"].optional("num_items") is None


# ---------------------------------------------------------------------------------------------- checkpoints


def without(path: Path, parameter: str) -> None:
    """Make a checkpoint one of an older version, which did not have that parameter."""
    checkpoint = torch.load(path, weights_only=True)
    del checkpoint["params"][parameter]
    path.with_suffix(".sha256").unlink()
    torch.save(checkpoint, path)


def test_a_parameter_that_is_newer_than_the_run(regression: Callable[..., Path], monkeypatch: Any) -> None:
    """At its default the run goes on, whether it was stopped or is to be longer; with another value it does not."""
    model_dir = regression("old")
    assert stop_after(5, model_dir, monkeypatch).status == 143
    for path in list_checkpoints(model_dir / "last_weights"):
        without(path, "weight_decay")
    regression("old", weight_decay=0.5)
    refused(run("train", "--model_dir", model_dir), "weight_decay: 0.0 then, 0.5 now", "--restart")
    regression("old")
    assert "Going on in epoch" in train_ok(model_dir)
    for path in list_checkpoints(model_dir / "last_weights"):
        without(path, "dropout_rate")  # one that is the task's own
    regression("old", num_epochs=4)
    assert "Going on after epoch 3" in train_ok(model_dir)


def test_a_checkpoint_is_released_once_it_is_restored(
    regression: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing holds it while the run goes on: a large network's would fill the memory that training needs."""
    model_dir = regression("released", hidden_dims=[32])
    assert stop_after(5, model_dir, monkeypatch).status == 143
    loaded: list[weakref.ref[torch.Tensor]] = []
    alive: list[tuple[int, int]] = []
    real_load, real_train = engine_start.load_newest, train.train

    def load(folder: Path) -> Any:
        checkpoint = real_load(folder)
        assert checkpoint is not None
        loaded.extend(weakref.ref(tensor) for tensor in checkpoint["state_dict"].values())
        return checkpoint

    def look(run: Any) -> Any:
        gc.collect()
        whole = [thing for thing in gc.get_objects() if type(thing) is dict and "optim_dict" in thing]
        alive.append((len(whole), sum(reference() is not None for reference in loaded)))
        return real_train(run)

    monkeypatch.setattr(engine_start, "load_newest", load)
    monkeypatch.setattr(train, "train", look)
    assert "Going on" in train_ok(model_dir)
    assert len(loaded) > 3
    assert alive
    assert set(alive) == {(0, 0)}


@pytest.mark.parametrize("is_best", [False, True])
def test_saving_takes_no_second_copy(tmp_path: Path, is_best: bool) -> None:
    """A checkpoint is written, and copied, in pieces: of 48 MB not even a sixth is in memory again."""
    weights = {f"layer{i}": torch.randn(1024, 1024) for i in range(12)}  # 4 MB each
    tracemalloc.start()
    try:
        save_checkpoint({"epoch": 1, "batch": 0, "state_dict": weights}, tmp_path, is_best)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    (path,) = list_checkpoints(tmp_path / "last_weights")
    assert path.stat().st_size > 48e6
    assert peak < 8e6


def test_what_a_plain_checkpoint_takes_is_seen(tmp_path: Path) -> None:
    """The test above would notice a copy: a checkpoint that is made in memory first."""
    tracemalloc.start()
    try:
        buffer = io.BytesIO()
        torch.save({f"layer{i}": torch.randn(1024, 1024) for i in range(12)}, buffer)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak > 48e6


def test_loaders_of_a_data_set_that_was_not_built_for_these_sizes(table: Path, regression: Callable[..., Path]) -> None:
    task, params, *_ = load_experiment(TASKS, regression("a"))
    wrong = params.data.model_copy(update={"sizes": {"train": 5, "val": 5, "test": 5}})
    with pytest.raises(Exception, match=r"64, but 5 examples were built\. Build the data set again with --overwrite"):
        fetch_dataloaders(task, ["train"], params.model_copy().with_data(wrong))


def test_a_goal_that_is_none() -> None:
    with pytest.raises(TypeError, match="expected maximize or minimize, got maximise"):
        Metric(ratio, ratio, ratio, "maximise")  # type: ignore[arg-type]


def test_a_metric_may_return_a_tensor() -> None:
    """It becomes a number, which JSON files and checkpoints can hold."""
    metric = Metric(lambda *_: 0, lambda kept: torch.tensor([len(kept)]), lambda counts: counts[0])  # type: ignore[arg-type, return-value]
    totals = Totals({"batches": metric})
    totals.add(torch.zeros(2), torch.zeros(2), torch.tensor(1.0))
    assert json.dumps(totals.compute()) == '{"loss": 1.0, "batches": 1.0}'


def test_benchmarks_leave_the_environment_alone() -> None:
    """The tests run networks on one thread, which processes inherit. Benchmarks measure what a user has."""
    names = [f"benchmarks.{path.stem}" for path in (ROOT / "benchmarks").glob("*.py")]
    ours = ("OMP_NUM_THREADS", "GOMP_SPINCOUNT")
    code = f"import os\nimport {', '.join(names)}\nassert not {{*{ours}}} & os.environ.keys()"
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=True)
