"""A sample: short reviews, positive or negative. What they say depends on the order of words.

"not good" is bad, and of "boring, but touching" the second half counts. So recurrent layers learn all of it, and a bag
of words hardly anything (accuracy 1.00 and 0.54 on test after 8 epochs).
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

NUM_REVIEWS = 3000
GOOD = "good great touching funny clever brilliant charming moving fresh warm gripping honest".split()
BAD = "bad dull boring silly clumsy awful bland tired cold slow predictable empty".split()
THINGS = "film story plot ending cast music dialogue camera script hero villain direction".split()
DEGREES = ["", "", "very ", "really ", "quite ", "utterly "]
OPENINGS = ["", "", "In short, ", "Well, ", "I saw it twice: ", "As my sister said, "]
CLOSINGS = ["", "", " I'd say so.", " That's all.", " We left at nine.", " It runs for two hours."]


def write_sample(folder: Path, seed: int) -> None:
    """Write reviews.csv. The same seed writes the same reviews."""
    rng = np.random.default_rng(seed)
    with open(folder / "reviews.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["review", "sentiment"])
        for _ in range(NUM_REVIEWS):
            is_good = bool(rng.integers(2))
            writer.writerow([write_review(rng, is_good), "positive" if is_good else "negative"])


def write_review(rng: np.random.Generator, is_good: bool) -> str:
    text = write_clause(rng, is_good)
    if rng.random() < 0.4:  # what follows "but" counts
        text = f"{write_clause(rng, not is_good)}, but {text}"
    text = pick(rng, OPENINGS) + text
    return f"{text[0].upper()}{text[1:]}.{pick(rng, CLOSINGS)}"


def write_clause(rng: np.random.Generator, is_good: bool) -> str:
    """`the plot isn't very good`."""
    is_negated = rng.random() < 0.4
    adjective = pick(rng, GOOD if is_good != is_negated else BAD)
    verb = pick(rng, ["isn't", "is not", "was never"] if is_negated else ["is", "was"])
    return f"the {pick(rng, THINGS)} {verb} {pick(rng, DEGREES)}{adjective}"


def pick(rng: np.random.Generator, choices: list[str]) -> str:
    return choices[rng.integers(len(choices))]
