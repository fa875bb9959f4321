"""Tabular prediction: what is read, what is made of it, what is refused, and whether its numbers are right."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.experiments import load_experiment
from engine.loaders import fetch_dataloaders
from engine.metrics import Totals, class_metrics, label_metrics, number_metrics
from model import TASKS
from model.tabular_prediction.sample import write_sample
from tests.conftest import ROOT, Result, last_checkpoint, read_json, refused, run, train_ok

HEADER = ["size", "rooms", "town", "note", "sold"]
TOWNS = ["Kent", "San Kila", "Nowhere"]


def make_rows(count: int = 60, seed: int = 0) -> list[list[str]]:
    """Cells of every kind: numbers, numbers with empty ones among them, words, words with a delimiter, a label."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(count):
        size, town = rng.normal(50, 20), TOWNS[int(rng.integers(3))]
        rooms = "" if i % 7 == 3 else str(int(rng.integers(1, 6)))
        note = ["old, but dry; with a\ttap", 'the "best"', "new"][i % 3]
        sold = "yes" if size + 20 * (town == "Kent") + rng.normal(0, 5) > 55 else "no"
        rows.append([f"{size:.3f}", rooms, town, note, sold])
    return rows


def write_csv(path: Path, rows: Sequence[Sequence[str]], header: Sequence[str] = HEADER, **dialect: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    encoding = dialect.pop("encoding", "utf-8")
    with open(path, "w", newline="", encoding=encoding) as file:
        csv.writer(file, **{"lineterminator": "\n", **dialect}).writerows([header, *rows] if header else rows)
    return path


numbers = itertools.count()


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., Path]:
    """`build(source, "--objective", "regression")` builds a table. Returns the folder."""

    def built(source: Path, *flags: Any) -> Path:
        folder = tmp_path / f"built{next(numbers)}"
        result = try_to_build(source, folder, *flags)
        assert result.status == 0, result.err
        return folder

    return built


def try_to_build(source: Path, folder: Path, *flags: Any) -> Result:
    words = ["--task", "tabular_prediction", "--data_dir", source, "--output_dir", folder]
    return run("build_dataset", *words, *flags)


def experiment_on(data: Path, folder: Path, **params: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    values = {"task": "tabular_prediction", "data_dir": str(data), "num_epochs": 2, "learning_rate": 0.01, **params}
    (folder / "params.json").write_text(json.dumps(values))
    return folder


def load(data: Path, split: str, folder: Path, **params: Any) -> tuple[Any, Any, Any]:
    """Task, parameters, and all rows of a split as (inputs, labels)."""
    task, params_, *_ = load_experiment(TASKS, experiment_on(data, folder, batch_size=10_000, **params))
    return task, params_, next(iter(fetch_dataloaders(task, [split], params_, evaluating=True)[split]))


def values_of(folder: Path) -> dict[str, Any]:
    found = read_json(folder / "dataset_params.json")
    return {name: value for name, value in found.items() if name != "digest"}


def assert_same_arrays(first: Path, second: Path) -> None:
    files = sorted(path.relative_to(first) for path in first.rglob("*.npy"))
    assert len(files) == 9
    for file in files:
        np.testing.assert_array_equal(np.load(first / file), np.load(second / file))


# -------------------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize(
    "dialect",
    [
        {"delimiter": ";"},
        {"delimiter": "\t"},
        {"encoding": "utf-8-sig"},
        {"lineterminator": "\r\n"},
        {"quoting": csv.QUOTE_ALL},
        {"delimiter": ";", "lineterminator": "\r\n", "encoding": "utf-8-sig", "quoting": csv.QUOTE_ALL},
    ],
)
def test_the_same_table_in_other_dialects(build: Any, tmp_path: Path, dialect: dict[str, Any]) -> None:
    plain = build(write_csv(tmp_path / "plain.csv", make_rows()))
    other = build(write_csv(tmp_path / "other.csv", make_rows(), **dialect))
    assert values_of(plain) == values_of(other)
    assert_same_arrays(plain, other)
    notes = {row["note"] for row in csv.DictReader((other / "train" / "rows.csv").open(newline=""))}
    assert notes == {"old, but dry; with a\ttap", 'the "best"', "new"}


@pytest.mark.parametrize("character", ["\u2028", "\x0b", "\x0c", "\x85", "\x1c"])
def test_only_line_breaks_end_a_row(build: Any, tmp_path: Path, character: str) -> None:
    """Not what Python's splitlines takes for one."""
    rows = [[f"{i}", f"a{character}b", "yn"[i % 2]] for i in range(30)]
    folder = build(write_csv(tmp_path / "table.csv", rows, ["x", "word", "label"]))
    assert values_of(folder)["columns"]["categories"] == {"word": [f"a{character}b"]}


