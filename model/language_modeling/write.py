"""A beginning -> text: one token after the other, drawn by what the network says comes next. Without torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from engine.predicting import Predictor
from engine.writing import Style
from model.layers import PAD, UNK

DEMONSTRATION = 300  # tokens


def write(processing: Any, network: Any, prompt: str, style: Style, samples: int = 1) -> Iterator[list[str]]:
    """See `Processing.write`. The first sample is the same however many there are, but for rounding."""
    network = getattr(network, "in_float32", network)
    numbers = processing.encode(prompt) or [PAD]  # the beginning of a text
    draws = np.stack([np.random.default_rng((style.seed, i)).random(style.length) for i in range(samples)])
    outputs = network(processing.collate([numbers]))
    scores, state = (np.repeat(outputs[name], samples, axis=0) for name in ("scores", "next_state"))
    lengths = np.ones(samples, np.int64)
    tokens = processing.tokens_of(prompt)
    before = [tokens[-1] if tokens and not prompt[-1].isspace() else "\n"] * samples
    for step in range(style.length):
        chosen = choose(scores[:, UNK + 1 :], draws[:, step], style)
        tokens = [processing.forms[number] for number in chosen.tolist()]
        yield [processing.join([token], old) for token, old in zip(tokens, before, strict=True)]
        before = tokens
        if step < style.length - 1:
            outputs = network({"tokens": chosen[:, None] + UNK + 1, "lengths": lengths, "state": state})
            scores, state = outputs["scores"], outputs["next_state"]


def demonstrate(predictor: Predictor) -> str:
    """A text that shows what the network has learnt."""
    processing: Any = predictor.processing
    beginning = "\n" if "\n" in processing.vocabulary else ""
    steps = write(processing, predictor.network, beginning, Style(DEMONSTRATION))
    return "".join(text for (text,) in steps).strip("\n")


def choose(scores: np.ndarray, draws: np.ndarray, style: Style) -> np.ndarray:
    """Which token each sample gets.

    Args:
        scores: num_samples x num_tokens logits.
        draws: num_samples numbers between 0 and 1.
    """
    if style.temperature == 0:
        return scores.argmax(axis=1)
    scores = (scores - scores.max(axis=1, keepdims=True)).astype(np.float64) / style.temperature
    if 0 < style.top_k < scores.shape[1]:
        least = -np.partition(-scores, style.top_k - 1, axis=1)[:, style.top_k - 1 : style.top_k]
        scores = np.where(scores < least, -np.inf, scores)
    p = np.exp(scores)
    if style.top_p < 1:
        order = np.argsort(-p, axis=1, kind="stable")
        ordered = np.take_along_axis(p, order, axis=1)
        before = ordered.cumsum(axis=1) - ordered  # probability of those that are more likely
        np.put_along_axis(p, order, np.where(before < style.top_p * p.sum(axis=1, keepdims=True), ordered, 0), axis=1)
    below = p.cumsum(axis=1)
    return (below <= draws[:, None] * below[:, -1:]).sum(axis=1)
