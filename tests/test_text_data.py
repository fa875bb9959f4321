"""Data sets of labelled texts: what is built of them, what is refused, and the batches that come back out."""

from __future__ import annotations

import itertools
import json
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine.loaders import fetch_dataloaders
from model import TASKS
from model.layers import UNK
from model.text.files import read_lines
from model.text.tokenizer import Tokenizer
from model.text_classification.data_loader import Dataset
from model.text_classification.params import DataParams, Params
from model.text_classification.predict import Processing
from tests.conftest import Result, read_json, refused, run, train_ok
from utils import UserError

TASK = TASKS["text_classification"]
SPLITS = ("train", "val", "test")
Row = tuple[Any, ...]  # a text or its words, its label, and perhaps: split, place, whether it is a phrase
Build = Callable[..., Result]


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Build:
    """`build(rows)` builds tmp_path/built of a source that has them."""

    def attempt(rows: Sequence[Row], *flags: Any, name: str = "built") -> Result:
        complete = [(*row, *(None, f"line {i}", False)[len(row) - 2 :]) for i, row in enumerate(rows, 1)]
        monkeypatch.setattr("model.text_classification.dataset.read_labelled", lambda *_: iter(complete))
        words = ("--task", "text_classification", "--data_dir", tmp_path / "raw", "--output_dir", tmp_path / name)
        return run("build_dataset", *words, "--overwrite", *flags)

    return attempt


def reviews(count: int) -> list[Row]:
    """Of two classes, all different."""
    kinds = [("good", "positive"), ("bad", "negative")]
    return [(f"Film no {i} isn't {kinds[i % 2][0]}.", kinds[i % 2][1]) for i in range(count)]


def in_splits(*rows: Row) -> list[Row]:
    """`rows`, and behind them two texts of two classes in each split."""
    return [*rows, *((f"{label} {split}", label, split) for split in SPLITS for label in "ab")]


def params_of(folder: Path, **params: Any) -> Params:
    data = DataParams(**read_json(folder / "dataset_params.json")).complete(folder)
    return Params(task=TASK.name, data_dir=str(folder), batch_size=8, **params).with_data(data)


def texts_of(folder: Path) -> dict[str, list[str]]:
    return {split: read_lines(folder / split / "texts.txt") for split in SPLITS}


# --------------------------------------------------------------------------------------------- splits


def test_missing_splits_are_split_off_by_class_and_hash(build: Build, tmp_path: Path) -> None:
    rows = reviews(100)
    assert build(rows).status == 0
    found = texts_of(tmp_path / "built")
    labels: dict[str, str] = dict(rows)
    assert sorted(itertools.chain(*found.values())) == sorted(labels)
    for split, count in (("test", 10), ("val", 8), ("train", 32)):
        of_split = [labels[text] for text in found[split]]
        assert (of_split.count("positive"), of_split.count("negative")) == (count, count)
        assert np.load(tmp_path / "built" / split / "labels.npy").tolist() == [int(x == "positive") for x in of_split]
    assert build(rows[::-1], name="reversed").status == 0
    assert {split: its[::-1] for split, its in texts_of(tmp_path / "reversed").items()} == found
    assert build(rows, "--split_share", 0.1, "--seed", 7).status == 0
    assert [len(its) for its in texts_of(tmp_path / "built").values()] == [82, 8, 10]
    here = [(*row, "train" if i < 60 else "test") for i, row in enumerate(rows)]
    assert build(here).status == 0
    assert texts_of(tmp_path / "built")["test"] == [*labels][60:]
    assert len(texts_of(tmp_path / "built")["val"]) == 12


