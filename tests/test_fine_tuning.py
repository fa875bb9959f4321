"""Parts of a network with learning rates of their own; layers that are taken from a language model, and frozen."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from engine.checkpoints import fetch_checkpoint
from engine.optimizers import Schedule, current_rate, freeze, make_optimizer, scales_of
from engine.params import TrainingParams
from tests.conftest import Result, refused, run, stop_after, train_ok
from utils import UserError

TEXTS = [f"the film no {i} is {'good and fun' if i % 2 else 'bad and dull'} ." for i in range(120)]


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(2, 2), nn.Linear(2, 2)
        self.first_one = nn.Linear(2, 2)


def rates_of(**params: Any) -> dict[str, float]:
    net = Small()
    optimizer = make_optimizer(net, TrainingParams(learning_rate=0.1, optimizer="adamw", **params))
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    return {name: rates.get(id(p), 0.0) for name, p in net.named_parameters()}


def test_the_longest_name_decides() -> None:
    rates = rates_of(learning_rate_scale={"first": 0.5, "first.bias": 2, "second": 0})
    assert rates == pytest.approx(
        {
            **{"first.weight": 0.05, "first.bias": 0.2, "second.weight": 0, "second.bias": 0},
            **{"first_one.weight": 0.1, "first_one.bias": 0.1},
        }
    )


def test_a_part_that_is_not_there() -> None:
    with pytest.raises(
        UserError, match=r"no parameter begins with secnd\. Did you mean second\? There are first, second"
    ):
        rates_of(learning_rate_scale={"secnd": 0.5})
    with pytest.raises(UserError, match="nothing is left to train"):
        rates_of(learning_rate_scale={"first": 0, "second": 0, "first_one": 0})


@pytest.mark.parametrize("scheduler", ["none", "step", "cosine", "onecycle"])
def test_a_schedule_scales_all_parts_alike(scheduler: Any) -> None:
    net = Small()
    scaled = TrainingParams(scheduler=scheduler, num_epochs=2, learning_rate_scale={"first": 0.1}, warmup_epochs=0.5)
    optimizer = make_optimizer(net, scaled)
    schedule = Schedule(optimizer, scaled, 10)
    plain = make_optimizer(Small(), scaled.model_copy(update={"learning_rate_scale": {}}))
    expected = Schedule(plain, scaled, 10)
    for _ in range(20):
        rate = plain.param_groups[0]["lr"]
        assert current_rate(optimizer) == pytest.approx(rate)
        assert {round(group["lr"] / rate, 6) for group in optimizer.param_groups} == {0.1, 1.0}
        for each, scheduled in ((optimizer, schedule), (plain, expected)):
            each.step()
            scheduled.step()
    assert schedule.learning_rate == pytest.approx(expected.learning_rate)


def test_frozen_parts_come_and_go() -> None:
    """But what learning_rate_scale freezes stays frozen."""
    net: Any = Small()
    optimizer = make_optimizer(net, TrainingParams(learning_rate_scale={"second": 0}))
    net.frozen = lambda epoch: ["first"] if epoch < 1 else []
    for epoch, frozen in ((0, {"first", "second"}), (1, {"second"})):
        freeze(net, optimizer, epoch)
        assert {name.split(".")[0] for name, p in net.named_parameters() if not p.requires_grad} == frozen
    assert scales_of(net, TrainingParams())[net.second.weight] == 0


# ----------------------------------------------------------------------------- from a language model


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    (folder / "plain.txt").write_text("".join(text + "\n" for text in TEXTS) * 4)
    (folder / "reviews.csv").write_text("text,label\n" + "".join(f"{text},{i % 2}\n" for i, text in enumerate(TEXTS)))
    built = [
        ("language_modeling", "plain.txt", "lm", ["--level", "word", "--tokenized"]),
        ("language_modeling", "plain.txt", "chars", []),
        ("text_classification", "reviews.csv", "reviews", ["--tokenized"]),
    ]
    for task, source, target, flags in built:
        words = ("--task", task, "--data_dir", folder / source, "--output_dir", folder / target)
        assert run("build_dataset", *words, *flags).status == 0
    return folder


def write(folder: Path, task: str, data_dir: Path, **params: Any) -> Path:
    folder.mkdir()
    sizes = {"embedding_dim": 6, "lstm_hidden_dim": 10, "num_layers": 2, "batch_size": 8, "num_epochs": 1}
    (folder / "params.json").write_text(json.dumps({"task": task, "data_dir": str(data_dir), **sizes, **params}))
    return folder


@pytest.fixture(scope="module")
def model(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write(tmp_path_factory.mktemp("lm") / "lm", "language_modeling", data / "lm", num_steps=20)
    train_ok(folder)
    return folder


def classify(folder: Path, data: Path, model: Path, **params: Any) -> Path:
    return write(folder, "text_classification", data / "reviews", pretrained_encoder=str(model), **params)


def start(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Result:
    """Stop before the first step is done."""
    result = stop_after(1, folder, monkeypatch)
    assert result.status == 143, result.err
    return result


def test_what_fits_is_taken(data: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The vectors of words that both know, and layers that read forwards; the log says so."""
    values = {"learning_rate_scale": {"embedding": 0, "encoder.forwards": 0}, "num_layers": 2}
    folder = classify(tmp_path / "a", data, model, **values)
    result = start(folder, monkeypatch)
    assert "frozen" in result.out
    assert "encoder.forwards.0, encoder.forwards.1" in (folder / "train.log").read_text()  # though the log began later
    source, taken = (fetch_checkpoint(place, "last") for place in (model, folder))
    theirs, ours = source["state_dict"], taken["state_dict"]
    for name in (name for name in ours if name.startswith("encoder.forwards.")):
        assert torch.equal(ours[name], theirs[name])
    numbers = {word: i for i, word in enumerate(source["data"]["tokens"], start=2)}
    words = taken["data"]["words"]
    assert f"embedding ({len(words)} of {len(words)} words), encoder.forwards.0, encoder.forwards.1" in result.out
    for i, word in enumerate(words, start=2):
        assert torch.equal(ours["embedding.weight"][i], theirs["embedding.weight"][numbers[word]])


