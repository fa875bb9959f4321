"""What you may set, and what the data decides."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from engine.params import DataParams as SharedDataParams
from engine.params import TrainingParams
from model.layers import UNK
from utils import UserError

from .formats import read_lines

if TYPE_CHECKING:
    from typing_extensions import Self

NO_TAG = -1  # the label behind a sentence's end


class Params(TrainingParams):
    """The hyperparameters of sequence tagging. The defaults are the LSTM tagger of the CS230 notes."""

    data_dir: str = Field("data/ner", description="The built data set; --data_dir overrides it.")
    batch_size: int = Field(32, ge=1, description="Sentences per optimizer step.")
    monitor: Literal["f1", "accuracy", "loss"] = Field(
        "f1", description="What chooses the best weights, on val: F1 of entities, accuracy of words, or the loss."
    )

    embedding_dim: int = Field(50, ge=1, description="Size of a word's vector.")
    pretrained_embeddings: str = Field(
        "", description="Text file of initial word vectors (GloVe, word2vec, fastText); none if empty."
    )
    lowercase_words: bool = Field(False, description="Look up words in lower case; their characters stay as they are.")
    fold_digits: bool = Field(
        False, description="Look up words with every digit as 0; their characters stay as they are."
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

    rnn: Literal["lstm", "gru", "rnn"] = Field("lstm", description="What reads the sentence.")
    lstm_hidden_dim: int = Field(50, ge=1, description="Size of its state, in each direction.")
    num_layers: int = Field(1, ge=1, description="Recurrent layers, one on top of the other.")
    bidirectional: bool = Field(False, description="Whether they also read backwards.")
    dropout_rate: float = Field(
        0.0, ge=0, lt=1, description="Probability of dropping a feature before, between and after recurrent layers."
    )
    recurrent_dropout: float = Field(
        0.0, ge=0, lt=1, description="Probability of dropping a unit of the state between two words."
    )
    crf: bool = Field(False, description="Score whole sequences of tags, with a conditional random field.")

    def normalize(self, word: str) -> str:
        """The form in which a word is looked up in the vocabulary."""
        word = word.lower() if self.lowercase_words else word
        return re.sub(r"\d", "0", word) if self.fold_digits else word

    @property
    def vocabulary(self) -> dict[str, int]:
        """Number of each word that has a vector of its own."""
        forms = dict.fromkeys(map(self.normalize, self.data.words))
        return {form: number for number, form in enumerate(forms, start=UNK + 1)}


class DataParams(SharedDataParams):
    """What the data decides: `dataset_params.json` and the vocabularies beside it, as build_dataset.py writes them."""

    decides_network: ClassVar = ("words", "tags", "chars")

    num_words: int = Field(ge=1)
    num_tags: int = Field(ge=1)
    num_chars: int = Field(ge=1)
    unseen_tags: list[str]  # that only val or test have: never predicted, so they count as errors
    words: list[str] = Field([])  # of train, the most frequent first
    tags: list[str] = Field([])
    chars: list[str] = Field([])

    def complete(self, data_dir: Path) -> Self:
        """These values with the vocabularies. Raises UserError when one is not what was built."""
        lists: dict[str, Any] = {name: read_lines(data_dir / f"{name}.txt") for name in ("words", "tags", "chars")}
        for name, entries in lists.items():
            different, expected = len(set(entries)), getattr(self, f"num_{name}")
            if different != expected or len(entries) != expected:
                raise UserError(
                    f"{data_dir / name}.txt: {len(entries)} lines, {different} of them different, but {expected} were"
                    " built. Build the data set again with --overwrite."
                )
        return self.model_copy(update=lists)

    def as_learnt(self, learnt: dict[str, Any]) -> Self:
        """The same sentences with the vocabularies of a network. Tags that it does not know count as errors."""
        lists = {name: learnt.get(name, getattr(self, name)) for name in self.decides_network}
        unseen = [tag for tag in (*self.tags, *self.unseen_tags) if tag not in lists["tags"]]
        return self.model_copy(update={**lists, "unseen_tags": unseen})
