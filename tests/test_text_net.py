"""The classifier of texts: the same answer in any company, whatever is read and however; exported graphs; encoding."""

from __future__ import annotations

import itertools
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from engine.exporting import export_onnx
from engine.metrics import Totals
from engine.predicting import About, Options, Unreadable
from engine.torch_network import Restored
from model import TASKS
from model.layers import PAD, UNK
from model.text.encode import Encoder, WordDropout
from model.text.tokenizer import LONGEST_CHUNK, Tokenizer
from model.text_classification.net import Net, influence, loss_fn, metrics
from model.text_classification.params import DataParams, Params
from model.text_classification.predict import Processing
from utils import UserError

VOCABULARY = ["the", "film", "is", "good", "not", "bad", ",", "."]
GATES = [gates for size in range(4) for gates in itertools.combinations(["input", "forget", "output"], size)]
SMALL = {"embedding_dim": 6, "lstm_hidden_dim": 4, "char_embedding_dim": 4, "char_hidden_dim": 6}
SMALL |= {"num_filters": 3, "num_buckets": 101}


def make_params(classes: int = 3, **params: Any) -> Params:
    chars = sorted(set("".join(VOCABULARY)) | {" "})
    values: dict[str, Any] = {"words": VOCABULARY, "chars": chars, "classes": [f"class {i}" for i in range(classes)]}
    values |= {"num_words": len(VOCABULARY), "num_chars": len(chars)}
    data = DataParams(task="text_classification", sizes={}, digest="", tokenized=False, **values)
    return Params(**{**SMALL, "task": "text_classification", **params}).with_data(data)


def make_net(**params: Any) -> Net:
    torch.manual_seed(0)
    net = Net(make_params(**params))
    for parameter in net.parameters():  # none of them zero, as the n-grams' are, or so small that nothing depends on it
        parameter.data.uniform_(-0.7, 0.7)
    for layer in net.modules():
        if isinstance(layer, nn.Embedding) and layer.padding_idx is not None:
            layer.weight.data[PAD] = 0
    return net


def make_batch(net: Net, texts: list[list[str]], garbage: bool = False) -> dict[str, Tensor]:
    encoded = Encoder(net.params).encode(texts, net.params.max_length)
    ((inputs, _),) = encoded.batches([np.arange(len(texts))])
    tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
    if garbage:  # in the cells behind the texts
        is_padding = torch.arange(tensors["words"].shape[1]) >= tensors["lengths"][:, None]
        for name, most in (("words", len(VOCABULARY) + 2), ("spellings", len(tensors.get("chars", [])))):
            if name in tensors:
                tensors[name] = torch.where(is_padding, torch.randint(most, is_padding.shape), tensors[name])
    return tensors


CELLS: list[dict[str, Any]] = [{"rnn": cell} for cell in ("lstm", "gru", "rnn")]
CELLS += [{"rnn": "gated", "gates": [*gates], "peepholes": peepholes} for gates in GATES for peepholes in (False, True)]
POOLINGS = ["last", "max", "mean", "max_mean", "attention"]
READERS: list[dict[str, Any]] = [
    {**cell, "pooling": pooling, "bidirectional": bidirectional, "num_layers": num_layers}
    for cell, pooling, bidirectional, num_layers in itertools.product(CELLS, POOLINGS, [False, True], [1, 2])
]
OTHERS: list[dict[str, Any]] = [{"net": "cnn"}, *({"net": "bag", "ngram_length": n} for n in (1, 2, 3))]
LEVELS = [{"level": "char"}, *({"char_features": kind} for kind in ("none", "cnn", "lstm"))]
ALL = [{**reader, **level} for reader in READERS + OTHERS for level in LEVELS]
FEW = [{**READERS[i], **LEVELS[i % 4]} for i in range(0, len(READERS), 9)]
FEW += [{**reader, **level} for reader in OTHERS for level in LEVELS]


