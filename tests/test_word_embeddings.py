"""Word vectors: which words are read and drawn, the losses of the papers, and what is left when training ends."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from engine.loaders import Batch
from model import TASKS
from model.layers import PAD, UNK
from model.text.embeddings import read_embeddings
from model.word_embeddings.data_loader import Dataset
from model.word_embeddings.net import Net, loss_fn
from model.word_embeddings.params import DataParams, Params
from model.word_embeddings.sample import ANIMALS, FOOD, PEOPLE, PLACES
from model.word_embeddings.write import in_two_dimensions
from predict import load_predictor
from tests.conftest import read_json, refused, run, train_ok

TASK = TASKS["word_embeddings"]
LINES = ["a b c d e f g h", "b a", "c", "a a a d"] * 30


def build(source: Path, folder: Path, *flags: Any) -> Path:
    words = ("--task", TASK.name, "--data_dir", source, "--output_dir", folder, "--tokenized")
    result = run("build_dataset", *words, *flags)
    assert result.status == 0, result.err
    return folder


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("words")
    (folder / "raw.txt").write_text("".join(f"{line}\n" for line in LINES))
    return build(folder / "raw.txt", folder / "built")


def dataset_of(folder: Path, split: str = "train", training: bool = True, **params: Any) -> Dataset:
    data = DataParams(**read_json(folder / "dataset_params.json")).complete(folder)
    values = {"task": TASK.name, "data_dir": str(folder), "context_size": 2, "batch_size": 16, **params}
    return Dataset(folder, split, Params(**values).with_data(data), training)


def words_of(dataset: Dataset, numbers: Any) -> list[str]:
    forms = ["", "?", *dataset.params.vocabulary]
    return [forms[number] for number in numbers.tolist()]


# ---------------------------------------------------------------------------------------------- batches


@pytest.mark.parametrize("net", ["cbow", "skipgram", "ngram"])
def test_neighbours_are_of_the_same_line(built: Path, net: str) -> None:
    dataset = dataset_of(built, training=False, net=net)
    inputs, labels = dataset.__getitems__(Batch(0, torch.arange(len(dataset))))
    lines = [line.split() for line in LINES[: len(LINES) * 9 // 10]]
    words = iter(range(len(dataset)))
    for line in lines:
        for i, word in enumerate(line):
            number = next(words)
            assert words_of(dataset, inputs["words"][number : number + 1]) == [word]
            beside = [i - 2, i - 1] if net == "ngram" else [i - 2, i - 1, i + 1, i + 2]
            expected = [line[j] if 0 <= j < len(line) else "" for j in beside]
            assert words_of(dataset, inputs["context"][number]) == expected
            if net == "skipgram":
                assert torch.equal(labels[number], inputs["context"][number].where(inputs["context"][number] > 0, -1))
            elif net == "cbow":
                assert labels[number] == (inputs["words"][number] if any(expected) else -1)
            else:
                assert labels[number] == inputs["words"][number]
    assert len(dataset) == len(dataset.text)


def test_frequent_words_are_left_out(tmp_path: Path) -> None:
    """With the probability of word2vec.c: sqrt(t / f) + t / f of them stay."""
    rng = np.random.default_rng(0)
    words = rng.choice(["x", "y", "z"], 30_000, p=[0.8, 0.19, 0.01])
    (tmp_path / "raw.txt").write_text("".join(" ".join(line) + "\n" for line in words.reshape(-1, 10)))
    dataset = dataset_of(build(tmp_path / "raw.txt", tmp_path / "built"), subsample=0.1)
    dataset.draw(0)
    before, after = (np.bincount(text) for text in (dataset.text, dataset.kept))
    after, before = after[before > 0], before[before > 0]
    share = before / before.sum()
    assert after / before == pytest.approx(np.minimum(1, np.sqrt(0.1 / share) + 0.1 / share), abs=0.02)
    assert len(dataset.kept) == pytest.approx(len(dataset), rel=0.02)
    first = dataset.kept
    dataset.draw(1)
    assert len(first) != len(dataset.kept) or (first != dataset.kept).any()


def test_an_epoch_has_every_word_that_is_kept(built: Path) -> None:
    dataset = dataset_of(built, subsample=0.0)
    inputs, _ = dataset.__getitems__(Batch(3, torch.arange(len(dataset))))
    assert torch.equal(inputs["words"].bincount(), torch.from_numpy(np.bincount(dataset.text)))
    assert inputs["words"].tolist() != dataset.text.tolist()


def test_of_the_neighbours_a_random_number_is_seen(tmp_path: Path) -> None:
    (tmp_path / "raw.txt").write_text("a b c d e f g h i j k\n" * 400)
    dataset = dataset_of(build(tmp_path / "raw.txt", tmp_path / "built"), subsample=0.0, context_size=4)
    inputs, _ = dataset.__getitems__(Batch(0, torch.arange(len(dataset))))
    middle = inputs["words"] == dataset.params.vocabulary["f"]
    shares = (inputs["context"][middle] > 0).float().mean(dim=0).tolist()
    assert shares == pytest.approx([0.25, 0.5, 0.75, 1, 1, 0.75, 0.5, 0.25], abs=0.1)


def test_words_are_drawn_by_their_frequency(built: Path) -> None:
    dataset = dataset_of(built, subsample=0.0)
    drawn = [dataset.__getitems__(Batch(0, torch.tensor([i])))[0]["drawn"] for i in range(400)]
    counts = np.bincount(dataset.text, minlength=11) ** 0.75
    found = torch.cat(drawn).bincount(minlength=11).numpy()
    assert found / found.sum() == pytest.approx(counts / counts.sum(), abs=0.01)
    assert found[[PAD, UNK]].tolist() == [0, 0]


# --------------------------------------------------------------------------------------------- network


def net_and_batch(built: Path, **params: Any) -> tuple[Net, dict[str, torch.Tensor], torch.Tensor]:
    dataset = dataset_of(built, embedding_dim=6, **params)
    torch.manual_seed(0)
    net = Net(dataset.params)
    for weight in net.parameters():
        torch.nn.init.normal_(weight)
    with torch.no_grad():
        net.embedding.weight[PAD] = 0
    return net, *dataset.__getitems__(Batch(0, torch.arange(20)))


@pytest.mark.parametrize("net", ["cbow", "skipgram"])
def test_negative_sampling(built: Path, net: str) -> None:
    network, inputs, labels = net_and_batch(built, net=net, negatives=3)
    total, count = 0.0, 0
    vectors, outputs = network.embedding.weight, network.output.weight
    for i in range(20):
        context = inputs["context"][i]
        pairs = list(enumerate(context.tolist())) if net == "skipgram" else [(0, int(inputs["words"][i]))]
        for j, true in pairs:
            if (labels[i][j] if net == "skipgram" else labels[i]) < 0:
                continue
            x = vectors[inputs["words"][i]] if net == "skipgram" else vectors[context[context > 0]].mean(dim=0)
            total += float(-F.logsigmoid(outputs[true] @ x))
            others = [*context.tolist()] if net == "skipgram" else [true]
            drawn = [float(-F.logsigmoid(-outputs[n] @ x)) for n in inputs["drawn"] if n not in others]
            total += 3 * sum(drawn) / len(inputs["drawn"])
            count += 1
    assert loss_fn(network(inputs), labels).item() == pytest.approx(total / count, rel=1e-4)


@pytest.mark.parametrize("net", ["cbow", "skipgram", "ngram"])
def test_all_words_are_scored(built: Path, net: str) -> None:
    network, inputs, labels = net_and_batch(built, net=net, negatives=0)
    logits = network(inputs)["logits"]
    if net == "skipgram":
        logits = logits.unsqueeze(1).expand(-1, labels.shape[1], -1).flatten(0, 1)
    expected = F.cross_entropy(logits, labels.flatten(), ignore_index=-1)
    assert loss_fn(network(inputs), labels).item() == pytest.approx(expected.item(), rel=1e-5)
    assert TASK.metrics(network.params).keys() == {"perplexity"}


# --------------------------------------------------------------------------------------------- results


@pytest.fixture(scope="module")
def stories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained on the sample."""
    folder = tmp_path_factory.mktemp("stories")
    words = ("--task", TASK.name, "--sample", "--output_dir", folder / "data")
    assert run("build_dataset", *words).status == 0
    (folder / "cbow").mkdir()
    values = {"task": TASK.name, "data_dir": str(folder / "data"), "embedding_dim": 12, "learning_rate": 0.01}
    values |= {"num_epochs": 4, "batch_size": 1024, "subsample": 0.0}
    (folder / "cbow" / "params.json").write_text(json.dumps(values))
    assert "What it has learnt:" in train_ok(folder / "cbow")
    return folder / "cbow"


