"""A task is one folder and one name: a copied one works, a removed one leaves the rest working."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine.experiments import task_of
from engine.params import JsonFile
from model import TASKS
from tests.conftest import ROOT, write_params
from tests.helpers import draw_photos


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project."""
    project = tmp_path / "project"
    project.mkdir()
    for path in ROOT.glob("*.py"):
        shutil.copy(path, project)
    for package in ("engine", "model", "search", "results"):
        shutil.copytree(ROOT / package, project / package, ignore=shutil.ignore_patterns("__pycache__"))
    return project


def command(project: Path, *words: Any) -> str:
    result = subprocess.run([sys.executable, *map(str, words)], cwd=project, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


def commands(project: Path, *lines: Sequence[Any]) -> str:
    """What several commands print, one after the other in one process, which imports torch only once."""
    code = """
import json, runpy, sys
for sys.argv in json.loads(sys.argv[1]):
    runpy.run_path(sys.argv[0], run_name="__main__")
"""
    return command(project, "-c", code, json.dumps([[str(word) for word in line] for line in lines]))


def set_tasks(project: Path, *names: str) -> None:
    file = project / "model" / "__init__.py"
    above, _, _ = file.read_text().partition("TASKS = ")
    file.write_text(f'{above}TASKS = Tasks("model", {list(names)})\n')


def test_a_copied_task_works_and_the_original_may_go(project: Path, tmp_path: Path) -> None:
    model = project / "model"
    shutil.copytree(model / "image_classification", model / "galaxy_types")
    shutil.rmtree(model / "image_classification")
    set_tasks(project, "galaxy_types")  # a folder and a name, nothing else

    raw, data = draw_photos(tmp_path / "raw"), tmp_path / "built"
    model_dir = write_params(tmp_path / "experiments" / "a", task="galaxy_types", num_epochs=1, data_dir=str(data))
    flags = ["--task", "galaxy_types", "--data_dir", raw, "--output_dir", data, "--size", 16]
    unnamed = write_params(tmp_path / "experiments" / "b", num_epochs=1, data_dir=str(data))  # no "task" in it
    out = commands(
        project,
        ["build_dataset.py", *flags],
        ["train.py", "--model_dir", model_dir],
        ["evaluate.py", "--model_dir", model_dir],
        ["train.py", "--model_dir", unnamed],
        ["synthesize_results.py", "--parent_dir", tmp_path / "experiments"],
    )
    table = out[out.rindex("| experiment") :]
    assert table.count("finished") == 2


def test_the_same_of_tagging(project: Path, tmp_path: Path) -> None:
    model = project / "model"
    shutil.move(model / "sequence_tagging", model / "galaxy_names")
    shutil.rmtree(model / "image_classification")
    set_tasks(project, "galaxy_names")
    flags = ["--task", "galaxy_names", "--sample", "--output_dir", tmp_path / "built"]
    out = command(project, "build_dataset.py", *flags)
    assert """echo '{"task": "galaxy_names"}' > experiments/built/params.json""" in out  # no experiment to begin from
    small = {"learning_rate": 0.01, "num_epochs": 1, "lstm_hidden_dim": 8, "data_dir": str(tmp_path / "built")}
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "params.json").write_text(json.dumps(small))
    words = ["--model_dir", tmp_path / "a"]
    assert "per]" in commands(project, ["train.py", *words], ["evaluate.py", *words])


@pytest.mark.parametrize(
    "names", [("learning_rate",), ("num_channels",), ("embedding_dim", "lstm_hidden_dim"), ("crf",)]
)
def test_a_task_that_is_added_takes_no_file_from_another(names: tuple[str, ...]) -> None:
    """A params.json that names no task belongs to the same one as before, although the new one knows all parameters."""
    fields = {name: field for task in TASKS.values() for name, field in task.Params.model_fields.items()}
    added = SimpleNamespace(name="added", Params=SimpleNamespace(model_fields=fields))
    tasks: Any = {**TASKS, "added": added}
    file = JsonFile(Path("params.json"), dict.fromkeys([*names, "mispelt"]))
    assert task_of(tasks, file) is task_of(TASKS, file)
    assert set(names) <= task_of(tasks, file).Params.model_fields.keys()


def test_commands_know_no_task_by_name() -> None:
    for name in ("train.py", "evaluate.py", "synthesize_results.py"):
        text = (ROOT / name).read_text()
        assert "image_classification" not in text
        assert "sequence_tagging" not in text
        assert "task ==" not in text


def test_what_each_command_imports() -> None:
    """Tables and checks of parameters do without torch, training without torchvision."""
    probe = (
        "import sys, {0}; print([m for m in ('torch', 'torchvision', 'matplotlib', 'tensorboard') if m in sys.modules])"
    )
    modules = {
        "synthesize_results": [],
        "build_dataset": [],
        "model.sequence_tagging.dataset": [],
        "train": ["torch"],
        "model.sequence_tagging.net, model.sequence_tagging.report": ["torch"],
    }
    for name, allowed in modules.items():
        assert command(ROOT, "-c", probe.format(name)).strip() == str(allowed)
