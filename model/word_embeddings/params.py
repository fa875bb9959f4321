"""What you may set, and what the data decides."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from model.text.params import TokenDataParams, VectorParams


class Params(VectorParams):
    """The hyperparameters of word vectors. The defaults are CBOW with negative sampling."""

    data_dir: str = Field("data/words", description="The built data set; --data_dir overrides it.")
    learning_rate: float = Field(5e-3, gt=0, description="Step size of the optimizer; the peak, under a scheduler.")
    batch_size: int = Field(2048, ge=1, description="Words per optimizer step.")
    embedding_dim: int = Field(100, ge=1, description="Size of a word's vector.")
    monitor: Literal["loss"] = Field("loss", description="What chooses the best weights, on val.")

    net: Literal["cbow", "skipgram", "ngram"] = Field(
        "cbow",
        description="What predicts a word: the mean of its neighbours, each neighbour, or the words before.",
    )
    context_size: int = Field(5, ge=1, description="Neighbours on each side (ngram: words before).")
    negatives: int = Field(5, ge=0, description="Words that are drawn beside each true one; 0: all words are scored.")
    subsample: float = Field(
        1e-3, ge=0, description="Share of the text above which a word is often left out of training; 0 never."
    )
    hidden_dim: int = Field(128, ge=1, description="ngram: size of the hidden layer.")

    @property
    def tokens(self) -> list[str]:
        return self.data.tokens


class DataParams(TokenDataParams):
    """What the data decides: `dataset_params.json` and tokens.txt beside it, as build_dataset.py writes them."""

    decides_network: ClassVar = ("tokens",)
