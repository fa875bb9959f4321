"""Sample sentences: a small newspaper, written by a grammar.

It is worth learning for three reasons. The same name may be a person, a place or an organization, and only the words
around it tell which. Half of the names in val and test do not occur in train, so only their form helps. And sometimes
neither is enough.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from .formats import Sentence, write_pair

SIZES = {"train": 2000, "val": 400, "test": 400}

ONSETS = "b br c ch d dr f g gr h j k kl l m n p r s sh st t tr v w z".split()
VOWELS = "a e i o u ai ea ou".split()
CODAS = ["", "", "l", "n", "r", "s", "nd", "rt", "m", "ck"]
ENDINGS = {
    "first": ["a", "o", "ie", "us", "en", "ina"],
    "last": ["son", "ez", "ov", "man", "ski", "er", "well"],
    "place": ["burg", "ville", "stan", "ford", "land", "mouth", "ia"],
    "firm": ["tech", "soft", "mart", "corp", "air", "oil"],
}
SHARED = "Washington Lincoln Jordan Austin Chester Florence Sydney Madison Hudson Orlando Devon Kent".split()

MONTHS = "January February March April May June July August September October November December".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
TITLES = "President Minister Mr. Mrs. Judge General Professor".split()
BODIES = ["Ministry of", "University of", "Bank of", "Port of"]
KINDS = ["Inc.", "Group", "Bank", "Airlines", "University", "Party"]
VERBS = "said announced denied confirmed feared hoped reported".split()
CLAIMS = [
    "the talks would go on", "prices may rise in march", "the bridge will open soon", "no one was hurt",
    "the vote was fair", "a new law is needed", "the storm had passed", "may be it is too late",
]  # fmt: skip
EVENTS = ["elections", "a summit", "protests", "the harvest", "a strike", "peace talks", "an air show"]

# {per}, {loc}, {org} and {tim} are names; other braces are filled from the lists above
PATTERNS = [
    "{title} {per} {verb} on {tim} that {claim} .",
    "{per} , who lives in {loc} , {verb} that {claim} .",
    "{org} {verb} in {tim} that it will leave {loc} .",
    "Thousands came to {loc} for {event} {tim} .",
    "Shares of {org} fell by {number} percent after {per} resigned .",
    "{event} in {loc} were called off , {org} {verb} .",
    "In {tim} , {per} met {per} at the {org} office in {loc} .",
    "{loc} beat {loc} {number} to {number} .",
    "{claim} , {per} of {org} {verb} .",
    '" {claim} , " {verb} {title} {per} .',
    "{org} buys {org} for {number} million dollars",
    "{per} flew from {loc} to {loc} on {tim} .",
    "The mayor of {loc} thanked {org} and {per} .",
    "Nothing new was reported from {loc} since {tim} .",
    "{event} may begin in {number} days , {verb} the farmers .",
    # here the form of the name is all there is to go by
    "{per} {verb} on {tim} that {claim} .",
    "{org} {verb} on {tim} that {claim} .",
    "{loc} {verb} on {tim} that {claim} .",
    "Then came {per} .",
    "Then came {loc} .",
    "{event} , {claim} : {org} against {loc}",
    "{event} , {claim} : {per} against {org}",
]


class Names:
    """Names of one split: those that every split may use, and some that no other split does."""

    def __init__(self, rng: np.random.Generator, known: dict[str, list[str]], count: int):
        self.rng = rng
        self.pools = {kind: [*names, *(self.invent(kind) for _ in range(count))] for kind, names in known.items()}

    def invent(self, kind: str) -> str:
        syllables = [
            self.pick(ONSETS) + self.pick(VOWELS) + self.pick(CODAS) for _ in range(int(self.rng.integers(1, 3)))
        ]
        return ("".join(syllables) + self.pick(ENDINGS[kind])).capitalize()

    def pick(self, choices: list[str]) -> str:
        return choices[self.rng.integers(len(choices))]

    def name(self, kind: str) -> str:
        return self.pick(SHARED) if self.rng.random() < 0.15 else self.pick(self.pools[kind])

    def per(self) -> str:
        return self.name("last") if self.rng.random() < 0.4 else f"{self.pick(self.pools['first'])} {self.name('last')}"

    def loc(self) -> str:
        prefix = self.pick(["New ", "North ", "San "]) if self.rng.random() < 0.15 else ""
        return prefix + self.name("place")

    def org(self) -> str:
        draw = self.rng.random()
        if draw < 0.4:
            return f"{self.name('firm')} {self.pick(KINDS)}"
        return f"{self.pick(BODIES)} {self.name('place')}" if draw < 0.6 else self.name("firm")

    def tim(self) -> str:
        draw = self.rng.random()
        if draw < 0.4:
            return self.pick(DAYS)
        month = self.pick(MONTHS)
        return f"{month} {self.rng.integers(1, 29)}" if draw < 0.7 else f"{month} {self.rng.integers(1990, 2030)}"


def write_sample(folder: Path, seed: int) -> None:
    """Write the sentences of each split to `folder`, in the layout of CS230."""
    for split, sentences in write_sentences(seed).items():
        write_pair(folder / split, sentences)


def write_sentences(seed: int) -> dict[str, list[Sentence]]:
    """The sentences of each split, tags in IOB2. The same seed writes the same sentences."""
    shared = Names(np.random.default_rng([seed, 0]), {kind: [] for kind in ENDINGS}, 60).pools
    splits = {}
    for number, (split, size) in enumerate(SIZES.items(), start=1):
        names = Names(np.random.default_rng([seed, number]), shared, 200 if split == "train" else 60)
        splits[split] = [write_sentence(names, f"{split}, sentence {i + 1}") for i in range(size)]
    return splits


def write_sentence(names: Names, place: str) -> Sentence:
    fillings: dict[str, Callable[[], str]] = {
        "{title}": lambda: names.pick(TITLES),
        "{verb}": lambda: names.pick(VERBS),
        "{claim}": lambda: names.pick(CLAIMS),
        "{event}": lambda: names.pick(EVENTS),
        "{number}": lambda: str(names.rng.integers(2, 100)),
    }
    words: list[str] = []
    tags: list[str] = []
    for slot in names.pick(PATTERNS).split():
        if slot[1:-1] in ("per", "loc", "org", "tim"):
            kind = slot[1:-1]
            name: list[str] = getattr(names, kind)().split()
            tags += [f"B-{kind}"] + [f"I-{kind}"] * (len(name) - 1)
        else:
            name = fillings.get(slot, lambda slot=slot: slot)().split()
            tags += ["O"] * len(name)
        words += name
    words[0] = words[0][0].upper() + words[0][1:]
    return Sentence(words, tags, place)
