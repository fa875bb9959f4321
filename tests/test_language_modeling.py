"""Language models: what is built of a text, streams that count every token once, writing, and what is refused."""

from __future__ import annotations

import itertools
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

import model.text.plain as plain
from engine.loaders import Batch, loader_of
from engine.torch_network import predictor_of
from engine.writing import Style
from evaluate import evaluate
from model import TASKS
from model.language_modeling.data_loader import Streams, load_text
from model.language_modeling.net import Net, loss_fn
from model.language_modeling.params import DataParams, Params
from model.language_modeling.predict import Processing
from model.language_modeling.write import choose
from model.layers import PAD, UNK
from predict import load_predictor
from serving.app import App
from serving.limits import Limits
from serving.weights import Weights
from tests.browser import open_browser
from tests.conftest import Result, read_json, refused, run, stop_after, train_ok
from tests.test_serving import in_a_browser, serving_at
from utils import UserError

TASK = TASKS["language_modeling"]
CPU = torch.device("cpu")
VERSE = "the cat sat on the mat, and the dog saw it.\nthen the dog sat, too!\n\n"


def make_params(level: Any = "char", **params: Any) -> Params:
    tokens = sorted(set(VERSE)) if level == "char" else "the dog cat sat on , . saw it \n".split(" ")
    data = DataParams(
        task=TASK.name, sizes={}, digest="", level=level, tokenized=False, num_tokens=len(tokens), tokens=tokens
    )
    values = {"task": TASK.name, "embedding_dim": 8, "lstm_hidden_dim": 12, "precision": "float32", "batch_size": 4}
    return Params(**{**values, **params}).with_data(data)


def make_net(params: Params, seed: int = 0) -> Net:
    torch.manual_seed(seed)
    return Net(params)


def streams(size: int, params: Params, training: bool = False) -> Streams:
    raw = np.random.default_rng(0).integers(0, len(params.tokens), size)
    return Streams(raw, np.arange(len(params.tokens) + 1) + UNK + 1, params, Path("x/tokens.bin"), training)


def batches_of(dataset: Streams, epoch: int = 0) -> list[Any]:
    count = dataset.batch_size or 0
    return [dataset.__getitems__(Batch(epoch, torch.arange(i, i + count))) for i in range(0, len(dataset), count)]


# --------------------------------------------------------------------------------------------- streams


@settings(max_examples=40)
@given(st.integers(10, 5000), st.integers(1, 150), st.integers(1, 5), st.booleans())
def test_every_token_counts_once(size: int, num_steps: int, batch_size: int, training: bool) -> None:
    """And stands behind the one before it."""
    params = make_params(num_steps=num_steps, batch_size=batch_size)
    dataset = streams(size, params, training)
    read = [(inputs["tokens"], labels) for inputs, labels in batches_of(dataset, epoch=3)]
    texts: list[int] = []
    for stream in range(dataset.num_streams):
        before = torch.cat([tokens[stream] for tokens, _ in read])
        after = torch.cat([labels[stream] for _, labels in read])
        counted = (after >= 0).nonzero().squeeze(1)
        follows = before[counted[1:]] != PAD
        assert torch.equal(before[counted[1:]][follows], after[counted[:-1]][follows])
        texts += after[counted].tolist()
    whole = (dataset.raw + UNK + 1).tolist()
    assert len(texts) == size
    assert (
        sum((tokens == PAD).sum() for tokens, labels in read if (labels >= 0).any()) >= 1
    )  # the beginning of the text
    if training:  # from another place on, as if the text were a circle
        start = next(i for i in range(size) if whole[i:] + whole[:i] == texts)
        assert whole[start:] + whole[:start] == texts
    else:
        assert texts == whole
        assert read[dataset.warm_up][0][0, 0] == PAD  # before the first token there is nothing