def test_phrases_are_for_training(build: Build, tmp_path: Path) -> None:
    """None of a sentence that was split off; none twice, or as a sentence; with another label once more."""
    rows: list[Row] = [(f"of no sentence in {split}", "positive", split, split, True) for split in ("train", "test")]
    for i, (text, label) in enumerate(reviews(40)):
        rows.append((text, label, "train", f"line {i}"))
        rows += [(phrase, label, "train", f"line {i}", True) for phrase in (f"no {i}", "Film", "Film", text)]
    assert build(rows).status == 0
    found = texts_of(tmp_path / "built")
    sentences = {split: [text for text in its if text.startswith("Film no")] for split, its in found.items()}
    assert [len(its) for its in sentences.values()] == [26, 6, 8]
    assert (sentences["val"], sentences["test"]) == (found["val"], found["test"])
    phrases = [text for text in found["train"] if not text.startswith("Film no")]
    numbers = {text.split()[2] for text in sentences["train"]}
    assert sorted(phrases) == sorted(["of no sentence in train", "Film", "Film", *(f"no {i}" for i in numbers)])


def test_copies_are_reported(build: Build) -> None:
    """A line names at most four places, among them one of each split."""
    rows = [("same words", "a", "train")] * 9 + [("same  words", "a", "test"), ("same words", "b", "train")]
    result = build(in_splits(*rows))
    assert result.status == 0
    expected = "train: line 1 = train: line 2 = train: line 3 = test: line 10 = 7 more\n"
    assert f"Texts that are in two splits: 1\n  {expected}" in result.out + result.err
    assert "Texts with two labels or more: 1\n  line 1: a, b\n" in result.out + result.err


# ----------------------------------------------------------------------------------------- vocabulary


def test_vocabularies_come_from_train(build: Build, tmp_path: Path) -> None:
    rows = in_splits(("b b b é", "a", "train"), ("c c", "a", "train"), ("d d d d ö", "b", "test"))
    assert build(rows, "--min_count_word", 2).status == 0
    folder = tmp_path / "built"
    assert read_lines(folder / "words.txt") == ["b", "c", "train"]
    assert "é" in read_lines(folder / "chars.txt")
    assert "ö" not in read_lines(folder / "chars.txt")
    params = params_of(folder)
    inputs, _ = Dataset(folder, "test", params)[0]
    assert inputs["words"].tolist() == [[UNK] * 5]
    assert params.data.sizes == {"train": 4, "val": 2, "test": 3}


@pytest.mark.parametrize(
    ("rows", "flags", "words"),
    [
        (in_splits(("new", "c", "val")), [], ["in val but missing from train: c", "line 1"]),
        ([(text, "a") for text, _ in reviews(9)], [], ["Only one class (a)"]),
        (reviews(2), [], ["The val split would be empty"]),
        ([*reviews(9), (" <br /> ", "a")], [], ["line 10: no word in it"]),
        (reviews(20), ["--min_count_word", 0], ["--min_count_word 0"]),
        (reviews(20), ["--min_count_word", 999], ["No word is as frequent as --min_count_word"]),
        (reviews(20), ["--split_share", 1], ["--split_share 1.0: expected a share between 0 and 1"]),
    ],
)
def test_what_cannot_be_built(
    build: Build, tmp_path: Path, rows: list[Row], flags: list[Any], words: list[str]
) -> None:
    refused(build(rows, *flags), *words)
    assert not (tmp_path / "built").exists()


def test_digests_change_with_text_and_label(build: Build, tmp_path: Path) -> None:
    def digests(rows: list[Row]) -> tuple[str, str]:
        assert build(rows).status == 0
        params = params_of(tmp_path / "built")
        return params.data.digest, Dataset(tmp_path / "built", "train", params).digest()

    changed = [("x y", "a", "train"), ("x  y", "a", "train"), ("x z", "a", "train"), ("x y", "b", "train")]
    found = [digests(in_splits(row)) for row in (*changed, changed[0])]
    assert found[0] == found[-1]
    for values in zip(*found, strict=True):
        assert len(set(values)) == len(changed)


# --------------------------------------------------------------------------------------------- damage


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def without_last_line(path: Path) -> None:
    path.write_text("".join(path.read_text(encoding="utf-8").splitlines(True)[:-1]), encoding="utf-8")


def without_most(path: Path) -> None:
    path.write_text("".join(path.read_text(encoding="utf-8").splitlines(True)[:9]), encoding="utf-8")


