"""Tags that mark no entities, from a treebank to an answer: the commands, their metric, and what they show."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.metrics import Totals
from model.sequence_tagging.entities import are_entities, with_tags
from model.sequence_tagging.net import Outputs, describe_tags, forbidden_transitions, metrics, num_items
from predict import load_predictor
from search.space import read_search
from tests.conftest import ROOT, SMALL_TAGGER, last_checkpoint, read_json, refused, run, train_ok
from tests.test_tagging_columns import TREEBANK, WORDS
from tests.test_tagging_net import make_params

TAGS = ["NOUN", "VERB", "DET", "ADJ"]
NOUNS, VERBS, BOTH = "dog cat tree house".split(), "sees hears finds".split(), "walks plays".split()


def write_split(path: Path, count: int, seed: int, extra: str = "") -> None:
    """Sentences of which some words are a noun here and a verb there, by their neighbours."""
    generator = torch.Generator().manual_seed(seed)

    def pick(words: list[str]) -> str:
        return words[int(torch.randint(len(words), (), generator=generator))]

    with path.open("w", encoding="utf-8") as file:
        for i in range(count):
            words = [("the", "DET"), (pick(NOUNS + BOTH), "NOUN"), (pick(VERBS + BOTH), "VERB"), ("a", "DET")]
            words += [(pick(["big", "old"]), "ADJ"), (pick(NOUNS), "NOUN")]
            file.write(f"# sent_id = {i}\n")
            rows = [f"{n}\t{w}\t{w}\t{tag}\t_\t_\t0\t_\t_\t_\n" for n, (w, tag) in enumerate(words, start=1)]
            file.write("".join(rows) + "\n")
        file.write(extra)


@pytest.fixture(scope="module")
def treebank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A built treebank, not to be changed. Test has a tag that train has not."""
    folder = tmp_path_factory.mktemp("treebank")
    (folder / "UD").mkdir()
    unseen = "1\tthe\t_\tDET\t_\t_\t0\t_\t_\t_\n2\t5\t_\tNUM\t_\t_\t0\t_\t_\t_\n\n"
    for i, (split, count) in enumerate({"train": 120, "dev": 30, "test": 30}.items()):
        write_split(folder / "UD" / f"en_toy-ud-{split}.conllu", count, i, unseen if split == "test" else "")
    words = ["--task", "sequence_tagging", "--data_dir", folder / "UD", "--output_dir", folder / "ud"]
    assert run("build_dataset", *words).status == 0
    return folder / "ud"


