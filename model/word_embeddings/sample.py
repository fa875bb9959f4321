"""A sample: sentences in which some words may take each other's place."""

from __future__ import annotations

from pathlib import Path

import numpy as np

NUM_SENTENCES = 20_000
ANIMALS = "dog cat horse donkey sheep goat".split()
FOOD = "bread apples soup cheese rice beans".split()
PLACES = "kitchen garden market harbour forest village".split()
PEOPLE = "Anna Bob Clara David Emil Fritz".split()
SENTENCES = (
    "{person} ate {food} in the {place} .",
    "The {animal} of {person} slept in the {place} .",
    "{person} sold {food} at the {place} , and bought a {animal} .",
    "A hungry {animal} stole the {food} .",
)


def write_sample(folder: Path, seed: int) -> None:
    """Write stories.txt. The same seed writes the same sentences."""
    rng = np.random.default_rng(seed)
    kinds = {"animal": ANIMALS, "food": FOOD, "place": PLACES, "person": PEOPLE}
    with open(folder / "stories.txt", "w", encoding="utf-8", newline="\n") as file:
        for _ in range(NUM_SENTENCES):
            words = {kind: choices[rng.integers(len(choices))] for kind, choices in kinds.items()}
            file.write(SENTENCES[rng.integers(len(SENTENCES))].format(**words) + "\n")
