"""Words -> the words whose vectors are most similar, for predict.py and serve.py. All without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from engine.answers import Record
from engine.params import did_you_mean
from engine.predicting import Arrays, Example
from engine.texts import TextProcessing
from model.layers import UNK
from utils import UserError

from .params import Params


class Processing(TextProcessing):
    """A word, or three: "man king woman" asks what is to "woman" as "king" is to "man" (the vector king - man + woman;
    Mikolov et al. 2013, "Linguistic regularities in continuous space word representations", section 4)."""

    about = (
        "Words are numbered from 2 in the order of data.tokens (the different forms in which they are looked up)."
        " The similarity is the cosine between a word's vector and the sum of the query's, each with its sign."
    )
    inputs: ClassVar = {
        "query": "batch_size x 3: numbers of words; int64",
        "signs": "batch_size x 3: 1, -1, or 0 for a word that does not count; float32",
    }
    outputs: ClassVar = {"similarities": "batch_size x num_tokens: cosines; float32"}

    def __init__(self, params: Params, top: int = 1):
        super().__init__(params, top)
        self.vocabulary = params.vocabulary
        self.forms = [*self.vocabulary]

    def preprocess(self, raw: Any) -> Example:
        words = raw.split() if isinstance(raw, str) else raw
        if not isinstance(words, list | tuple) or not all(isinstance(word, str) for word in words):
            raise UserError("expected a word, or three")
        if len(words) not in (1, 3):
            raise UserError(f"{len(words)} words; expected one, or three: a is to b as c is to what?")
        numbers = [self.vocabulary.get(self.params.normalize(word), UNK) for word in words]
        for word, number in zip(words, numbers, strict=True):
            if number == UNK:
                which = f": {word}" if len(words) > 1 else ""
                raise UserError(f"not in the vocabulary{which}.{did_you_mean(word, self.forms)}")
        return Example(" ".join(words), numbers)

    def collate(self, contents: Sequence[list[int]]) -> Arrays:
        query = np.array([(numbers * 3)[:3] for numbers in contents])
        signs = [[1, 0, 0] if len(numbers) == 1 else [-1, 1, 1] for numbers in contents]
        return {"query": query, "signs": np.array(signs, np.float32)}

    def postprocess(self, outputs: Mapping[str, np.ndarray]) -> list[Record]:
        order = np.argsort(-outputs["similarities"][:, UNK + 1 :], axis=1, kind="stable")[:, : self.top + 4]
        return [
            {"prediction": "", "probability": 0.0, "near": {self.forms[i]: float(row[i + UNK + 1]) for i in numbers}}
            for row, numbers in zip(outputs["similarities"], order.tolist(), strict=True)
        ]

    def complete(self, example: Example, record: Record) -> Record:
        asked = {self.forms[number - UNK - 1] for number in example.content}
        others = ((word, near) for word, near in record["near"].items() if word not in asked and word.strip())
        near = list(others)[: self.top]
        word, similarity = near[0] if near else ("", 0.0)
        found: Record = {"input": example.input, "prediction": word, "probability": min(max(similarity, 0.0), 1.0)}
        if self.top > 1:
            found["probabilities"] = {word: max(similarity, 0.0) for word, similarity in near}
        return found

    def examples(self, count: int, length: int, rng: np.random.Generator) -> list[Any]:
        return [[str(word) for word in rng.choice(self.forms, rng.choice([1, 3]))] for _ in range(count)]
