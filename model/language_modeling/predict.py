"""Texts -> what the network takes, and what it says comes next, for predict.py and serve.py. All without torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from engine.answers import Record, class_records, is_unicode
from engine.predicting import Arrays, Example, made_up_word
from engine.texts import TextProcessing
from engine.writing import Style
from model.layers import PAD, UNK
from model.text.plain import splitter_of
from utils import UserError

from .params import Params
from .write import write

SHOWN = {"\n": "\u23ce", " ": "\u2423", "\t": "\u21e5"}


class Processing(TextProcessing):
    """Texts, or lists of their words. A record says which token comes next.

    Attributes:
        forms: the tokens of the vocabulary, from number UNK + 1 on.
    """

    about = (
        "A text is a sequence of characters or words (data.level), numbered from 2 in the order of data.tokens (the"
        " different forms in which they are looked up). 1 stands for all others, and 0 for padding, or for the"
        " beginning of a text. To write, choose a token by the scores, and give it back as the only token of the next"
        " text, with next_state as its state."
    )
    inputs: ClassVar = {
        "tokens": "batch_size x length: numbers of tokens, 0 behind a text's end; int64",
        "lengths": "batch_size: numbers of tokens; int64",
        "state": "batch_size x num_layers x state_dim: zeros, or the state after the text before; float32",
    }
    outputs: ClassVar = {
        "scores": "batch_size x num_tokens: of what comes next, softmax makes probabilities; float32",
        "next_state": "batch_size x num_layers x state_dim: after the last column of tokens; float32",
    }

    writes = True

    def __init__(self, params: Params, top: int = 1):
        super().__init__(params, top)
        self.vocabulary = params.vocabulary
        self.forms = [*self.vocabulary]
        self.tokens_of: Any = splitter_of(params.data) or list

    def encode(self, text: str) -> list[int]:
        return self.numbers_of(self.tokens_of(text))

    def numbers_of(self, tokens: Sequence[str]) -> list[int]:
        return [self.vocabulary.get(self.params.normalize(token), UNK) for token in tokens]

    def unknown_in(self, text: str) -> list[str]:
        """The different tokens of a text that the vocabulary does not have."""
        normalize = self.params.normalize
        return [token for token in dict.fromkeys(self.tokens_of(text)) if normalize(token) not in self.vocabulary]

    def write(self, network: Any, prompt: str, style: Style, samples: int = 1) -> Iterator[list[str]]:
        return write(self, network, prompt, style, samples)

    def decode(self, numbers: Sequence[int]) -> str:
        """The text of some tokens; an unknown one is shown as U+FFFD."""
        return self.join([self.forms[number - UNK - 1] if number > UNK else "\ufffd" for number in numbers])

    def join(self, tokens: Sequence[str], before: str = "\n") -> str:
        """Tokens as text that stands behind the token `before`."""
        if self.params.data.level == "char":
            return "".join(tokens)
        gaps = ["" if "\n" in pair else " " for pair in zip([before, *tokens], tokens, strict=False)]
        return "".join(gap + token for gap, token in zip(gaps, tokens, strict=True))

    def preprocess(self, raw: Any) -> Example:
        is_list = isinstance(raw, list | tuple) and all(isinstance(word, str) for word in raw)
        text = " ".join(raw) if is_list else raw
        if not isinstance(text, str):
            raise UserError("expected a text, or a list of its words")
        if not is_unicode(text):
            raise UserError("not Unicode")
        numbers = self.numbers_of(raw) if is_list and self.params.data.level == "word" else self.encode(text)
        if not numbers:
            raise UserError("no character or word in it")
        return Example(text, numbers, len(numbers))

    def collate(self, contents: Sequence[Sequence[int]]) -> Arrays:
        lengths = np.array([len(numbers) for numbers in contents])
        tokens = np.full((len(contents), lengths.max()), PAD)
        tokens[np.arange(tokens.shape[1]) < lengths[:, None]] = np.concatenate(contents)
        return {"tokens": tokens, "lengths": lengths, "state": self.first_state(len(contents))}

    def first_state(self, batch_size: int) -> np.ndarray:
        params = self.params
        state_dim = params.lstm_hidden_dim * (1 + (params.rnn == "lstm"))
        return np.zeros((batch_size, params.num_layers, state_dim), np.float32)

    def postprocess(self, outputs: Mapping[str, np.ndarray]) -> list[Record]:
        return class_records(outputs["scores"][:, UNK + 1 :], self.forms, self.top)

    def examples(self, count: int, length: int, rng: np.random.Generator) -> list[Any]:
        """Known tokens, and words that nobody knows."""
        lengths = [length, *rng.integers(1, length + 1, count - 1).tolist()]

        def token() -> str:
            return made_up_word(rng, 1) if rng.random() < 0.2 else self.forms[rng.integers(len(self.forms))]

        return [self.join([token() for _ in range(size)]) for size in lengths]

    def show(self, record: Record, color: bool = False) -> str:
        def visible(token: str) -> str:
            return SHOWN.get(token, token)

        shown = {**record, "input": record["input"].replace("\n", SHOWN["\n"])}
        shown["prediction"] = visible(record["prediction"])
        if "probabilities" in record:
            shown["probabilities"] = {visible(token): p for token, p in record["probabilities"].items()}
        return super().show(shown, color)
