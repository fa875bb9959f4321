"""Rows -> what the network takes, and its outputs -> records, for predict.py and serve.py."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np

from engine.predicting import Record, label_records, number_records
from engine.rows import RowProcessing
from engine.tables import Columns, Table


class Processing(RowProcessing):
    """Rows with the columns of training."""

    about = (
        "numbers: batch_size x num_numbers, float32: each column of data.columns.numbers minus its mean, divided by its"
        " std (by 1 if that is 0), 0 if empty; then, for each column of with_empty, 1 where it is empty, else 0."
        " categories: batch_size x num_categories, int64: the place of the word, from 1, in its column's list in"
        " data.columns.categories, 0 if it is not there."
    )

    @cached_property
    def columns(self) -> list[str]:
        """Names of the columns; those of words come last."""
        return [*self.fitted.numbers, *self.fitted.categories]

    @cached_property
    def numbers(self) -> set[str]:
        return set(self.fitted.numbers)

    @property
    def fitted(self) -> Columns:
        return self.params.data.columns

    def describe_columns(self) -> list[dict[str, Any]]:
        means = dict(zip(self.fitted.numbers, self.fitted.mean, strict=True))
        known = [
            {"mean": means[name]} if name in means else {"words": self.fitted.categories[name]} for name in self.columns
        ]
        return [{**column, **more} for column, more in zip(super().describe_columns(), known, strict=True)]

    def encode(self, table: Table) -> dict[str, np.ndarray]:
        numbers, categories = self.fitted.encode(table)
        return {"numbers": numbers, "categories": categories}

    def postprocess(self, outputs: Mapping[str, Any]) -> list[Record]:
        """A class, a list of labels, or numbers: by the data's objective."""
        data = self.params.data
        if data.objective == "regression":
            return number_records(outputs["outputs"], data.label_columns, data.label_mean, data.label_std)
        if data.objective == "multilabel":
            return label_records(outputs["outputs"], data.classes)
        return super().postprocess(outputs)
