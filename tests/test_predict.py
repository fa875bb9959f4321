"""predict.py: what it reads, what it writes, what it says of what it cannot read."""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import engine.predicting as predicting
from engine.answers import NOT_FINITE, class_records, label_records, number_records
from engine.images import Upload, encode, shrink
from engine.predicting import Processing
from engine.rows import read_rows
from model.text.tokenizer import Tokenizer
from predict import load_predictor
from tests.conftest import NOT_UTF8, ROOT, Result, refused, run, train_ok
from tests.helpers import draw_photo, draw_photos
from utils import UserError


def read_jsonl(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(scope="module")
def text_model(shared_text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text") / "tagger"
    folder.mkdir()
    values = {"task": "sequence_tagging", "data_dir": str(shared_text), "num_epochs": 10, "learning_rate": 0.03}
    values |= {"crf": True, "char_features": "cnn", "embedding_dim": 8, "lstm_hidden_dim": 8, "batch_size": 16}
    (folder / "params.json").write_text(json.dumps(values))
    train_ok(folder)
    return folder


@pytest.fixture(scope="module")
def row_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rows")
    rows = "".join(f"{i % 7},{'Kent' if i % 2 else 'York'},{'yes' if i % 2 else 'no'}\n" for i in range(60))
    (folder / "raw.csv").write_text("size,town,sold\n" + rows)
    words = ["--task", "tabular_prediction", "--data_dir", folder / "raw.csv", "--output_dir", folder / "built"]
    assert run("build_dataset", *words).status == 0
    (folder / "sales").mkdir()
    values = {"task": "tabular_prediction", "data_dir": str(folder / "built"), "num_epochs": 30, "learning_rate": 0.1}
    (folder / "sales" / "params.json").write_text(json.dumps(values))
    train_ok(folder / "sales")
    return folder / "sales"


# ---------------------------------------------------------------------------------------------- images


def predict_images(trained: Path, *words: Any) -> Result:
    return run("predict", "--model_dir", trained, *words)


def test_files_folders_and_patterns_in_their_order(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("b.png", "deep/er/c.jpg", "deep/a.webp", "x1.jpg", "x2.jpg"):
        draw_photo(tmp_path / name, 1)
    monkeypatch.chdir(tmp_path)
    result = predict_images(trained, "x*.jpg", "b.png", "deep", "--format", "jsonl")
    assert result.status == 0, result.err
    names = [record["input"] for record in read_jsonl(result.out)]
    assert names == ["x1.jpg", "x2.jpg", "b.png", "deep/a.webp", "deep/er/c.jpg"]


def test_what_cannot_be_read_is_named_in_its_place(trained: Path, tmp_path: Path) -> None:
    draw_photo(tmp_path / "good.jpg", 0)
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "torn.jpg").write_bytes((tmp_path / "good.jpg").read_bytes()[:300])
    (tmp_path / "empty").mkdir()
    names = ["text.jpg", "good.jpg", "gone.jpg", "torn.jpg", "empty", "*.gif"]
    words = [tmp_path / name for name in names]
    result = predict_images(trained, *words, "--format", "jsonl")
    assert result.status == 1
    records = read_jsonl(result.out)
    assert [record["input"] for record in records] == list(map(str, words))
    assert [record.get("error", "")[:18] for record in records] == [
        "not an image",
        "",
        "No such file or di",
        "Truncated File Rea",
        "no photos in it (f",
        "no file has such a",
    ]
    assert f"5 of 6 inputs could not be read. The first: {words[0]}: not an image" in result.err
    lines = predict_images(trained, *words).out.splitlines()
    assert [str(word) in line for word, line in zip(words, lines, strict=True)] == [True] * 6
    refused(predict_images(trained, *words[2:]), "4 of 4 inputs could not be read", "gone.jpg: No such file")


def test_one_on_stdin(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_photo(tmp_path / "a.jpg", 2)
    expected = read_jsonl(predict_images(trained, tmp_path / "a.jpg", "--format", "jsonl").out)
    with open(tmp_path / "a.jpg", "rb") as file:
        monkeypatch.setattr(sys, "stdin", file)
        result = predict_images(trained, "-", "--format", "jsonl")
    assert read_jsonl(result.out) == [{**expected[0], "input": "-"}]


def test_a_raw_photo_gets_the_answer_that_its_built_image_gets(trained: Path, shared_data: Path, photos: Path) -> None:
    """Whatever its size: what build_dataset.py does to it, JPEG included, is done here too."""
    predictor = load_predictor(trained)
    names = sorted(path.name for path in (shared_data / "test_signs").iterdir())
    raw, built = ([folder / "test_signs" / name for name in names] for folder in (photos, shared_data))
    pixels = [[predictor.processing.preprocess(path).content for path in paths] for paths in (raw, built)]
    assert all(np.array_equal(*pair) for pair in zip(*pixels, strict=True))
    assert not np.array_equal(pixels[0][0], np.asarray(shrink(Image.open(raw[0]), 16)))  # which is not compressed
    assert [r["probability"] for r in predictor(raw)] == [r["probability"] for r in predictor(built)]


def test_other_forms_of_an_image_in_python(trained: Path, tmp_path: Path) -> None:
    predictor = load_predictor(trained)
    draw_photo(tmp_path / "a.png", 2)
    content, image = (tmp_path / "a.png").read_bytes(), Image.open(tmp_path / "a.png")
    forms = [tmp_path / "a.png", str(tmp_path / "a.png"), content, Upload("a", content), image, np.asarray(image)]
    records = predictor(forms)
    assert len({record["probability"] for record in records}) == 1
    assert [record["input"] for record in records[2:]] == ["bytes", "a", "PngImageFile", "ndarray"]
    assert predictor(tmp_path / "a.png") == records[:1]  # one that is not in a list
    assert "error" in predictor([np.zeros((2, 2, 7))])[0]


def test_probabilities_of_the_top_classes(trained: Path, tmp_path: Path) -> None:
    draw_photo(tmp_path / "a.png", 2)
    words = [tmp_path / "a.png", "--top", 2]
    (record,) = read_jsonl(predict_images(trained, *words, "--format", "jsonl").out)
    (first, probability), (second, _) = record["probabilities"].items()
    assert (first, probability) == (record["prediction"], record["probability"])
    (row,) = csv.DictReader(predict_images(trained, *words, "--format", "csv").out.splitlines())
    probability = record["probabilities"][second]
    assert (row["prediction 2"], row["probability 2"]) == (second, f"{probability:.4f}")
    assert f"{second} {probability:.4f}" in predict_images(trained, *words).out
    refused(predict_images(trained, *words[:-1], 0), "--top 0: expected at least 1")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere all names are Unicode")
def test_a_name_that_is_not_unicode(trained: Path, tmp_path: Path) -> None:
    draw_photo(tmp_path / "a.jpg", 0)
    path = tmp_path / f"{NOT_UTF8}.jpg"
    (tmp_path / "a.jpg").rename(path)
    for style in ("jsonl", "csv"):
        output = tmp_path / f"answers.{style}"
        assert predict_images(trained, path, "--output", output).status == 0
    assert read_jsonl((tmp_path / "answers.jsonl").read_text())[0]["input"] == str(path)
    assert os.fsencode(path) in (tmp_path / "answers.csv").read_bytes()


def test_an_image_of_the_built_size_that_was_not_built(trained: Path, tmp_path: Path) -> None:
    """It is compressed as building compresses it, unless it has been."""
    predictor = load_predictor(trained)
    draw_photo(tmp_path / "low.jpg", 1, (16, 16), quality=50)
    with Image.open(tmp_path / "low.jpg") as image:
        built = encode(shrink(image, 16))
    low, again = (predictor.processing.preprocess(raw).content for raw in (tmp_path / "low.jpg", built.getvalue()))
    assert np.array_equal(low, again)
    assert not np.array_equal(low, np.asarray(Image.open(tmp_path / "low.jpg")))


def test_the_images_of_a_caller_stay_as_they_are(trained: Path, tmp_path: Path) -> None:
    draw_photo(tmp_path / "large.jpg", 1, (640, 480))
    with Image.open(tmp_path / "large.jpg") as image:
        records = load_predictor(trained)(image)  # one, not in a list
        assert image.size == (640, 480)
    assert len(records) == len(load_predictor(trained)(np.asarray(Image.open(tmp_path / "large.jpg")))) == 1


@pytest.mark.parametrize("raw", [None, 5, 1.5, {"a": 1}])
def test_what_is_no_image(trained: Path, raw: Any) -> None:
    (record,) = load_predictor(trained)([raw])
    assert record["error"] == "expected the path of an image, its bytes, a PIL image, or an array"


def test_flags_for_text(trained: Path, row_model: Path) -> None:
    refused(predict_images(trained, "a.jpg", "--tokenized"), "--encoding are for text; this network takes images")
    refused(ask(row_model, "--file", "a.csv"), "are for text; this network takes CSV files")


# ------------------------------------------------------------------------------------------------ text


def tag(model: Path, *words: Any) -> Result:
    return run("predict", "--model_dir", model, *words)


def test_spans_have_the_places_of_the_text(text_model: Path) -> None:
    sentence = "Kila Welski,  who didn't leave Washington, laughed."
    (record,) = read_jsonl(tag(text_model, sentence, "--format", "jsonl").out)
    assert record["input"] == sentence
    assert record["words"][:3] == ["Kila", "Welski", ","]
    assert len(record["words"]) == len(record["prediction"]) == len(record["tag_probabilities"])
    assert record["spans"]
    for span in record["spans"]:
        assert sentence[span["start"] : span["end"]] == span["text"]
        first, stop = span["words"]
        assert record["words"][first] == span["text"][: len(record["words"][first])]
        assert all(name.endswith(span["type"]) for name in record["prediction"][first:stop])


def test_files_of_sentences(text_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines, words between spaces, columns, standard input: the same sentences get the same answers."""
    sentences = ["Kila Welski laughed .", "Welski left Washington ."]
    (tmp_path / "plain.txt").write_text("\ufeff" + "\r\n\r\n".join(sentences), encoding="utf-8")
    columns = "\n".join("".join(f"{word} x O\n" for word in sentence.split()) for sentence in sentences)
    for name in ("a.conll", "a.txt"):
        (tmp_path / name).write_text("-DOCSTART- -X- O\n\n" + columns)
    readings: list[list[Any]] = [sentences, ["--file", tmp_path / "plain.txt"]]
    readings += [[*reading, "--tokenized"] for reading in readings]
    readings += [["--file", tmp_path / "a.conll"], ["--file", tmp_path / "a.txt", "--columns"]]
    answers = [read_jsonl(tag(text_model, *words, "--format", "jsonl").out) for words in readings]
    with open(tmp_path / "plain.txt", encoding="utf-8") as file:
        monkeypatch.setattr(sys, "stdin", file)
        answers.append(read_jsonl(tag(text_model, "-", "--format", "jsonl").out))
    assert len(answers[0]) == 2
    assert all(answer == answers[0] for answer in answers)


def test_lines_that_cannot_be_read(text_model: Path, tmp_path: Path) -> None:
    long = "word " * 2001
    (tmp_path / "a.txt").write_bytes(b"Kila left .\nZo\xeb left .\n" + long.encode() + b"\n\n   \nKila left .")
    result = tag(text_model, "--file", tmp_path / "a.txt", "--format", "jsonl")
    assert result.status == 1
    records = read_jsonl(result.out)
    assert [record.get("error", "") for record in records] == [
        "",
        "not UTF-8 (byte 3 of the line); --encoding names another",
        "2,001 words, but at most 2,000 are read at once: split it into sentences",
        "",
    ]
    assert records[1]["input"] == f"{tmp_path / 'a.txt'}, line 2"
    assert records[0] == records[3]
    conll = tag(text_model, "--file", tmp_path / "a.txt", "--format", "conll").out.split("\n\n")
    assert conll[1] == f"# {tmp_path / 'a.txt'}, line 2: not UTF-8 (byte 3 of the line); --encoding names another"
    refused(tag(text_model, long), "2,001 words, but at most 2,000")


def test_a_person_sees_names_in_brackets(text_model: Path) -> None:
    predictor = load_predictor(text_model)
    record = {"words": ["Kila", "Welski", "left", "Kent"], "prediction": ["B-per", "I-per", "O", "B-loc"]}
    assert predictor.processing.show(record) == "[Kila Welski per] left [Kent loc]"
    assert (
        predictor.processing.show(record, color=True) == "\033[1m[Kila Welski per]\033[0m left \033[1m[Kent loc]\033[0m"
    )


@pytest.mark.parametrize(
    "words", [[], ["a", "--file", "b"], ["--columns", "a"], ["--file", "gone.txt"], [str(ROOT / "README.md")]]
)
def test_no_text_at_all(text_model: Path, words: list[str]) -> None:
    refused(tag(text_model, *words), "--file" if words[:1] != ["--file"] else "gone.txt: cannot be read")


def test_an_empty_file(text_model: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n\n")
    refused(tag(text_model, "--file", tmp_path / "a.txt"), "Nothing to predict")


def test_columns_are_recognised_by_their_content(text_model: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Kila NNP B-per\nleft VBD O\n\nWashington NNP B-loc\n. . O\n")
    records = read_jsonl(tag(text_model, "--file", tmp_path / "a.txt", "--format", "jsonl").out)
    assert [record["words"] for record in records] == [["Kila", "left"], ["Washington", "."]]
    (tmp_path / "b.txt").write_text("Kila left\nI see O\n")
    assert len(read_jsonl(tag(text_model, "--file", tmp_path / "b.txt", "--format", "jsonl").out)) == 2


def test_a_damaged_line_of_columns_stands_for_its_sentence(text_model: Path, tmp_path: Path) -> None:
    (tmp_path / "a.conll").write_bytes(b"Kila O\nleft O\n\nAnna O\nin\xff O\nKent O\n\nKent O\n\xff\n")
    records = read_jsonl(tag(text_model, "--file", tmp_path / "a.conll", "--format", "jsonl").out)
    assert [record.get("words") for record in records] == [["Kila", "left"], None, None]
    assert [record["input"] for record in records[1:]] == [f"{tmp_path / 'a.conll'}, line {n}" for n in (5, 9)]


def test_files_that_are_no_text(text_model: Path, row_model: Path, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"\x00\x01\n" * 50)
    refused(tag(text_model, "--file", tmp_path / "a.bin"), "a.bin: not a text file")
    refused(ask(row_model, tmp_path / "a.bin"), "a.bin")
    draw_photo(tmp_path / "a.jpg", 1)
    refused(ask(row_model, tmp_path / "a.jpg"), "a.jpg")
    refused(tag(text_model, tmp_path), "is a file or folder")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Anna, of Kent (U.K.), left.", "Anna , of Kent ( U.K. ) , left ."),
        ('She said: "No!"', 'She said : " No ! "'),
        ("It didn't; it's Anna's.", "It did n't ; it 's Anna 's ."),
        ("It didn\u2019t.", "It did n\u2019t ."),
        ("$5.50 or 1,000, 50%", "$ 5.50 or 1,000 , 50 %"),
        ("J. Smith... left--and then\u2014", "J. Smith ... left -- and then \u2014"),
        ("Mr. Smith, Mr.", "Mr. Smith , Mr."),
        ("@home #1 -5 and/or well-known", "@home #1 -5 and/or well-known"),
        ("rock'n'roll (a;b)", "rock'n'roll ( a ; b )"),
        ("... ?!", "... ? !"),
        ("\u00a1Hola\u00a0Zo\u00eb!", "\u00a1 Hola Zo\u00eb !"),
        ("a" + "!?" * 5000, "a" + "!?" * 5000),  # no text; to split it would take seconds
    ],
)
def test_a_sentence_is_split_as_the_corpus_was(text: str, words: str) -> None:
    tokenize = Tokenizer(["Anna", ".", ",", "n't", "'s", "Mr."])
    assert [text[start:end] for start, end in tokenize(text)] == words.split(" ")


def test_a_corpus_that_is_split_at_spaces_only() -> None:
    tokenize = Tokenizer(["Anna,", "left."])
    assert [*tokenize("Anna, Kent left. (no)")] == [(0, 5), (6, 10), (11, 16), (17, 21)]


def test_sentences_of_the_sample_are_split_as_they_were_written(text_model: Path, shared_text: Path) -> None:
    tokenize = load_predictor(text_model).processing.tokenize  # type: ignore[attr-defined]
    lines = (shared_text / "train" / "sentences.txt").read_text(encoding="utf-8").splitlines()
    for line in lines:
        text = line.replace(" .", ".").replace(" ,", ",").replace(" :", ":")
        assert [text[start:end] for start, end in tokenize(text)] == line.split(" ")
    assert len(lines) == 100


# ---------------------------------------------------------------------------------------- what decided


REVIEW = "The plot was  very touching.<br />It's 🏴 good, the hero isn't dull!"


def explain(model: Path, *words: Any) -> Result:
    return run("predict", "--model_dir", model, "--explain", *words)


def test_each_word_has_an_influence(reviews: Path) -> None:
    (record,) = read_jsonl(explain(reviews, REVIEW, "--format", "jsonl").out)
    assert record["input"] == REVIEW
    assert record["words"][:8] == ["The", "plot", "was", "very", "touching", ".", "It", "'s"]
    assert [REVIEW[start:end] for start, end in record["word_spans"]] == record["words"]
    assert len(record["influence"]) == len(record["words"])
    predictor = load_predictor(reviews)
    assert predictor.explaining(REVIEW) == [record]
    (plain,) = predictor(REVIEW)
    assert plain == {name: record[name] for name in ("input", "prediction", "probability")}
    (tokenized,) = read_jsonl(explain(reviews, "very  good", "--tokenized", "--format", "jsonl").out)
    assert (tokenized["input"], tokenized["word_spans"]) == ("very good", [[0, 4], [5, 9]])


def test_a_text_of_characters(critic: Any) -> None:
    model = critic(level="char")
    (record,) = read_jsonl(explain(model, "A film\n!", "--format", "jsonl").out)
    assert record["words"] == ["A", " ", "f", "i", "l", "m", " ", "!"]
    assert record["word_spans"] == [[i, i + 1] for i in range(8)]
    assert len(record["influence"]) == 8
    shown = {**record, "input": "a b", "words": ["a", " ", "b"], "influence": [0.1, 2.0, -1.0]}
    assert load_predictor(model).processing.show(shown).endswith("a b  [\u2423 +2  b -1]")  # a space to be seen


def test_the_middle_of_a_long_text_decides_nothing(critic: Any) -> None:
    predictor = load_predictor(critic(max_length=5)).explaining
    short, long = predictor(["good bad film awful bland", "good bad film very very dull awful bland"])
    assert long["words"] == long["input"].split()
    assert long["influence"] == [*short["influence"][:3], 0, 0, 0, *short["influence"][3:]]
    assert long["probability"] == short["probability"]


def test_a_person_sees_what_decided(reviews: Path) -> None:
    show = load_predictor(reviews).processing.show
    words = ["It", "was", "never", "good", ",", "dull", "."]
    spans = [[0, 2], [3, 6], [8, 13], [14, 18], [18, 19], [20, 24], [24, 25]]
    influence = [-0.2, 0.3, 1.312, -2.0, 0.9, 4.0, 0.0]
    record = {"input": "It was  never good, dull.", "prediction": "negative", "probability": 0.75}
    explained = {**record, "words": words, "word_spans": spans, "influence": influence}
    named = "dull +4  good -2  never +1.3  , +0.9"  # what has less than a tenth of the strongest is left out
    assert show(explained) == f"negative 0.7500  It was  never good, dull.  [{named}]"
    painted = {"never": 223, "good": 111, ",": 223, "dull": 208}
    text = record["input"]
    for word, number in painted.items():
        text = str(text).replace(word, f"\033[38;5;16;48;5;{number}m{word}\033[0m")
    assert show(explained, color=True) == f"\033[1mnegative 0.7500\033[0m  {text}"
    assert show({**explained, "influence": [0.0] * 7}) == show(record) == "negative 0.7500  It was  never good, dull."
    assert show({**explained, "influence": [float(i) for i in range(7)]}).endswith(
        "[. +6  dull +5  , +4  good +3  never +2]"
    )
    assert show({**explained, "influence": [0.0] * 7}, color=True).endswith(str(record["input"]))


def test_explained_lines_and_tables(reviews: Path) -> None:
    """A line names what spoke for the prediction or against it; the column, only what spoke for it."""
    (record,) = load_predictor(reviews).explaining(REVIEW)
    result = explain(reviews, REVIEW, "--top", 2)
    named = result.out.rstrip("]\n").rpartition("  [")[2].split("  ")
    strongest = max(record["words"], key=lambda word: abs(record["influence"][record["words"].index(word)]))
    assert named[0].split(" ")[0] == strongest
    assert len(named) == 5
    (row,) = csv.DictReader(explain(reviews, REVIEW, "--top", 2, "--format", "csv").out.splitlines())
    assert list(row) == ["input", "prediction", "probability", "prediction 2", "probability 2", "decided by", "error"]
    order = sorted(zip(record["influence"], record["words"], strict=True), reverse=True)[:5]
    assert row["decided by"].split(" ") == [word for value, word in order if value > 0.1 * order[0][0]]
    plain = run("predict", "--model_dir", reviews, REVIEW, "--format", "csv").out
    assert plain.startswith("input,prediction,probability,error\n")


def test_nothing_spoke_for_the_prediction(reviews: Path) -> None:
    record = {"input": "a b", "prediction": "positive", "probability": 0.5, "words": ["a", "b"]}
    cells = load_predictor(reviews).processing.cells
    assert cells({**record, "influence": [-2.0, -1.0]})["decided by"] == ""
    assert cells({**record, "influence": [-2.0, 1.0]})["decided by"] == "b"


def test_what_cannot_explain(trained: Path, row_model: Path, text_model: Path, reviews: Path, tmp_path: Path) -> None:
    refused(explain(trained, "a.jpg"), "a network for image classification cannot explain its predictions")
    refused(explain(row_model, "a.csv"), "a network for tabular prediction cannot", "of text classification can")
    refused(explain(text_model, "Kila"), "a network for sequence tagging cannot")
    assert run("export", "--model_dir", reviews, "--output", tmp_path / "model.onnx").status == 0
    words = ["--weights", tmp_path / "model.onnx", REVIEW]
    refused(run("predict", *words, "--explain"), "model.onnx: an exported graph cannot explain its predictions")
    assert run("predict", *words).out.endswith(f"{REVIEW}\n")
    refused(explain(reviews, REVIEW, "--format", "conll"), "--format conll is for tagged text")


def test_influences_add_up(reviews: Path) -> None:
    """Of a sum over words: to the score of the class above the mean of all, without the part that no word has."""
    network: Any = load_predictor(reviews, "cpu").network
    network.precision = torch.float32
    texts = [REVIEW.split(" "), ["very", "dull"], ["nowhere"]]
    explained = network.explain(load_predictor(reviews).processing.collate([(words, None) for words in texts]))
    bias = network.net.fc.bias.detach().numpy()
    above_mean = [scores - scores.mean(axis=-1, keepdims=True) for scores in (explained["outputs"], bias)]
    predicted = explained["outputs"].argmax(axis=1)
    expected = above_mean[0].max(axis=1) - above_mean[1][predicted]
    assert explained["influence"].sum(axis=1) == pytest.approx(expected, abs=1e-5)
    assert np.all(explained["influence"][1, 2:] == 0)  # padding


@pytest.mark.parametrize("params", [{}, {"net": "rnn"}, {"net": "cnn"}])
def test_without_its_strongest_word_a_text_is_less_sure(critic: Any, params: Any) -> None:
    predictor = load_predictor(critic(**params))
    (record,) = predictor.explaining("The plot was good, clever and touching.")
    words, strongest = record["words"], int(np.argmax(record["influence"]))
    assert record["influence"][strongest] > 0
    (other,) = predictor([[word for i, word in enumerate(words) if i != strongest]])
    probability = other["probability"] if other["prediction"] == record["prediction"] else 1 - other["probability"]
    assert probability < record["probability"]


def test_the_predicted_class_is_explained(reviews: Path) -> None:
    """Even if it is predicted in lower precision, in which another class may be ahead."""
    predictor = load_predictor(reviews, "cpu")
    network: Any = predictor.network
    inputs = {name: torch.from_numpy(array) for name, array in predictor.processing.collate([(["good"], None)]).items()}  # type: ignore
    scores = network.net(inputs)
    one, other = (network.influence(network.net, inputs, outputs) for outputs in (scores, -scores))
    assert one.abs().sum() > 0
    assert torch.allclose(one, -other)


# ------------------------------------------------------------------------------------------------ rows


def ask(model: Path, *words: Any) -> Result:
    return run("predict", "--model_dir", model, *words)


def test_columns_in_any_order_and_others_passed_through(row_model: Path, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('id;town;size\n7;Kent;3\n8; "York";\n9;Elsewhere;1e3\n')
    result = ask(row_model, tmp_path / "a.csv", "--format", "csv")
    assert result.status == 0, result.err
    rows = list(csv.DictReader(result.out.splitlines()))
    assert list(rows[0]) == ["id", "town", "size", "prediction", "probability", "error"]
    assert [(row["id"], row["prediction"]) for row in rows[:2]] == [("7", "yes"), ("8", "no")]
    assert load_predictor(row_model)([{"size": 3, "town": "Kent"}])[0]["probability"] == pytest.approx(
        float(rows[0]["probability"]), abs=1e-4
    )


def test_a_column_that_is_not_there(row_model: Path, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,town\n7,Kent\n")
    refused(ask(row_model, tmp_path / "a.csv"), "a.csv, line 1: no column size", "There are: id, town")
    refused(ask(row_model, tmp_path / "gone.csv"), "gone.csv: cannot be read")
    refused(ask(row_model), "Which rows?")


def test_columns_that_are_missing_or_there_twice(row_model: Path, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("Size,town\n1,Kent\n")
    result = ask(row_model, tmp_path / "a.csv")
    refused(result, "no column size, which", "There are: Size, town")
    (tmp_path / "a.csv").write_text("size,town,size\n1,Kent,2\n")
    refused(ask(row_model, tmp_path / "a.csv"), "a.csv, line 1: the column size twice")


def test_a_row_of_empty_cells_is_a_row(row_model: Path, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("size,town\n1,Kent\n,\n\n2,York\n")
    records = read_jsonl(ask(row_model, tmp_path / "a.csv", "--format", "jsonl").out)
    assert [record["input"]["size"] for record in records] == ["1", "", "2"]


def test_columns_that_are_called_as_ours(row_model: Path, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("size,town,probability,error\n1,Kent,given,mine\n")
    (row,) = csv.DictReader(ask(row_model, tmp_path / "a.csv", "--format", "csv").out.splitlines())
    assert (row["input probability"], row["input error"], row["error"]) == ("given", "mine", "")
    assert 0 < float(row["probability"]) < 1
    (tmp_path / "b.csv").write_text("size,town,more\n1,Kent,x\n")
    refused(
        ask(row_model, tmp_path / "a.csv", tmp_path / "b.csv", "--format", "csv"), "The column more is not in the first"
    )


def test_a_bad_byte_beside_an_emoji(row_model: Path, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("size,town\n1,\U0001f600".encode() + b"\xff\n2,Kent\n")
    records = read_jsonl(ask(row_model, tmp_path / "a.csv", "--format", "jsonl").out)
    assert [record.get("error") for record in records] == ["not UTF-8", None]


def test_live_inputs_do_not_wait_for_others(row_model: Path) -> None:
    """The first row is answered before the second is typed."""
    command = [sys.executable, "predict.py", "--model_dir", str(row_model), "-"]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("size,town\n")
    for i in range(3):
        process.stdin.write(f"{i},Kent\n")
        process.stdin.flush()
        assert f"size {i}, town Kent" in process.stdout.readline()
    process.stdin.close()
    assert process.wait(60) == 0


# run predict.py, and say when it begins to wait for stdin
WAITING = """
import engine.predicting, predict
real = engine.predicting.as_they_come
def waiting(*arguments):
    print("WAITING", flush=True)
    return real(*arguments)
engine.predicting.as_they_come = waiting
predict.run_command(predict.main)
"""


@pytest.mark.parametrize("kind", ["images", "texts"])
def test_stopped_while_it_waits_for_stdin(trained: Path, text_model: Path, kind: str) -> None:
    model = {"images": trained, "texts": text_model}[kind]
    command = [sys.executable, "-c", WAITING, "--model_dir", str(model), "-"]
    process = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "WAITING\n"
    time.sleep(0.5)  # until its thread does
    process.send_signal(signal.SIGINT)
    status = process.wait(60)  # with its stdin open
    assert (status, process.communicate()[1].strip()) == (130, "Stopped by SIGINT.")


def test_an_error_of_a_live_stream_is_raised() -> None:
    def inputs() -> Iterator[int]:
        yield 1
        raise UserError("gone")

    chunks = predicting.as_they_come(inputs(), 10)
    assert next(chunks) == [1]
    with pytest.raises(UserError, match="gone"):
        next(chunks)
    assert [item for chunk in predicting.as_they_come(range(25), 10) for item in chunk] == list(range(25))


def test_rows_that_cannot_be_read(row_model: Path, tmp_path: Path) -> None:
    lines = [b"size,town", b"3,Kent", b"x,Kent", b"3", b"4,K\xe4nt", b'5,"Ke"nt', b"1e300,Kent", b"6,York"]
    (tmp_path / "a.csv").write_bytes(b"\n".join(lines))
    with warnings.catch_warnings(record=True) as recorded:
        result = ask(row_model, tmp_path / "a.csv", "--format", "csv")
    assert result.status == 1
    errors = [row["error"] for row in csv.DictReader(result.out.splitlines())]
    assert errors == [
        "",
        "x in the column size, which holds numbers",
        f"{tmp_path / 'a.csv'}, line 4: 1 cells, expected 2",
        f"{tmp_path / 'a.csv'}, line 5: not UTF-8",
        f"{tmp_path / 'a.csv'}, line 6: ',' expected after '\"'. Is a quotation mark left open?",
        NOT_FINITE,
        "",
    ]
    assert not recorded


def test_the_columns_of_a_table_without_a_header(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("1,2\n3,4\n")
    rows = list(read_rows(str(tmp_path / "a.csv"), ["column 2"]))
    assert rows == [{"column 1": "1", "column 2": "2"}, {"column 1": "3", "column 2": "4"}]


def test_values_of_rows_in_python(row_model: Path) -> None:
    predictor = load_predictor(row_model)
    same = predictor([{"size": None, "town": "Kent"}, {"size": math.nan, "town": "Kent"}, {"size": "", "town": "Kent"}])
    assert len({record["probability"] for record in same}) == 1
    errors = [record["error"] for record in predictor([{"size": [1], "town": "Kent"}, "Kent", {"town": "Kent"}])]
    assert errors[0] == "[1]: expected a number or a word"
    assert errors[1].startswith("expected a row")
    assert errors[2] == "no value for size"


# --------------------------------------------------------------------------------------------- records


def test_records_of_classes() -> None:
    scores = np.log(np.array([[0.2, 0.7, 0.1], [0.5, 0.25, 0.25]], np.float32))
    first, second = class_records(scores + 3, ["a", "b", "c"], top=2)
    assert first == {
        "prediction": "b",
        "probability": pytest.approx(0.7),
        "probabilities": pytest.approx({"b": 0.7, "a": 0.2}),
    }
    assert list(first["probabilities"]) == ["b", "a"]
    assert list(second["probabilities"]) == ["a", "b"]  # of equals the first
    assert class_records(scores, ["a", "b", "c"])[0] == {"prediction": "b", "probability": pytest.approx(0.7)}


def test_records_of_labels() -> None:
    logits = np.log(np.array([[3.0, 1 / 4]], np.float32))
    (record,) = label_records(logits, ["old", "big"])
    assert record["prediction"] == ["old"]
    assert record["probabilities"] == pytest.approx({"old": 0.75, "big": 0.2})
    assert record["probability"] == pytest.approx(0.75 * 0.8)


def test_records_of_labels_with_extreme_logits() -> None:
    """No overflow; what is applied is what the metrics count: a logit above 0."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (record,) = label_records(np.array([[-1000.0, 1000.0, 1e-20, -1e-20]]), ["a", "b", "c", "d"])
    assert record["prediction"] == ["b", "c"]
    assert record["probabilities"] == {"a": 0, "b": 1, "c": 0.5, "d": 0.5}


def test_records_of_numbers() -> None:
    outputs = np.array([[1.0, -1.0]], np.float32)
    assert number_records(outputs, ["a", "b"], [10, 20], [2, 5]) == [
        {"prediction": {"a": 12, "b": 15}, "probability": None}
    ]
    assert number_records(outputs[:, :1], ["a"], [10], [2]) == [{"prediction": 12, "probability": None}]


class Counting(Processing):
    """Counts what it reads; the class of a number is its parity."""

    accepts = "rows"

    def __init__(self) -> None:
        super().__init__(None)
        self.started = 0

    def read(self, words: Any, options: Any) -> Iterator[Any]:
        yield from ()

    def numbers(self, count: int) -> Iterator[int]:
        for self.started in range(1, count + 1):
            yield self.started

    def preprocess(self, raw: Any) -> Any:
        if raw % 10 == 0:
            raise UserError("ten")
        return predicting.Example(raw, raw, raw % 7)

    def collate(self, contents: Any) -> Any:
        return np.array(contents)

    def examples(self, count: int, length: int, rng: Any) -> list[int]:
        return list(range(count))

    def postprocess(self, outputs: Any) -> Any:
        return [{"prediction": str(number % 2), "probability": 1.0} for number in outputs["outputs"].tolist()]


def test_a_stream_is_read_as_it_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """In its order, a window at a time: of a million inputs, few are in memory."""
    processing = Counting()
    processing.params = type("Params", (), {"batch_size": 4})
    predictor = predicting.Predictor("parity", processing, lambda x: {"outputs": x}, predicting.About("x"))  # type: ignore
    for place, record in enumerate(predictor.stream(processing.numbers(1000)), start=1):
        assert processing.started - place < 4 * predicting.WINDOW
        expected = (
            {"error": "ten"} if place % 10 == 0 else {"input": place, "prediction": str(place % 2), "probability": 1.0}
        )
        assert expected.items() <= record.items()
    assert place == 1000


# --------------------------------------------------------------------------------------------- weights


def test_weights_that_are_not_there(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    shutil.copy(trained / "params.json", tmp_path / "new")
    refused(run("predict", "--model_dir", tmp_path / "new", "a.jpg"), "no best weights", "Train first: python train.py")
    refused(run("predict", "--model_dir", tmp_path / "gone", "a.jpg"), "gone: no such experiment")
    refused(
        run("predict", "--model_dir", trained / "best_weights", "a.jpg"), "not an experiment (it has no params.json)"
    )
    refused(run("predict", "--weights", tmp_path / "gone.pt", "a.jpg"), "gone.pt: no such")
    refused(run("predict", "--weights", ROOT / "README.md", "a.jpg"), "README.md: not a checkpoint")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"params": {"num_chanels": 4}}, ["weights of another version: its params: 1 problem", "num_chanels: unknown"]),
        ({"data": {"image_size": 0}}, ["weights of another version: its data: 1 problem", "image_size: expected"]),
        ({"params": {"num_channels": 8}}, ["weights of another architecture"]),
        ({"params": {"task": "chess"}}, ["weights of the task chess, which is not here"]),
        ({"params": None}, ["without the parameters"]),
    ],
)
def test_weights_of_another_version(trained: Path, tmp_path: Path, change: Any, words: list[str]) -> None:
    (path,) = (trained / "best_weights").glob("*.pt")
    checkpoint = torch.load(path, weights_only=True)
    for name, values in change.items():
        checkpoint[name] = {**checkpoint[name], **values} if values else {}
    torch.save(checkpoint, tmp_path / "changed.pt")
    refused(run("predict", "--weights", tmp_path / "changed.pt", "a.jpg"), "changed.pt", *words)


# ---------------------------------------------------------------------------------------------- output


def test_a_file_appears_when_it_is_whole(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_photos(tmp_path, train=1, test=1)
    output = tmp_path / "answers.csv"
    output.write_text("old")
    with monkeypatch.context() as patch:
        patch.setattr(predicting.Predictor, "answer_batches", lambda *_: (_ for _ in ()).throw(MemoryError()))
        assert predict_images(trained, tmp_path / "train_signs", "--output", output).status == 2
    assert output.read_text() == "old"
    assert predict_images(trained, tmp_path / "train_signs", "gone.jpg", "--output", output).status == 1
    rows = list(csv.DictReader(output.read_text().splitlines()))
    assert [bool(row["prediction"]) for row in rows] == [True, True, True, False]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_an_output_that_says_no_format(trained: Path, tmp_path: Path) -> None:
    refused(
        predict_images(trained, "a.jpg", "--output", tmp_path / "a.doc"),
        "says no format",
        "--format text|jsonl|csv|conll",
    )
    refused(predict_images(trained, "a.jpg", "--output", tmp_path / "gone" / "a.csv"), "a folder that exists")
    draw_photo(tmp_path / "a.jpg", 0)
    refused(predict_images(trained, tmp_path / "a.jpg", "--format", "conll"), "--format conll is for tagged text")


@pytest.mark.skipif(sys.platform != "linux", reason="others have no /proc")
def test_an_output_that_cannot_be_written(trained: Path, tmp_path: Path) -> None:
    """Devices, pipes and links stay what they are."""
    draw_photo(tmp_path / "a.jpg", 0)
    os.mkfifo(tmp_path / "pipe.csv")
    refused(predict_images(trained, tmp_path / "a.jpg", "--output", tmp_path / "pipe.csv"), "not a regular file")
    assert (tmp_path / "pipe.csv").is_fifo()
    refused(predict_images(trained, tmp_path / "a.jpg", "--output", "/proc/a.csv"), "/proc: cannot be written to")
    (tmp_path / "link.csv").symlink_to(tmp_path / "target.csv")
    assert predict_images(trained, tmp_path / "a.jpg", "--output", tmp_path / "link.csv").status == 0
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "target.csv").read_text().startswith("input,")


def test_an_output_that_is_an_input(row_model: Path, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("size,town\n1,Kent\n")
    refused(ask(row_model, tmp_path / "a.csv", "--output", tmp_path / "a.csv"), "this is also an input")
    assert (tmp_path / "a.csv").read_text() == "size,town\n1,Kent\n"


def test_unreadable_inputs_before_the_first_row_of_a_csv_file(trained: Path, tmp_path: Path) -> None:
    draw_photo(tmp_path / "a.jpg", 0)
    rows = predict_images(trained, "x.jpg", "y.jpg", tmp_path / "a.jpg", "--format", "csv").out.splitlines()
    assert rows[0] == "input,prediction,probability,error"
    assert rows[1:3] == ["x.jpg,,,No such file or directory", "y.jpg,,,No such file or directory"]
    assert len(rows) == 4


def test_the_command_says_its_exit_statuses() -> None:
    said = subprocess.run([sys.executable, "predict.py", "--help"], cwd=ROOT, capture_output=True, text=True).stdout
    assert "Exit status: 0 if every input was answered, 1 if some could not be read, 2 if none could." in said
