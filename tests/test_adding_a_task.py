"""docs/adding_a_task.md is true: its example builds, trains, resumes and is evaluated, and mistakes end as it says."""

from __future__ import annotations

import csv
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, assert_same_weights, read_json

PAGE = (ROOT / "docs" / "adding_a_task.md").read_text()
FILES: dict[str, str] = dict(re.findall(r"^\*\*(\S+)\*\*\n\n```\w+\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
NAME = "series_classification"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with the example in it, as the page says, and its sample built."""
    project = tmp_path_factory.mktemp("copy") / "project"
    project.mkdir()
    for path in ROOT.glob("*.py"):
        shutil.copy(path, project)
    for package in ("engine", "model", "search", "results"):
        shutil.copytree(ROOT / package, project / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name, code in FILES.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(code)
    tasks = project / "model" / "__init__.py"
    tasks.write_text(tasks.read_text().replace("    ],\n", f'        "{NAME}",\n    ],\n'))
    call(project, "build_dataset.py", "--task", NAME, "--sample")
    return project


@pytest.fixture
def change(project: Path) -> Iterator[Any]:
    """`change("net.py", old, new)` edits a file of the example for the time of a test."""

    def edit(file: str, old: str, new: str) -> None:
        path = project / "model" / NAME / file
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    yield edit
    for name, code in FILES.items():
        (project / name).write_text(code)


def call(project: Path, *words: Any, status: int = 0) -> str:
    """Run `python {words}`. Returns what it said."""
    result = subprocess.run([sys.executable, *map(str, words)], cwd=project, capture_output=True, text=True)
    assert result.returncode == status, result.stdout + result.stderr
    return result.stdout + result.stderr


def train(project: Path, experiment: str, *assignments: str, status: int = 0) -> str:
    """Train an experiment that varies the one of the page."""
    words = ["train.py", "--model_dir", f"experiments/{experiment}", "--base", "experiments/series"]
    return call(project, *words, "--set", "num_epochs=1", *assignments, status=status)


def test_it_is_short() -> None:
    assert sum(code.count("\n") for code in FILES.values()) <= 150
    assert PAGE.count("\n") <= 250


@pytest.mark.slow
def test_ruff_and_mypy_accept_it(project: Path) -> None:
    shutil.copy(ROOT / "pyproject.toml", project)
    call(project, "-m", "ruff", "check", "model")
    call(project, "-m", "ruff", "format", "--check", "model")
    call(project, "-m", "mypy", f"model/{NAME}")


@pytest.mark.slow
def test_the_tests_of_every_task_accept_it(project: Path, tmp_path: Path) -> None:
    shutil.copytree(project, tmp_path / "project", ignore=shutil.ignore_patterns("data", "experiments"))
    shutil.copytree(ROOT / "tests", tmp_path / "project" / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path / "project")
    said = call(tmp_path / "project", "-m", "pytest", "tests/test_every_task.py", "-k", NAME)
    assert " passed" in said or "100%" in said, said


@pytest.fixture(scope="module")
def trained(project: Path) -> Path:
    """The experiment of the page, after the page's commands; the first one, to build, is run by `project`."""
    block = re.search(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    assert block is not None
    build, *commands = [line.split()[1:] for line in block[1].splitlines()]
    assert build == ["build_dataset.py", "--task", NAME, "--sample"]
    assert [words[0] for words in commands] == ["train.py", "evaluate.py", "predict.py"]
    for words in commands:
        call(project, *words)
    return project / "experiments" / "series"


def test_it_learns_and_gets_the_shared_report(project: Path, trained: Path) -> None:
    assert read_json(trained / "metrics_test_best_weights.json")["accuracy"] > 0.9
    rows = (trained / "predictions_test.csv").read_text().splitlines()
    assert rows[0] == "line,label,prediction,probability"
    lines = (project / "data" / "series" / "test" / "rows.csv").read_text().splitlines()
    assert rows[1].split(",")[:2] == ["2", lines[1].split(",")[0]]  # line 2 is the first below the header
    assert (trained / "confusion_matrix.png").exists()
    answers = list(csv.DictReader((project / "answers.csv").read_text().splitlines()))
    assert [f"{a['prediction']},{a['probability']}" for a in answers] == [row.split(",", 2)[2] for row in rows[1:]]


def test_it_is_in_the_table_of_results(project: Path, trained: Path) -> None:
    table = call(project, "synthesize_results.py")
    assert re.search(r"^\| series +\| finished ", table, re.MULTILINE), table


def test_an_interrupted_run_ends_like_any_other(project: Path, trained: Path) -> None:
    parts = project / "experiments" / "parts"
    words = ["train.py", "--base", "experiments/series", "--model_dir", parts]
    process = subprocess.Popen([sys.executable, *map(str, words)], cwd=project, stdout=subprocess.DEVNULL)
    while process.poll() is None and not (parts / "history.jsonl").exists():
        time.sleep(0.002)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 143
    assert read_json(parts / "run.json")["status"] != "finished"
    assert "Going on" in call(project, *words)
    assert_same_weights(trained, parts)


def test_a_wrong_value_is_named_with_its_line(project: Path) -> None:
    folder = project / "experiments" / "wrong"
    folder.mkdir()
    (folder / "params.json").write_text(f'{{"task": "{NAME}",\n"num_channels": 0,\n"kernel": 3, "seed": "1"}}')
    said = call(project, "train.py", "--model_dir", folder, status=2)
    assert "3 problems" in said
    assert "line 2  num_channels: expected an integer >= 1, got 0" in said
    assert "line 3  kernel: unknown parameter. Did you mean kernel_size?" in said


def test_a_value_that_build_forgets_leaves_no_data_set(project: Path, change: Any) -> None:
    change("dataset.py", '"classes": classes, ', "")
    said = call(project, "build_dataset.py", "--task", NAME, "--sample", "--output_dir", "data/forgotten", status=1)
    assert "returned what DataParams does not take: classes: not there." in said.splitlines()[-1]
    assert [path.name for path in (project / "data").iterdir()] == ["series"]


def test_a_dataset_without_describe_cannot_be_made(project: Path, change: Any) -> None:
    change("data_loader.py", "import ArrayDataset, Batch", "import Batch, Dataset as ArrayDataset")
    said = train(project, "methodless", status=1)
    assert re.search("Can't instantiate abstract class Dataset .*describe", said)
    assert not (project / "experiments" / "methodless" / "history.jsonl").exists()


def test_a_missing_part_is_named(project: Path, change: Any) -> None:
    change("net.py", "loss_fn =", "loss =")
    said = train(project, "partless", status=1)
    assert f"TypeError: model/{NAME}/net.py has no loss_fn, which every task needs" in said


def test_a_loss_that_is_nan_names_the_examples(project: Path, change: Any) -> None:
    change("net.py", "loss_fn = F.cross_entropy", "loss_fn = lambda *batch: F.cross_entropy(*batch) * float('nan')")
    said = train(project, "diverging", status=3)
    assert re.search(r"The batch was lines \d+, .* of data/series/train/rows.csv", said)


def test_weights_of_other_classes_are_refused(project: Path, trained: Path, tmp_path: Path) -> None:
    numbers = ",".join("1" * 47)
    (tmp_path / "ab.csv").write_text("".join(f"{name},{numbers},{i}\n" for i in range(10) for name in "ab"))
    call(
        project, "build_dataset.py", "--task", NAME, "--data_dir", tmp_path / "ab.csv", "--output_dir", tmp_path / "ab"
    )
    said = call(project, "evaluate.py", "--model_dir", trained, "--data_dir", tmp_path / "ab", status=2)
    assert "classes" in said
    assert "was trained on" in said


def test_a_missing_number_is_named_with_its_line(project: Path, tmp_path: Path) -> None:
    (tmp_path / "gap.csv").write_text("".join(f"{label},1,{i}\n" for i in range(10) for label in "ab") + "a,,3\n")
    said = call(
        project, "build_dataset.py", "--task", NAME, "--data_dir", tmp_path / "gap.csv", "--output_dir", "gap", status=2
    )
    assert "gap.csv, line 21: a number is missing" in said


def test_it_can_be_removed(project: Path) -> None:
    """Without the folder, the name and the experiments, the table of the others is made as before."""
    kept = project / "experiments" / "of_another_task"
    kept.mkdir()
    (kept / "params.json").write_text('{"learning_rate": 0.01}')
    files = [project / "model" / NAME, *(project / "experiments").glob("[!o]*")]
    away = project.parent / "away"
    away.mkdir()
    tasks = project / "model" / "__init__.py"
    text = tasks.read_text()
    tasks.write_text(text.replace(f'        "{NAME}",\n', ""))
    for path in files:
        shutil.move(path, away / path.name)
    try:
        assert "| of_another_task | not trained" in call(project, "synthesize_results.py", "--all")
    finally:
        tasks.write_text(text)
        for path in files:
            shutil.move(away / path.name, path)
