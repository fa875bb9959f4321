"""One table of whatever lies below a folder."""

from __future__ import annotations

import contextlib
import csv
import fcntl
import io
import json
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import termios
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from PIL import Image

import results.experiments as results_experiments
import results.page as results_page
import results.picture as results_picture
import results.table as results_table
import results.terminal as results_terminal
import search.study as search_study
from results.experiments import Result
from tests.conftest import ROOT, Terminal, read_json, refused, run, write_params


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


def change_run(folder: Path, **values: Any) -> None:
    """Set `values` in run.json, such as monitor, goal and data_digest."""
    (folder / "run.json").write_text(json.dumps(read_json(folder / "run.json") | values))


def rows(parent: Path, *flags: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(table(parent, "--format", "csv", *flags))))


def cells(markdown: str) -> list[list[str]]:
    """The rows of all tables in `markdown`."""
    lines = [line for line in markdown.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if "| experiment " not in line]


OnTerminal = Callable[..., str]


@pytest.fixture
def on_terminal(monkeypatch: pytest.MonkeyPatch) -> OnTerminal:
    """What the command prints on a terminal that is so many columns wide."""

    def show(columns: int, parent: Path, *flags: str) -> str:
        with monkeypatch.context() as patch:
            patch.setenv("COLUMNS", str(columns))
            patch.setattr(io, "StringIO", Terminal)
            return table(parent, *flags)

    return show


def test_best_first_named_by_path_with_what_differs(tmp_path: Path) -> None:
    finished(tmp_path / "a", metrics={"accuracy": 0.5, "epoch": 1}, learning_rate=0.1)
    finished(tmp_path / "deep" / "b", metrics={"accuracy": 0.9, "epoch": 2}, learning_rate=0.01)
    finished(tmp_path / "c", metrics={"accuracy": float("nan"), "epoch": 1}, learning_rate=0.1)
    finished(tmp_path / "d", metrics={"accuracy": 0.9, "loss": 0.1, "epoch": 2}, learning_rate=0.01)
    found = rows(tmp_path)
    assert [row["experiment"] for row in found] == ["d", "deep/b", "a", "c"]  # of equals, the one of least loss
    assert list(found[0]) == ["experiment", "status", "val accuracy", "learning_rate", "val loss", "epoch"]
    assert found[0]["learning_rate"] == "0.01"


def test_a_table_for_each_task(tmp_path: Path) -> None:
    """Side by side they would be mostly empty; in a file for programs they are one."""
    finished(tmp_path / "a", metrics={"accuracy": 0.5}, task="image_classification", augmentation=0.1)
    finished(tmp_path / "b", metrics={"accuracy": 0.6}, task="image_classification", augmentation=0.2)
    finished(tmp_path / "c", metrics={"f1": 0.7}, task="sequence_tagging")
    headings = re.findall("^### (.*)", table(tmp_path), re.MULTILINE)
    images, text = table(tmp_path).strip().removeprefix("### ").split("\n\n### ")
    assert headings == [f"{task}, ranked by val accuracy" for task in ("image_classification", "sequence_tagging")]
    assert [row[0] for row in cells(images)] == ["b", "a"]
    assert "augmentation" in images
    assert "f1" not in images
    assert "augmentation" not in text
    assert "f1" in text
    assert [row["experiment"] for row in rows(tmp_path)] == ["b", "a", "c"]
    assert rows(tmp_path)[0].keys() >= {"val accuracy", "val f1", "augmentation"}


def test_what_is_not_finished_shows_as_such(tmp_path: Path) -> None:
    finished(tmp_path / "done", metrics={"accuracy": 0.5, "epoch": 2})
    finished(tmp_path / "killed", "running", {"accuracy": 0.6, "epoch": 1})
    finished(tmp_path / "crashed", "failed")
    finished(tmp_path / "exploded", "diverged", {"accuracy": 0.1, "epoch": 1})
    write_params(tmp_path / "new")
    write_params(tmp_path / "misspelt", lerning_rate=1)
    broken = finished(tmp_path / "broken")
    (broken / "metrics_eval_best_weights.json").write_text("{")
    status = {row["experiment"]: row["status"] for row in rows(tmp_path, "--all")}
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
    assert list(rows(tmp_path)[0]) == ["experiment", "status", "val accuracy", "epoch"]


def test_different_metrics_are_no_error(tmp_path: Path) -> None:
    finished(tmp_path / "a", metrics={"accuracy": 0.5, "epoch": 1})
    finished(tmp_path / "b", metrics={"f1": 0.9, "epoch": 1})
    by_name = {row["experiment"]: row for row in rows(tmp_path)}
    assert by_name["a"]["val f1"] == ""
    assert by_name["b"]["val f1"] == "0.9"


def test_empty_and_missing_folders(tmp_path: Path) -> None:
    assert "No experiments below" in table(tmp_path)
    for name in ("csv", "json", "latex"):
        table(tmp_path, "--format", name)
    refused(run("synthesize_results", "--parent_dir", tmp_path / "nowhere"), "no such folder")


