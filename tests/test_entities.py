"""Tags <-> entities, and their scores, as conlleval has them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.sequence_tagging.entities import Entity, find_entities, is_scheme, to_iob2
from model.sequence_tagging.net import (
    Outputs,
    count,
    describe_tags,
    f1,
    forbidden_transitions,
    precision,
    predictions,
    recall,
)

IOB2 = ["O", "B-per", "I-per", "B-loc", "I-loc"]

GOLDEN = [
    # IOB2
    ("B-per I-per O B-loc", [(0, 2, "per"), (3, 4, "loc")]),
    ("B-per B-per I-per", [(0, 1, "per"), (1, 3, "per")]),
    # IOB1: B- only between two entities of the same type
    ("I-per I-per O I-loc", [(0, 2, "per"), (3, 4, "loc")]),
    ("I-per B-per I-per I-loc", [(0, 1, "per"), (1, 3, "per"), (3, 4, "loc")]),
    # broken: an entity that begins with I-, a type that changes midway
    ("O I-per I-per", [(1, 3, "per")]),
    ("B-per I-loc I-loc", [(0, 1, "per"), (1, 3, "loc")]),
    ("B-per O I-per", [(0, 1, "per"), (2, 3, "per")]),
    # IOBES and its other letters
    ("S-per S-per B-loc I-loc E-loc", [(0, 1, "per"), (1, 2, "per"), (2, 5, "loc")]),
    ("U-per B-loc L-loc O", [(0, 1, "per"), (1, 3, "loc")]),
    ("B-per M-per E-per I-per", [(0, 3, "per"), (3, 4, "per")]),
    ("B-per E-per E-per", [(0, 2, "per"), (2, 3, "per")]),
    ("S-per I-per", [(0, 1, "per"), (1, 2, "per")]),
    # no types; types with hyphens
    ("B- I- O B-", [(0, 2, ""), (3, 4, "")]),
    ("B-non-person I-non-person I-person", [(0, 2, "non-person"), (2, 3, "person")]),
    # no scheme at all: every word but O is an entity of its own, as with conlleval -r
    ("L L O -LRB- S I", [(0, 1, "L"), (1, 2, "L"), (3, 4, "-LRB-"), (4, 5, "S"), (5, 6, "I")]),
]


@pytest.mark.parametrize(("tags", "entities"), GOLDEN)
def test_entities(tags: str, entities: list[tuple[int, int, str]]) -> None:
    assert find_entities(tags.split()) == [Entity(*entity) for entity in entities]


@pytest.mark.parametrize(("tags", "entities"), GOLDEN[:-1])
def test_iob2_says_the_same(tags: str, entities: list[tuple[int, int, str]]) -> None:
    written = to_iob2(tags.split())
    assert find_entities(written) == [Entity(*entity) for entity in entities]
    assert to_iob2(written) == written
    assert {tag[0] for tag in written} <= set("BIO")


def test_what_is_a_scheme() -> None:
    assert is_scheme(["O", "I-per"])
    assert not is_scheme(["NN", "-LRB-", "O", "B", "I", "L", "PRP$", "``"])
    assert not is_scheme(["S----3MS2-", "VP-A-3MS--"])  # parts of speech in some treebanks


def counts_of(predicted: torch.Tensor, labels: torch.Tensor, tags: list[str]) -> torch.Tensor:
    """Counted in two parts, each sentence one batch."""
    logits = torch.nn.functional.one_hot(predicted, len(tags)).float()
    about_tags = describe_tags(tags)
    batches = [
        predictions(Outputs(logits[i : i + 1], torch.tensor([labels.shape[1]]), None, *about_tags), labels[i : i + 1])
        for i in range(len(labels))
    ]
    return torch.stack([count(part) for part in (batches[:1], batches[1:]) if part]).sum(dim=0)


def test_scores_of_a_worked_example() -> None:
    """By conlleval's rules: 7 labelled, 6 predicted, 3 right."""
    labels = "B-per I-per O B-loc O | B-loc B-loc I-loc O | B-per O B-per I-per B-loc"
    predicted = "B-per I-per O B-per O | I-loc I-loc I-loc O | B-per I-per B-per I-per I-loc"
    rows = [[side.split() for side in text.split("|")] for text in (labels, predicted)]
    padded = [torch.full((3, 5), -1), torch.zeros(3, 5, dtype=torch.int64)]
    for tensor, sentences in zip(padded, rows, strict=True):
        for i, tags in enumerate(sentences):
            tensor[i, : len(tags)] = torch.tensor([IOB2.index(tag) for tag in tags])
    counts = counts_of(padded[1], padded[0], IOB2)
    assert counts.tolist() == [3, 6, 7, 9, 14]
    assert (precision(counts), recall(counts), f1(counts)) == pytest.approx((3 / 6, 3 / 7, 6 / 13))


def test_no_entities_is_no_division_by_zero() -> None:
    none = torch.zeros(1, 3, dtype=torch.int64)
    counts = counts_of(none, none, ["O"])
    assert (precision(counts), recall(counts), f1(counts)) == (0, 0, 0)


sentences = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=8)


@given(st.lists(sentences, min_size=1, max_size=4), st.sampled_from([IOB2, ["O", "L", "S", "B-x", "I-x"]]))
def test_counts_are_those_of_the_entities(batch: list[list[tuple[int, int]]], tags: list[str]) -> None:
    length = max(map(len, batch))
    labels, predicted = torch.full((len(batch), length), -1), torch.ones(len(batch), length, dtype=torch.int64)
    expected = torch.zeros(3, dtype=torch.int64)
    for i, pairs in enumerate(batch):
        for j, (label, prediction) in enumerate(pairs):
            labels[i, j], predicted[i, j] = label, prediction
        right = set(find_entities([tags[label] for label, _ in pairs]))
        found = set(find_entities([tags[prediction] for _, prediction in pairs]))
        expected += torch.tensor([len(right & found), len(found), len(right)])
    counts = counts_of(predicted, labels, tags)
    assert torch.equal(counts[:3], expected)


def test_forbidden_transitions() -> None:
    forbidden, first = forbidden_transitions(IOB2)
    allowed = {(IOB2[i], IOB2[j]) for i, j in (~forbidden).nonzero().tolist() if IOB2[j][0] == "I"}
    assert allowed == {(a, b) for b in ("I-per", "I-loc") for a in ("B" + b[1:], b)}
    assert not forbidden[:, [0, 1, 3]].any()
    assert first.tolist() == [False, False, True, False, True]
    assert not forbidden_transitions(["NN", "VB", "I"])[0].any()
