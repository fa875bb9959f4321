"""What you may set, and what the data decides."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from engine.params import DataParams as SharedDataParams
from engine.params import TrainingParams


class Params(TrainingParams):
    """The hyperparameters of image classification."""

    data_dir: str = Field("data/64x64_SIGNS", description="The built data set; --data_dir overrides it.")
    batch_size: int = Field(32, ge=2, description="Images per optimizer step; batch normalisation needs two.")
    monitor: Literal["accuracy", "loss"] = Field("accuracy", description="What chooses the best weights, on val.")

    net: Literal["cnn", "resnet"] = Field("cnn", description="The CNN of the CS230 notes, or a small residual network.")
    num_channels: int = Field(32, ge=1, description="Channels of the first layer; deeper ones have multiples of it.")
    dropout_rate: float = Field(0.5, ge=0, lt=1, description="Probability of dropping a feature before the last layer.")
    augmentation: float = Field(
        1.0, ge=0, le=4.0, description="Strength of shift, scale, rotation and light in training; 0 turns them off."
    )
    horizontal_flip: bool = Field(False, description="Also mirror half of the training images.")
    channels_last: bool = Field(True, description="The memory layout that convolutions prefer.")


class DataParams(SharedDataParams):
    """What the data decides: `dataset_params.json`, as build_dataset.py writes it."""

    decides_network: ClassVar = ("classes", "image_size")

    classes: list[str] = Field(min_length=2)
    image_size: int = Field(ge=8)  # pixels, both ways
    mean: list[float] = Field(min_length=3, max_length=3)  # per channel of the training split, pixels in 0..1
    std: list[float] = Field(min_length=3, max_length=3)