def test_a_real_run_beside_one_that_is_not(trained: Path) -> None:
    """Resolved and written parameters are compared as the same thing: a default is no difference."""
    write_params(trained.parent / "untrained")
    (first, second) = rows(trained.parent, "--all")
    assert (first["experiment"], second["experiment"]) == ("small", "untrained")
    assert [name for name in first if first[name] != second[name] and second[name]] == [
        "experiment",
        "status",
        "data_dir",
    ]
    assert [row["experiment"] for row in rows(trained)] == ["."]


def test_formats_and_output(tmp_path: Path) -> None:
    finished(tmp_path / "a_b", metrics={"accuracy": 0.98765432, "epoch": 1}, learning_rate=1e-5)
    finished(tmp_path / "c", metrics={"accuracy": 0.5, "epoch": 1}, learning_rate=0.1)
    markdown = table(tmp_path, "--output", str(tmp_path / "table.md"))
    assert (tmp_path / "table.md").read_text() == markdown
    assert "0.9877" in markdown
    assert "1e-05" in markdown
    assert markdown.splitlines()[5].startswith("|--")
    assert json.loads(table(tmp_path, "--format", "json"))[0]["val accuracy"] == 0.98765432
    write_params(tmp_path / "new")
    latex = table(tmp_path, "--format", "latex")
    assert r"a\_b" in latex
    assert [line[:7] for line in re.findall("^%.*", latex, re.MULTILINE)] == ["% unkno", "% best:", "% 1 exp"]
    assert latex.index("% best") < latex.index(r"\begin")
    refused(run("synthesize_results", "--parent_dir", tmp_path, "--output", tmp_path / "no" / "t.md"), "cannot be")


def test_earlier_runs_and_sweep_templates_are_no_experiments(tmp_path: Path) -> None:
    finished(tmp_path / "a", metrics={"accuracy": 0.5, "epoch": 1})
    finished(tmp_path / "a" / "previous" / "2026", metrics={"accuracy": 0.6, "epoch": 1})
    write_params(tmp_path / "sweep")
    (tmp_path / "sweep" / "search.json").write_text("{}")
    finished(tmp_path / "sweep" / "trial", metrics={"accuracy": 0.4, "epoch": 1})
    assert [row["experiment"] for row in rows(tmp_path)] == ["a", "sweep/trial"]


# ----------------------------------------------------------------- comparing what can be compared, columns


def on_data(folder: Path, data_dir: str, digest: str, accuracy: float, **params: Any) -> Path:
    finished(folder, metrics={"accuracy": accuracy, "epoch": 2}, task="image_classification", **params)
    values = read_json(folder / "run.json")["params"] | {"data_dir": data_dir}
    change_run(folder, data_digest=digest, params=values)
    return folder


def test_only_results_on_the_same_data_are_ranked_together(tmp_path: Path) -> None:
    """The digest says what is the same. A name that two data sets share is completed."""
    on_data(tmp_path / "a", "data/signs", "1" * 64, 0.9)
    on_data(tmp_path / "b", "/copied/signs", "1" * 64, 0.8)
    on_data(tmp_path / "c", "data/photos", "2" * 64, 0.7)
    on_data(tmp_path / "d", "data/digits", "3" * 64, 0.6)
    on_data(tmp_path / "e", "data/digits", "4" * 64, 0.95)
    text = table(tmp_path)
    assert re.findall("### image_classification on (.*), ranked by val accuracy\n\n(best: [a-e]).*\n", text) == [
        ("signs", "best: a"),
        ("photos", "best: c"),
        ("data/digits, digest 33333333", "best: d"),
        ("data/digits, digest 44444444", "best: e"),
    ]
    assert "best: a, val accuracy 0.9000, 0.1000 ahead of b" in text
    assert "| data_dir" not in text.partition("### image_classification on photos")[2]
    assert [row["experiment"] for row in rows(tmp_path)] == ["a", "b", "c", "d", "e"]


def test_a_picture_and_a_part_of_the_page_for_each_data_set(tmp_path: Path) -> None:
    for name, digest in (("signs", "1"), ("photos", "2")):
        with_history(tmp_path / name, [0.5], task="image_classification")
        on_data(tmp_path / name, f"data/{name}", digest * 64, 0.5)
    write_params(tmp_path / "new")
    table(tmp_path, "--plot", "--html", str(tmp_path / "report.html"))
    pictures = {path.name for path in tmp_path.glob("*.png")}
    assert pictures == {"results_image_classification_signs.png", "results_image_classification_photos.png"}
    data = json.loads((tmp_path / "report.html").read_text().partition('"application/json">')[2].partition("<")[0])
    titles = [group["title"] for group in data["groups"]]
    assert titles == [f"image_classification on {name}, ranked by val accuracy" for name in ("photos", "signs")]
    assert "2 experiments, 1 more not trained yet" in data["about"]


