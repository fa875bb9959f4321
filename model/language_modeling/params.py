"""What you may set, and what the data decides."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from model.text.params import EncoderParams, TokenDataParams


class Params(EncoderParams):
    """The hyperparameters of a language model. The defaults are an LSTM."""

    data_dir: str = Field("data/text", description="The built data set; --data_dir overrides it.")
    batch_size: int = Field(32, ge=1, description="Parts of the text that are read side by side.")
    monitor: Literal["loss", "perplexity", "bits_per_character"] = Field(
        "loss", description="What chooses the best weights, on val; bits_per_character is for characters."
    )

    num_steps: int = Field(100, ge=1, description="Characters (or words) of each part in a batch.")
    embedding_dropout: float = Field(0.0, ge=0, lt=1, description="Probability of dropping a token's vector.")
    tied_weights: bool = Field(False, description="Whether the vectors of tokens also score them.")
    teacher_forcing: float = Field(
        1.0, ge=0, le=1, description="Share of steps that read the true token; the others read the network's own."
    )

    minimized: ClassVar = frozenset({"loss", "perplexity", "bits_per_character"})

    @property
    def tokens(self) -> list[str]:
        return self.data.tokens


class DataParams(TokenDataParams):
    """What the data decides: `dataset_params.json` and tokens.txt beside it, as build_dataset.py writes them."""
