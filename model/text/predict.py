"""Texts -> what the network takes, for predict.py and serve.py. All without torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from engine.answers import Record, explained, is_unicode, strongest_words
from engine.predicting import Example, made_up_word
from engine.texts import TextProcessing
from utils import UserError

from .encode import Encoder
from .files import clean, one_line
from .params import TextParams
from .tokenizer import Tokenizer


class WordProcessing(TextProcessing):
    """Texts, or lists of their words. The `content` of an example is its words, and the span of characters of each;
    None if these are characters.

    Where a prediction is to be explained, its record has the words, their places, and the influence of each.
    """

    about = (
        "A word is looked up in lower case if params.lowercase_words, with its digits as 0 if params.fold_digits. The"
        " numbers of words and characters begin at 2, in the order of data.words (the different forms in which they are"
        " looked up) and data.chars. 1 stands for all others, 0 for padding."
    )
    inputs: ClassVar = {
        "words": "batch_size x length: words, 0 behind a text's end; int64",
        "lengths": "batch_size: numbers of words; int64",
        "chars": "num_spellings x num_chars: characters of each different word, 0 behind its end; int64",
        "spellings": "batch_size x length: the row of chars of each word; int64",
    }
    most_words: ClassVar[int | None] = None  # of a text; one with more is refused

    def __init__(self, params: TextParams, top: int = 1):
        super().__init__(params, top)
        self.encoder = Encoder(params)
        self.tokenize = Tokenizer(params.data.words if getattr(params.data, "tokenized", True) else None)
        self.max_length: int | None = None  # words of a text that are read

    def preprocess(self, raw: Any) -> Example:
        if isinstance(raw, str):
            text, spans = raw, self.tokenize(raw)
            words = [text[start:end] for start, end in spans]
        elif isinstance(raw, list | tuple) and all(isinstance(word, str) for word in raw):
            words = [word for word in map(clean, raw) if word]
            text, spans, end = " ".join(words), [], 0
            for word in words:
                spans.append((end, end + len(word)))
                end += len(word) + 1
        else:
            raise UserError("expected a text, or a list of its words")
        if not words:
            raise UserError("no word in it")
        if self.most_words and len(words) > self.most_words:
            raise UserError(
                f"{len(words):,} words, but at most {self.most_words:,} are read at once: split it into sentences"
            )
        if not is_unicode(text):
            raise UserError("not Unicode")
        return Example(text, (words, spans), len(words))

    def examples(self, count: int, length: int, rng: np.random.Generator) -> list[list[str]]:
        """Lists of words, half of them known."""
        known = [word for word in self.params.data.words[:1000] if len(word) <= length] or ["a"]
        lengths = [length, *rng.integers(1, length + 1, count - 1).tolist()]
        return [
            [made_up_word(rng, length) if rng.random() < 0.5 else str(rng.choice(known)) for _ in range(number)]
            for number in lengths
        ]

    def collate(self, contents: Sequence[tuple[list[str], Any]]) -> dict[str, np.ndarray]:
        return next(self.make_batches([contents]))

    def make_batches(self, batches: Sequence[Sequence[tuple[list[str], Any]]]) -> Iterator[dict[str, np.ndarray]]:
        encoded = self.encoder.encode([words for batch in batches for words, _ in batch], self.max_length)
        ends = np.cumsum([len(batch) for batch in batches])
        indices = np.split(np.arange(ends[-1]), ends[:-1])
        return (inputs for inputs, _ in encoded.batches(indices))

    # of a network that explains itself (`influence` in net.py)

    def postprocess(self, outputs: Mapping[str, np.ndarray]) -> list[Record]:
        records = super().postprocess(outputs)
        if "influence" in outputs:
            for record, influence in zip(records, outputs["influence"].astype(np.float64).round(4), strict=True):
                record["influence"] = influence.tolist()
        return records

    def complete(self, example: Example, record: Record) -> Record:
        if "influence" in record:
            words, spans = example.content
            longest = self.max_length or len(words)
            head, left_out = (longest + 1) // 2, max(len(words) - longest, 0)
            influence = record.pop("influence")[: len(words) - left_out]
            influence[head:head] = [0.0] * left_out  # what was not read decided nothing
            places = [[i, i + 1] for i in range(len(words))] if spans is None else [*map(list, spans)]
            record |= {"words": words, "word_spans": places, "influence": influence}
        return super().complete(example, record)

    def show(self, record: Record, color: bool = False) -> str:
        text = explained(record, color) if "influence" in record else record["input"]
        return super().show({**record, "input": one_line(text)}, color)

    def cells(self, record: Record) -> dict[str, Any]:
        decided = [word for word, _ in strongest_words(record, float)] if "influence" in record else None
        return super().cells(record) | ({} if decided is None else {"decided by": " ".join(decided)})