def test_how_far_the_best_is_ahead(tmp_path: Path) -> None:
    def best() -> str:
        return re.findall("^(?:best|no results).*", table(tmp_path), re.MULTILINE)[0]

    finished(tmp_path / "a", "failed")
    assert best() == "no results yet"
    finished(tmp_path / "b", metrics={"accuracy": float("nan"), "epoch": 1})
    assert best() == "no results yet"
    finished(tmp_path / "c", metrics={"accuracy": 0.5, "epoch": 1})
    assert best() == "best: c, val accuracy 0.5000"
    finished(tmp_path / "d", metrics={"accuracy": 0.5, "loss": 0.1, "epoch": 1})
    assert best() == "best: d, val accuracy 0.5000, the same as c"
    finished(tmp_path / "e", metrics={"accuracy": 0.50002, "epoch": 1})
    assert best() == "best: e, val accuracy 0.5000, 2e-05 ahead of d"


def test_what_most_experiments_monitor_ranks_them(tmp_path: Path) -> None:
    for name, accuracy, loss in (("a", 0.7, 0.1), ("b", 0.8, 0.2), ("c", 0.9, 0.3)):
        finished(tmp_path / name, metrics={"accuracy": accuracy, "loss": loss, "epoch": 1}, monitor="accuracy")
    change_run(tmp_path / "a", monitor="loss", goal="minimize")
    assert "best: c, val accuracy 0.9000, 0.1000 ahead of b" in table(tmp_path)
    change_run(tmp_path / "b", monitor="loss", goal="minimize")
    assert "best: a, val loss 0.1000, 0.1000 ahead of b" in table(tmp_path)


def test_results_on_other_data_have_columns_of_their_own(tmp_path: Path) -> None:
    folder = finished(tmp_path / "a", metrics={"accuracy": 0.9, "epoch": 6})
    for name, epoch in (("test_best_weights", 6), ("test_best_weights_on_my photos", 6), ("eval_best_weights_on_x", 6)):
        (folder / f"metrics_{name}.json").write_text(json.dumps({"accuracy": 0.5, "epoch": epoch}))
    (folder / "metrics_test_best_weights_on_older.json").write_text(json.dumps({"accuracy": 0.4, "epoch": 5}))
    (folder / "metrics_test_last_weights_on_x.json").write_text(json.dumps({"accuracy": 0.3, "epoch": 6}))
    (row,) = rows(tmp_path)
    assert [name for name in row if "accuracy" in name] == [
        "val accuracy",
        "test accuracy",
        "val accuracy on x",
        "test accuracy on my photos",
    ]
    assert cells(table(tmp_path, "--columns", "test_accuracy_on_my_photos")) == [["a", "0.5000"]]


def test_what_is_not_trained_is_counted(tmp_path: Path, on_terminal: OnTerminal) -> None:
    on_data(tmp_path / "a", "data/signs", "1" * 64, 0.9)
    write_params(tmp_path / "b", task="image_classification", data_dir="data/signs")
    note = "1 experiment is not trained yet (--all lists them)."
    assert table(tmp_path).endswith(f"\n\n{note}\n")
    command = f"To see all:\n  python synthesize_results.py --parent_dir {tmp_path} --all\n"
    assert on_terminal(100, tmp_path).endswith(f"{note}\n{command}")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "params.json").write_text('{"task": "sequence_tagging"}')
    note = "2 experiments are not trained yet (--all lists them)."
    assert note in table(tmp_path)
    assert [row[0] for row in cells(table(tmp_path))] == ["a"]
    assert [row["experiment"] for row in rows(tmp_path)] == ["a"]
    assert re.findall("^[bc] ", on_terminal(100, tmp_path), re.MULTILINE) == []

    assert "(--all" not in table(tmp_path, "--all")
    assert cells(table(tmp_path, "--all", "--columns", "status")) == [
        ["a", "finished"],
        ["b", "not trained"],  # in the table of its data set
        ["c", "not trained"],
    ]
    assert table(tmp_path, "--all").count("### ") == 2
    assert [row["experiment"] for row in rows(tmp_path, "--all")] == ["a", "b", "c"]
    assert re.findall("^[bc] ", on_terminal(100, tmp_path, "--all"), re.MULTILINE) == ["b ", "c "]


def test_columns_by_name(tmp_path: Path, on_terminal: OnTerminal) -> None:
    """Metrics may be written with a blank or an underscore; a parameter need not differ."""
    finished(tmp_path / "a", metrics={"accuracy": 0.5, "loss": 1.5}, task="image_classification", learning_rate=0.1)
    finished(tmp_path / "b", metrics={"f1": 0.7, "loss": 2.5}, task="sequence_tagging", learning_rate=0.1)
    words = ["--columns", "learning_rate", "val_loss", "val f1", "experiment", "learning_rate"]
    assert rows(tmp_path, *words) == [
        {"experiment": "a", "learning_rate": "0.1", "val loss": "1.5", "val f1": ""},
        {"experiment": "b", "learning_rate": "0.1", "val loss": "2.5", "val f1": "0.7"},
    ]
    assert cells(table(tmp_path, *words)) == [["a", "0.1", "1.5000"], ["b", "0.1", "2.5000", "0.7000"]]
    lines = on_terminal(30, tmp_path, *words).splitlines()
    assert [line.split() for line in lines if line[:2] in ("a ", "b ")] == [
        ["a", "0.1", "1.5000"],
        ["b", "0.1", "2.5000", "0.7000"],
    ]
    assert "left out" not in "\n".join(lines)
    unknown = run("synthesize_results", "--parent_dir", tmp_path, "--columns", "val_los")
    refused(unknown, "--columns val_los: there is no such column. Did you mean val_loss?", "status, val_accuracy, ")


