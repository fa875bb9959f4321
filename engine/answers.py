"""Outputs of a network -> records: a class, labels, or numbers, with probabilities; and records as text."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

Record = dict[str, Any]


def class_records(scores: np.ndarray, classes: Sequence[str], top: int = 1) -> list[Record]:
    """The class with the largest score, and its probability.

    Args:
        scores: batch_size x num_classes logits or log-probabilities.
        top: if more than 1, `probabilities` holds the `top` most probable classes, the most probable first.
    """
    probabilities = softmax(scores)
    if top <= 1:
        best = scores.argmax(axis=1)
        chosen = probabilities[np.arange(len(best)), best].tolist()
        return [
            {"prediction": classes[index], "probability": probability}
            for index, probability in zip(best.tolist(), chosen, strict=True)
        ]
    order = (-scores).argsort(axis=1, kind="stable")[:, :top]
    rows = np.take_along_axis(probabilities, order, axis=1)
    return [
        {
            "prediction": classes[indices[0]],
            "probability": row[0],
            "probabilities": {classes[index]: p for index, p in zip(indices, row, strict=True)},
        }
        for indices, row in zip(order.tolist(), rows.tolist(), strict=True)
    ]


def softmax(scores: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):  # of infinite scores; `is_finite` finds them
        powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def label_records(logits: np.ndarray, labels: Sequence[str]) -> list[Record]:
    """The labels with a probability over one half; the probability that just these apply, were labels independent.

    Args:
        logits: batch_size x num_labels.
    """
    p = np.exp(-np.logaddexp(0, -logits.astype(np.float64)))  # the logistic function, without overflow
    applies = logits > 0
    of_set = np.where(applies, p, 1 - p).prod(axis=1).tolist()
    return [
        {
            "prediction": [label for label, is_set in zip(labels, flags, strict=True) if is_set],
            "probability": probability,
            "probabilities": dict(zip(labels, row, strict=True)),
        }
        for row, flags, probability in zip(p.tolist(), applies.tolist(), of_set, strict=True)
    ]


def target_names(data: Any, count: int) -> list[str]:
    """What the numbers that a network predicts are called: `label_columns` of the data, if it has them."""
    return getattr(data, "label_columns", None) or [f"target {i + 1}" for i in range(count)]


def number_records(
    outputs: np.ndarray, targets: Sequence[str], mean: Sequence[float], std: Sequence[float]
) -> list[Record]:
    """The predicted number, or with several targets a dict of them. A number comes without a probability.

    Args:
        outputs: batch_size x num_targets standardised numbers.
        mean, std: what they were standardised with.
    """
    numbers = (outputs * np.array(std, np.float32) + np.array(mean, np.float32)).tolist()
    if len(targets) == 1:
        return [{"prediction": row[0], "probability": None} for row in numbers]
    return [{"prediction": dict(zip(targets, row, strict=True)), "probability": None} for row in numbers]


NOT_FINITE = "the network's answer is not a number: a value is missing, or too far from what it was trained on"


def is_finite(record: Record) -> bool:
    """Whether the numbers of a record are numbers; with an infinite input they need not be."""
    prediction = record["prediction"]
    numbers = [record["probability"], *(prediction.values() if isinstance(prediction, dict) else [prediction])]
    return all(math.isfinite(number) for number in numbers if isinstance(number, float))


# ------------------------------------------------------------------------------------------------ text


OURS = ("prediction", "probability", "error")  # columns of a CSV file of answers


def kept(row: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of an input, beside which ours find room."""
    return {f"input {name}" if name in OURS else name: value for name, value in row.items()}


def is_unicode(text: str) -> bool:
    """Whether a text can be encoded: it has no surrogates, which stand for bytes that could not be decoded."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def bold(text: str, color: bool) -> str:
    return f"\033[1m{text}\033[0m" if color else text


def as_text(value: Any) -> str:
    """A value of a record as a person, or a cell of a CSV file, shows it."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {as_text(part)}" for name, part in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(as_text, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)


# ------------------------------------------------------------------------------------------------ what decided


MOST_NAMED = 5  # words of a text that a line names
LEAST_NAMED = 0.1  # of the influence of the strongest word
FOR, AGAINST = ("", 223, 215, 208), ("", 153, 111, 75)  # numbers of terminal colours, the strongest last


def pieces(record: Record) -> Iterator[tuple[str, float]]:
    """The text of a record with `influence`: its words, and what stands between them.

    Each piece comes with its influence as a share of the strongest: -1 to 1, and 0 for what is no word.
    """
    text, end = record["input"], 0
    strongest = max(map(abs, record["influence"])) or 1.0
    for (start, stop), influence in zip(record["word_spans"], record["influence"], strict=True):
        yield text[end:start], 0.0
        yield text[start:stop], influence / strongest
        end = stop
    yield text[end:], 0.0


def strongest_words(record: Record, weigh: Callable[[float], float] = abs) -> list[tuple[str, float]]:
    """A few words that decided, with their influence; first that for which `weigh` says most."""
    named = [word if word.strip() else "\u2423" for word in record["words"]]
    pairs = sorted(zip(named, record["influence"], strict=True), key=lambda pair: -weigh(pair[1]))
    least = LEAST_NAMED * weigh(pairs[0][1])
    return [pair for pair in pairs[:MOST_NAMED] if weigh(pair[1]) > least]


def explained(record: Record, color: bool) -> str:
    """The text of a record with `influence`, coloured, or followed by the words that decided most."""
    if not color:
        named = "  ".join(f"{word} {influence:+.2g}" for word, influence in strongest_words(record))
        return f"{record['input']}  [{named}]" if named else record["input"]
    painted = [(text, (FOR if share > 0 else AGAINST)[round(3 * abs(share))]) for text, share in pieces(record)]
    return "".join(f"\033[38;5;16;48;5;{number}m{text}\033[0m" if number else text for text, number in painted)