def test_a_line_break_within_quotes_and_empty_lines(build: Any, tmp_path: Path) -> None:
    rows = [[f"{i}", "two\nlines", "yn"[i % 2]] for i in range(30)]
    path = write_csv(tmp_path / "table.csv", rows, ["x", "word", "label"])
    path.write_text(path.read_text().replace('\n3,"', '\n\n\n3,"') + "\n\n")
    values = values_of(build(path))
    assert values["columns"]["categories"] == {"word": ["two\nlines"]}
    assert sum(values["sizes"].values()) == 30


def test_a_header_or_none(build: Any, tmp_path: Path) -> None:
    """A first line with a number in it is a row; --no_header says so of one that has none."""
    with_header = build(write_csv(tmp_path / "with.csv", make_rows()))
    without = build(write_csv(tmp_path / "without.csv", make_rows(), header=[]))
    assert_same_arrays(with_header, without)
    assert values_of(without)["columns"]["numbers"] == ["column 1", "column 2"]
    assert values_of(without)["label_columns"] == ["column 5"]
    words = [[TOWNS[i % 3], "ab"[i % 2], "yes" if i % 3 else "no"] for i in range(30)]
    path = write_csv(tmp_path / "words.csv", words, header=[])
    assert sum(values_of(build(path))["sizes"].values()) == 29
    assert sum(values_of(build(path, "--no_header"))["sizes"].values()) == 30


def test_files_of_a_folder(build: Any, tmp_path: Path) -> None:
    """train.csv and test.csv, with val.csv or without; or a single table of any name."""
    rows = make_rows(60)
    write_csv(tmp_path / "a" / "train.csv", rows[:40])
    write_csv(tmp_path / "a" / "test.csv", rows[40:50])
    (tmp_path / "a" / "notes.md").write_text("no table")
    (tmp_path / "a" / ".hidden.csv").write_text("no table")
    assert values_of(build(tmp_path / "a"))["sizes"] == {"train": 32, "val": 8, "test": 10}
    write_csv(tmp_path / "a" / "valid.csv", rows[50:])
    folder = build(tmp_path / "a")
    assert values_of(folder)["sizes"] == {"train": 40, "val": 10, "test": 10}
    kept = list(csv.reader((folder / "test" / "rows.csv").open(newline="")))
    assert kept == [HEADER, *rows[40:50]]  # as they were
    write_csv(tmp_path / "b" / "houses.tsv", rows, delimiter="\t")
    assert_same_arrays(build(tmp_path / "b"), build(write_csv(tmp_path / "houses.csv", rows)))


def test_the_split_depends_on_rows_and_seed_alone(build: Any, tmp_path: Path) -> None:
    rows = make_rows(60)

    def test_rows(rows: list[list[str]], *flags: Any) -> set[str]:
        folder = build(write_csv(tmp_path / "table.csv", rows), *flags)
        return {row["size"] for row in csv.DictReader((folder / "test" / "rows.csv").open(newline=""))}

    assert test_rows(rows) == test_rows(rows[::-1])
    assert test_rows(rows) != test_rows(rows, "--seed", 5)
    shares = [
        sum(row[4] == "yes" for row in part) / len(part)
        for part in (rows, [r for r in rows if r[0] in test_rows(rows)])
    ]
    assert shares[0] == pytest.approx(shares[1], abs=0.1)  # each class gives its share


def test_rows_in_two_splits_are_named(build: Any, tmp_path: Path) -> None:
    rows = make_rows(60)
    write_csv(tmp_path / "a" / "train.csv", rows[:50])
    write_csv(tmp_path / "a" / "test.csv", rows[49:])
    result = try_to_build(tmp_path / "a", tmp_path / "built")
    assert result.status == 0
    assert "1 rows are in two splits" in result.out + result.err
    assert "test.csv, line 2 = train: " in result.out + result.err


# ------------------------------------------------------------------------------------------------ objectives

LABELS: dict[str, tuple[list[list[str]], str]] = {
    "two words": ([[w] for w in ["yes", "no"] * 30], "binary"),
    "0 and 1": ([[w] for w in ["0", "1"] * 30], "binary"),
    "three words": ([[w] for w in ["a", "b", "c"] * 20], "multiclass"),
    "few whole numbers": ([[str(i % 10)] for i in range(60)], "multiclass"),
    "many whole numbers": ([[str(i)] for i in range(60)], "regression"),
    "fractions": ([[w] for w in ["0.5", "1.5", "2"] * 20], "regression"),
    "two columns of flags": ([[str(i % 2), str(i % 3 % 2)] for i in range(60)], "multilabel"),
    "two columns of numbers": ([[str(i), str(-i)] for i in range(60)], "regression"),
}