def test_what_does_not_fit_is_named(data: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = classify(tmp_path / "a", data, model, lstm_hidden_dim=5, bidirectional=True)
    out = start(folder, monkeypatch).out
    assert "encoder.forwards.0 (40 x 6 there, 20 x 6 here)" in out
    assert "encoder.backwards.0 (not there)" in out
    refused(
        run(
            "train",
            "--model_dir",
            classify(tmp_path / "b", data, model, lstm_hidden_dim=5, freeze_epochs=1, num_epochs=2),
        ),
        "With freeze_epochs, all layers that read forwards must fit. Not taken: encoder.forwards.0",
    )
    refused(
        run("train", "--model_dir", classify(tmp_path / "c", data, model, lstm_hidden_dim=5, embedding_dim=4)),
        "Nothing fits. Not taken: embedding (vectors of 6 there, of 4 here)",
    )


def test_no_such_encoder(data: Path, model: Path, trained: Path, tmp_path: Path) -> None:
    for i, (place, problem) in enumerate(
        {
            tmp_path / "gone": "gone: no such file, and no such experiment",
            trained: "not the weights of a network that reads text",
        }.items()
    ):
        folder = classify(tmp_path / str(i), data, place)
        refused(run("train", "--model_dir", folder), "pretrained_encoder", problem)
        assert not (folder / "train.log").exists()
    folder = classify(tmp_path / "chars", data, model, level="char")
    refused(run("train", "--model_dir", folder), "reads words, but this network reads chars")


def test_layers_are_unfrozen_one_by_one(
    data: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the last to the first; also by a run that was stopped."""
    whole, parts = (classify(tmp_path / name, data, model, freeze_epochs=1, num_epochs=4) for name in "ab")
    out = train_ok(whole)
    assert "Frozen in epoch 1: embedding, encoder.forwards.0, encoder.forwards.1\n" in out
    assert "Frozen in epoch 3: embedding\n" in out
    weights = [torch.load(path, weights_only=True)["state_dict"] for path in sorted((whole / "last_weights").glob("*"))
               if path.suffix == ".pt"]  # fmt: skip
    layers = ["embedding.weight", "encoder.forwards.0.weight_hh_l0", "encoder.forwards.1.weight_hh_l0", "fc.weight"]
    theirs = fetch_checkpoint(model, "best")["state_dict"]
    frozen = [[name for name in layers[1:3] if torch.equal(state[name], theirs[name])] for state in weights]
    assert frozen == [layers[1:3], layers[1:2], [], []]
    moved = [not torch.equal(a["embedding.weight"], b["embedding.weight"]) for a, b in itertools.pairwise(weights)]
    assert moved == [False, False, True]
    assert stop_after(20, parts, monkeypatch).status == 143
    train_ok(parts)
    again = fetch_checkpoint(parts, "last")["state_dict"]
    assert all(torch.equal(again[name], weights[-1][name]) for name in again)


def test_epochs_that_freeze_nothing_or_everything(data: Path, model: Path, tmp_path: Path) -> None:
    folder = write(tmp_path / "a", "text_classification", data / "reviews", freeze_epochs=1)
    refused(run("train", "--model_dir", folder), "freeze_epochs: expected 0 where there is no pretrained_encoder")
    folder = classify(tmp_path / "b", data, model, freeze_epochs=2, num_epochs=2)
    refused(run("train", "--model_dir", folder), "freeze_epochs: expected less than num_epochs")


def test_vectors_of_words_are_not_for_characters(data: Path, tmp_path: Path) -> None:
    (tmp_path / "vectors.txt").write_text("the 1 2 3 4 5 6\n")
    values = {"pretrained_embeddings": str(tmp_path / "vectors.txt")}
    folder = write(tmp_path / "a", "language_modeling", data / "chars", **values)
    refused(run("train", "--model_dir", folder), "vectors of words, but this network reads characters")


def test_a_misspelt_part_leaves_no_folder(data: Path, model: Path, tmp_path: Path) -> None:
    base = write(tmp_path / "base", "text_classification", data / "reviews")
    words = ("--model_dir", tmp_path / "new", "--base", base, "--set")
    refused(run("train", *words, 'learning_rate_scale={"encodr": 0.1}'), "Did you mean encoder?")
    assert not (tmp_path / "new").exists()
    refused(run("train", *words, 'learning_rate_scale={"encoder": -1}'), "expected an object, each a number >= 0")