def test_those_that_differ_most_come_first(tmp_path: Path) -> None:
    """Then those of the task; then what says nothing about how good a setting is."""
    for i in range(4):
        params: dict[str, Any] = {
            "batch_size": i,
            "optimizer": "ab"[i // 2],
            "net": "cr"[i // 2],
            "seed": i,
            "num_workers": i,
        }
        finished(tmp_path / f"{i}", metrics={"accuracy": 0.1}, clip_grad_norm=1.0, momentum=min(i, 2) / 2, **params)
    results = results_experiments.find_results(tmp_path)
    names = ["batch_size", "momentum", "net", "optimizer", "seed", "num_workers"]
    assert list(results_table.different_params(results)) == names


# ------------------------------------------------------------------------------------------ on a terminal


def twelve_experiments(parent: Path) -> None:
    """Of three tasks: one setting with two seeds, one that diverged, one not finished, one not trained."""
    measured: dict[str, dict[str, Any]] = {  # the metric that ranks comes first
        "image_classification": {"accuracy": 0.9, "loss": 0.3},
        "sequence_tagging": {"f1": 0.7, "loss": 0.4, "accuracy": 0.96, "precision": 0.81, "recall": 0.79},
        "tabular_prediction": {"loss": 0.5, "auc": 0.8},
    }
    for task, metrics in measured.items():
        monitor = next(iter(metrics))
        goal = "minimize" if monitor == "loss" else "maximize"
        for i in range(4):
            folder = parent / task / f"learning_rate_{0.001 * (i + 1)}_batch_size_{32 + i}"
            values = metrics | {"epoch": 2, monitor: metrics[monitor] + (0.0103 if i == 3 else 0.001 * i)}
            params: dict[str, Any] = {"learning_rate": 0.001 * (i + 1), "batch_size": 32 + i, "clip_grad_norm": i}
            params |= {"dropout_rate": 0.5 * (i % 2), "early_stopping_patience": i % 2, "data_dir": f"data/{task[:5]}"}
            finished(folder, metrics=values, task=task, **params)
            change_run(folder, monitor=monitor, goal=goal, data_digest=task)
            (folder / "metrics_test_best_weights.json").write_text(json.dumps(values))
    images = sorted((parent / "image_classification").iterdir())
    change_run(images[0], status="diverged")
    change_run(images[1], status="running")
    for file in ("run.json", "metrics_eval_best_weights.json", "metrics_test_best_weights.json"):
        (images[2] / file).unlink()
    tags = sorted((parent / "sequence_tagging").iterdir())
    change_run(tags[1], params=read_json(tags[0] / "run.json")["params"] | {"seed": 2})


def test_names_of_trials_keep_what_differs() -> None:
    name = "search/learning_rate_0.01-batch_size_32-rate_0.5"
    shorten = results_terminal.shorten
    assert shorten(name, 20, ["rate", "batch_size", "learning_rate"]) == "search/0.01-32-0.5"
    assert shorten(name, 60, ["learning_rate"]) == name
    assert shorten("experiment", 7) == "exp…ent"


def test_settings_whose_seeds_merge_to_the_same_name() -> None:
    """The heading says what the first row says."""
    runs = ((1, 0.6, 0.01), (2, 0.6, 0.01), (3, 0.8, 0.1), (4, 0.8, 0.1))
    results = [
        Result(f"run_seed{seed}", "finished", {"val loss": loss}, {"seed": seed, "r": r}, "loss", "minimize")
        for seed, loss, r in runs
    ]
    table = results_table.write_tables(results, "markdown")
    assert "best: run (2 seeds), val loss 0.6000 ± 0.0000, 0.2000 ahead of run (2 seeds)" in table


@pytest.mark.parametrize(("ending", "begins"), [(".csv", "experiment,status"), (".json", "["), (".md", "###")])
def test_the_file_has_the_format_of_its_ending(trained: Path, tmp_path: Path, ending: str, begins: str) -> None:
    output = tmp_path / f"table{ending}"
    assert run("synthesize_results", "--parent_dir", trained.parent, "--output", output).status == 0
    assert output.read_text().startswith(begins)


@pytest.mark.parametrize("width", [60, 100, 200])
def test_a_table_fits_the_terminal(tmp_path: Path, on_terminal: OnTerminal, width: int) -> None:
    """And says which is best on what, by how much, and what was left out."""
    twelve_experiments(tmp_path)
    text = on_terminal(width, tmp_path)
    *lines, command, columns = text.splitlines()
    assert max(map(len, [*lines, columns])) <= width
    left_out = columns.removeprefix("To see certain columns: --columns experiment ")
    assert re.search(rf"columns left out \(\d+\): {left_out}\b", text)
    words = " ".join(text.split())
    for title in (
        "image_classification on image, ranked by val accuracy best: image_classification/learning_rate_0.004_",
        "sequence_tagging on seque, ranked by val f1 best: sequence_tagging/learning_rate_0.004_",
        "tabular_prediction on tabul, ranked by val loss best: tabular_prediction/learning_rate_0.001_",
    ):
        assert title in words
    assert "val f1 0.7103, 0.0083 ahead of" in words
    tables = re.findall(r"\n\n( .*?)\n(-{10}.*?)(?=\n\n|\ncolumns)", text, re.DOTALL)
    assert [body.count("\n") for _, body in tables] == [3, 3, 4]
    for (head, _), metric in zip(tables, ("accuracy", "f1", "loss"), strict=True):
        header = head.split()
        assert {"val", "test", "experiment", "status"} <= set(header)
        assert header.count(metric) >= 2
        assert ("learning_" in header) is (width >= 100)
        assert ("batch_size" in header) is (width >= 100)
    assert "0.9103" in tables[0][1]
    assert "diverged" in tables[0][1]
    assert "unfinished" in tables[0][1]
    assert "0.7005 ± 0.0007" in tables[1][1]
    assert command.endswith(f"  python synthesize_results.py --parent_dir {tmp_path} --all")


def test_all_of_it_on_a_terminal(tmp_path: Path, on_terminal: OnTerminal) -> None:
    twelve_experiments(tmp_path)
    text = on_terminal(60, tmp_path, "--all")
    assert "image_classification/learning_rate_0.003_batch_size_34  not trained" in text
    assert len(re.findall(r"  epoch\b", text)) == 3
    assert "left out" not in text
    assert "To see all" not in text


def test_only_a_terminal_gets_less(tmp_path: Path, on_terminal: OnTerminal) -> None:
    twelve_experiments(tmp_path)
    whole = table(tmp_path)
    assert max(map(len, whole.splitlines())) > 250
    assert "unfinished after epoch 2 of 2" in whole
    fitted = on_terminal(60, tmp_path, "--output", str(tmp_path / "table.md"))
    assert (tmp_path / "table.md").read_text() == whole
    assert "| " not in fitted
    for name in ("csv", "json", "latex"):
        assert on_terminal(60, tmp_path, "--format", name) == table(tmp_path, "--format", name)


def test_the_width_of_a_real_terminal(tmp_path: Path) -> None:
    twelve_experiments(tmp_path)
    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 77, 0, 0))
    command = [sys.executable, "synthesize_results.py", "--parent_dir", str(tmp_path)]
    env = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    parts = []
    with subprocess.Popen(command, cwd=ROOT, env=env, stdin=terminal, stdout=terminal, stderr=terminal) as process:
        os.close(terminal)
        with contextlib.suppress(OSError):  # so Linux says that the other end is closed; macOS sends nothing
            while part := os.read(controller, 4096):
                parts.append(part)
    os.close(controller)
    assert process.returncode == 0
    assert 70 < max(map(len, b"".join(parts).decode().partition("To see all")[0].splitlines())) <= 77


