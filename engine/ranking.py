"""Which of two results is better. Everything that chooses a best epoch, trial or experiment asks here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

Goal = Literal["maximize", "minimize"]


def rank(numbers: Mapping[str, float], metric: str, goal: Goal) -> tuple[bool, float, float]:
    """A key that sorts the best first: by `metric`, of equals by the lower loss. Missing numbers and NaN come last."""
    value, loss = numbers.get(metric, math.nan), numbers.get("loss", math.nan)
    sign = -1 if goal == "maximize" else 1
    return math.isnan(value), 0.0 if math.isnan(value) else sign * value, math.inf if math.isnan(loss) else loss


def best_epoch(history: Sequence[dict[str, Any]], metric: str, goal: Goal) -> dict[str, Any]:
    """The entry of `history` that is best on val; the earliest of those that are equal in every respect."""
    return min(history, key=lambda entry: rank(entry["val"], metric, goal))