@pytest.mark.parametrize("labels", LABELS)
def test_the_objective_is_chosen_from_the_labels(build: Any, tmp_path: Path, labels: str) -> None:
    cells, objective = LABELS[labels]
    names = [f"label {i}" for i in range(len(cells[0]))]
    rows = [[str(i * 37 % 61), *its] for i, its in enumerate(cells)]
    folder = build(write_csv(tmp_path / "table.csv", rows, ["x", *names]), "--label_columns", *names)
    values = values_of(folder)
    assert (values["objective"], values["label_columns"]) == (objective, names)
    task, params, (inputs, found) = load(folder, "train", tmp_path / "a")
    outputs = task.Net(params)(inputs)
    assert task.loss_fn(outputs, found).isfinite()
    expected = {"binary": 2, "multiclass": len(values["classes"])}.get(objective, len(names))
    assert outputs.shape == (len(found), expected)
    model_dir = experiment_on(folder, tmp_path / "b")
    train_ok(model_dir)
    assert run("evaluate", "--model_dir", model_dir).status == 0


def test_an_objective_that_is_asked_for(build: Any, tmp_path: Path) -> None:
    """Where the labels allow two."""
    rows = [[str(i * 37 % 61), str(i % 2)] for i in range(60)]
    path = write_csv(tmp_path / "table.csv", rows, ["x", "label"])
    dtypes = {"binary": torch.int64, "multiclass": torch.int64, "multilabel": torch.int64, "regression": torch.float32}
    for objective, dtype in dtypes.items():
        folder = build(path, "--objective", objective)
        _, params, (_, labels) = load(folder, "train", tmp_path / objective)
        assert params.data.objective == objective
        assert labels.dtype == dtype
        assert labels.ndim == (1 if objective in ("binary", "multiclass") else 2)


def test_label_columns_by_name_and_by_number(build: Any, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "table.csv", make_rows())
    for words in (["town"], ["3"]):
        values = values_of(build(path, "--label_columns", *words))
        assert values["label_columns"] == ["town"]
        assert values["classes"] == sorted(TOWNS)
        assert set(values["columns"]["categories"]) == {"note", "sold"}
    path = write_csv(tmp_path / "years.csv", [[str(i), str(i % 5), "a"] for i in range(60)], ["2", "1", "town"])
    assert values_of(build(path, "--label_columns", "1", "--no_header"))["label_columns"] == ["column 1"]


# -------------------------------------------------------------------------------------------------- encoding


def split_by_hand(tmp_path: Path, train: list[list[str]], test: list[list[str]]) -> Path:
    write_csv(tmp_path / "raw" / "train.csv", train)
    write_csv(tmp_path / "raw" / "val.csv", train[:10])
    write_csv(tmp_path / "raw" / "test.csv", test)
    return tmp_path / "raw"


def test_numbers_are_standardised_by_train_alone(build: Any, tmp_path: Path) -> None:
    rows = make_rows(80)
    train, test = rows[:60], [[str(1e6 + i), "7", *row[2:]] for i, row in enumerate(rows[60:])]
    folder = build(split_by_hand(tmp_path, train, test))
    columns = values_of(folder)["columns"]
    assert columns["numbers"] == ["size", "rooms"]
    assert columns["with_empty"] == ["rooms"]
    by_hand = [np.array([float(row[i]) for row in train if row[i]]) for i in (0, 1)]
    assert columns["mean"] == pytest.approx([column.mean() for column in by_hand])
    assert columns["std"] == pytest.approx([column.std() for column in by_hand])
    for split, its in (("train", train), ("test", test)):
        inputs = np.load(folder / split / "numbers.npy")
        assert inputs.dtype == np.float32
        for i, column in enumerate(by_hand):
            expected = [(float(row[i]) - column.mean()) / column.std() if row[i] else 0.0 for row in its]
            np.testing.assert_allclose(inputs[:, i], expected, rtol=1e-4, atol=1e-5)
        assert inputs[:, 2].tolist() == [float(row[1] == "") for row in its]  # 1 where the cell is empty
    assert np.load(folder / "train" / "numbers.npy")[:, 2].sum() > 3


def test_test_decides_nothing(build: Any, tmp_path: Path) -> None:
    """Neither statistics nor vocabularies nor the columns that have empty cells."""
    rows = make_rows(80)
    strange = [["1e9", "", "Atlantis", "unheard of", row[4]] for row in rows[60:]]
    first = values_of(build(split_by_hand(tmp_path / "a", rows[:60], rows[60:])))
    assert values_of(build(split_by_hand(tmp_path / "b", rows[:60], strange))) == first