def test_training_begins_elsewhere_in_every_epoch() -> None:
    dataset = streams(500, make_params(), training=True)
    first, again, second = (batches_of(dataset, epoch)[0][1] for epoch in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("rnn", ["lstm", "gru", "rnn"])
def test_the_state_is_carried_on(rnn: str) -> None:
    """Twice as many steps in half as many batches: the same outputs, in training and in evaluation."""
    short, long = (make_params(rnn=rnn, num_layers=2, num_steps=steps) for steps in (10, 20))
    for training in (True, False):
        outputs = []
        for params in (short, long):
            net, parts = make_net(params).train(training), []
            for inputs, labels in batches_of(streams(3000, params, training)):
                logits = net(inputs)
                parts += [list(row[keep]) for row, keep in zip(logits, labels >= 0, strict=True)]
            count = streams(3000, params, training).num_streams
            outputs.append([torch.stack(list(itertools.chain(*parts[i::count]))) for i in range(count)])
        for a, b in zip(*outputs, strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


@pytest.mark.parametrize("rnn", ["lstm", "gru", "rnn"])
def test_a_single_step_is_a_step(rnn: str) -> None:
    """It takes another way, which is faster."""
    net = make_net(make_params(rnn=rnn, num_layers=2)).eval()
    tokens, state = torch.randint(2, 10, (3, 7)), net.first_state(3)
    expected, after = net.read(tokens, state, net.vectors())
    for step in range(7):
        x, state = net.read(tokens[:, step : step + 1], state, net.vectors())
        torch.testing.assert_close(x[:, 0], expected[:, step], atol=1e-6, rtol=0)
    torch.testing.assert_close(state, after, atol=1e-6, rtol=0)


def test_evaluation_does_not_depend_on_the_batch_size() -> None:
    """And hardly on that a text is read in streams: against reading it from beginning to end."""
    losses = []
    for batch_size in (1, 3, 32):
        params = make_params(batch_size=batch_size)
        loader = loader_of(streams(5000, params), params)
        assert len(loader) > 3
        losses.append(evaluate(make_net(params), loader, TASK, params, CPU)["loss"])
    assert losses == pytest.approx([losses[0]] * 3, abs=1e-5)
    net, tokens = make_net(params).eval(), torch.from_numpy(streams(5000, params).raw + UNK + 1)
    x, _ = net.read(torch.cat([torch.tensor([PAD]), tokens[:-1]])[None], net.first_state(1), net.vectors())
    assert loss_fn(net.score(x), tokens[None]).item() == pytest.approx(losses[0], abs=1e-4)


def test_evaluating_does_not_disturb_training() -> None:
    params = make_params(num_steps=10)
    batches, others = batches_of(streams(400, params, True)), batches_of(streams(400, params))
    outputs = []
    for disturbed in (False, True):
        net = make_net(params)
        net(batches[0][0])
        if disturbed:
            net.eval()
            for inputs, _ in others:
                net(inputs)
            net.train()
        outputs.append(net(batches[1][0]))
    assert torch.equal(*outputs)


def test_an_epoch_begins_without_a_state() -> None:
    params = make_params(num_steps=10)
    net, batches = make_net(params), batches_of(streams(400, params, True))
    first = net(batches[0][0])
    for inputs, _ in batches:
        net(inputs)
    assert torch.equal(net(batches[0][0]), first)


def test_a_text_that_is_too_short() -> None:
    with pytest.raises(
        UserError,
        match=r"7 tokens, too few for 4 parts side by side\. Expected a batch_size of at most 3",
    ):
        streams(7, make_params(), training=True)


# --------------------------------------------------------------------------------------------- network


def test_tied_weights() -> None:
    net = make_net(make_params(tied_weights=True))
    assert net.fc.weight is net.embedding.weight
    (inputs, labels), *_ = batches_of(streams(400, make_params(), True))
    loss_fn(net(inputs), labels).backward()
    assert net.fc.weight.grad is not None


@pytest.mark.parametrize("rates", [{}, {"dropout_rate": 0.5, "recurrent_dropout": 0.3, "embedding_dropout": 0.4}])
def test_reading_step_by_step_is_reading(rates: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With all of the true tokens, and the same masks, the outputs are those of reading at once."""
    params = make_params(num_steps=10, teacher_forcing=0.5, num_layers=2, **rates)
    net, (inputs, _) = make_net(params), batches_of(streams(400, params, True))[0]
    tokens, state = inputs["tokens"], net.first_state(4)
    monkeypatch.setattr(torch, "rand", lambda *_, **__: torch.zeros(tokens.shape))
    torch.manual_seed(1)
    stepwise, after = net.read_own(tokens, state, net.vectors())
    torch.manual_seed(1)
    x, expected_after = net.read(tokens, state, net.vectors())
    expected = net.score(x)
    torch.testing.assert_close(stepwise, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(after, expected_after, atol=1e-5, rtol=0)


def test_without_teacher_forcing_the_network_reads_its_own() -> None:
    """Only the first token of a batch reaches it, so the others may be any."""
    params = make_params(num_steps=10, teacher_forcing=0.0)
    (inputs, _), *_ = batches_of(streams(400, params, True))
    others = {**inputs, "tokens": torch.cat([inputs["tokens"][:, :1], inputs["tokens"][:, 1:].flip(1)], dim=1)}
    outputs = []
    for tokens in (inputs, others):
        net = make_net(params)
        torch.manual_seed(1)
        outputs.append(net(tokens))
    assert torch.equal(*outputs)


def test_a_run_goes_on_from_weights_of_another_batch_size(tmp_path: Path, built: Path) -> None:
    train_ok(experiment(tmp_path / "a", built, batch_size=16))
    train_ok(experiment(tmp_path / "b", built, batch_size=8), "--restore_file", last_weights(tmp_path / "a"))


def last_weights(model_dir: Path) -> Path:
    return sorted((model_dir / "last_weights").glob("*.pt"))[-1]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_run_that_was_stopped_in_a_stream(
    tmp_path: Path, built: Path, monkeypatch: pytest.MonkeyPatch, num_workers: int
) -> None:
    values = {"dropout_rate": 0.2, "recurrent_dropout": 0.2, "embedding_dropout": 0.1, "num_layers": 2}
    whole, parts = (experiment(tmp_path / name, built, **values, num_workers=num_workers) for name in ("a", "b"))
    train_ok(whole)
    assert stop_after(3, parts, monkeypatch).status == 143
    train_ok(parts)
    a, b = (torch.load(last_weights(folder), weights_only=True)["state_dict"] for folder in (whole, parts))
    assert all(torch.equal(a[name], b[name]) for name in a)


# --------------------------------------------------------------------------------------------- building


def build(source: Path, *flags: Any, name: str = "built") -> Result:
    words = ("--task", TASK.name, "--data_dir", source, "--output_dir", source.parent / name)
    return run("build_dataset", *words, "--overwrite", *flags)


def texts_of(folder: Path) -> dict[str, list[str]]:
    tokens = [line or "\n" for line in (folder / "tokens.txt").read_text(encoding="utf-8").split("\n")[:-1]]
    dtype = np.min_scalar_type(len(tokens))
    return {
        split: [[*tokens, "?"][i] for i in np.fromfile(folder / split / "tokens.bin", dtype)]
        for split in ("train", "val", "test")
    }


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text")
    (folder / "verse.txt").write_text(VERSE * 60)
    assert build(folder / "verse.txt").status == 0
    return folder / "built"


def experiment(folder: Path, data: Path, **params: Any) -> Path:
    folder.mkdir()
    values = {"task": TASK.name, "data_dir": str(data), "num_epochs": 2, "num_steps": 20, "batch_size": 16}
    (folder / "params.json").write_text(json.dumps({**values, "lstm_hidden_dim": 12, **params}))
    return folder


@pytest.mark.parametrize("level", ["char", "word"])
@pytest.mark.parametrize("block", [7, 100, 2**22])
def test_a_text_is_split_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, level: str, block: int) -> None:
    """However much of it is read at a time: whole lines, about 90, 5 and 5 %; nothing is lost."""
    monkeypatch.setattr(plain, "BLOCK", block)
    text = "".join(f"Zeile {i}: größer — 字, 𝄞!\n" for i in range(200))
    (tmp_path / "a.txt").write_bytes(text.replace("\n", "\r\n").encode())
    assert build(tmp_path / "a.txt", "--level", level).status == 0
    found = texts_of(tmp_path / "built")
    if level == "char":
        assert [len(part) / len(text) for part in found.values()] == pytest.approx([0.9, 0.05, 0.05], abs=0.01)
        assert all(part[-1] == "\n" for part in found.values())
        assert "".join(itertools.chain(*found.values())) == text
    else:
        assert found["val"][:10] == ["Zeile", "?", ":", "größer", "—", "字", ",", "𝄞", "!", "\n"]
    counts = Counter(found["train"])
    tokens = (tmp_path / "built" / "tokens.txt").read_text(encoding="utf-8").split("\n")[:-1]
    assert [counts[token or "\n"] for token in tokens] == sorted(counts.values(), reverse=True)


def test_a_text_without_a_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By characters, it may be of any length."""
    monkeypatch.setattr(plain, "BLOCK", 100)
    monkeypatch.setattr(plain, "LONGEST_LINE", 500)
    text = "acgt" * 500
    (tmp_path / "a.txt").write_text(text)
    assert build(tmp_path / "a.txt").status == 0
    parts = ["".join(part) for part in texts_of(tmp_path / "built").values()]
    assert "".join(parts) == text
    assert [len(part) for part in parts] == pytest.approx([1800, 100, 100], abs=2)


def test_a_folder_with_one_text(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "train.txt").write_text(VERSE * 20)
    assert build(tmp_path / "raw").status == 0


def test_files_of_splits(tmp_path: Path) -> None:
    source = tmp_path / "raw"
    source.mkdir()
    for name, text in {"train.txt": "ab" * 200, "valid.txt": "ba c", "test.txt": "aab"}.items():
        (source / name).write_text(text)
    (source / "notes.md").write_text("not read")
    assert "val: 4 characters, 50.00 % of them unknown" in build(source).out
    assert {split: "".join(part) for split, part in texts_of(tmp_path / "built").items()} == {
        "train": "ab" * 200,
        "val": "ba??",
        "test": "aab",
    }
    (source / "valid.txt").unlink()
    refused(build(source), "test.txt, train.txt, but no file for val")


def test_the_most_frequent_words_are_kept(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a b a\nc a b a\n" * 100)
    result = build(tmp_path / "a.txt", "--level", "word", "--max_words", 3, "--tokenized")
    assert result.status == 0
    assert texts_of(tmp_path / "built")["train"][:8] == ["a", "b", "a", "\n", "?", "a", "b", "a"]
    assert read_json(tmp_path / "built" / "dataset_params.json")["num_tokens"] == 3
    refused(build(tmp_path / "a.txt", "--max_words", 0), "--max_words 0: expected at least 1")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "a.txt: empty"),
        (b"ab", "val has 0 characters"),
        (b"abc\xff" * 100, "a.txt, line 1: byte 0xff"),
        (b"abc\0" * 100, "a.txt, line 1: a NUL byte"),
        (b"PK\x03\x04" * 100, "another archive"),
    ],
)
def test_no_text(tmp_path: Path, content: bytes, problem: str) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    refused(build(tmp_path / "a.txt"), problem)
    assert not (tmp_path / "built").exists()


def test_no_file(tmp_path: Path) -> None:
    refused(build(tmp_path / "gone"), "gone: no such file or folder")
    (tmp_path / "raw").mkdir()
    refused(build(tmp_path / "raw"), "raw: no text file (.txt)")
    for name in "ab":
        (tmp_path / "raw" / f"{name}.txt").write_text("text")
    refused(build(tmp_path / "raw"), "2 text files. Expected one, or train.txt, valid.txt and test.txt")


def test_a_word_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain, "BLOCK", 100)
    monkeypatch.setattr(plain, "LONGEST_LINE", 500)
    (tmp_path / "a.txt").write_text("x" * 2000)
    refused(build(tmp_path / "a.txt", "--level", "word"), "no space among")


