"""params.json: everything that can be wrong with it is said at once, with its line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from docs.generate import generate
from engine.experiments import read_params
from engine.params import JsonFile
from model import TASKS
from tests.conftest import ROOT, refused, run
from utils import UserError


def problems_of(tmp_path: Path, content: str | bytes) -> str:
    path = tmp_path / "params.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as error:
        read_params(TASKS, tmp_path)
    return str(error.value)


def params_of(tmp_path: Path, content: str | bytes) -> dict[str, object]:
    path = tmp_path / "params.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_params(TASKS, tmp_path).model_dump()


def test_smallest_file(tmp_path: Path) -> None:
    params = params_of(tmp_path, '{"learning_rate": 1e-3, "batch_size": 32, "num_epochs": 20}')
    assert params["task"] == "image_classification"
    assert params_of(tmp_path, "{}")["learning_rate"] == 1e-3


def test_cs230_file(tmp_path: Path) -> None:
    content = """{
    "learning_rate": 1e-3,
    "batch_size": 32,
    "num_epochs": 10,
    "dropout_rate":0.8,
    "num_channels": 32,
    "save_summary_steps": 100,
    "num_workers": 4
}"""
    assert params_of(tmp_path, content).items() >= json.loads(content).items()


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_byte_order_mark(tmp_path: Path, encoding: str) -> None:
    assert params_of(tmp_path, '{"num_epochs": 3}'.encode(encoding))["num_epochs"] == 3


def test_all_problems_at_once_with_their_lines(tmp_path: Path) -> None:
    message = problems_of(
        tmp_path,
        """{
    "learning_rate": NaN,
    "batch_size": "32",
    "num_epochs": 0,
    "learning_rte": 0.1,
    "optimizer": "adamx",
    "channels_last": 1,
    "dropout_rate": 1.5,
    "num_epochs": 2.5,
    "seed": true
}""",
    )
    assert "9 problems" in message
    for line in (
        "line 2  learning_rate: expected a number > 0, got NaN.",
        'line 3  batch_size: expected an integer >= 2, got "32" (a string). Write 32 without quotes.',
        "line 5  learning_rte: unknown parameter. Did you mean learning_rate?",
        "line 6  optimizer: expected one of sgd, adam, adamw",
        'got "adamx" (a string). Did you mean adam',
        "line 7  channels_last: expected true or false, got 1.",
        "line 8  dropout_rate: expected a number >= 0 and < 1, got 1.5.",
        "line 9  num_epochs: written twice, first on line 4. Remove one.",
        "line 9  num_epochs: expected an integer >= 1, got 2.5.",
        "line 10  seed: expected an integer >= 0",
    ):
        assert line in message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", ["line 1, column 1"]),
        ('{\n  "batch_size": 32,\n  "num_epochs" 3\n}', ["line 3, column 16"]),
        ("[1, 2]", ["expected an object"]),
        ("3", ["expected an object"]),
        (b"\x89PNG\r\n\xff\xfe", ["not a text file"]),
        ("[" * 100_000, ["nested too deeply"]),
        ('{"learning_rate": 1e999}', ["expected a number > 0"]),
        ('{"learning_rate": null}', ["got null"]),
        ('{"batch_size": [32]}', ["got [32]"]),
        ('{"task": "image_clasification"}', ["line 1  task", "Did you mean image_classification?"]),
        ('{"task": 3}', ["line 1  task"]),
        ('{"a \\"quoted\\" key": {"nested": [1, "}"]}, "num_epochs": -1}', ["2 problems", "num_epochs"]),
    ],
)
def test_one_clear_message(tmp_path: Path, content: str | bytes, words: list[str]) -> None:
    message = problems_of(tmp_path, content)
    assert str(tmp_path / "params.json") in message
    for word in words:
        assert word in message


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_commands_refuse(command: str, tmp_path: Path, shared_data: Path) -> None:
    refused(run(command, "--model_dir", tmp_path / "nowhere"), "params.json: no such file", "train.py makes one")
    (tmp_path / "params.json").write_text('{"batch_sise": 3}')
    before = sorted(tmp_path.iterdir())
    refused(run(command, "--model_dir", tmp_path, "--data_dir", shared_data), "Did you mean batch_size?")
    assert sorted(tmp_path.iterdir()) == before


def test_command_line_values(tmp_path: Path) -> None:
    path = tmp_path / "params.json"
    path.write_text('{"num_epochs": 3}')
    file = JsonFile.read(path)
    file.override(["learning_rate=1e-2", "optimizer=sgd", "channels_last=false", "num_epochs=x"])
    with pytest.raises(UserError, match=r"--set  num_epochs: expected an integer >= 1, got \"x\""):
        file.validate(TASKS["image_classification"].Params)
    file.override(["num_epochs=4"])
    params = file.validate(TASKS["image_classification"].Params)
    assert (params.learning_rate, params.optimizer, params.channels_last, params.num_epochs) == (0.01, "sgd", False, 4)
    with pytest.raises(UserError, match="expected key=value"):
        file.override(["num_epochs"])


def test_schema_line_for_editors(tmp_path: Path) -> None:
    assert "$schema" not in params_of(tmp_path, '{"$schema": "x.json", "num_epochs": 3}')


@pytest.mark.parametrize("task", TASKS)
def test_every_parameter_is_described(task: str) -> None:
    for name, field in TASKS[task].Params.model_fields.items():
        assert field.description, name


def test_docs_are_up_to_date() -> None:
    for name, content in generate().items():
        path = ROOT / "docs" / name
        assert path.exists(), f"no {path}; run: make docs"
        assert path.read_text() == content, "run: make docs"