@pytest.mark.parametrize("empty", ["", "NA", "nan", "NULL", "None", "?", " "])
def test_cells_that_hold_no_value(build: Any, tmp_path: Path, empty: str) -> None:
    rows = [[empty if i % 4 == 0 else str(i), "yn"[i % 2]] for i in range(40)]
    columns = values_of(build(write_csv(tmp_path / "table.csv", rows, ["x", "label"])))["columns"]
    assert (columns["numbers"], columns["with_empty"], columns["categories"]) == (["x"], ["x"], {})


def test_a_constant_column_says_nothing(build: Any, tmp_path: Path) -> None:
    rows = [["5", "", str(i), "yn"[i % 2]] for i in range(40)]
    folder = build(write_csv(tmp_path / "table.csv", rows, ["five", "nothing", "x", "label"]))
    inputs = np.load(folder / "train" / "numbers.npy")
    assert (inputs[:, :2] == 0).all()
    assert np.isfinite(inputs).all()


@pytest.mark.parametrize("params", [{}, {"hidden_dims": [8], "optimizer": "adamw", "weight_decay": 0.1}])
def test_a_new_word_is_one_that_says_nothing(build: Any, tmp_path: Path, params: dict[str, Any]) -> None:
    """It has number 0, whose vector is zero before and after training."""
    rows = make_rows(80)
    test = [[*row[:2], "Atlantis", *row[3:]] for row in rows[60:]]
    folder = build(split_by_hand(tmp_path, rows[:60], test))
    model_dir = experiment_on(folder, tmp_path / "a", **params)
    train_ok(model_dir)
    task, loaded, (inputs, _) = load(folder, "test", tmp_path / "b", **params)
    assert inputs["categories"][:, 0].tolist() == [0] * 20
    net = task.Net(loaded)
    before = net.categories.weight.detach().clone()
    net.load_state_dict(last_checkpoint(model_dir)["state_dict"])
    assert not torch.equal(net.categories.weight, before)
    net.eval()
    with torch.no_grad():
        note = net.categories.weight[net.first[1] + inputs["categories"][:, 1]]
        without_town = net.hidden(net.numbers(inputs["numbers"]) + note)
        torch.testing.assert_close(net(inputs), without_town)


def test_inputs_of_one_kind_alone(build: Any, tmp_path: Path) -> None:
    for name, cells in (("words", ["a", "b", "c"]), ("numbers", ["1", "2", "4"])):
        rows = [[cells[i % 3], "yn"[i % 2]] for i in range(60)]
        folder = build(write_csv(tmp_path / f"{name}.csv", rows, ["x", "label"]))
        model_dir = experiment_on(folder, tmp_path / name)
        train_ok(model_dir)
        assert run("evaluate", "--model_dir", model_dir).status == 0


# -------------------------------------------------------------------------------------------------- refused

GOOD = "".join(f"{i},{TOWNS[i % 3]},{'yes' if i % 2 else 'no'}\n" for i in range(30))
TITLED = "size,town,sold\n" + GOOD
BAD: dict[str, tuple[str | bytes, list[str], list[str]]] = {
    "empty": ("", [], ["bad.csv: expected rows of at least 2 columns"]),
    "a header alone": ("size,town,sold\n", [], ["bad.csv: expected rows of at least 2 columns"]),
    "one column": ("sold\nyes\nno\n", [], ["bad.csv: expected rows of at least 2 columns"]),
    "a ragged row": (TITLED + "1,Kent\n", [], ["bad.csv, line 32: 2 cells, expected 3"]),
    "an empty label": (TITLED + "1,Kent,\n", [], ["bad.csv, line 32: no value in the label column"]),
    "no such column": (TITLED, ["--label_columns", "price"], ["price: no such column", "size, town, sold"]),
    "no such number": (TITLED, ["--label_columns", "4"], ["4: no such column"]),
    "all are labels": (TITLED, ["--label_columns", "1", "2", "3"], ["--label_columns: all columns"]),
    "one class": (TITLED.replace("yes", "no"), [], ["Only one class (no)"]),
    "too few rows": ("size,sold\n1,yes\n2,no\n", [], ["split would be empty", "at least 3 examples"]),
    "an open quote": (TITLED + '1,"Kent,yes\n', [], ["bad.csv, line 32", "Is a quotation mark left open?"]),
    "not UTF-8": (TITLED.encode() + b"1,K\xf6ln,yes\n", [], ["bad.csv: not UTF-8 (byte ", "Save it as UTF-8"]),
    "a number twice": ("size,size,sold\n" + GOOD, [], ["bad.csv: ", "different names"]),
    "words for numbers": (TITLED, ["--objective", "regression"], ["Labels such as no, yes", "regression"]),
    "words for flags": (TITLED, ["--objective", "multilabel"], ["Labels such as no, yes", "multilabel"]),
    "three for two": (TITLED + "1,Kent,maybe\n" * 5, ["--objective", "binary"], ["maybe, no, yes", "binary"]),
    "two columns, one class": (
        TITLED,
        ["--objective", "multiclass", "--label_columns", "town", "sold"],
        ["do not fit the objective multiclass"],
    ),
    "words in two columns": (TITLED, ["--label_columns", "town", "sold"], ["do not fit the objective regression"]),
}


