"""Metrics against values worked out by hand and against counting one by one."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.metrics import Totals, class_scores, confusion, count_correct, ratio
from model.image_classification.net import loss_fn, metrics

PAIRS = st.lists(st.tuples(st.integers(-1, 3), st.integers(0, 3)), min_size=1, max_size=60)


def test_scores_by_hand() -> None:
    #                  predicted cat, dog, cow
    counts = torch.tensor([[3, 1, 0], [2, 4, 0], [0, 0, 0]])
    scores = class_scores(counts)
    assert scores.precision.tolist() == pytest.approx([3 / 5, 4 / 5, 0])
    assert scores.recall.tolist() == pytest.approx([3 / 4, 4 / 6, 0])
    assert scores.f1.tolist() == pytest.approx([2 * 3 / (5 + 4), 2 * 4 / (5 + 6), 0])
    assert scores.support.tolist() == [4, 6, 0]


@given(PAIRS)
def test_confusion_equals_counting(pairs: list[tuple[int, int]]) -> None:
    labels, predicted = torch.tensor(pairs).T
    counts = confusion(predicted, labels, 4)
    for label in range(4):
        for prediction in range(4):
            assert counts[label, prediction] == pairs.count((label, prediction))


@given(PAIRS)
def test_accuracy_equals_counting(pairs: list[tuple[int, int]]) -> None:
    labels, predicted = torch.tensor(pairs).T
    real = [(label, prediction) for label, prediction in pairs if label >= 0]
    expected = sum(label == prediction for label, prediction in real) / len(real) if real else 0.0
    assert ratio(count_correct([torch.stack([predicted, labels])])) == pytest.approx(expected)


@settings(deadline=None)
@given(st.integers(2, 200), st.integers(1, 16), st.integers(0, 1000))
def test_batches_do_not_change_the_numbers(examples: int, batch_size: int, seed: int) -> None:
    """A short last batch weighs what it should: loss and accuracy are those of all examples taken at once."""
    generator = torch.Generator().manual_seed(seed)
    outputs = torch.randn(examples, 3, generator=generator).log_softmax(1)
    labels = torch.randint(3, (examples,), generator=generator)
    totals = Totals(metrics)
    for some_outputs, some_labels in zip(outputs.split(batch_size), labels.split(batch_size), strict=True):
        totals.add(some_outputs, some_labels, loss_fn(some_outputs, some_labels))
    numbers = totals.compute()
    assert numbers["loss"] == pytest.approx(loss_fn(outputs, labels).item(), rel=1e-5)
    assert numbers["accuracy"] == pytest.approx((outputs.argmax(1) == labels).float().mean().item())


def test_nothing_counted_is_no_number() -> None:
    with pytest.raises(ValueError, match="no batch"):
        Totals(metrics).compute()


@given(st.lists(st.integers(1, 70), min_size=1, max_size=6), st.integers(0, 1000))
def test_looking_and_saving_on_the_way_change_nothing(pieces: list[int], seed: int) -> None:
    """Bitwise: a progress bar that computes once a second, or a checkpoint, must not make another run of it."""
    generator = torch.Generator().manual_seed(seed)
    undisturbed, disturbed = Totals(metrics), Totals(metrics)
    for piece in pieces:
        for _ in range(piece):
            outputs, labels = torch.randn(5, 3, generator=generator).log_softmax(1), torch.tensor([0, 1, 2, 0, 1])
            for totals in (undisturbed, disturbed):
                totals.add(outputs, labels, loss_fn(outputs, labels))
        disturbed.compute()
        state, disturbed = disturbed.state_dict(), Totals(metrics)
        disturbed.load_state_dict(state, torch.device("cpu"))
    assert disturbed.compute() == undisturbed.compute()
