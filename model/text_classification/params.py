"""What you may set, and what the data decides."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, PositiveInt, model_validator

from model.text.params import TextDataParams, TextParams

if TYPE_CHECKING:
    from typing_extensions import Self


class Params(TextParams):
    """The hyperparameters of text classification. The defaults are an LSTM whose states are pooled."""

    data_dir: str = Field("data/texts", description="The built data set; --data_dir overrides it.")
    batch_size: int = Field(64, ge=1, description="Texts per optimizer step.")
    monitor: Literal["accuracy", "f1", "auc", "loss"] = Field(
        "accuracy", description="What chooses the best weights, on val; auc is for two classes."
    )

    level: Literal["word", "char"] = Field("word", description="What a text is a sequence of.")
    max_length: int = Field(
        400, ge=2, description="Words (or characters) of a text that are read: of a longer one, both ends."
    )
    net: Literal["rnn", "cnn", "bag"] = Field(
        "rnn", description="What reads the text: recurrent layers, convolutions, or the mean of its word vectors."
    )
    pooling: Literal["last", "max", "mean", "max_mean", "attention"] = Field(
        "max", description="rnn: what becomes of the states: the last, their maximum or mean, both, a learnt mean."
    )
    filter_widths: list[PositiveInt] = Field([3, 4, 5], min_length=1, description="cnn: words that a filter sees.")
    num_filters: int = Field(100, ge=1, description="cnn: filters of each width.")
    ngram_length: int = Field(
        1, ge=1, le=5, description="The longest n-grams; each adds a vector to that of its last word. 1: words alone."
    )
    num_buckets: int = Field(100_000, ge=1, description="Vectors that n-grams share, by a hash.")

    @property
    def tokens(self) -> list[str]:
        return self.data.chars if self.level == "char" else self.data.words

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.level == "char" and self.char_features != "none":
            raise ValueError('char_features: expected "none" where level is "char", since there are no words.')
        return self


class DataParams(TextDataParams):
    """What the data decides: `dataset_params.json` and the vocabularies beside it, as build_dataset.py writes them."""

    decides_network: ClassVar = ("classes", "words", "chars", "tokenized")

    classes: list[str]
    tokenized: bool  # whether the words stood between spaces already; else `Tokenizer` split the texts
