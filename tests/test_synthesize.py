"""One table of whatever lies below a folder."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

from tests.conftest import refused, run, write_params


def table(parent: Path, *flags: str) -> str:
    result = run("synthesize_results", "--parent_dir", parent, *flags)
    assert result.status == 0, result.err
    return result.out


def finished(folder: Path, status: str = "finished", metrics: dict[str, Any] | None = None, **params: Any) -> Path:
    write_params(folder, **params)
    values = {"batch_size": 8, "num_epochs": 2, **params}
    run_json = {"status": status, "monitor": "accuracy", "params": values}
    (folder / "run.json").write_text(json.dumps(run_json))
    if metrics is not None:
        (folder / "metrics_eval_best_weights.json").write_text(json.dumps(metrics))
        (folder / "metrics_eval_last_weights.json").write_text(json.dumps(metrics))
    return folder


def rows(parent: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(table(parent, "--format", "csv"))))


def test_best_first_named_by_path_with_what_differs(tmp_path: Path) -> None:
    finished(tmp_path / "a", metrics={"accuracy": 0.5, "epoch": 1}, learning_rate=0.1)
    finished(tmp_path / "deep" / "b", metrics={"accuracy": 0.9, "epoch": 2}, learning_rate=0.01)
    finished(tmp_path / "c", metrics={"accuracy": float("nan"), "epoch": 1}, learning_rate=0.1)
    finished(tmp_path / "d", metrics={"accuracy": 0.9, "loss": 0.1, "epoch": 2}, learning_rate=0.01)
    found = rows(tmp_path)
    assert [row["experiment"] for row in found] == ["d", "deep/b", "a", "c"]  # of equals, the one of least loss
    assert list(found[0]) == ["experiment", "accuracy", "loss", "epoch", "learning_rate", "status"]
    assert found[0]["learning_rate"] == "0.01"


def test_a_table_for_each_task(tmp_path: Path) -> None:
    """Side by side they would be mostly empty; in a file for programs they are one."""
    finished(tmp_path / "a", metrics={"accuracy": 0.5}, task="image_classification", augmentation=0.1)
    finished(tmp_path / "b", metrics={"accuracy": 0.6}, task="image_classification", augmentation=0.2)
    finished(tmp_path / "c", metrics={"f1": 0.7}, task="sequence_tagging")
    images, text = table(tmp_path).strip().split("\n\n")
    assert [line.split("|")[1].strip() for line in images.splitlines()[2:]] == ["b", "a"]
    assert "augmentation" in images
    assert "f1" not in images
    assert "augmentation" not in text
    assert "f1" in text
    assert len(rows(tmp_path)) == 3
    assert rows(tmp_path)[0].keys() >= {"accuracy", "f1", "augmentation"}


def test_what_is_not_finished_shows_as_such(tmp_path: Path) -> None:
    finished(tmp_path / "done", metrics={"accuracy": 0.5, "epoch": 2})
    finished(tmp_path / "killed", "running", {"accuracy": 0.6, "epoch": 1})
    finished(tmp_path / "crashed", "failed")
    finished(tmp_path / "exploded", "diverged", {"accuracy": 0.1, "epoch": 1})
    write_params(tmp_path / "new")
    write_params(tmp_path / "misspelt", lerning_rate=1)
    broken = finished(tmp_path / "broken")
    (broken / "metrics_eval_best_weights.json").write_text("{")
    status = {row["experiment"]: row["status"] for row in rows(tmp_path)}
    assert status == {
        "done": "finished",
        "killed": "unfinished after epoch 1 of 2",
        "crashed": "failed after epoch 0 of 2",
        "exploded": "diverged after epoch 1 of 2",
        "new": "not trained",
        "misspelt": "unreadable: params.json",
        "broken": "unreadable: metrics_eval_best_weights.json",
    }
    assert "unfinished" in table(tmp_path)


def test_test_metrics_of_earlier_weights_are_left_out(tmp_path: Path) -> None:
    folder = finished(tmp_path / "a", metrics={"accuracy": 0.9, "epoch": 6})
    (folder / "metrics_test_best_weights.json").write_text('{"accuracy": 0.5, "epoch": 1}')
    assert "test accuracy" not in rows(tmp_path)[0]
    (folder / "metrics_test_best_weights.json").write_text('{"accuracy": 0.8, "epoch": 6}')
    assert rows(tmp_path)[0]["test accuracy"] == "0.8"


def test_a_broken_experiment_adds_no_columns(tmp_path: Path) -> None:
    finished(tmp_path / "a", metrics={"accuracy": 0.9, "epoch": 6})
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "params.json").write_text("{")
    assert list(rows(tmp_path)[0]) == ["experiment", "accuracy", "epoch", "status"]


def test_different_metrics_are_no_error(tmp_path: Path) -> None:
    finished(tmp_path / "a", metrics={"accuracy": 0.5, "epoch": 1})
    finished(tmp_path / "b", metrics={"f1": 0.9, "epoch": 1})
    by_name = {row["experiment"]: row for row in rows(tmp_path)}
    assert by_name["a"]["f1"] == ""
    assert by_name["b"]["f1"] == "0.9"


def test_empty_and_missing_folders(tmp_path: Path) -> None:
    assert "No experiments below" in table(tmp_path)
    for name in ("csv", "json", "latex"):
        table(tmp_path, "--format", name)
    refused(run("synthesize_results", "--parent_dir", tmp_path / "nowhere"), "no such folder")


def test_a_real_run_beside_one_that_is_not(trained: Path) -> None:
    """Resolved and written parameters are compared as the same thing: a default is no difference."""
    write_params(trained.parent / "untrained")
    (first, second) = rows(trained.parent)
    assert (first["experiment"], second["experiment"]) == ("small", "untrained")
    assert [name for name in first if first[name] != second[name] and second[name]] == [
        "experiment",
        "data_dir",
        "status",
    ]
    assert [row["experiment"] for row in rows(trained)] == ["."]


def test_formats_and_output(tmp_path: Path) -> None:
    finished(tmp_path / "a_b", metrics={"accuracy": 0.98765432, "epoch": 1}, learning_rate=1e-5)
    finished(tmp_path / "c", metrics={"accuracy": 0.5, "epoch": 1}, learning_rate=0.1)
    markdown = table(tmp_path, "--output", str(tmp_path / "table.md"))
    assert (tmp_path / "table.md").read_text() == markdown
    assert "0.9877" in markdown
    assert "1e-05" in markdown
    assert markdown.splitlines()[1].startswith("|--")
    assert json.loads(table(tmp_path, "--format", "json"))[0]["accuracy"] == 0.98765432
    assert r"a\_b" in table(tmp_path, "--format", "latex")
    refused(run("synthesize_results", "--parent_dir", tmp_path, "--output", tmp_path / "no" / "t.md"), "cannot be")


def test_earlier_runs_and_sweep_templates_are_no_experiments(tmp_path: Path) -> None:
    finished(tmp_path / "a", metrics={"accuracy": 0.5, "epoch": 1})
    finished(tmp_path / "a" / "previous" / "2026", metrics={"accuracy": 0.6, "epoch": 1})
    write_params(tmp_path / "sweep")
    (tmp_path / "sweep" / "search.json").write_text("{}")
    finished(tmp_path / "sweep" / "trial", metrics={"accuracy": 0.4, "epoch": 1})
    assert [row["experiment"] for row in rows(tmp_path)] == ["a", "sweep/trial"]
