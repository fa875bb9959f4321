"""What you may set, and what the data decides."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, PositiveInt

from engine.params import DataParams as SharedDataParams
from engine.params import TrainingParams
from engine.tables import Columns


class Params(TrainingParams):
    """The hyperparameters of tabular prediction. The defaults are logistic, or linear, regression."""

    data_dir: str = Field("data/table", description="The built data set; --data_dir overrides it.")
    batch_size: int = Field(256, ge=2, description="Rows per optimizer step; batch normalisation needs two.")
    monitor: Literal["loss", "accuracy", "f1", "auc", "mae", "rmse", "r2"] = Field(
        "loss", description="What chooses the best weights, on val: the loss, or a metric of the data's objective."
    )

    minimized: ClassVar = frozenset({"loss", "mae", "rmse"})

    hidden_dims: list[PositiveInt] = Field([], description="Sizes of the hidden layers; none: a linear model.")
    dropout_rate: float = Field(0.0, ge=0, lt=1, description="Probability of dropping a feature of a hidden layer.")
    batch_norm: bool = Field(False, description="Normalise each hidden layer over the batch.")


class DataParams(SharedDataParams):
    """What the data decides: `dataset_params.json`, as build_dataset.py writes it."""

    decides_network: ClassVar = ("objective", "label_columns", "classes", "columns", "label_mean", "label_std")

    objective: Literal["binary", "multiclass", "multilabel", "regression"]
    label_columns: list[str]
    classes: list[str]  # the labels of a multilabel; none of a regression
    columns: Columns
    label_mean: list[float]  # of each target of a regression
    label_std: list[float]