@pytest.fixture(scope="module")
def model(treebank: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped experiment on the treebank, smaller; not to be changed."""
    model_dir = tmp_path_factory.mktemp("models") / "ud"
    small = [f"{name}={value}" for name, value in {**SMALL_TAGGER, "num_epochs": 6}.items()]
    base = ["--base", ROOT / "experiments" / "ner_bilstm_crf", "--data_dir", treebank]
    train_ok(model_dir, *base, "--set", *small, "scheduler=none", "char_hidden_dim=8")
    return model_dir


@pytest.fixture
def on_treebank(tmp_path: Path, treebank: Path) -> Callable[..., Path]:
    """`on_treebank(monitor="loss")` writes an experiment."""

    def write(**params: Any) -> Path:
        values = {"task": "sequence_tagging", "data_dir": str(treebank), **SMALL_TAGGER, **params}
        (tmp_path / "ud").mkdir(exist_ok=True)
        (tmp_path / "ud" / "params.json").write_text(json.dumps(values))
        return tmp_path / "ud"

    return write


# ------------------------------------------------------------------------------------------ the metric


def test_accuracy_chooses_the_best_weights(model: Path) -> None:
    """Though the shipped params.json does not say so; run.json does."""
    described = read_json(model / "run.json")
    assert described["monitor"] == described["params"]["monitor"] == "accuracy"
    assert "monitor" not in read_json(model / "params.json")
    history = [json.loads(line) for line in (model / "history.jsonl").read_text().splitlines()]
    assert history[0]["val"].keys() == {"loss", "accuracy"}
    best = max(history, key=lambda entry: (entry["val"]["accuracy"], -entry["val"]["loss"]))
    assert last_checkpoint(model, "best")["epoch"] == best["epoch"]
    assert best["val"]["accuracy"] > 0.9


def test_f1_of_entities_that_are_not_there(on_treebank: Callable[..., Path]) -> None:
    message = "monitor: expected one of loss, accuracy, got f1.", "ud decides which metrics there are"
    refused(run("train", "--model_dir", on_treebank(monitor="f1")), *message)
    model_dir = on_treebank(monitor="loss", num_epochs=1)
    train_ok(model_dir)
    assert read_json(model_dir / "run.json")["monitor"] == "loss"


def test_entities_are_judged_by_f1_as_before(tagger: Callable[..., Path]) -> None:
    """A run that began when params.json had to say so, or when f1 was the default, goes on."""
    train_ok(tagger(monitor="f1", num_epochs=1))
    model_dir = tagger(num_epochs=2)
    assert "Going on after epoch 1" in train_ok(model_dir)
    assert read_json(model_dir / "run.json")["monitor"] == "f1"


def test_a_search_is_judged_by_what_the_data_decides(on_treebank: Callable[..., Path], tagger: Any) -> None:
    for folder, metric in ((on_treebank(), "accuracy"), (tagger(), "f1")):
        (folder / "search.json").write_text('{"space": {"learning_rate": [0.1, 0.2]}}')
        search = read_search(folder)
        assert (search.metric, search.describe()["monitor"], search.goal) == (metric, metric, "maximize")


def test_nobody_knows_what_ranks_experiments_that_are_not_trained(on_treebank: Callable[..., Path]) -> None:
    result = run("synthesize_results", "--parent_dir", on_treebank().parent, "--all")
    assert "sequence_tagging on ud\n" in result.out


def test_accuracy_is_the_share_of_the_words() -> None:
    """Padding does not count; a tag that train does not have counts as an error."""
    params = make_params()
    params.with_data(params.data.model_copy(update={"tags": TAGS, "unseen_tags": ["NUM"]}))
    assert list(metrics(params)) == ["accuracy"]
    assert list(metrics(make_params())) == ["f1", "accuracy", "precision", "recall"]
    logits = torch.eye(4)[torch.tensor([[0, 1, 2, 3], [3, 3, 0, 0]])]
    labels = torch.tensor([[0, 1, 3, 4], [3, 0, -1, -1]])
    outputs = Outputs(logits, torch.tensor([4, 2]), None, *describe_tags([*TAGS, "NUM"]))
    totals = Totals(metrics(params), num_items)
    totals.add(outputs, labels, torch.tensor(0.0))
    assert totals.compute()["accuracy"] == pytest.approx(3 / 6)


def test_any_tag_may_follow_any() -> None:
    tags = ["NOUN", "I", "B", "``", "-LRB-", "IN", "E"]
    assert not any(table.any() for table in forbidden_transitions(tags))
    assert not are_entities(tags)
    assert are_entities(["O", "B-per", "I-per"])
    assert are_entities(["O"])  # if those of entities are too rare


# ---------------------------------------------------------------------------------------- what is shown


def test_the_report(model: Path) -> None:
    result = run("evaluate", "--model_dir", model)
    assert result.status == 0, result.err
    blocks = (model / "predictions_test.txt").read_text("utf-8").removesuffix("\n").split("\n\n")
    rows = [tuple(line.split(" ")) for block in blocks for line in block.split("\n")]
    accuracy = sum(label == found for _, label, found in rows) / len(rows)
    assert read_json(model / "metrics_test_best_weights.json")["accuracy"] == pytest.approx(accuracy)
    table = [re.split(r" *\| *", line.strip("| ")) for line in result.out.splitlines() if line.startswith("| ")]
    assert table[0] == ["tag", "precision", "recall", "F1", "support"]
    supports = [int(row[4]) for row in table[1:]]
    assert supports == sorted(supports, reverse=True)
    assert sum(supports) == len(rows)
    for tag, *shares, _ in table[1:]:
        right = sum(label == found == tag for _, label, found in rows)
        predicted, labelled = sum(found == tag for *_, found in rows), sum(label == tag for _, label, _ in rows)
        expected = [right / max(predicted, 1), right / labelled, 2 * right / (predicted + labelled)]
        assert shares == [f"{share:.3f}" for share in expected], tag
    first = [line.split(" ") for line in blocks[0].split("\n")]
    shown = [f"{word}/{found}" + (f"({label})" if label != found else "") for word, label, found in first]
    assert " ".join(shown) in result.out.splitlines()
    assert "[" not in result.out.split("split of")[1].split("All of them")[0]


def test_words_with_their_tags() -> None:
    words, tags = ["When", "a", "user", "is"], ["SCONJ", "DET", "NOUN", "VERB"]
    assert with_tags(words, tags) == "When/SCONJ a/DET user/NOUN is/VERB"
    assert with_tags(words, tags, ["SCONJ", "DET", "NOUN", "AUX"]) == "When/SCONJ a/DET user/NOUN is/VERB(AUX)"


def test_predictions(model: Path) -> None:
    result = run("predict", "--model_dir", model, "the dog walks a big cat")
    assert result.out == "the/DET dog/NOUN walks/VERB a/DET big/ADJ cat/NOUN\n"
    (record,) = load_predictor(model)(["the dog walks"])
    assert record.keys() == {"input", "prediction", "probability", "tag_probabilities", "words"}


@pytest.mark.parametrize("name", ["a.conllu", "a.txt", "a.conll"])
def test_files_of_a_treebank(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """FORM is read, without ranges and words that are not in the text."""
    (tmp_path / name).write_text(TREEBANK, encoding="utf-8")
    answers = [run("predict", "--model_dir", model, "--file", tmp_path / name, "--format", "jsonl").out]
    with (tmp_path / name).open("rb") as file:
        monkeypatch.setattr("sys.stdin", file)
        answers.append(run("predict", "--model_dir", model, "--file", "-", "--columns", "--format", "jsonl").out)
    assert answers[0] == answers[1]
    assert [json.loads(line)["words"] for line in answers[0].splitlines()] == WORDS


def test_a_torn_line_of_a_treebank_stands_for_its_sentence(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.conllu"
    path.write_text("# a comment\n1\tA\tx\n2\n\n1\tB\n\n", encoding="utf-8")
    result = run("predict", "--model_dir", model, "--file", path, "--format", "jsonl")
    first, second = map(json.loads, result.out.splitlines())
    assert (first["input"], first["error"]) == (f"{path}, line 3", "1 columns, expected 10")
    assert second["words"] == ["B"]
    path.write_text("# global.columns = ID LEMMA\n1\tA\n", encoding="utf-8")
    refused(run("predict", "--model_dir", model, "--file", path), f"{path}: no column FORM")
