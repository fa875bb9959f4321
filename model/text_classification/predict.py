"""Texts -> what the network takes, and its scores -> records, for predict.py and serve.py. All without torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.predicting import Example, Options
from model.text.files import one_line
from model.text.predict import WordProcessing
from model.text.tables import TABLE_ENDINGS, read_text_column

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

    def read_file(self, options: Options) -> Iterator[Any]:
        """Lines; of a table (.csv, .tsv), the column of texts."""
        path = Path(str(options.file))
        if not options.columns and (options.text_column or path.suffix.lower() in TABLE_ENDINGS):
            return (self.split(text, options) for text in read_text_column(path, options.text_column, options.encoding))
        return super().read_file(options)

    def preprocess(self, raw: Any) -> Example:
        example = super().preprocess(raw)
        if self.params.level == "word":
            return example
        words, _ = example.content
        text = " ".join(words) if self.params.data.tokenized else example.input.strip()  # as it is built
        chars = list(one_line(text))
        return Example(text, (chars, None), len(chars))