@pytest.mark.parametrize("what", BAD)
def test_what_is_wrong_with_a_table(tmp_path: Path, what: str) -> None:
    """One message that says where, exit status 2, and nothing is left."""
    content, flags, words = BAD[what]
    path = tmp_path / "bad.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    result = try_to_build(path, tmp_path / "built", *flags)
    refused(result, *words)
    assert [path.name for path in tmp_path.iterdir()] == ["bad.csv"]


def test_a_label_column_twice(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text(TITLED)
    result = try_to_build(tmp_path / "table.csv", tmp_path / "built", "--label_columns", "sold", "3")
    refused(result, "sold 3: the same column twice")


def test_what_is_wrong_with_a_folder(tmp_path: Path) -> None:
    built = tmp_path / "built"
    refused(try_to_build(tmp_path / "nowhere.csv", built), "nowhere.csv: cannot be read", "Expected a table")
    folder = tmp_path / "raw"
    folder.mkdir()
    refused(try_to_build(folder, built), f"{folder}: no table in it", "train.csv [val.csv] test.csv")
    for name in ("one.csv", "two.csv"):
        (folder / name).write_text(TITLED)
    refused(try_to_build(folder, built), f"{folder}: one.csv, two.csv in it")
    (folder / "one.csv").rename(folder / "train.csv")
    (folder / "two.csv").rename(folder / "test.csv")
    assert try_to_build(folder, built).status == 0
    for content, words in (
        (
            TITLED.replace("town", "city"),
            [f"{folder}/t", "size, city, sold", "size, town, sold", "the columns ", ", but others have "],
        ),
        (
            TITLED.replace("\n5,", "\nfive,"),
            [f"{folder}/test.csv, line 7: five in the column size, which holds numbers"],
        ),
        (TITLED.replace("no\n", "never\n"), ["in test but missing from train: never", f"{folder}/test.csv, line 2"]),
    ):
        (folder / "test.csv").write_text(content)
        refused(try_to_build(folder, tmp_path / "again"), *words)
        assert not (tmp_path / "again").exists()
    (folder / "TRAIN.tsv").write_text(TITLED.replace(",", "\t"))
    refused(try_to_build(folder, tmp_path / "again"), "are both train. Rename one")


def test_arrays_that_were_spoilt_after_they_were_built(build: Any, tmp_path: Path) -> None:
    folder = build(write_csv(tmp_path / "table.csv", make_rows()))
    model_dir = experiment_on(folder, tmp_path / "a")
    path = folder / "train" / "numbers.npy"
    whole = path.read_bytes()
    path.write_bytes(whole[:50])
    refused(run("train", "--model_dir", model_dir), f"{path}: not an array", "--overwrite")
    path.unlink()
    np.save(folder / "train" / "labels.npy", np.zeros(3, dtype=np.int64))
    refused(run("train", "--model_dir", model_dir), f"{folder / 'train'}: ", "labels.npy: 3", "--overwrite")


# --------------------------------------------------------------------------------------------------- metrics


def area_by_pairs(scores: list[float], is_own: list[bool]) -> float:
    """The share of pairs (one of the class, one of the others) in which its own scores higher; ties count half."""
    own = [score for score, its in zip(scores, is_own, strict=True) if its]
    others = [score for score, its in zip(scores, is_own, strict=True) if not its]
    won = sum((a > b) + 0.5 * (a == b) for a in own for b in others)
    return won / (len(own) * len(others))


def f1_by_counting(predicted: list[bool], labelled: list[bool]) -> float:
    pairs = list(zip(predicted, labelled, strict=True))
    both = sum(p and label for p, label in pairs)
    precision = both / sum(predicted) if any(predicted) else 0.0
    recall = both / sum(labelled) if any(labelled) else 0.0
    return 2 * precision * recall / (precision + recall) if both else 0.0


def measure(metrics: Any, outputs: Tensor, labels: Tensor) -> dict[str, float]:
    totals = Totals(metrics)
    for some in torch.arange(len(labels)).split(17):  # the last batch is a shorter one
        totals.add(outputs[some], labels[some], torch.tensor(0.0))
    return totals.compute()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("is_tied", [True, False])
def test_two_classes_against_counting(seed: int, is_tied: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(2, (90,), generator=generator)
    scores = torch.randn(90, generator=generator) * 2 + labels
    if is_tied:
        scores = (scores * 2).round() / 2
    scores = (scores * 16).floor() / 16 + 1 / 32  # further apart than bins are wide, so that only equal ones are ties
    found = measure(class_metrics(), torch.stack([-scores / 2, scores / 2], dim=1), labels)
    own = (labels == 1).tolist()
    assert found["auc"] == pytest.approx(area_by_pairs(scores.tolist(), own), abs=1e-9)
    predicted = (scores > 0).tolist()
    assert found["accuracy"] == pytest.approx(sum(p == label for p, label in zip(predicted, own, strict=True)) / 90)
    others = [[not value for value in values] for values in (predicted, own)]
    expected = (f1_by_counting(predicted, own) + f1_by_counting(*others)) / 2
    assert found["f1"] == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(5))
def test_several_classes_against_counting(seed: int) -> None:
    """Of five, one occurs neither in labels nor in predictions: it counts neither in F1 nor in AUC."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(4, (120,), generator=generator)
    outputs = torch.randn(120, 5, generator=generator) + 2 * torch.nn.functional.one_hot(labels, 5)
    outputs[:, 4] = -20
    found, predicted = measure(class_metrics(), outputs, labels), outputs.argmax(1)
    assert found["accuracy"] == pytest.approx((predicted == labels).float().mean().item())
    probabilities = outputs.double().softmax(1)
    areas = [area_by_pairs(probabilities[:, i].tolist(), (labels == i).tolist()) for i in range(4)]
    assert found["auc"] == pytest.approx(sum(areas) / 4, abs=2e-3)  # scores within a bin are ties
    scores = [f1_by_counting((predicted == i).tolist(), (labels == i).tolist()) for i in range(4)]
    assert found["f1"] == pytest.approx(sum(scores) / 4)


@pytest.mark.parametrize("seed", range(5))
def test_labels_against_counting(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(2, (90, 3), generator=generator)
    scores = ((torch.randn(90, 3, generator=generator) * 2 + labels) * 2).round() / 2 + 1 / 256
    found, predicted = measure(label_metrics(), scores, labels), scores > 0
    assert found["accuracy"] == pytest.approx((predicted == labels).float().mean().item())
    columns = [(scores[:, i].tolist(), predicted[:, i].tolist(), (labels[:, i] == 1).tolist()) for i in range(3)]
    assert found["auc"] == pytest.approx(sum(area_by_pairs(score, own) for score, _, own in columns) / 3, abs=1e-9)
    assert found["f1"] == pytest.approx(sum(f1_by_counting(said, own) for _, said, own in columns) / 3)


def test_numbers_against_numpy() -> None:
    rng = np.random.default_rng(0)
    labels, outputs = rng.normal(size=(50, 2)), rng.normal(size=(50, 2))
    unit = np.array([10.0, 0.1])
    found = measure(number_metrics(torch.tensor(unit)), torch.tensor(outputs).float(), torch.tensor(labels).float())
    error = (outputs - labels) * unit
    assert found["mae"] == pytest.approx(np.abs(error).mean(0).mean(), rel=1e-5)
    assert found["rmse"] == pytest.approx(np.sqrt((error**2).mean(0)).mean(), rel=1e-5)
    spread = ((labels - labels.mean(0)) ** 2).sum(0)
    assert found["r2"] == pytest.approx((1 - ((outputs - labels) ** 2).sum(0) / spread).mean(), rel=1e-5)


def predictions_of(model_dir: Path) -> list[dict[str, str]]:
    result = run("evaluate", "--model_dir", model_dir)
    assert result.status == 0, result.err
    return list(csv.DictReader((model_dir / "predictions_test.csv").open(newline="")))


def test_a_regression_is_measured_in_units_of_the_data(build: Any, tmp_path: Path) -> None:
    """Its predictions, too: they stand beside the labels as these were in the table."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(200, 2))
    y = np.stack([5000 + 900 * x[:, 0], x[:, 1] / 100], axis=1) + rng.normal(size=(200, 2)) * [100, 1e-3]
    rows = [[f"{value:.6g}" for value in row] for row in np.concatenate([x, y], axis=1)]
    folder = build(
        write_csv(tmp_path / "table.csv", rows, ["a", "b", "price", "rate"]), "--label_columns", "price", "rate"
    )
    model_dir = experiment_on(folder, tmp_path / "a", num_epochs=30, batch_size=16)
    train_ok(model_dir)
    found = predictions_of(model_dir)
    table = list(csv.DictReader((folder / "test" / "rows.csv").open(newline="")))
    metrics = read_json(model_dir / "metrics_test_best_weights.json")
    labels, predicted = (
        np.array([[float(row[before + name]) for name in ("price", "rate")] for row in found])
        for before in ("", "predicted ")
    )
    np.testing.assert_allclose(labels, [[float(row["price"]), float(row["rate"])] for row in table], rtol=1e-4)
    assert [row["line"] for row in found] == [str(i + 2) for i in range(len(table))]
    error = predicted - labels
    assert metrics["mae"] == pytest.approx(np.abs(error).mean(0).mean(), rel=1e-3)
    assert metrics["rmse"] == pytest.approx(np.sqrt((error**2).mean(0)).mean(), rel=1e-3)
    spread = ((labels - labels.mean(0)) ** 2).sum(0)
    assert metrics["r2"] == pytest.approx((1 - (error**2).sum(0) / spread).mean(), abs=1e-3)
    assert metrics["r2"] > 0.9


def test_a_classification_is_measured_as_it_is_written_down(build: Any, tmp_path: Path) -> None:
    folder = build(write_csv(tmp_path / "table.csv", make_rows(200)))
    model_dir = experiment_on(folder, tmp_path / "a", num_epochs=20, batch_size=16)
    train_ok(model_dir)
    found, metrics = predictions_of(model_dir), read_json(model_dir / "metrics_test_best_weights.json")
    table = list(csv.DictReader((folder / "test" / "rows.csv").open(newline="")))
    assert [row["label"] for row in found] == [row["sold"] for row in table]
    right = sum(row["label"] == row["prediction"] for row in found)
    assert metrics["accuracy"] == pytest.approx(right / len(found))
    assert metrics["accuracy"] > 0.8
    yes = [float(row["probability"]) if row["prediction"] == "yes" else 1 - float(row["probability"]) for row in found]
    assert metrics["auc"] == pytest.approx(area_by_pairs(yes, [row["label"] == "yes" for row in found]), abs=0.01)


def test_labels_are_measured_as_they_are_written_down(build: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(200, 2))
    rows = [[f"{a:.4f}", f"{b:.4f}", str(int(a + b > 0)), str(int(a > b))] for a, b in x]
    path = write_csv(tmp_path / "table.csv", rows, ["a", "b", "big", "falling"])
    folder = build(path, "--label_columns", "big", "falling")
    assert values_of(folder)["classes"] == ["big", "falling"]
    model_dir = experiment_on(folder, tmp_path / "a", num_epochs=30, batch_size=16, learning_rate=0.05)
    train_ok(model_dir)
    found, metrics = predictions_of(model_dir), read_json(model_dir / "metrics_test_best_weights.json")
    right = [
        (float(row[f"probability of {name}"]) > 0.5) == (row[name] == "1")
        for row in found
        for name in ("big", "falling")
    ]
    assert metrics["accuracy"] == pytest.approx(sum(right) / len(right))
    assert metrics["accuracy"] > 0.9


# ---------------------------------------------------------------------------------------------- experiments


def test_hidden_layers_from_command_line_and_file(build: Any, tmp_path: Path) -> None:
    folder = build(write_csv(tmp_path / "table.csv", make_rows()))
    base = experiment_on(folder, tmp_path / "base", hidden_dims=[4])
    words = ["--base", base, "--set", "hidden_dims=[64,64]", "batch_norm=true", "dropout_rate=0.1"]
    console = train_ok(tmp_path / "wide", *words)
    assert read_json(tmp_path / "wide" / "params.json")["hidden_dims"] == [64, 64]
    shapes = {name: list(tensor.shape) for name, tensor in last_checkpoint(tmp_path / "wide")["state_dict"].items()}
    assert shapes["hidden.3.weight"] == [64, 64]
    assert [64] in shapes.values()
    assert "hidden.3" in console
    assert "finished" in train_ok(tmp_path / "wide", *words)  # the same command again
    train_ok(base)
    assert last_checkpoint(base)["state_dict"]["numbers.weight"].shape == (4, 3)
    for text, expected in (
        ("64", "a list"),
        ("[0]", "hidden_dims: expected a list, each an integer > 0, got [0]."),
        ('["64"]', "hidden_dims"),
        ("[6.5]", "hidden_dims"),
    ):
        refused(run("train", "--model_dir", tmp_path / "x", "--base", base, "--set", f"hidden_dims={text}"), expected)
    assert not (tmp_path / "x").exists()


def test_the_sample_needs_a_hidden_layer(build: Any, tmp_path: Path) -> None:
    """What the shipped experiments show: a perceptron gets clearly further than logistic regression."""
    (tmp_path / "raw").mkdir()
    write_sample(tmp_path / "raw", 230)
    folder, areas = build(tmp_path / "raw"), {}
    for name in ("tabular_logistic", "tabular_mlp"):
        words = ["--base", ROOT / "experiments" / name, "--data_dir", folder, "--set", "num_epochs=15"]
        train_ok(tmp_path / name, *words)
        predictions_of(tmp_path / name)
        areas[name] = read_json(tmp_path / name / "metrics_test_best_weights.json")["auc"]
    assert areas["tabular_mlp"] > 0.75, areas
    assert areas["tabular_mlp"] > areas["tabular_logistic"] + 0.1, areas


# ------------------------------------------------------------------------------- numbers at their limits


def raw_file(folder: Path, name: str) -> Path:
    (folder / "raw").mkdir(exist_ok=True)
    return folder / "raw" / name


def test_auc_of_a_confident_network() -> None:
    """Log-odds far from 0 are told apart too."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(2, (400, 1), generator=generator)
    scores = 25 + 3 * torch.randn(400, 1, generator=generator) + 3 * labels
    found = measure(label_metrics(), scores, labels)["auc"]
    expected = area_by_pairs(scores.flatten().tolist(), labels.flatten().bool().tolist())
    assert found == pytest.approx(expected, abs=0.02)
    assert expected > 0.7


def test_r2_of_a_constant_target_is_0() -> None:
    """0.1 has no exact sum of squares: rounding must not pass for spread."""
    labels = torch.full((1000, 1), 0.1)
    assert measure(number_metrics(), labels + torch.randn(1000, 1), labels)["r2"] == 0


def test_another_value_in_a_constant_column(build: Any, tmp_path: Path) -> None:
    """Not even when a row of test has another value in it."""
    lines = [f"0.1,{i % 7},{'yes' if i % 3 else 'no'}" for i in range(240)]
    raw_file(tmp_path, "train.csv").write_text("constant,b,label\n" + "\n".join(lines) + "\n")
    raw_file(tmp_path, "test.csv").write_text("constant,b,label\n0.2,1,yes\n0.1,2,no\n")
    folder = build(tmp_path / "raw")
    numbers = np.load(folder / "test" / "numbers.npy")
    assert np.abs(numbers[:, 0]).max() <= 0.11
    assert not np.load(folder / "train" / "numbers.npy")[:, 0].any()


def test_the_table_of_a_data_frame(build: Any, tmp_path: Path) -> None:
    """Its column of numbers has no name."""
    lines = [f"{i},{i % 7},{'yes' if i % 3 else 'no'}" for i in range(60)]
    raw_file(tmp_path, "frame.csv").write_text(",age,label\n" + "\n".join(lines) + "\n")
    found = read_json(build(tmp_path / "raw") / "dataset_params.json")
    assert found["columns"]["numbers"] == ["column 1", "age"]
    assert found["classes"] == ["no", "yes"]


@pytest.mark.parametrize(
    "lines",
    ['1, "x, y", {}', "1,5;2,5;{}", '"a,b,c,d,e";x;{}', "\n1\t2\t{}"],
    ids=["space", "comma", "quoted", "blank"],
)
def test_delimiters_that_are_hard_to_tell(build: Any, tmp_path: Path, lines: str) -> None:
    text = "\n".join(lines.format("yes" if i % 3 else "no") for i in range(60))
    raw_file(tmp_path, "table.csv").write_text(text + "\n")
    found = read_json(build(tmp_path / "raw", "--no_header") / "dataset_params.json")
    assert found["classes"] == ["no", "yes"]
    assert len(found["columns"]["numbers"]) + len(found["columns"]["categories"]) == 2


def test_none_is_a_class_among_words(build: Any, tmp_path: Path) -> None:
    lines = [f"{i},{('none', 'mild', 'severe')[i % 3]}" for i in range(90)]
    raw_file(tmp_path, "table.csv").write_text("x,severity\n" + "\n".join(lines) + "\n")
    assert read_json(build(tmp_path / "raw") / "dataset_params.json")["classes"] == ["mild", "none", "severe"]


def test_numbers_that_cannot_be_standardised(tmp_path: Path) -> None:
    raw_file(tmp_path, "table.csv").write_text("x,label\n" + "\n".join(f"{i}e300,{i % 2}" for i in range(60)) + "\n")
    words = [
        "--task",
        "tabular_prediction",
        "--data_dir",
        tmp_path / "raw" / "table.csv",
        "--output_dir",
        tmp_path / "built",
    ]
    refused(run("build_dataset", *words), "the column x are too large")


def test_looking_at_a_regression_changes_nothing() -> None:
    """Its counts are sums of floats: they are added one batch after another, however often somebody looks."""
    generator = torch.Generator().manual_seed(0)
    undisturbed, disturbed = Totals(number_metrics()), Totals(number_metrics())
    for i in range(150):
        outputs, labels = torch.randn(2, 7, 1, generator=generator)
        for totals in (undisturbed, disturbed):
            totals.add(outputs, labels, torch.tensor(1.0))
        if i % 11 == 0:
            disturbed.compute()
    assert disturbed.compute() == undisturbed.compute()