def any_company(architecture: dict[str, Any]) -> None:
    """Logits, influence and gradients of texts of one word to seven, alone and together."""
    net = make_net(**architecture)

    def explain(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return influence(net, batch, net(batch))

    words = [*VOCABULARY, "unheard", "of"] if architecture.get("level") != "char" else list("the film?")
    texts = [[words[(3 * i + length * j) % len(words)] for j in range(length)] for i, length in enumerate((1, 5, 2, 7))]
    labels = torch.tensor([0, 2, 1, 1])
    net.eval()
    alone = [make_batch(net, [text]) for text in texts]
    logits, shares = torch.cat([net(batch) for batch in alone]), [explain(batch)[0] for batch in alone]
    for together in (make_batch(net, texts), make_batch(net, texts, garbage=True)):
        torch.testing.assert_close(net(together), logits, atol=1e-5, rtol=0)
        for share, expected, text in zip(explain(together), shares, texts, strict=True):
            torch.testing.assert_close(share[: len(text)], expected, atol=1e-5, rtol=0)
            assert not share[len(text) :].any()

    net.train()
    losses = [loss_fn(net(batch), label) for batch, label in zip(alone, labels.split(1), strict=True)]
    names, parameters = zip(*((name, p) for name, p in net.named_parameters()), strict=True)
    wanted = torch.autograd.grad(torch.stack(losses).mean(), parameters, materialize_grads=True)
    found = torch.autograd.grad(loss_fn(net(make_batch(net, texts)), labels), parameters, materialize_grads=True)
    for name, a, b in zip(names, found, wanted, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5, msg=name)


@pytest.mark.parametrize("architecture", FEW, ids=str)
def test_a_text_gets_the_same_in_any_company(architecture: dict[str, Any]) -> None:
    any_company(architecture)


@pytest.mark.slow
def test_every_architecture_in_any_company() -> None:
    for architecture in ALL:
        any_company(architecture)


def test_every_part_of_the_network_learns() -> None:
    for architecture in ({"pooling": "attention", "char_features": "cnn"}, *OTHERS):
        net = make_net(**architecture)
        loss_fn(net(make_batch(net, [["the", "film", "is", "good"], ["bad", "film"]])), torch.tensor([0, 1])).backward()
        assert all(p.grad is not None and p.grad.any() for p in net.parameters()), architecture


# ------------------------------------------------------------------------------------------ exporting

EXPORTED: list[dict[str, Any]] = [{**cell, "pooling": POOLINGS[i % 5]} for i, cell in enumerate(CELLS)]
EXPORTED += [{"pooling": pooling, "bidirectional": True, "num_layers": 2} for pooling in POOLINGS]
EXPORTED += [{"net": "cnn", "char_features": "cnn"}, {"net": "bag", "ngram_length": 3}, {"net": "bag", "level": "char"}]
EXPORTED += [
    {"rnn": "gated", "gates": ["forget"], "bidirectional": True, "level": "char"},
    {"net": "cnn", "level": "char"},
]
QUICK = [{"rnn": "gated", "gates": ["input"], "peepholes": True, "pooling": "attention", "max_length": 10}]
QUICK += [{"net": "cnn"}, {"net": "bag", "ngram_length": 3, "level": "char"}]


@pytest.mark.parametrize(
    "architecture", [*QUICK, *(pytest.param(each, marks=pytest.mark.slow) for each in EXPORTED)], ids=str
)
def test_exported_graphs(architecture: dict[str, Any], tmp_path: Path) -> None:
    """The exporter compares them with the network, in batches of other sizes than it was traced with."""
    net = make_net(**architecture).eval()
    values = {"params": net.params.model_dump(), "data": net.params.data.model_dump()}
    trained = Restored(TASKS["text_classification"], net.params, net, About("weights.pt"), values)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert export_onnx(trained, tmp_path / "model.onnx").difference < 1e-4


# ------------------------------------------------------------------------------------------- encoding


@pytest.mark.parametrize(("most", "head", "tail"), [(4, 2, 2), (5, 3, 2), (2, 1, 1)])
def test_both_ends_of_a_long_text_are_read(most: int, head: int, tail: int) -> None:
    params = make_params()
    words = [VOCABULARY[i % 8] for i in range(2 * most)]
    numbers = [params.vocabulary[word] for word in words]
    texts = [words[:length] for length in (most - 1, most, most + 1, 2 * most)]
    encoded = Encoder(params).encode(texts, most)
    assert encoded.lengths.tolist() == [most - 1, most, most, most]
    for batches in ([np.arange(4)], [np.array([i]) for i in range(4)]):
        rows = [row for inputs, _ in encoded.batches(batches) for row in inputs["words"].tolist()]
        for row, text in zip(rows, texts, strict=True):
            its = numbers[: len(text)]
            assert row[: min(len(text), most)] == (its if len(text) <= most else its[:head] + its[-tail:])
            assert not any(row[len(text) :])


def test_word_dropout_depends_on_text_and_word_alone() -> None:
    texts = [[VOCABULARY[(i * j) % 8] for j in range(i % 7 + 1)] for i in range(40)]
    encoded = Encoder(make_params()).encode(texts)
    counts = np.bincount(encoded.numbers.take(encoded.tokens))
    drop = WordDropout(encoded, 5.0)
    np.testing.assert_array_equal(drop.probability, 5 / (5 + counts))
    encoded.tokens = encoded.tokens.astype(np.int32)
    with pytest.MonkeyPatch.context() as patch:  # counted in blocks
        patch.setattr("model.text.encode.BLOCK", 7)
        np.testing.assert_array_equal(WordDropout(encoded, 5.0).probability, drop.probability)
    drop.draw(np.random.default_rng(1))

    def dropped(*batches: list[int]) -> dict[int, list[int]]:
        made = encoded.batches([np.array(batch) for batch in batches], drop=drop)
        rows = [row for inputs, _ in made for row in inputs["words"].tolist()]
        return {i: row[: len(texts[i])] for i, row in zip(itertools.chain(*batches), rows, strict=True)}

    everything = dropped([*range(40)])
    assert any(UNK in row for row in everything.values())
    assert everything == dropped(*([i] for i in range(40))) == dropped([*range(39, 19, -1)], [*range(20)])


# ------------------------------------------------------------------------------------------ tokenizer

PIECES = st.sampled_from(
    [*"\x1c\x85\u2028\u200b\u00a0\n .,!'\"()-", "<br />", "<br/>", "<br", "don't", "U.S.", "1,000"]
)
anything = st.lists(st.one_of(PIECES, st.text(max_size=5)), max_size=12).map("".join)


@given(anything, st.sampled_from([None, [], [".", "n't", "(", "'s"], ["don't", ".", "U.S."]]))
def test_words_are_the_slices_of_spans(text: str, vocabulary: list[str] | None) -> None:
    tokenizer = Tokenizer(vocabulary)
    words = tokenizer.words(text)
    assert words == [text[a:b] for a, b in tokenizer(text)] == tokenizer.words(text)  # the second time from the cache
    assert "".join(words) == "".join(text.replace("<br />", " ").replace("<br/>", " ").split())
    for chunk in text.split():
        assert tokenizer.spans_of(chunk) == tokenizer.spans_of(chunk) == tuple(tokenizer._split(chunk))


def test_line_breaks_of_html_separate_words() -> None:
    tokenizer = Tokenizer()
    assert tokenizer.words("Good.<br /><br/>Bad<br>end") == ["Good", ".", "Bad", "end"]
    assert tokenizer("a<br />b") == [(0, 1), (7, 8)]
    assert tokenizer.words("x" + "." * LONGEST_CHUNK) == ["x" + "." * LONGEST_CHUNK]


# -------------------------------------------------------------------------------------------- metrics


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_metrics_equal_those_worked_out_by_hand(classes: int) -> None:
    """With two classes also the AUC, over all pairs of examples."""
    generator = torch.Generator().manual_seed(0)
    outputs, labels = torch.randn(90, classes, generator=generator), torch.randint(classes, (90,), generator=generator)
    totals = Totals(metrics(make_params(classes)))
    for some, its in zip(outputs.split(7), labels.split(7), strict=True):
        totals.add(some, its, loss_fn(some, its))
    numbers = totals.compute()
    assert list(numbers) == ["loss", "accuracy", "f1"] + ["auc"] * (classes == 2)
    predicted = outputs.argmax(1)
    assert numbers["accuracy"] == pytest.approx((predicted == labels).double().mean().item())
    f1 = [
        2 * ((predicted == k) & (labels == k)).sum() / ((predicted == k).sum() + (labels == k).sum())
        for k in range(classes)
    ]
    assert numbers["f1"] == pytest.approx(torch.stack(f1).mean().item())
    if classes == 2:
        scores = outputs[:, 1] - outputs[:, 0]
        above = scores[labels == 1][:, None] > scores[labels == 0]
        assert numbers["auc"] == pytest.approx(above.double().mean().item(), abs=1e-3)


def texts_in(path: Path, content: str, column: str | None = None, tokenized: bool = False) -> list[Any]:
    path.write_bytes(content.encode())
    return list(Processing(make_params()).read([], Options(str(path), tokenized, text_column=column)))


def test_predicts_the_texts_of_a_table(tmp_path: Path) -> None:
    """As Kaggle's test.csv: no labels, line breaks in quotation marks; a row of another length stands for itself."""
    quoted = 'id,text\n1,"a\nb, c"\n2\n3,d\n'
    unreadable = Unreadable(f"{tmp_path / 'a.csv'}, line 4", "1 cells, expected 2 as in the first row")
    assert texts_in(tmp_path / "a.csv", quoted) == ["a\nb, c", unreadable, "d"]
    assert texts_in(tmp_path / "b.csv", "text\na b\n", tokenized=True) == [["a", "b"]]
    assert texts_in(tmp_path / "c.tsv", "x\tlong enough\ny\tlonger\n") == ["long enough", "longer"]
    assert texts_in(tmp_path / "d.csv", "sep=;\none;two\na;b c\n", column="one") == ["a"]
    assert texts_in(tmp_path / "e.dat", "one,two\na,b c\n", column="2") == ["two", "b c"]
    with pytest.raises(UserError, match=r"f\.csv: no column three\. There are one, two"):
        texts_in(tmp_path / "f.csv", "one,two\na,b\n", column="three")
    (tmp_path / "h.csv").write_bytes("text\n\u201cbon\u201d\n".encode("windows-1252"))
    western = Options(str(tmp_path / "h.csv"), encoding="windows-1252")
    assert list(Processing(make_params()).read([], western)) == ["\u201cbon\u201d"]
    with pytest.raises(UserError, match=r"g\.csv: empty"):
        texts_in(tmp_path / "g.csv", "\n\n")


def test_a_column_is_for_tables() -> None:
    with pytest.raises(UserError, match="--columns and --text_column say how --file is laid out"):
        list(Processing(make_params()).read(["a"], Options(text_column="text")))


def test_lines_in_another_encoding(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("\u201cbon\u201d\n".encode("windows-1252"))
    processing, place = Processing(make_params()), str(tmp_path / "a.txt")
    assert list(processing.read([], Options(place, encoding="cp1252"))) == ["\u201cbon\u201d"]
    (unreadable,) = processing.read([], Options(place))
    assert unreadable.error == "not UTF-8 (byte 1 of the line); --encoding names another"
    for encoding, problem in {"utf-9": "unknown", "utf-16": "Save the file as UTF-8"}.items():
        with pytest.raises(UserError, match=f"--encoding {encoding}: .*{problem}"):
            list(processing.read([], Options(place, encoding=encoding)))


def test_a_text_of_several_lines_is_shown_on_one() -> None:
    record = {"input": "a\nb", "prediction": "class 1", "probability": 0.5}
    assert Processing(make_params()).show(record) == "class 1 0.5000  a b"