# --------------------------------------------------------------------------------------------- writing


@pytest.fixture(scope="module")
def writer(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = experiment(tmp_path_factory.mktemp("lm") / "lm", built, num_epochs=6, learning_rate=0.02)
    assert "What it has learnt:" in train_ok(folder)
    return folder


def text_by(predictor: Any, prompt: str, samples: int = 1, **style: Any) -> list[str]:
    steps = predictor.processing.write(predictor.network, prompt, Style(**style), samples)
    return ["".join(parts) for parts in zip(*steps, strict=True)]


def test_the_same_seed_writes_the_same(writer: Path) -> None:
    predictor = load_predictor(writer)
    (once,), (again,), (other,) = (text_by(predictor, "the", length=80, seed=seed) for seed in (1, 1, 2))
    assert len(once) == 80
    assert once == again != other
    first, *others = text_by(predictor, "the", 3, length=80, seed=1)
    assert first == once
    assert len({first, *others}) == 3


def test_writing_goes_on_with_the_state(writer: Path) -> None:
    """What was written, given as the prompt, is gone on from in the same way."""
    predictor = load_predictor(writer)
    (whole,) = text_by(predictor, "the cat", length=60, temperature=0.0)
    (rest,) = text_by(predictor, "the cat" + whole[:30], length=30, temperature=0.0)
    assert whole[30:] == rest
    assert text_by(predictor, "the cat", length=60, top_k=1, temperature=2.0) == [whole]
    assert text_by(predictor, "the cat", length=60, top_p=1e-9, temperature=2.0) == [whole]


def test_tokens_are_drawn_as_often_as_they_are_likely() -> None:
    p = np.array([0.5, 0.3, 0.15, 0.05])
    scores, draws = np.log(p)[None].repeat(20_000, axis=0), np.random.default_rng(0).random(20_000)

    def shares(**style: Any) -> Any:
        return np.bincount(choose(scores, draws, Style(**style)), minlength=4) / len(draws)

    assert shares(temperature=1.0) == pytest.approx(p, abs=0.01)
    assert shares(temperature=0.5) == pytest.approx(p**2 / (p**2).sum(), abs=0.01)
    assert shares(temperature=1.0, top_k=2) == pytest.approx([5 / 8, 3 / 8, 0, 0], abs=0.01)
    assert shares(temperature=1.0, top_p=0.79) == pytest.approx([5 / 8, 3 / 8, 0, 0], abs=0.01)
    assert shares(temperature=1.0, top_p=0.81) == pytest.approx([0.5 / 0.95, 0.3 / 0.95, 0.15 / 0.95, 0], abs=0.01)
    assert shares(temperature=0.0).tolist() == [1, 0, 0, 0]


def test_an_exported_graph_writes_the_same(writer: Path, tmp_path: Path) -> None:
    assert run("export", "--model_dir", writer, "--output", tmp_path / "model.onnx").status == 0
    original, exported = load_predictor(writer), load_predictor(tmp_path / "model.onnx")
    assert text_by(original, "dog", 2, length=100) == text_by(exported, "dog", 2, length=100)
    result = run("predict", "--weights", tmp_path / "model.onnx", "--score", tmp_path / "model.onnx")
    refused(result, "an exported graph says what comes next")


def test_words_are_joined() -> None:
    processing: Any = Processing(make_params("word"))
    assert processing.join(["the", "cat", "\n", "it", "sat"], before="dog") == " the cat\nit sat"
    assert processing.decode(processing.encode("the dog\nbit it")) == "the dog\n\ufffd it"
    assert processing.unknown_in("the dog bit") == ["bit"]


def test_from_the_command_line(writer: Path) -> None:
    ask: Callable[..., Result] = lambda *words: run("predict", "--model_dir", writer, *words)  # noqa: E731
    result = ask("--prompt", "the cät", "--length", 40)
    assert result.status == 0
    assert result.out.splitlines()[0] == "The network does not know 'ä'."
    assert result.out.split("\n", 1)[1].startswith("the cät")
    assert len(result.out.split("\n", 1)[1]) == len("the cät") + 40 + 1
    several = ask("--prompt", "", "--length", 5, "--samples", 2)
    assert several.out.startswith("--- 1\n")
    assert "--- 2\n" in several.out


@pytest.mark.parametrize("prompt", ["", " ", "\t", "\u00a0", "<br>", "the dog ", "the dog\n"])
def test_prompts_of_white_space(prompt: str) -> None:
    """The first word stands behind what is there already, without a second space."""
    params = make_params("word")
    predictor = predictor_of(TASK, params, make_net(params))
    (text,) = text_by(predictor, prompt, length=3)
    assert text.strip()
    assert not text.startswith(" ")


@pytest.mark.parametrize("other", [["the"], ["--file", "a.txt"], ["--output", "a.txt"], ["--score", "a.txt"]])
def test_what_does_not_go_with_a_prompt(writer: Path, other: list[str]) -> None:
    refused(run("predict", "--model_dir", writer, "--prompt", "a", *other), "--prompt and", "expected one of the two")
    if other[0] != "--score":
        refused(run("predict", "--model_dir", writer, "--score", "b.txt", *other), "--score and", "expected one of the")


def test_how_to_write_without_a_prompt(writer: Path) -> None:
    refused(run("predict", "--model_dir", writer, "the", "--temperature", 0.5), "--temperature says how to write")
    refused(run("predict", "--model_dir", writer), "To write: --prompt TEXT")


def test_a_prompt_that_is_not_unicode(writer: Path) -> None:
    refused(run("predict", "--model_dir", writer, "--prompt", "caf\udce9"), "--prompt: not Unicode")


@pytest.mark.parametrize(
    ("flag", "value", "expected"),
    [
        ("--temperature", -1, "0 or more"),
        ("--temperature", "nan", "0 or more"),
        ("--length", 0, "1 or more"),
        ("--top_k", -1, "0 or more"),
        ("--top_p", 0, "more than 0"),
        ("--seed", -1, "0 or more"),
        ("--samples", 0, "1 or more"),
    ],
)
def test_what_cannot_be_written(writer: Path, flag: str, value: Any, expected: str) -> None:
    result = run("predict", "--model_dir", writer, "--prompt", "a", flag, value)
    refused(result, flag, f"expected {expected}")


def test_a_text_is_scored(writer: Path, tmp_path: Path) -> None:
    """Of any length, also with unknown characters, which is said."""
    (tmp_path / "a.txt").write_text("t")
    assert run("predict", "--model_dir", writer, "--score", tmp_path / "a.txt").out.startswith("loss ")
    (tmp_path / "b.txt").write_text("the c\u00e4t")
    assert "1 of 7 tokens are unknown" in run("predict", "--model_dir", writer, "--score", tmp_path / "b.txt").out
    (tmp_path / "c.txt").write_text("")
    refused(run("predict", "--model_dir", writer, "--score", tmp_path / "c.txt"), "c.txt: empty")


def test_words_that_are_split_already(tmp_path: Path) -> None:
    """They stay as they are: a list of words, or a text that is scored as it was built."""
    (tmp_path / "a.txt").write_text("a @-@ b can't <unk> .\n" * 100)
    assert build(tmp_path / "a.txt", "--level", "word", "--tokenized").status == 0
    data = DataParams(**read_json(tmp_path / "built" / "dataset_params.json")).complete(tmp_path / "built")
    params = Params(task=TASK.name).with_data(data)
    assert len(Processing(params).preprocess(["a", "@-@", "can't"]).content) == 3
    assert len(load_text(tmp_path / "a.txt", params, "utf-8").raw) == 700


def test_other_networks_do_not_write(trained: Path) -> None:
    refused(run("predict", "--model_dir", trained, "--prompt", "a"), "does not write; language models do")
    refused(run("predict", "--model_dir", trained, "--score", trained / "params.json"), "for language models")


# --------------------------------------------------------------------------------------------- serving


@pytest.fixture(scope="module")
def client(writer: Path) -> Iterator[TestClient]:
    app = App(Weights(writer, lambda: load_predictor(writer, top=3)), Limits(characters=2000), 64)
    with TestClient(app, base_url="http://localhost") as found:
        yield found


def test_the_server_writes(client: TestClient, writer: Path) -> None:
    answer = client.post("/write", json={"prompt": "the", "length": 50, "seed": 3})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/plain; charset=utf-8")
    assert [answer.text] == text_by(load_predictor(writer), "the", length=50, seed=3)
    assert answer.headers["x-unknown-tokens"] == "0"
    assert client.post("/write", json={"prompt": "th\u00e4", "length": 1}).headers["x-unknown-tokens"] == "1"
    assert client.get("/model").json()["writes"]["temperature"] == 0.8
    assert "/write" in client.get("/openapi.json").json()["paths"]
    assert client.post("/predict", json={"inputs": ["the d"]}).status_code == 200


@pytest.mark.parametrize(
    ("body", "status", "problem"),
    [
        (b"{", 400, "not JSON"),
        (b'{"length": 5}', 422, 'Expected JSON such as {"prompt"'),
        (b'{"prompt": 3}', 422, "Expected JSON"),
        (b'{"prompt": "a", "heat": 1}', 422, "unknown field heat"),
        (b'{"prompt": "a", "length": "5"}', 422, "length '5': expected an integer"),
        (b'{"prompt": "a", "temperature": true}', 422, "temperature True: expected a number"),
        (b'{"prompt": "a", "temperature": -1}', 422, "temperature -1: expected 0 or more"),
        (b'{"prompt": "a", "temperature": NaN}', 422, "temperature nan: expected 0 or more"),
        (b'{"prompt": "a", "temperature": 1' + b"0" * 400 + b"}", 422, "expected 0 or more"),
        (b'{"prompt": "' + b"a" * 2**20 + b'"}', 413, "more than 1,048,576 bytes"),
        (b'{"prompt": "a", "length": 2001}', 413, "2,000 characters"),
        (b'{"prompt": "\\ud800"}', 400, "surrogate"),
    ],
)
def test_requests_that_cannot_be_written(client: TestClient, body: bytes, status: int, problem: str) -> None:
    answer = client.post("/write", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == status
    assert problem in answer.json()["error"]


def test_a_page_of_another_server_cannot_make_it_write(client: TestClient) -> None:
    answer = client.post("/write", content=b'{"prompt": "a"}', headers={"content-type": "text/plain"})
    assert (answer.status_code, "application/json" in answer.json()["error"]) == (415, True)


def test_few_are_written_at_a_time(client: TestClient) -> None:
    writers: Any = client.app.writers  # type: ignore[attr-defined]
    writers.count = 4
    answer = client.post("/write", json={"prompt": "a", "length": 1})
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
    writers.count = 0
    assert client.post("/write", json={"prompt": "a", "length": 1}).status_code == 200
    assert writers.count == 0


def test_other_servers_do_not_write(trained: Path) -> None:
    app = App(Weights(trained, lambda: load_predictor(trained)), Limits(), 64)
    with TestClient(app, base_url="http://localhost") as other:
        answer = other.post("/write", json={"prompt": "a", "length": 3})
        assert (answer.status_code, "does not write" in answer.json()["error"]) == (422, True)
        assert "/write" not in other.get("/openapi.json").json()["paths"]


@pytest.mark.slow
@in_a_browser
def test_a_person_watches_it_write(writer: Path) -> None:
    app = App(Weights(writer, lambda: load_predictor(writer)), Limits(), 64)
    with open_browser() as browser, serving_at(app) as url:
        browser.open(url)
        browser.type("textarea", "the dog")
        browser.run("document.querySelector('input[type=number]').value = 200")
        browser.run(
            "const s = document.querySelector('input[type=range]'); s.value = 0; s.dispatchEvent(new Event('input'))"
        )
        browser.click("button")
        assert browser.text(".card .text b") == "the dog"
        (expected,) = text_by(load_predictor(writer), "the dog", length=200, temperature=0.0)
        text = "return document.querySelector('.card .text').textContent"
        end = time.monotonic() + 30
        while browser.run(text) != "the dog" + expected:
            assert ("the dog" + expected).startswith(browser.run(text))
            assert time.monotonic() < end
        assert browser.complaints() == []


def test_what_comes_next_is_shown(writer: Path) -> None:
    result = run("predict", "--model_dir", writer, "the dog", "--top", 2)
    assert result.status == 0
    assert result.out.split()[0] in ("\u2423", *"abcdefghijklmnopqrstuvwxyz,.!")
    predictor = load_predictor(writer)
    assert [record["input"] for record in predictor(["the\ndog", ["the", "cat"]])] == ["the\ndog", "the cat"]
    assert [record.get("error") for record in predictor(["", 3])] == [
        "no character or word in it",
        "expected a text, or a list of its words",
    ]
