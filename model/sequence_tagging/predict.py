"""Sentences -> what the network takes, and its tags -> records, for predict.py and serve.py. All without torch."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from engine.answers import Record, bold
from engine.predicting import Example, Options, Unreadable
from engine.texts import read_lines
from model.text.columns import (
    CONLLU_ENDINGS,
    find_layout,
    first_sentence,
    is_word,
    read_rows,
    split_columns,
)
from model.text.predict import WordProcessing
from utils import UserError

from .entities import are_entities, bracket, find_entities, with_tags
from .formats import COLUMN_ENDINGS
from .params import Params

HEAD = 1000  # lines by which a file is recognised


class Processing(WordProcessing):
    """Sentences, or lists of their words. A record says the tag of each word, and the spans of entities."""

    outputs: ClassVar = {
        "tags": "batch_size x length: indices into data.tags, -1 behind a sentence's end; int64",
        "probabilities": "batch_size x length: of each of these tags; float32",
        "log_probability": "batch_size: of all tags of a sentence together; float32",
    }

    most_words = 2000

    def __init__(self, params: Params, top: int = 1):
        super().__init__(params, top)
        self.tags = params.data.tags
        self.has_entities = are_entities(self.tags)

    def read_file(self, options: Options) -> Iterator[Any]:
        """Lines; or sentences in CoNLL's columns, of which the first is read, of CoNLL-U the column FORM."""
        file = str(options.file)
        if (
            options.columns
            or Path(file).suffix.lower() in COLUMN_ENDINGS
            or self.looks_like_columns(file, options.encoding)
        ):
            return read_words(file, options.encoding)
        return super().read_file(options)

    def looks_like_columns(self, file: str, encoding: str) -> bool:
        """Whether it is CoNLL-U, or its first lines all have as many words, and a tag last.

        Of stdin, no line is looked at twice.
        """
        if file == "-":
            return False
        if find_layout(itertools.islice(read_lines(file, True, encoding), HEAD)).is_conllu:
            return True
        head = [
            line
            for line in itertools.islice(read_lines(file, encoding=encoding), 10)
            if isinstance(line, str) and is_word(line)
        ]
        lines = [split_columns(line) for line in head]
        return (
            len(lines) > 2
            and {len(cells) for cells in lines} == {max(2, len(lines[0]))}
            and all(cells[-1] in self.tags for cells in lines)
        )

    def postprocess(self, outputs: Mapping[str, np.ndarray]) -> list[Record]:
        lengths = (outputs["tags"] >= 0).sum(axis=1).tolist()
        together = np.exp(outputs["log_probability"].astype(np.float64)).clip(max=1.0).tolist()
        each = outputs["probabilities"].astype(np.float64).round(4).tolist()
        rows = zip(outputs["tags"].tolist(), each, lengths, together, strict=True)
        return [
            {
                "prediction": [self.tags[number] for number in numbers[:length]],
                "probability": probability,
                "tag_probabilities": probabilities[:length],
            }
            for numbers, probabilities, length, probability in rows
        ]

    def complete(self, example: Example, record: Record) -> Record:
        words, spans = example.content
        if not self.has_entities:
            return {"input": example.input, **record, "words": words}
        found = []
        for start, end, kind in find_entities(record["prediction"]):
            first, stop = spans[start][0], spans[end - 1][1]  # characters
            text = example.input[first:stop]
            found.append({"type": kind, "text": text, "start": first, "end": stop, "words": [start, end]})
        return {"input": example.input, **record, "words": words, "spans": found}

    def show(self, record: Record, color: bool = False) -> str:
        if not self.has_entities:
            return with_tags(record["words"], record["prediction"])
        entities = find_entities(record["prediction"])
        return bracket(record["words"], entities, lambda text: bold(text, color))

    def cells(self, record: Record) -> dict[str, Any]:
        probability = f"{record['probability']:.4f}"
        tags, words = (" ".join(record[name]) for name in ("prediction", "words"))
        return {"input": record["input"], "words": words, "prediction": tags, "probability": probability}

    def conll(self, record: Record) -> str:
        """Word and tag of each line, and an empty line behind the sentence."""
        return "".join(f"{word} {tag}\n" for word, tag in zip(record["words"], record["prediction"], strict=True))


def read_words(name: str, encoding: str) -> Iterator[list[str] | Unreadable]:
    """The words of each sentence of a file in CoNLL's columns. Raises UserError if it has no column of words."""
    lines = read_lines(name, True, encoding)
    head = first_sentence(lines)
    layout = find_layout(head, Path(name).suffix.lower() in CONLLU_ENDINGS)
    if layout.is_conllu and "FORM" not in layout.names:
        raise UserError(f"{name}: no column FORM, which holds the words; there are {', '.join(layout.names)}.")
    word_at = layout.names.index("FORM") if layout.is_conllu else 0
    words: list[str] = []
    bad: list[Unreadable] = []  # a line that cannot be read stands for its sentence
    for row in itertools.chain(read_rows(itertools.chain(head, lines), layout), [None]):
        if isinstance(row, Unreadable):
            bad.append(row)
        elif row is not None:
            line, cells = row
            if word_at < len(cells):
                words.append(cells[word_at])
            else:
                bad.append(Unreadable(f"{name}, line {line}", f"{len(cells)} columns, expected {layout.num_columns}"))
        elif words or bad:
            yield bad[0] if bad else words
            words, bad = [], []