def test_what_a_table_looks_like(tmp_path: Path) -> None:
    for i, folder in enumerate([tmp_path / "first", tmp_path / "second"]):
        metrics = {"accuracy": 0.5 + 0.25 * i, "epoch": 9 + i}
        finished(folder, metrics=metrics, task="image_classification", learning_rate=0.1**i, net=["cnn", "resnet"][i])
        (folder / "metrics_test_best_weights_on_photos.json").write_text('{"accuracy": 0.25}')
    found = results_experiments.find_results(tmp_path)
    expected = """
        image_classification, ranked by val accuracy
        best: second, val accuracy 0.7500, 0.2500 ahead of first

                                                                test
                                   val          learning_   accuracy
        experiment  status    accuracy  net          rate  on photos  epoch
        ----------  --------  --------  ------  ---------  ---------  -----
        second      finished    0.7500  resnet        0.1     0.2500     10
        first       finished    0.5000  cnn           1.0     0.2500      9
    """
    assert results_terminal.fit_tables(found, tmp_path, 100) == textwrap.dedent(expected).strip()


def test_a_value_that_is_too_long_does_not_keep_out_others(tmp_path: Path) -> None:
    for i in range(4):
        params: dict[str, Any] = {"pretrained_embeddings": f"{i}" * 80, "crf": i > 1, "bidirectional": i > 2}
        finished(tmp_path / f"{i}", metrics={"f1": 0.5, "epoch": 1}, **params)
    ((_, whole),) = results_table.make_tables(results_experiments.find_results(tmp_path), (), False)
    assert whole.header[2:5] == ["pretrained_embeddings", "crf", "bidirectional"]
    assert results_terminal.fit(whole, ["experiment", "status"], 80).header[2:4] == ["crf", "bidirectional"]


