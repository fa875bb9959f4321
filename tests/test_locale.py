"""Folders, files, classes and words with letters outside ASCII, in a locale that knows none of them."""

from __future__ import annotations

import ast
import csv
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import NOT_UTF8, ROOT, SMALL, SMALL_TAGGER, read_json, run, train_ok, write_params
from tests.helpers import draw_photo

NO_UTF8 = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def run_in_c(command: str, *arguments: Any) -> str:
    """Run a command as it runs in the locale C. Returns what it printed."""
    words = [sys.executable, f"{command}.py", *map(str, arguments)]
    environment = {**os.environ, **NO_UTF8}
    result = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, encoding="utf-8")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    return result.stdout


def write_photos(folder: Path) -> list[str]:
    for number, name in enumerate(("Füße", "Hände")):
        for i in range(12):
            draw_photo(folder / name / f"grün {i}.png", number)
    return ["--size", "16"]


def write_corpus(folder: Path) -> list[str]:
    folder.mkdir(parents=True)
    sentence = "Zoë B-PER\nmag O\nKöln B-LOC\n. O\n\n"
    (folder / "Sätze.conll").write_text(sentence * 20, encoding="utf-8")
    return ["--task", "sequence_tagging"]


def write_table(folder: Path) -> list[str]:
    folder.mkdir(parents=True)
    rows = [[f"{i}", ("Köln", "Łódź")[i % 2], ("ja", "nö")[i % 2]] for i in range(40)]
    with open(folder / "Häuser.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["Größe", "Stadt", "schön"], *rows])
    return ["--task", "tabular_prediction"]


RAW: dict[str, Any] = {
    "image_classification": (write_photos, SMALL, "Hände"),
    "sequence_tagging": (write_corpus, SMALL_TAGGER, "Zoë"),
    "tabular_prediction": (write_table, {}, "nö"),
}


@pytest.mark.parametrize("task", RAW)
def test_a_data_set_is_the_same_in_any_locale(tmp_path: Path, task: str) -> None:
    write, _, _ = RAW[task]
    raw, data = tmp_path / "Rohdaten ä", tmp_path / "Datensatz ö"
    flags = ["--data_dir", raw, *write(raw)]
    assert f"Built {data}" in run_in_c("build_dataset", *flags, "--output_dir", data)
    assert run("build_dataset", *flags, "--output_dir", tmp_path / "elsewhere").status == 0
    built = [read_json(folder / "dataset_params.json") for folder in (data, tmp_path / "elsewhere")]
    assert built[0] == built[1]  # with the digest over all files and their names


@pytest.mark.slow
@pytest.mark.parametrize("task", RAW)
def test_every_command_in_a_locale_without_umlauts(tmp_path: Path, task: str) -> None:
    """The names in all files are those of the folders."""
    write, params, name = RAW[task]
    raw, data, parent = tmp_path / "Rohdaten ä", tmp_path / "Datensatz ö", tmp_path / "Versuche ü"
    run_in_c("build_dataset", "--data_dir", raw, *write(raw), "--output_dir", data)
    model_dir = parent / "der größte"
    model_dir.mkdir(parents=True)
    values = {**params, "task": task, "data_dir": str(data), "num_epochs": 1}
    (model_dir / "params.json").write_text(json.dumps(values, ensure_ascii=False), encoding="utf-8")
    assert str(model_dir) in run_in_c("train", "--model_dir", model_dir)
    assert str(data) in run_in_c("evaluate", "--model_dir", model_dir)
    assert str(model_dir) in (model_dir / "train.log").read_text(encoding="utf-8")
    assert name in next(model_dir.glob("predictions_test*")).read_text(encoding="utf-8")
    assert str(model_dir) in read_json(model_dir / "run.json")["command"]

    page, table = parent / "Übersicht.html", parent / "Übersicht.csv"
    out = run_in_c("synthesize_results", "--parent_dir", parent, "--plot", "--html", page, "--output", table)
    assert "der größte" in out
    assert "der größte" in table.read_text(encoding="utf-8")
    assert json.dumps("der größte") in page.read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_search_in_a_locale_without_umlauts(tmp_path: Path) -> None:
    raw, data, parent = tmp_path / "Rohdaten ä", tmp_path / "Datensatz ö", tmp_path / "Suche ü"
    assert run("build_dataset", "--data_dir", raw, *write_table(raw), "--output_dir", data).status == 0
    parent.mkdir()
    values = {"task": "tabular_prediction", "data_dir": str(data), "num_epochs": 1}
    (parent / "params.json").write_text(json.dumps(values, ensure_ascii=False), encoding="utf-8")
    out = run_in_c("search_hyperparams", "--parent_dir", parent, "--set", "learning_rate=1e-3,1e-2", "--jobs", 1)
    assert f"python train.py --model_dir '{parent / 'best'}'" in out
    assert read_json(parent / "best" / "params.json")["data_dir"] == str(data)


def test_names_that_are_not_utf8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CSV files hold them byte for byte."""
    monkeypatch.setattr(logging.root.manager, "disable", logging.CRITICAL)  # pytest-xdist cannot send such a log
    raw, data, parent = (tmp_path / f"{name} {NOT_UTF8}" for name in ("raw", "data", "experiments"))
    for number, name in enumerate(("a", NOT_UTF8)):
        for i in range(12):
            draw_photo(tmp_path / f"{i}.png", number)
            (raw / name).mkdir(parents=True, exist_ok=True)
            (tmp_path / f"{i}.png").rename(raw / name / f"{NOT_UTF8} {i}.png")
    built = run("build_dataset", "--data_dir", raw, "--output_dir", data, "--size", 16)
    assert built.status == 0, built.err
    model_dir = write_params(parent / NOT_UTF8, data_dir=str(data), num_epochs=1)
    train_ok(model_dir)
    assert list(model_dir.glob("train_summaries/events*"))
    evaluated = run("evaluate", "--model_dir", model_dir)
    assert evaluated.status == 0, evaluated.err
    assert os.fsencode(NOT_UTF8) in (model_dir / "predictions_test.csv").read_bytes()
    assert (model_dir / "confusion_matrix.png").is_file()
    table, page = parent / f"{NOT_UTF8}.csv", parent / f"{NOT_UTF8}.html"
    words = ["--parent_dir", parent, "--format", "csv", "--output", table, "--html", page, "--plot"]
    listed = run("synthesize_results", *words)
    assert listed.status == 0, listed.err
    assert os.fsencode(NOT_UTF8) in table.read_bytes()
    assert (parent / "results.png").is_file()
    page.read_text(encoding="utf-8")


def names_no_encoding(call: ast.Call) -> bool:
    """Whether the call opens a file as text, or reads one, in whatever encoding the locale has."""
    name = getattr(call.func, "attr", None) or getattr(call.func, "id", None)
    words = {keyword.arg: getattr(keyword.value, "value", None) for keyword in call.keywords}
    mode = words.get("mode") or (getattr(call.args[1], "value", None) if len(call.args) > 1 else "r")
    opens = isinstance(call.func, ast.Name) and name == "open" and "b" not in str(mode)
    is_text = opens or (isinstance(call.func, ast.Attribute) and name in ("read_text", "write_text"))
    return (is_text or bool(words.get("text"))) and "encoding" not in words


def test_every_text_file_names_its_encoding() -> None:
    folders = ("engine", "model", "search", "results", "docs", "benchmarks")
    paths = [*ROOT.glob("*.py"), *(path for folder in folders for path in (ROOT / folder).rglob("*.py"))]
    assert len(paths) > 60
    found = []
    for path in paths:
        calls = [node for node in ast.walk(ast.parse(path.read_bytes())) if isinstance(node, ast.Call)]
        found += [f"{path}:{call.lineno}" for call in calls if names_no_encoding(call)]
    assert found == []
