"""Tags <-> entities, as the scorer of the CoNLL shared tasks reads them (Tjong Kim Sang & De Meulder 2003).

`B-per` begins an entity of the type per, `I-per` continues it, `O` is outside of all. Other schemes mark the last word
with `E-` (or `L-`), an entity of one word with `S-` (or `U-`), or use `B-` only between two entities of the same type.
`parse` and `goes_on` read all of them; what is written is IOB2, where every entity begins with `B-`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import NamedTuple

OUTSIDE = "O"
TAG = re.compile(r"([BIESLUM])-((?!-).*)", re.DOTALL)  # not S----3MS2-, a part of speech in several treebanks
SAME_AS = {"L": "E", "U": "S", "M": "I"}  # BILOU and BMES, in the letters of IOBES


@cache
def parse(tag: str) -> tuple[str, str]:
    """`B-per` -> ("B", "per"). A tag that is no part of any scheme, such as `NN`, is an entity of one word."""
    if tag == OUTSIDE:
        return OUTSIDE, ""
    match = TAG.fullmatch(tag)
    if not match:
        return "S", tag
    return SAME_AS.get(match[1], match[1]), match[2]


def goes_on(previous: str, tag: str) -> bool:
    """Whether a word with the tag `tag` continues the entity of the word before it, which has the tag `previous`."""
    (before, type_before), (now, type_now) = parse(previous), parse(tag)
    return now in "IE" and before in "BI" and type_now == type_before


def is_scheme(tags: Iterable[str]) -> bool:
    """Whether the tags mark entities of several words. Parts of speech, for example, do not."""
    return any(map(TAG.fullmatch, tags))


def are_entities(tags: Iterable[str]) -> bool:
    """Whether the tags that a network learns mark entities: those of a scheme do, and those beside an O. Parts of
    speech do not."""
    tags = list(tags)
    return OUTSIDE in tags or is_scheme(tags)


class Entity(NamedTuple):
    start: int
    end: int  # the index after the last word
    type: str


def find_entities(tags: Sequence[str]) -> list[Entity]:
    """The entities of a sentence, in order."""
    found: list[Entity] = []
    previous = OUTSIDE
    for i, tag in enumerate(tags):
        if tag == OUTSIDE:  # as most are
            previous = tag
            continue
        if goes_on(previous, tag):
            found[-1] = found[-1]._replace(end=i + 1)
        else:
            found.append(Entity(i, i + 1, parse(tag)[1]))
        previous = tag
    return found


def to_iob2(tags: Sequence[str]) -> list[str]:
    """The same entities in IOB2."""
    written = [OUTSIDE] * len(tags)
    for start, end, kind in find_entities(tags):
        written[start:end] = [f"B-{kind}"] + [f"I-{kind}"] * (end - start - 1)
    return written


def bracket(words: Sequence[str], entities: Iterable[Entity], mark: Callable[[str], str] = str) -> str:
    """`[Anna Smith per] lives in [Kent loc] .` What is in brackets, and the brackets, go through `mark`."""
    marked, at = [], 0
    for start, end, kind in entities:
        inside = " ".join([*words[start:end], *([kind] if kind else [])])
        marked += [*words[at:start], mark(f"[{inside}]")]
        at = end
    return " ".join([*marked, *words[at:]])


def with_tags(words: Sequence[str], tags: Sequence[str], right: Sequence[str] | None = None) -> str:
    """`When/SCONJ a/DET`, for tags that mark no entities. Where `right` has another tag: `is/VERB(AUX)`."""
    triples = zip(words, tags, right or tags, strict=True)
    return " ".join(f"{word}/{tag}" + (f"({correct})" if correct != tag else "") for word, tag, correct in triples)