def test_like_words_are_neighbours(stories: Path) -> None:
    predictor = load_predictor(stories, top=5)
    for kind in (ANIMALS, FOOD, PLACES, PEOPLE):
        for record in predictor(kind):
            assert {record["input"], *record["probabilities"]} == set(kind)


def test_what_training_leaves(stories: Path) -> None:
    """Vectors for other tasks, neighbours and a picture; all of the best weights."""
    data = DataParams(**read_json(stories.parent / "data" / "dataset_params.json"))
    params = Params(task=TASK.name).with_data(data.complete(stories.parent / "data"))
    found = read_embeddings(stories / "vectors.txt", params.vocabulary, 12)
    (path,) = (stories / "best_weights").glob("*.pt")
    weight = torch.load(path, weights_only=True)["state_dict"]["embedding.weight"]
    assert len(found) == len(params.vocabulary) - 1  # all but the line feed
    for number, vector in found.items():
        assert torch.tensor(vector) == pytest.approx(weight[number], rel=1e-3)
    assert (stories / "words.png").stat().st_size > 1000
    assert len((stories / "demonstration.txt").read_text().splitlines()) == 10


def test_three_words(stories: Path) -> None:
    """The vector of b - a + c, whatever is near it; none of the three is the answer."""
    predictor = load_predictor(stories, top=3)
    (record,) = predictor(["dog cat bread"])
    assert not {"dog", "cat", "bread"} & record["probabilities"].keys()
    assert set(record["probabilities"]) < set(FOOD)
    asked = run("predict", "--model_dir", stories, "--analogy", "dog", "cat", "bread", "--top", 3).out
    assert asked == run("predict", "--model_dir", stories, "dog cat bread", "--top", 3).out
    assert asked.split()[0] == record["prediction"]


