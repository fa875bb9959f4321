"""Rows -> what the network takes, and its outputs -> records, for predict.py and serve.py."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np

from engine.predicting import Record, label_records
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

    def encode(self, table: Table) -> dict[str, np.ndarray]:
        numbers, categories = self.fitted.encode(table)
        return {"numbers": numbers, "categories": categories}

    def postprocess(self, outputs: Mapping[str, Any]) -> list[Record]:
        """Of a multilabel, the labels that apply; else a class, or numbers."""
        if self.params.data.objective == "multilabel":
            return label_records(outputs["outputs"], self.params.data.classes)
        return super().postprocess(outputs)
