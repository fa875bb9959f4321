"""The tagger: the same answer in any company, words it does not know, vectors from elsewhere."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.utils.rnn import pad_sequence

from engine.loaders import Batch, fetch_dataloaders
from engine.metrics import Totals
from model import TASKS
from model.layers import PAD, UNK
from model.layers.recurrent import LockedDropout
from model.sequence_tagging.data_loader import Dataset
from model.sequence_tagging.net import (
    Net,
    Outputs,
    count,
    describe_tags,
    loss_fn,
    metrics,
    num_items,
    predictions,
)
from model.sequence_tagging.params import DataParams, Params
from model.text.embeddings import read_embeddings
from utils import UserError

TAGS = ["O", "B-per", "I-per", "B-geo"]
VOCABULARY = ["The", "the", "Kent", "Paris", "1997", "1998", "UNK", "<pad>"]


def make_params(**params: Any) -> Params:
    chars = sorted(set("".join(VOCABULARY)))
    data = DataParams(
        task="sequence_tagging",
        sizes={},
        digest="",
        num_words=len(VOCABULARY),
        num_tags=len(TAGS),
        num_chars=len(chars),
        unseen_tags=["B-art"],
        words=VOCABULARY,
        tags=TAGS,
        chars=chars,
    )
    small = {"embedding_dim": 6, "lstm_hidden_dim": 5, "char_embedding_dim": 4, "char_hidden_dim": 6}
    return Params(**{**small, **params}).with_data(data)


def make_batch(sentences: list[list[list[int]]]) -> dict[str, torch.Tensor]:
    """A batch of sentences, each word its characters; the number of a word is made from them."""
    words = [torch.tensor([UNK + 1 + sum(word) % len(VOCABULARY) for word in sentence]) for sentence in sentences]
    spellings = [word for sentence in sentences for word in sentence]
    rows = iter(range(len(spellings)))
    return {
        "words": pad_sequence(words, batch_first=True, padding_value=PAD),
        "lengths": torch.tensor([len(sentence) for sentence in sentences]),
        "chars": pad_sequence([torch.tensor(word) for word in spellings], batch_first=True, padding_value=PAD),
        "spellings": pad_sequence([torch.tensor([next(rows) for _ in s]) for s in sentences], batch_first=True),
    }


ARCHITECTURES = [
    dict(zip(("rnn", "bidirectional", "num_layers", "char_features", "crf"), values, strict=True))
    for values in itertools.product(
        ["lstm", "gru", "rnn"], [False, True], [1, 2], ["none", "cnn", "lstm"], [False, True]
    )
]
sentence = st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=7), min_size=1, max_size=9)


@given(st.lists(sentence, min_size=1, max_size=4), st.sampled_from(ARCHITECTURES), st.booleans(), st.integers(0, 2**31))
def test_a_sentence_gets_the_same_logits_in_any_company(
    sentences: Any, architecture: dict[str, Any], dropout: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    rates = dict.fromkeys(("dropout_rate", "recurrent_dropout"), 0.5) if dropout else {}
    net = Net(make_params(**architecture, **rates)).eval()
    together = net(make_batch(sentences))
    for i, alone in enumerate(sentences):
        outputs = net(make_batch([alone]))
        torch.testing.assert_close(together.logits[i, : len(alone)], outputs.logits[0], atol=1e-5, rtol=0)
        assert together.tags[i, : len(alone)].tolist() == outputs.tags[0].tolist()


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=str)
def test_every_architecture_in_any_company(architecture: dict[str, Any]) -> None:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    sentences = [
        [torch.randint(1, 10, (int(n),), generator=generator).tolist() for n in torch.randint(1, 9, (length,))]
        for length in (1, 3, 11, 6)
    ]
    net = Net(make_params(**architecture)).eval()
    together = net(make_batch(sentences))
    labels = pad_sequence([torch.arange(len(s)) % 4 for s in sentences], batch_first=True, padding_value=-1)
    losses = []
    for i, alone in enumerate(sentences):
        outputs = net(make_batch([alone]))
        torch.testing.assert_close(together.logits[i, : len(alone)], outputs.logits[0], atol=1e-5, rtol=0)
        losses.append(loss_fn(outputs, labels[i : i + 1, : len(alone)]) * len(alone))
    torch.testing.assert_close(loss_fn(together, labels), sum(losses) / 21)


def test_where_features_are_dropped() -> None:
    """In the characters, before the recurrent layers, between and after them; all at the rate that params name."""
    net = Net(make_params(num_layers=3, char_features="cnn", dropout_rate=0.4))
    calls: list[str] = []
    for name, layer in net.named_modules():
        if isinstance(layer, LockedDropout | torch.nn.Dropout) and "recurrent" not in name:
            assert layer.p == 0.4
            layer.register_forward_hook(lambda *_, name=name: calls.append(name))
    net(make_batch([[[1, 2], [3]], [[4]]]))
    assert calls == ["chars.dropout", "dropout", "encoder.dropouts.0", "encoder.dropouts.1", "dropout"]


def test_crf_never_predicts_what_iob2_forbids() -> None:
    torch.manual_seed(0)
    net = Net(make_params(crf=True)).eval()
    net.fc.weight.data *= 50
    outputs = net(make_batch([[[i, j] for i in range(1, 9)] for j in range(1, 9)]))
    for tags in outputs.tags.tolist():
        names = ["O", *(TAGS[tag] for tag in tags)]
        assert all(b != "I-per" or a in ("B-per", "I-per") for a, b in itertools.pairwise(names))
    assert (outputs.logits.argmax(2) == TAGS.index("I-per")).any()


# -------------------------------------------------------------------------------------------- the loss


def outputs_of(logits: torch.Tensor) -> Outputs:
    lengths = torch.full((len(logits),), logits.shape[1])
    return Outputs(logits, lengths, None, *describe_tags([*TAGS, "B-art"]))


def test_loss_is_the_mean_per_word() -> None:
    logits = torch.randn(2, 3, 4)
    labels = torch.tensor([[0, 1, 2], [3, -1, -1]])
    expected = [logits[i, j].softmax(0)[labels[i, j]].log() for i, j in ((0, 0), (0, 1), (0, 2), (1, 0))]
    torch.testing.assert_close(loss_fn(outputs_of(logits), labels), -torch.stack(expected).mean())


def test_a_tag_that_train_does_not_have_is_a_miss() -> None:
    """It counts in recall and accuracy; the loss takes it for O, since nothing else could be asked for."""
    logits = torch.full((1, 3, 4), -20.0)
    logits[0, :, 0] = 20
    outputs, labels = outputs_of(logits), torch.tensor([[0, 4, 0]])
    assert loss_fn(outputs, labels) < 1e-6
    totals = Totals(metrics(make_params()), num_items)
    totals.add(outputs, labels, torch.tensor(0.0))
    assert totals.compute() == pytest.approx({"loss": 0, "f1": 0, "accuracy": 2 / 3, "precision": 0, "recall": 0})
    assert count([predictions(outputs, labels)]).tolist() == [0, 0, 1, 2, 3]


@pytest.mark.parametrize("crf", [False, True])
def test_overfits_one_batch(crf: bool) -> None:
    torch.manual_seed(0)
    net = Net(make_params(crf=crf, bidirectional=True, char_features="lstm"))
    inputs = make_batch([[[i, j] for i in range(1, 8)] for j in range(1, 8)])
    labels = torch.randint(2, (7, 7))
    optimizer = torch.optim.Adam(net.parameters(), 0.02)
    for _ in range(80):
        outputs = net(inputs)
        loss = loss_fn(outputs, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1
    assert (outputs.tags == labels).float().mean() > 0.95


# ------------------------------------------------------------------------------------------------ words


def test_words_are_looked_up_as_asked() -> None:
    assert len(make_params().vocabulary) == len(VOCABULARY)
    assert list(make_params(lowercase_words=True).vocabulary) == [
        "the",
        "kent",
        "paris",
        "1997",
        "1998",
        "unk",
        "<pad>",
    ]
    folded = make_params(fold_digits=True)
    assert folded.vocabulary[folded.normalize("2026")] == folded.vocabulary["0000"]
    assert "2026" not in make_params().vocabulary
    params = make_params()
    assert "Kent" in params.vocabulary
    assert "Kent" not in params.model_copy(update={"lowercase_words": True}).vocabulary
    assert min(make_params().vocabulary.values()) == UNK + 1  # neither PAD nor UNK can be named by a text
    assert Net(folded).embedding.num_embeddings == len(VOCABULARY) - 1 + 2


def write_split(folder: Path, sentences: list[str], tags: list[str]) -> Params:
    (folder / "val").mkdir(parents=True)
    (folder / "val" / "sentences.txt").write_text("".join(s + "\n" for s in sentences))
    (folder / "val" / "labels.txt").write_text("".join(t + "\n" for t in tags))
    params = make_params(char_features="cnn")
    return params.with_data(params.data.model_copy(update={"sizes": {"val": len(sentences)}}))


def test_a_batch_is_what_the_files_say(tmp_path: Path) -> None:
    long = "K" * 25 + "P" * 50 + "t" * 25
    params = write_split(tmp_path, ["the Kent 1997", f"{long} the", "zz"], ["O B-geo B-art", "B-per I-per", "O"])
    dataset = Dataset(tmp_path, "val", params)
    inputs, labels = dataset[0]
    vocabulary, chars = params.vocabulary, params.data.chars
    assert inputs["words"].tolist() == [[vocabulary["the"], vocabulary["Kent"], vocabulary["1997"]]]
    assert labels.tolist() == [[0, 3, 4]]
    assert [spelling(inputs, chars, i) for i in range(3)] == ["the", "Kent", "1997"]
    inputs, labels = dataset[1]
    assert inputs["words"].tolist() == [[UNK, vocabulary["the"]]]
    assert spelling(inputs, chars, 0) == "K" * 20 + "t" * 20  # a long word's beginning and end
    inputs, _ = dataset[2]
    assert inputs["chars"][inputs["spellings"][0, 0]].tolist()[:3] == [UNK, UNK, PAD]


def spelling(inputs: dict[str, torch.Tensor], chars: list[str], i: int) -> str:
    row = inputs["chars"][inputs["spellings"][0, i]]
    return "".join(chars[number - UNK - 1] for number in row.tolist() if number != PAD)


def test_word_dropout(tmp_path: Path) -> None:
    """By the word's count in train, all of a sentence's occurrences together, a function of (seed, epoch, sentence)."""
    sentences = ["the Kent the"] + 29 * ["the 1997"] + 10 * ["Paris"]
    write_split(tmp_path, sentences, ["O O O"] + 29 * ["O O"] + 10 * ["O"])
    params = make_params(word_dropout=10.0, data_dir=str(tmp_path))
    params.with_data(params.data.model_copy(update={"sizes": dict.fromkeys(("train", "val"), len(sentences))}))
    shutil.copytree(tmp_path / "val", tmp_path / "train")
    dataset = Dataset(tmp_path, "train", params, training=True)
    everything = torch.arange(len(sentences))
    unknown = torch.stack([dataset.__getitems__(Batch(e, everything))[0]["words"] == UNK for e in range(400)])
    rates = {"the": 10 / 41, "Kent": 10 / 11, "1997": 10 / 39, "Paris": 10 / 20}
    assert (unknown[:, 0, 0] == unknown[:, 0, 2]).all()
    found = {
        "the": unknown[:, :30, 0],
        "Kent": unknown[:, 0, 1],
        "1997": unknown[:, 1:30, 1],
        "Paris": unknown[:, 30:, 0],
    }
    for word, dropped in found.items():
        assert dropped.float().mean() == pytest.approx(rates[word], abs=0.05), word
    assert not (unknown[:, 1] == unknown[:, 2]).all()
    alone = dataset.__getitems__(Batch(7, torch.tensor([3])))[0]["words"]
    assert ((alone == UNK) == unknown[7, 3, :2]).all()
    for split in ("val", "train"):
        loaders = fetch_dataloaders(TASKS["sequence_tagging"], [split], params, evaluating=split == "train")
        assert all((inputs["words"] != UNK).all() for inputs, _ in loaders[split])
    loaders = fetch_dataloaders(TASKS["sequence_tagging"], ["train"], params)
    assert any((inputs["words"] == UNK).any() for inputs, _ in loaders["train"])


# ------------------------------------------------------------------------------------ pretrained vectors


def test_pretrained_embeddings(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Exact before lower case; with and without a first line; words with spaces or broken bytes are passed over."""
    caplog.set_level("INFO")
    lines = [b"the 1 2", b"The 3 4 ", b"kent 5 6", b". . 7 8", b"\xff\xfe 9 9", b"other x y", b"the 0 0"]
    for header, separator in ((b"", b" "), (b"7 2\n", b" "), (b"\xef\xbb\xbf", b"\t")):
        path = tmp_path / "vectors.txt"
        path.write_bytes(header + b"\n".join(lines).replace(b" ", separator) + b"\n")
        found = read_embeddings(path, make_params().vocabulary, 2)
        numbers = make_params().vocabulary
        assert found == {numbers["the"]: [1, 2], numbers["The"]: [3, 4], numbers["Kent"]: [5, 6]}
        assert "vectors for 3 of 8 words of the vocabulary (37.5 %), 1 of them by their lower case" in caplog.text
    net = Net(make_params(embedding_dim=2, pretrained_embeddings=str(path)))
    net.load_pretrained()
    assert net.embedding.weight[numbers["The"]].tolist() == [3, 4]
    assert not net.embedding.weight[PAD].any()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty, or no vector"),
        (b"other 1 2\n", "empty, or no vector"),
        (b"the 1 2 3\n", "vectors of 3 numbers, but embedding_dim is 2"),
        (b"400000 50\nthe 1 2\n", "vectors of 50 numbers, but embedding_dim is 2"),
        (b"the 1 2\nKent 1\n", "line 2: torn: 1 numbers, expected 2"),
        (b"of 1 2\nthe 1 2.\x00\n", "line 2: torn: not 2 numbers"),
        (b"the 1 2\nKent 1 2 0\nParis 1 2-1\n", "line 3: torn: not 2 numbers"),
        (b"the 1 nan\n", "line 1: a number that is not finite"),
    ],
)
def test_broken_embeddings(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "vectors.txt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        read_embeddings(path, make_params().vocabulary, 2)
    assert str(path) in str(error.value)


def test_embeddings_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere.txt: cannot be read .*pretrained_embeddings"):
        read_embeddings(tmp_path / "nowhere.txt", {}, 2)
