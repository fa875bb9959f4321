"""Texts -> what the network takes, and its scores -> records, for predict.py and serve.py. All without torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from engine.answers import Record, explained, strongest_words
from engine.predicting import Example
from model.text.files import one_line
from model.text.predict import WordProcessing
from model.text.tokenizer import Tokenizer

from .params import Params


class Processing(WordProcessing):
    """Texts. A record says the class; where it is to be explained, also the words, their places and influences."""

    about = (
        f"{WordProcessing.about} Where params.level is char, words are characters, numbered in the order of data.chars."
        " Of a text of more than params.max_length words, the middle is left out."
    )

    def __init__(self, params: Params, top: int = 1):
        super().__init__(params, top)
        self.max_length = params.max_length
        self.tokenize = Tokenizer(params.data.words if params.data.tokenized else None)

    def preprocess(self, raw: Any) -> Example:
        example = super().preprocess(raw)
        if self.params.level == "word":
            return example
        words, _ = example.content
        text = " ".join(words) if self.params.data.tokenized else example.input  # as the texts of the data stand there
        chars = list(one_line(text))
        return Example(text, (chars, None), len(chars))

    def postprocess(self, outputs: Mapping[str, np.ndarray]) -> list[Record]:
        records = super().postprocess(outputs)
        if "influence" in outputs:
            for record, influence in zip(records, outputs["influence"].astype(np.float64).round(4), strict=True):
                record["influence"] = influence.tolist()
        return records

    def complete(self, example: Example, record: Record) -> Record:
        if "influence" in record:
            words, spans = example.content
            longest = self.params.max_length
            head, left_out = (longest + 1) // 2, max(len(words) - longest, 0)
            influence = record.pop("influence")[: len(words) - left_out]
            influence[head:head] = [0.0] * left_out  # what was not read decided nothing
            places = [[i, i + 1] for i in range(len(words))] if spans is None else [*map(list, spans)]
            record |= {"words": words, "word_spans": places, "influence": influence}
        return super().complete(example, record)

    def show(self, record: Record, color: bool = False) -> str:
        text = explained(record, color) if "influence" in record else record["input"]
        return super().show({**record, "input": text}, color)

    def cells(self, record: Record) -> dict[str, Any]:
        decided = [word for word, _ in strongest_words(record, float)] if "influence" in record else None
        return super().cells(record) | ({} if decided is None else {"decided by": " ".join(decided)})
