"""Tagging through the commands: train.py, evaluate.py, and what they leave and refuse."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from engine.experiments import load_experiment, read_params
from model import TASKS
from model.sequence_tagging.entities import find_entities
from tests.conftest import ROOT, last_checkpoint, read_json, refused, run, train_ok

Experiment = Callable[..., Path]


def test_what_a_run_leaves(tagger: Experiment) -> None:
    model_dir = tagger(crf=True, bidirectional=True, char_features="cnn", num_epochs=12)
    console = train_ok(model_dir)
    assert "encoder.backwards.0" in console
    layers = re.findall(r"  ([\d,]+)$", console.split("parameters")[1], re.MULTILINE)
    total = int(re.findall(r"([\d,]+) parameters, ", console)[0].replace(",", ""))
    assert sum(int(count.replace(",", "")) for count in layers) == total  # the CRF's too
    assert "epoch 12/12 | train loss" in console
    history = [json.loads(line) for line in (model_dir / "history.jsonl").read_text().splitlines()]
    assert history[0]["val"].keys() == {"loss", "f1", "accuracy", "precision", "recall"}
    best = max(history, key=lambda entry: (entry["val"]["f1"], -entry["val"]["loss"]))
    assert read_json(model_dir / "metrics_eval_best_weights.json") == {"epoch": best["epoch"], **best["val"]}
    assert best["val"]["f1"] > 0.3
    checkpoint = last_checkpoint(model_dir, "best")
    assert checkpoint["epoch"] == best["epoch"]
    assert "Kent" in checkpoint["data"]["words"]  # enough to use the weights without the data
    assert "Kent" not in (model_dir / "run.json").read_text()

    result = run("evaluate", "--model_dir", model_dir)
    assert result.status == 0, result.err
    metrics = read_json(model_dir / "metrics_test_best_weights.json")
    sentences = read_predictions(model_dir / "predictions_test.txt")
    assert len(sentences) == 31
    assert [row[0] for row in sentences[-1]] == ["10\u00a0000", "cheers", "for", "Zoë", "!"]
    assert [row[1] for row in sentences[-1]] == ["O", "O", "O", "B-art", "O"]
    labelled, predicted = (
        {(i, entity) for i, rows in enumerate(sentences) for entity in find_entities([row[side] for row in rows])}
        for side in (1, 2)
    )
    assert metrics["precision"] == pytest.approx(len(labelled & predicted) / len(predicted))
    assert metrics["recall"] == pytest.approx(len(labelled & predicted) / len(labelled))
    assert metrics["f1"] == pytest.approx(2 * len(labelled & predicted) / (len(predicted) + len(labelled)))
    words = [row for rows in sentences for row in rows]
    assert metrics["accuracy"] == pytest.approx(sum(row[1] == row[2] for row in words) / len(words))
    assert (
        f"| all    |       {metrics['precision']:.3f} |    {metrics['recall']:.3f} | {metrics['f1']:.3f} |"
        in result.out
    )
    for kind in ("loc", "per"):
        right, found = ({entity for entity in side if entity[1].type == kind} for side in (labelled, predicted))
        shares = [len(right & found) / max(len(side), 1) for side in (found, right)]
        cells = [cell.strip() for cell in re.findall(rf"\| {kind} .*", result.out)[0].split("|")[2:4]]
        assert cells == [f"{share:.3f}" for share in shares]
    assert any(" per]" in line and "should be" not in line for line in result.out.splitlines())


def read_predictions(path: Path) -> list[list[list[str]]]:
    """Sentences of [word, label, prediction]."""
    blocks = path.read_bytes().decode().removesuffix("\n").split("\n\n")
    return [[line.split(" ") for line in block.split("\n")] for block in blocks]


def test_predictions_are_in_the_order_of_the_text(tagger: Experiment, shared_text: Path) -> None:
    """Though batches are not."""
    model_dir = tagger(num_epochs=1, batch_size=4)
    train_ok(model_dir)
    for split in ("train", "val"):
        assert run("evaluate", "--model_dir", model_dir, "--split", split).status == 0
        words, labels = (
            [line.split(" ") for line in (shared_text / split / name).read_text("utf-8").splitlines()]
            for name in ("sentences.txt", "labels.txt")
        )
        sentences = read_predictions(model_dir / f"predictions_{split}.txt")
        assert [[row[0] for row in rows] for rows in sentences] == words
        assert [[row[1] for row in rows] for rows in sentences] == labels
        if split == "train":  # the metrics on val have one name, whoever writes them
            written_by_train = read_json(model_dir / "metrics_eval_best_weights.json")
            (model_dir / "metrics_eval_best_weights.json").unlink()
    assert read_json(model_dir / "metrics_eval_best_weights.json") == pytest.approx(written_by_train)


def test_rare_tags_are_not_learnt(tagger: Experiment, shared_text: Path, tmp_path: Path) -> None:
    words = ["--task", "sequence_tagging", "--data_dir", shared_text, "--output_dir", tmp_path / "built"]
    assert run("build_dataset", *words, "--min_count_tag", 60).status == 0
    tags = (tmp_path / "built" / "tags.txt").read_text().split()
    assert 1 < len(tags) < 9
    model_dir = tagger(data_dir=str(tmp_path / "built"), crf=True)
    train_ok(model_dir)
    assert run("evaluate", "--model_dir", model_dir).status == 0
    rows = [row for rows in read_predictions(model_dir / "predictions_test.txt") for row in rows]
    assert {row[2] for row in rows} <= set(tags)
    assert not {row[1] for row in rows} <= set(tags)
    assert run("evaluate", "--model_dir", model_dir, "--split", "train").status == 0
    labels = (tmp_path / "built" / "train" / "labels.txt").read_text().split()
    assert [row[1] for rows in read_predictions(model_dir / "predictions_train.txt") for row in rows] == labels


def test_pretrained_embeddings_are_a_beginning(tagger: Experiment, tmp_path: Path) -> None:
    """Read once: neither a run that goes on nor evaluate.py needs the file again."""
    path = tmp_path / "vectors.txt"
    path.write_text("said " + "0.5 " * 8 + "\nKENT 1 1 1 1 1 1 1 1\n")
    model_dir = tagger(pretrained_embeddings=str(path), num_epochs=1, learning_rate=1e-9)
    assert "vectors for 1 of" in train_ok(model_dir)
    _, params, *_ = load_experiment(TASKS, model_dir)
    weights = last_checkpoint(model_dir)["state_dict"]["embedding.weight"]
    torch.testing.assert_close(weights[params.vocabulary["said"]], torch.full((8,), 0.5))
    path.unlink()
    assert run("evaluate", "--model_dir", model_dir).status == 0
    tagger(pretrained_embeddings=str(path), num_epochs=2, learning_rate=1e-9)
    train_ok(model_dir)
    refused(run("train", "--model_dir", model_dir, "--restart"), "vectors.txt: cannot be read")


def test_what_cannot_start_leaves_no_experiment(tagger: Experiment, tmp_path: Path, shared_text: Path) -> None:
    """So that the corrected command is not refused for what the first one left."""
    (tmp_path / "vectors.txt").write_text("said 1 2 3\n")
    words = ["--model_dir", tmp_path / "new", "--base", tagger("base", num_epochs=1), "--data_dir", shared_text]
    vectors = f"pretrained_embeddings={tmp_path / 'vectors.txt'}"
    refused(run("train", *words, "--set", vectors), "vectors of 3 numbers")
    assert not (tmp_path / "new").exists()
    assert run("train", *words, "--set", vectors, "embedding_dim=3").status == 0
    assert read_json(tmp_path / "new" / "params.json")["data_dir"] == str(shared_text)


def test_the_files_of_cs230_work_unchanged(tmp_path: Path, shared_text: Path) -> None:
    """They name no task: the parameters do."""
    values = {"learning_rate": 1e-3, "batch_size": 5, "num_epochs": 1, "save_summary_steps": 100}
    values |= {"lstm_hidden_dim": 5, "embedding_dim": 5}
    (tmp_path / "params.json").write_text(json.dumps(values))
    assert "finished" not in train_ok(tmp_path, "--data_dir", shared_text)
    assert run("evaluate", "--model_dir", tmp_path).status == 0
    (tmp_path / "params.json").write_text(json.dumps({**values, "lstm_hiden_dim": 5}))
    refused(run("train", "--model_dir", tmp_path), "1 problem\n", "Did you mean lstm_hidden_dim?")


# ----------------------------------------------------------------------------------------------- refused


@pytest.fixture
def text(shared_text: Path, tmp_path: Path) -> Path:
    return shutil.copytree(shared_text, tmp_path / "copy")


def break_file(path: Path, old: str, new: str) -> None:
    content = path.read_text("utf-8")
    assert old in content
    path.write_text(content.replace(old, new, 1), "utf-8")


def test_a_data_set_that_was_changed(tagger: Experiment, text: Path) -> None:
    model_dir = tagger(data_dir=str(text))
    for file, old, new, message in (
        ("train/labels.txt", "B-per", "B-prs", "the tag B-prs is not in tags.txt (O, "),
        ("val/sentences.txt", " ", "", "labels.txt, line 1: "),
        ("words.txt", "Kent\n", "", "words.txt: "),
        ("tags.txt", "B-per", "I-per", "tags.txt: 9 lines, 8 of them different, but 9 were built"),
        ("chars.txt", "a\n", "", "chars.txt: "),
        ("train/labels.txt", "O", "", "labels.txt, line 1: "),
    ):
        before = (text / file).read_bytes()
        break_file(text / file, old, new)
        refused(run("train", "--model_dir", model_dir), str(text), message)
        (text / file).write_bytes(before)
    (text / "tags.txt").unlink()
    refused(run("train", "--model_dir", model_dir), f"{text / 'tags.txt'}: cannot be read")


def test_line_of_a_stray_tag(tagger: Experiment, text: Path) -> None:
    path = text / "train" / "labels.txt"
    lines = path.read_text().split("\n")
    lines[6] = lines[6].replace("O", "X", 1)
    path.write_text("\n".join(lines))
    refused(run("train", "--model_dir", tagger(data_dir=str(text))), f"{path}, line 7: the tag X is not in tags.txt")


def test_other_vocabularies(tagger: Experiment, text: Path, tmp_path: Path) -> None:
    model_dir = tagger()
    train_ok(model_dir)
    words = ["--task", "sequence_tagging", "--data_dir", text, "--output_dir", tmp_path / "rare", "--min_count_word", 2]
    assert run("build_dataset", *words).status == 0
    own, other = (
        run("evaluate", "--model_dir", model_dir, *flags) for flags in ((), ("--data_dir", tmp_path / "rare"))
    )
    assert other.status == 0, other.err
    assert other.out.splitlines()[-1] == own.out.splitlines()[-1]  # the same sentences, in the network's vocabulary
    assert (model_dir / "predictions_test_on_rare.txt").read_text() == (model_dir / "predictions_test.txt").read_text()
    weights = next((model_dir / "best_weights").glob("*.pt"))
    flags = ["--data_dir", tmp_path / "rare", "--restore_file", weights]
    result = run("train", "--model_dir", tagger("new"), *flags)
    refused(result, "words: [", "was trained on")
    assert len(result.err) < 1000


def test_the_same_number_of_other_words(tagger: Experiment, tmp_path: Path) -> None:
    """Weights fit by their shapes, and every word would get the vector of another."""
    for name, words in (("a", ["aa", "bb", "cc"]), ("b", ["bb", "cc", "aa"])):
        lines = "".join(f"{word} {tag}\n" for word, tag in zip(words, ("O", "X", "Y"), strict=True))
        path = tmp_path / f"{name}.txt"
        path.write_text(f"{words[0]} O\n{lines}\n" * 10)
        flags = ["--task", "sequence_tagging", "--data_dir", path, "--output_dir", tmp_path / name]
        assert run("build_dataset", *flags).status == 0
    model_dir = tagger(data_dir=str(tmp_path / "a"))
    train_ok(model_dir)
    new = tagger("new", data_dir=str(tmp_path / "b"))
    weights = next((model_dir / "best_weights").glob("*.pt"))
    message = "words: ['bb'] at place 1 of 3", "with ['aa'] at place 1 of 3"
    refused(run("train", "--model_dir", new, "--restore_file", weights), *message)


def test_parameters_that_cannot_be(tagger: Experiment) -> None:
    refused(
        run("train", "--model_dir", tagger(char_hidden_dim=7)),
        "char_hidden_dim: expected an integer >= 2 and a multiple of 2",
    )
    refused(run("train", "--model_dir", tagger(monitor="auc")), "monitor: expected one of auto, f1, accuracy, loss")


@pytest.mark.parametrize("name", ["ner_lstm", "ner_bilstm_crf"])
def test_shipped_experiments(name: str) -> None:
    params = read_params(TASKS, ROOT / "experiments" / name)
    assert params.task == "sequence_tagging"
    assert params.crf == (name == "ner_bilstm_crf")
    if name == "ner_lstm":
        assert (params.embedding_dim, params.lstm_hidden_dim) == (50, 50)  # CS230's
