"""A sample: a play of short lines, in which who speaks decides what is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np

NUM_LINES = 6000
PLACES = "hill river garden tower market forest harbour bridge".split()
COLORS = "red green white grey black golden".split()
SPEAKERS = {  # each sees another animal, and has another way to say so
    "ANNA": ("Look, a {color} {animal} by the {place}!", "heron finch robin".split()),
    "BOB": ("I would rather have a {animal} than a {color} {place}.", "horse donkey mule".split()),
    "CLARA": ("Was it near the {place} that you saw my {color} {animal}?", "cat dog goose".split()),
}


def write_sample(folder: Path, seed: int) -> None:
    """Write play.txt. The same seed writes the same play."""
    rng = np.random.default_rng(seed)
    names = [*SPEAKERS]
    with open(folder / "play.txt", "w", encoding="utf-8", newline="\n") as file:
        for _ in range(NUM_LINES):
            name = pick(rng, names)
            sentence, animals = SPEAKERS[name]
            words = {"color": pick(rng, COLORS), "place": pick(rng, PLACES), "animal": pick(rng, animals)}
            file.write(f"{name}: {sentence.format(**words)}\n")


def pick(rng: np.random.Generator, choices: list[str]) -> str:
    return choices[rng.integers(len(choices))]