def test_words_that_cannot_be_asked(stories: Path) -> None:
    errors = [record["error"] for record in load_predictor(stories)(["hors", "dog cat", ["a", 3]])]
    assert errors == [
        "not in the vocabulary. Did you mean horse?",
        "2 words; expected one, or three: a is to b as c is to what?",
        "expected a word, or three",
    ]
    refused(run("predict", "--model_dir", stories, "hors"), "Did you mean horse?")


def test_two_dimensions() -> None:
    """Those in which directions differ most."""
    angles = np.linspace(0, 3, 20)
    vectors = np.stack([np.cos(angles), np.sin(angles), np.zeros(20)], axis=1) * np.arange(1, 21)[:, None]
    places = in_two_dimensions(vectors)
    distances = np.linalg.norm(places[:, None] - places, axis=2)
    differences = [np.subtract.outer(side, side) for side in (np.cos(angles), np.sin(angles))]
    expected = np.hypot(*differences)
    assert distances == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("text", ["item_1 item_2\n", "1 2 3\n", "a b\n"])
def test_small_texts_of_any_tokens(tmp_path: Path, text: str) -> None:
    """Vectors of one number, words without letters, a vocabulary of two, hardly a word that is kept."""
    (tmp_path / "raw.txt").write_text(text * 30)
    data = build(tmp_path / "raw.txt", tmp_path / "built")
    (tmp_path / "small").mkdir()
    values = {"task": TASK.name, "data_dir": str(data), "embedding_dim": 1, "num_epochs": 2}
    (tmp_path / "small" / "params.json").write_text(json.dumps(values))
    train_ok(tmp_path / "small")
    assert len((tmp_path / "small" / "vectors.txt").read_text().splitlines()) == len(text.split())
    assert (tmp_path / "small" / "curves.png").exists()


def test_a_finished_run_that_was_killed_before_its_vectors(stories: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(stories, tmp_path / "killed"))
    (folder / "vectors.txt").unlink()
    (folder / "run.json").write_text(json.dumps({**read_json(folder / "run.json"), "status": "running"}))
    assert "finished" in train_ok(folder)
    assert (folder / "vectors.txt").read_text() == (stories / "vectors.txt").read_text()