def one_less(path: Path) -> None:
    np.save(path, np.load(path)[:-1])


@pytest.mark.parametrize("level", ["word", "char"])
@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("train/tokens.npy", cut, "tokens.npy: not an array"),
        ("train/tokens.npy", one_less, "train: .* of .* words"),
        ("train/lengths.npy", one_less, "train: 63 texts in lengths.npy, but 64 texts were built"),
        ("train/labels.npy", one_less, "train: 63 labels, but 64 texts were built"),
        ("train/labels.npy", Path.unlink, "labels.npy: not an array"),
        ("train/texts.txt", without_last_line, "train: 63 lines in texts.txt"),
        ("train/texts.txt", Path.unlink, r"texts.txt: cannot be read"),
        ("spellings.txt", without_most, "train: .* 9 different ones"),
        ("words.txt", without_last_line, "words.txt: .* but .* were built"),
    ],
)
def test_damaged_data_is_refused(
    build: Build, tmp_path: Path, level: str, name: str, damage: Callable[[Path], None], message: str
) -> None:
    assert build(reviews(100)).status == 0
    folder = tmp_path / "built"
    damage(folder / name)
    if level == "char" and ("tokens" in name or "lengths" in name or "spell" in name):
        Dataset(folder, "train", params_of(folder, level=level))  # does not read them
        return
    with pytest.raises(UserError, match=message) as error:
        Dataset(folder, "train", params_of(folder, level=level))
    assert str(folder) in str(error.value)


# -------------------------------------------------------------------------------------------- batches

SEPARATED = [(text.replace(".", " .").replace("isn't", "is n't").split(), label) for text, label in reviews(60)]
LONG = [("One film,\r\nwhich <br /> is — as 1,000 say (Ex.) — fine!! " * 5, "positive", "test")]


@pytest.mark.parametrize("level", ["word", "char"])
@pytest.mark.parametrize("corpus", ["plain", "words", "--tokenized"])
def test_predictions_see_the_numbers_of_the_data(build: Build, tmp_path: Path, level: str, corpus: str) -> None:
    """Of texts as they stand in the data, and of plain ones that the tokenizer splits like the corpus."""
    rows = [(*row, split) for split, row in zip("train train val test".split() * 15, SEPARATED, strict=True)]
    plain = [(*row, split) for (_, _, split), row in zip(rows, reviews(60), strict=True)]
    flags = [corpus] if corpus == "--tokenized" else []
    if corpus == "plain":
        rows = plain + LONG
    elif flags:
        rows = [("  ".join(words), label, split) for words, label, split in rows]
    assert build(rows, *flags).status == 0
    params = params_of(
        tmp_path / "built", level=level, char_features="cnn" if level == "word" else "none", max_length=9
    )
    assert params.data.tokenized == (corpus != "plain")
    dataset, processing = Dataset(tmp_path / "built", "test", params), Processing(params)
    raw = [text for text, _, split in plain + LONG * (corpus == "plain") if split == "test"]
    for texts in (dataset.raw_texts(range(len(dataset))), raw):
        for i, text in enumerate(texts):
            inputs, _ = dataset[i]
            expected = processing.collate([processing.preprocess(text).content])
            assert inputs["words"].tolist() == expected["words"].tolist()
            assert inputs["lengths"].tolist() == expected["lengths"].tolist()
            assert ("chars" in inputs) == ("chars" in expected) == (level == "word")
            if level == "word":  # their rows may stand in another order
                its, others = (each["chars"][each["spellings"]].tolist() for each in (inputs, expected))
                assert its == others


