"""What may be set in every text task, and what the text decides."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from engine.params import DataParams as SharedDataParams
from engine.params import TrainingParams
from model.layers import UNK
from utils import UserError

from .files import read_lines

if TYPE_CHECKING:
    from typing_extensions import Self


class VectorParams(TrainingParams):
    """How tokens become vectors. A text task's `Params` extends it."""

    embedding_dim: int = Field(50, ge=1, description="Size of a word's vector.")
    pretrained_embeddings: str = Field(
        "", description="Text file of initial word vectors (GloVe, word2vec, fastText); none if empty."
    )
    lowercase_words: bool = Field(False, description="Look up words in lower case; their characters stay as they are.")
    fold_digits: bool = Field(
        False, description="Look up words with every digit as 0; their characters stay as they are."
    )

    def normalize(self, word: str) -> str:
        """The form in which a word is looked up in the vocabulary."""
        word = word.lower() if self.lowercase_words else word
        return re.sub(r"\d", "0", word) if self.fold_digits else word

    @property
    def tokens(self) -> list[str]:
        """What has a vector of its own, as train has it, the most frequent first."""
        return self.data.words

    @property
    def vocabulary(self) -> dict[str, int]:
        """Number of each token, in the form in which it is looked up."""
        forms = dict.fromkeys(map(self.normalize, self.tokens))
        return {form: number for number, form in enumerate(forms, start=UNK + 1)}


class EncoderParams(VectorParams):
    """The recurrent layers that read the vectors."""

    rnn: Literal["lstm", "gru", "rnn"] = Field("lstm", description="What reads the text.")
    lstm_hidden_dim: int = Field(50, ge=1, description="Size of its state, in each direction.")
    num_layers: int = Field(1, ge=1, description="Recurrent layers, one on top of the other.")
    dropout_rate: float = Field(
        0.0, ge=0, lt=1, description="Probability of dropping a feature before, between and after layers."
    )
    recurrent_dropout: float = Field(
        0.0, ge=0, lt=1, description="Probability of dropping a unit of the state between two words."
    )


class TextParams(EncoderParams):
    """The parameters of a task that reads words, each with its characters, in both directions."""

    pretrained_encoder: str = Field(
        "", description="Experiment, or weights, of a language model to begin from: vectors and layers; none if empty."
    )
    freeze_epochs: int = Field(
        0,
        ge=0,
        description="Epochs before what pretrained_encoder gave is trained: one layer an epoch, last first.",
    )
    word_dropout: float = Field(
        0.0,
        ge=0,
        description="Treat a word that train has n times as unknown with probability x / (x + n), x being this number.",
    )
    char_features: Literal["none", "cnn", "lstm"] = Field("none", description="What reads the characters of a word.")
    char_embedding_dim: int = Field(25, ge=1, description="Size of a character's vector.")
    char_hidden_dim: int = Field(
        50, ge=2, multiple_of=2, description="Size of what the characters add to a word's vector."
    )

    rnn: Literal["lstm", "gru", "rnn", "gated"] = Field(  # type: ignore[assignment]
        "lstm", description="What reads the text; gated is an LSTM of which `gates` chooses the gates."
    )
    gates: list[Literal["input", "forget", "output"]] = Field(
        ["input", "forget", "output"], description="gated: its gates. Without any, each step adds to the cell."
    )
    peepholes: bool = Field(False, description="gated: whether the gates also see the cell.")
    bidirectional: bool = Field(False, description="Whether recurrent layers also read backwards.")

    @model_validator(mode="after")
    def _check_freeze_epochs(self) -> Self:
        if self.freeze_epochs and not self.pretrained_encoder:
            raise ValueError("freeze_epochs: expected 0 where there is no pretrained_encoder.")
        if self.freeze_epochs >= self.num_epochs > 0 and self.freeze_epochs:
            raise ValueError("freeze_epochs: expected less than num_epochs, or what is frozen is never trained.")
        return self


class VocabularyParams(SharedDataParams):
    """What text decides: `dataset_params.json`, and vocabularies beside it, each in a file of its name."""

    vocabularies: ClassVar[tuple[str, ...]] = ()

    def complete(self, data_dir: Path) -> Self:
        """These values with the vocabularies. Raises UserError when one is not what was built."""
        lists: dict[str, Any] = {name: read_lines(data_dir / f"{name}.txt") for name in self.vocabularies}
        for name, entries in lists.items():
            different, expected = len(set(entries)), getattr(self, f"num_{name}")
            if different != expected or len(entries) != expected:
                raise UserError(
                    f"{data_dir / name}.txt: {len(entries)} lines, {different} of them different, but {expected} were"
                    " built. Build the data set again with --overwrite."
                )
        return self.model_copy(update=lists)

    def as_learnt(self, learnt: dict[str, Any]) -> Self:
        """The same texts with the vocabularies of a network."""
        return self.model_copy(update={name: learnt.get(name, getattr(self, name)) for name in self.vocabularies})


class TextDataParams(VocabularyParams):
    """What words and their characters decide. A task's `DataParams` extends it."""

    decides_network: ClassVar[tuple[str, ...]] = ("words", "chars")
    vocabularies: ClassVar[tuple[str, ...]] = ("words", "chars")

    num_words: int = Field(ge=1)
    num_chars: int = Field(ge=1)
    words: list[str] = Field([])  # of train, the most frequent first
    chars: list[str] = Field([])


class TokenDataParams(VocabularyParams):
    """What plain text decides, a sequence of characters or words. A task's `DataParams` extends it."""

    decides_network: ClassVar[tuple[str, ...]] = ("level", "tokens", "tokenized")
    vocabularies: ClassVar[tuple[str, ...]] = ("tokens",)

    level: Literal["char", "word"]  # what a text is a sequence of
    tokenized: bool  # whether the words stood between spaces already; else `Tokenizer` split the text
    num_tokens: int = Field(ge=1)
    tokens: list[str] = Field([])  # of train, the most frequent first

    def complete(self, data_dir: Path) -> Self:
        completed = super().complete(data_dir)
        tokens = [token or "\n" for token in completed.tokens]  # an empty line of the file is a line feed
        return completed.model_copy(update={"tokens": tokens})