def test_what_a_narrow_table_leaves_out_first(tmp_path: Path) -> None:
    """The seed, the epoch, losses, parameters that differ less, metrics on other data, other metrics on its own."""
    for i in range(5):
        params: dict[str, Any] = {"net": "abcde"[i], "gamma": min(i, 3), "momentum": min(i, 2), "crf": i > 3, "seed": i}
        folder = finished(tmp_path / f"{i}", metrics={"accuracy": 0.5, "loss": 1.0, "f1": 0.5, "epoch": 1}, **params)
        (folder / "metrics_test_best_weights.json").write_text('{"accuracy": 0.4, "loss": 1.1, "f1": 0.4}')
        for split in ("eval", "test"):
            (folder / f"metrics_{split}_best_weights_on_x.json").write_text('{"f1": 0.3}')
    ((group, whole),) = results_table.make_tables(results_experiments.find_results(tmp_path), (), False)
    required = ["experiment", "status", *group.ranking_columns]
    assert required == ["experiment", "status", "val accuracy", "test accuracy"]
    order = ["net", "gamma", "momentum", "val f1", "test f1", "val f1 on x", "test f1 on x", "crf", "val loss"]
    order += ["test loss", "epoch", "seed"]
    assert whole.header == [*required, *order]
    for width in range(20, 150):
        shown = results_terminal.fit(whole, required, width).header[len(required) :]
        some = [name for name in order[:3] if name in shown]  # of these, one that is too long does not keep out others
        assert shown in ([*some, *order[3 : 3 + len(shown) - len(some)]], order[: len(shown)])
    assert shown == order


def test_long_names_lose_their_middle_and_numbers_nothing(tmp_path: Path) -> None:
    name, metrics = "learning_rate_0.01_of_the_first_small_search", {"accuracy": 123456.78901, "epoch": 1}
    finished(tmp_path / name, "running", metrics=metrics, batch_size=16)
    finished(tmp_path / "b", metrics={}, batch_size=32)
    results = results_experiments.find_results(tmp_path)

    def first_row(width: int) -> list[str]:
        text = results_terminal.fit_tables(results, tmp_path, width)
        return re.split("  +", text.split("--\n")[1].splitlines()[0])

    assert first_row(100) == [name, "unfinished 1/2", "123456.7890", "16", "1"]
    assert first_row(70) == ["learning_rate_…t_small_search", "unfinished 1/2", "123456.7890", "16"]
    assert first_row(62) == ["learning_rate_0.…rst_small_search", "unfinished 1/2", "123456.7890"]
    assert first_row(50) == ["learning_rat…small_search", "unfinished", "123456.7890"]
    assert first_row(20) == ["learn…arch", "unfinished", "123456.7890"]  # a name has no less


def test_a_status_on_a_terminal() -> None:
    statuses = {
        "finished": "finished",
        "finished, from other weights": "finished, restored",
        "diverged after epoch 3 of 20": "diverged 3/20",
        "2 of 3 finished": "2 of 3 finished",
    }
    assert [results_terminal.abbreviate(status) for status in statuses] == list(statuses.values())


# --------------------------------------------------------------------------------- seeds, pictures, pages