def test_words_of_a_large_corpus_stay_on_the_disk(build: Build, tmp_path: Path) -> None:
    """2,000 texts of 5,000 words, 40 MB as a file: neither loading, nor counting, nor a batch takes as much memory."""
    assert build(reviews(30)).status == 0
    folder = tmp_path / "built"
    lengths, spellings = np.full(2000, 5000), len(read_lines(folder / "spellings.txt"))
    np.save(folder / "train" / "tokens.npy", np.random.default_rng(0).integers(spellings, size=10**7, dtype=np.int32))
    np.save(folder / "train" / "lengths.npy", lengths)
    np.save(folder / "train" / "labels.npy", lengths * 0)
    (folder / "train" / "texts.txt").write_text("text\n" * 2000, encoding="utf-8")
    values = read_json(folder / "dataset_params.json")
    (folder / "dataset_params.json").write_text(json.dumps({**values, "sizes": {"train": 2000}}), encoding="utf-8")
    params = params_of(folder, max_length=400, word_dropout=1.0)
    tracemalloc.start()
    dataset = Dataset(folder, "train", params, training=True)
    assert dataset[7][0]["words"].shape == (1, 400)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20e6
    assert not dataset.texts.tokens.flags.owndata


def test_word_dropout_does_not_depend_on_worker_processes(build: Build, tmp_path: Path) -> None:
    assert build(reviews(60)).status == 0
    epochs = []
    for num_workers in (0, 2):
        params = params_of(tmp_path / "built", word_dropout=3.0, num_workers=num_workers)
        loader = fetch_dataloaders(TASK, ["train"], params)["train"]
        for epoch in (4, 5):
            loader.batch_sampler.set_epoch(epoch)  # type: ignore[union-attr]
            epochs.append([inputs["words"] for inputs, _ in loader])
    for words, others in zip(epochs[:2], epochs[2:], strict=True):
        assert all(map(torch.equal, words, others))
    assert any((words == UNK).any() for words in epochs[0])
    assert not all(map(torch.equal, *epochs[:2]))


# ----------------------------------------------------------------------------------------- other data


def test_weights_are_evaluated_on_other_texts(build: Build, tmp_path: Path) -> None:
    """With the vocabulary that they learnt; other classes are refused."""
    assert build(reviews(60)).status == 0
    assert build([(f"Quite another {text}", label) for text, label in reviews(40)], name="other").status == 0
    assert build([(text, f"very {label}") for text, label in reviews(40)], name="classes").status == 0
    model_dir = tmp_path / "experiment"
    model_dir.mkdir()
    small = {"task": TASK.name, "num_epochs": 1, "embedding_dim": 4, "lstm_hidden_dim": 4, "char_features": "cnn"}
    (model_dir / "params.json").write_text(json.dumps(small), encoding="utf-8")
    train_ok(model_dir, "--data_dir", tmp_path / "built")
    result = run("evaluate", "--model_dir", model_dir, "--data_dir", tmp_path / "other")
    assert result.status == 0, result.err
    assert read_json(model_dir / "metrics_test_best_weights_on_other.json").keys() >= {"accuracy", "f1", "auc"}
    result = run("evaluate", "--model_dir", model_dir, "--data_dir", tmp_path / "classes")
    refused(result, "classes: ['very negative']", "was trained on", "['negative']")


def test_spaces_around_a_text_change_no_prediction(build: Build, tmp_path: Path) -> None:
    assert build(reviews(100)).status == 0
    processing = TASKS["text_classification"].Processing(params_of(tmp_path / "built", level="char"))
    assert processing.preprocess(" Smith\n").content[0] == list("Smith")


def test_html_breaks_in_any_case_are_white_space() -> None:
    assert Tokenizer().words("fine<BR>film<br />here") == ["fine", "film", "here"]


def test_what_cannot_be_learnt_or_measured_is_said(build: Build) -> None:
    """Classes of one text, words that train does not have, and copies."""
    names: list[Row] = [(f"name{i}", "ab"[i % 2]) for i in range(40)]
    result = build([*names, ("other", "c")])
    for split in ("val", "test"):
        assert f"{split} has no text of c, so nothing is measured of it" in result.out
    assert 'Most words of val are unknown. With "level": "char"' in result.out
    result = build([*reviews(40), *in_splits(("a b", "a", "train"), ("a b", "a", "train"))], name="other")
    assert "Most words" not in result.out
    assert "train: 1 texts stand there twice or more" in result.out
