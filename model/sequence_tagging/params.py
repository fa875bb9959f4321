"""What you may set, and what the data decides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from model.text.params import TextDataParams, TextParams

from .entities import are_entities

if TYPE_CHECKING:
    from typing_extensions import Self

NO_TAG = -1  # the label behind a sentence's end


class Params(TextParams):
    """The hyperparameters of sequence tagging. The defaults are the LSTM tagger of the CS230 notes."""

    data_dir: str = Field("data/ner", description="The built data set; --data_dir overrides it.")
    batch_size: int = Field(32, ge=1, description="Sentences per optimizer step.")
    monitor: Literal["auto", "f1", "accuracy", "loss"] = Field(
        "auto",
        description="What chooses the best weights, on val: F1 of entities, accuracy of words, or the loss; auto takes"
        " f1 if the tags mark entities, else accuracy.",
    )

    crf: bool = Field(False, description="Score whole sequences of tags, with a conditional random field.")

    def resolve(self) -> Self:
        if self.monitor != "auto":
            return self
        return self.model_copy(update={"monitor": "f1" if are_entities(self.data.tags) else "accuracy"})


class DataParams(TextDataParams):
    """What the data decides: `dataset_params.json` and the vocabularies beside it, as build_dataset.py writes them."""

    decides_network: ClassVar = ("words", "tags", "chars")
    vocabularies: ClassVar = ("words", "tags", "chars")

    num_tags: int = Field(ge=1)
    unseen_tags: list[str]  # that only val or test have: never predicted, so they count as errors
    tags: list[str] = Field([])

    def as_learnt(self, learnt: dict[str, Any]) -> Self:
        """The same sentences with the vocabularies of a network. Tags that it does not know count as errors."""
        data = super().as_learnt(learnt)
        unseen = [tag for tag in (*self.tags, *self.unseen_tags) if tag not in data.tags]
        return data.model_copy(update={"unseen_tags": unseen})