def with_history(folder: Path, values: list[float], **params: Any) -> Path:
    best = max(range(len(values)), key=lambda i: values[i])
    finished(folder, metrics={"accuracy": values[best], "loss": 1.0, "epoch": best + 1}, **params)
    entries = [
        {"epoch": i + 1, "train": {"loss": 2.0, "accuracy": 0.1}, "val": {"loss": 1.0, "accuracy": value}}
        for i, value in enumerate(values)
    ]
    (folder / "history.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return folder


def test_mean_and_deviation_over_seeds(tmp_path: Path) -> None:
    for seed, value in ((1, 0.5), (2, 0.7)):
        finished(tmp_path / f"a-seed_{seed}", metrics={"accuracy": value, "epoch": 1}, learning_rate=0.1, seed=seed)
    finished(tmp_path / "b", metrics={"accuracy": 0.61, "epoch": 1}, learning_rate=0.2, seed=1)
    assert [row[:3] for row in cells(table(tmp_path))] == [
        ["b", "finished", "0.6100"],
        ["a (2 seeds)", "finished", "0.6000 ± 0.1414"],
    ]
    assert "best: b, val accuracy 0.6100, 0.0100 ahead of a (2 seeds)" in table(tmp_path)
    assert cells(table(tmp_path, "--columns", "epoch"))[1] == ["a (2 seeds)", "1.0 ± 0.0"]
    assert len(rows(tmp_path)) == 3  # a program gets each of them


def test_what_was_trained_on_from_a_seed_is_no_seed(tmp_path: Path) -> None:
    for seed, value in ((1, 0.5), (2, 0.7)):
        finished(tmp_path / f"a-seed_{seed}", metrics={"accuracy": value, "epoch": 1}, seed=seed)
    best = finished(tmp_path / "best", metrics={"accuracy": 0.9, "epoch": 1}, seed=1)
    change_run(best, restore_file="a-seed_1/best_weights/epoch_0001.pt")
    assert [row[:3] for row in cells(table(tmp_path))] == [
        ["best", "finished, from other weights", "0.9000"],
        ["a (2 seeds)", "finished", "0.6000 ± 0.1414"],
    ]


def test_a_picture(tmp_path: Path) -> None:
    refused(run("synthesize_results", "--parent_dir", tmp_path / "none", "--plot"), "no such folder")
    finished(tmp_path / "untrained", metrics=None)
    refused(run("synthesize_results", "--parent_dir", tmp_path, "--plot"), "nothing to draw")
    with_history(tmp_path / "a", [0.1, 0.5], learning_rate=0.001, optimizer="sgd")
    with_history(tmp_path / "b", [0.2], learning_rate=0.1, optimizer="adam")
    assert "results.png" in table(tmp_path, "--plot")
    with Image.open(tmp_path / "results.png") as image:
        assert image.width > 1000
    finished(tmp_path / "tagger", metrics=None, task="sequence_tagging")
    assert table(tmp_path, "--plot").count(".png") == 1  # of the task that was trained


@pytest.mark.parametrize(("num_finished", "when"), [(8, ""), (3, " after epoch 2")])
def test_importance_of_parameters(tmp_path: Path, num_finished: int, when: str) -> None:
    """By what was reached in the end; if most trials were pruned, by what all had reached when judged first."""
    assert results_picture.read_importance(tmp_path) == ({}, "")
    url = search_study.study_url(tmp_path)
    study = optuna.create_study(study_name=search_study.STUDY, storage=url, direction="maximize")
    study.tell(study.ask(), state=optuna.trial.TrialState.FAIL)  # killed while it was asking
    space: dict[str, BaseDistribution] = {"matters": IntDistribution(0, 3), "does_not": IntDistribution(0, 3)}
    for i in range(16):
        study.enqueue_trial({"matters": i % 4, "does_not": i // 4})
        trial = study.ask(space)
        value = float(-abs(i % 4 - 2))
        trial.report(value, 2)
        if i < num_finished:
            study.tell(trial, value)
        else:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    shares, told = results_picture.read_importance(tmp_path)
    assert told == when
    assert shares["matters"] > 2 * shares["does_not"]


def test_importance_of_a_parameter_that_is_a_list(tmp_path: Path) -> None:
    """The study holds lists as text."""
    url = search_study.study_url(tmp_path)
    study = optuna.create_study(study_name=search_study.STUDY, storage=url, direction="maximize")
    space: dict[str, BaseDistribution] = {
        "hidden_dims": CategoricalDistribution(["[]", "[64]", "[64, 64]"]),
        "does_not": IntDistribution(0, 3),
    }
    for i in range(12):
        study.enqueue_trial({"hidden_dims": ["[]", "[64]", "[64, 64]"][i % 3], "does_not": i // 3})
        study.tell(study.ask(space), float(i % 3))
    shares, _ = results_picture.read_importance(tmp_path)
    assert shares["hidden_dims"] > shares["does_not"]


def test_lists_in_a_table_and_a_picture(tmp_path: Path) -> None:
    for i, dims in enumerate([[], [64], [64, 64]]):
        with_history(tmp_path / f"{i}", [0.1 * i], hidden_dims=dims, task="tabular_prediction")
    (tmp_path / "search.json").write_text(json.dumps({"space": {"hidden_dims": [[], [64], [64, 64]]}}))
    assert [row["hidden_dims"] for row in rows(tmp_path)] == ["[64, 64]", "[64]", "[]"]
    assert "| [64, 64] " in table(tmp_path)
    assert json.loads(table(tmp_path, "--format", "json"))[0]["hidden_dims"] == [64, 64]
    results = results_experiments.find_results(tmp_path)
    assert results_picture.searched_params(results) == {"hidden_dims": [[], [64], [64, 64]]}
    assert not results_picture.is_log("hidden_dims", [[], [64], [64, 64]], tmp_path)
    assert "results.png" in table(tmp_path, "--plot", "--html", str(tmp_path / "report.html"))


def test_the_goal_of_a_run_decides_what_is_best(tmp_path: Path) -> None:
    for name, value in (("a", 0.5), ("b", 0.2)):
        change_run(finished(tmp_path / name, metrics={"rmse": value, "epoch": 1}), monitor="rmse", goal="minimize")
    assert "best: b, val rmse 0.2000, 0.3000 ahead of a" in table(tmp_path)
    assert [row["experiment"] for row in rows(tmp_path)] == ["b", "a"]


def test_curves_of_the_metric_that_was_chosen(tmp_path: Path) -> None:
    """A page shows few of many metrics, but always the one by which experiments are judged."""
    folder = finished(tmp_path / "a", metrics={"recall": 0.5, "epoch": 1})
    metrics = {"loss": 1.0, "accuracy": 0.9, "f1": 0.4, "precision": 0.3, "recall": 0.5}
    (folder / "history.jsonl").write_text(json.dumps({"epoch": 1, "train": metrics, "val": metrics}) + "\n")
    change_run(folder, monitor="recall")
    (experiment,) = results_experiments.find_results(tmp_path)
    assert list(results_page.describe(experiment, "recall", tmp_path)["curves"]) == ["loss", "recall", "accuracy"]


def test_values_that_would_overprint_get_no_tick_of_their_own() -> None:
    assert results_picture.are_apart([1e-4, 1e-3, 1e-2], is_log=True)
    assert not results_picture.are_apart([1e-4, 1e-3, 1e-2], is_log=False)
    assert not results_picture.are_apart([1.3e-4, 2.02e-4, 0.00394, 0.0222], is_log=True)
    assert not results_picture.are_apart([0.1], is_log=False)


def test_what_is_searched_and_on_which_scale(tmp_path: Path) -> None:
    for i, rate in enumerate([0.001, 0.1]):
        with_history(tmp_path / f"{i}", [0.5], learning_rate=rate, batch_size=8 * (i + 1), seed=i)
    experiments = results_experiments.find_results(tmp_path)
    assert results_picture.searched_params(experiments) == {"batch_size": [8, 16], "learning_rate": [0.001, 0.1]}
    assert results_picture.is_log("learning_rate", [0.001, 0.1], tmp_path)
    assert not results_picture.is_log("batch_size", [8, 16], tmp_path)
    space = {"learning_rate": {"min": 0.001, "max": 0.1}, "batch_size": {"min": 8, "max": 16, "log": True}}
    (tmp_path / "search.json").write_text(json.dumps({"space": space}))
    assert not results_picture.is_log("learning_rate", [0.001, 0.1], tmp_path)
    assert results_picture.is_log("batch_size", [8, 16], tmp_path)


def test_a_page(tmp_path: Path) -> None:
    """All of it is in the one file: data that any browser parses, and no address of anything else."""
    with_history(tmp_path / "a", [0.1, float("nan"), 0.5], learning_rate=0.001)
    with_history(tmp_path / "</script><b>", [0.2], learning_rate=0.1, task="sequence_tagging")
    Image.new("RGB", (4, 4)).save(tmp_path / "a" / "confusion_matrix.png")
    assert "report.html" in table(tmp_path, "--html", str(tmp_path / "report.html"))
    page = (tmp_path / "report.html").read_text()
    assert page.count("</script>") == 2
    assert not re.search(r"(src|href)=\"?(http|//)", page)
    data = json.loads(page.partition('type="application/json">')[2].partition("</script>")[0])
    assert [group["experiments"][0]["name"] for group in data["groups"]] == ["</script><b>", "a"]
    (experiment,) = data["groups"][1]["experiments"]
    assert experiment["curves"]["accuracy"]["val"] == [0.1, None, 0.5]
    assert experiment["picture"].startswith("data:image/png;base64,iVBOR")
    assert data["groups"][1]["rows"][0][0] == "a"


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.mark.skipif(CHROMIUM is None, reason="there is no browser here (Debian: apt-get install chromium)")
def test_the_page_in_a_browser(tmp_path: Path) -> None:
    """Sorted, filtered and opened by clicks, as a person would."""
    for i in range(12):
        with_history(tmp_path / f"run_{i}", [0.1, 0.05 * i], learning_rate=0.001 * (i + 1), batch_size=8 * (1 + i % 2))
    table(tmp_path, "--html", str(tmp_path / "report.html"))
    page = (tmp_path / "report.html").read_text()
    clicks = """<script>
      const first = () => document.querySelector("tbody tr td").textContent;
      const seen = [first()];
      const header = [...document.querySelectorAll("th button")].find(b => b.textContent.startsWith("learning_rate"));
      header.click(); seen.push(first()); header.click(); seen.push(first());
      const filter = document.querySelector("input");
      filter.value = "batch_size=8 accuracy>0.25"; filter.dispatchEvent(new Event("input"));
      seen.push(document.querySelectorAll("tbody tr").length);
      document.querySelector("tbody tr").click(); seen.push(document.querySelectorAll("td.details svg").length);
      document.querySelector("tbody tr").click(); seen.push(document.querySelectorAll("td.details").length);
      document.title = "SEEN " + seen.join(" ");
    </script></body>"""
    (tmp_path / "clicked.html").write_text(page.replace("</body>", clicks))
    words = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'browser'}", "--dump-dom"]
    command = [str(CHROMIUM), *words, f"file://{tmp_path / 'clicked.html'}"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "<title>SEEN run_11 run_11 run_0 3 2 0</title>" in result.stdout, result.stdout[:500] + result.stderr[-500:]
