"""Rows -> what the network takes, and its outputs -> records, for predict.py and serve.py."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from engine.answers import Record, label_records
from engine.rows import RowProcessing
from engine.tables import Columns, Table


class Processing(RowProcessing):
    """Rows with the columns of training."""

    about = "Cells are looked up by the names of their columns: first data.columns.numbers, then categories."
    inputs: ClassVar = {
        "numbers": "batch_size x num_numbers: each column of data.columns.numbers minus its mean, divided by its std"
        " (by 1 if that is 0), 0 if empty; then, for each column of with_empty, 1 where it is empty, else 0; float32",
        "categories": "batch_size x num_categories: the place of the word, from 1, in its column's list in"
        " data.columns.categories, 0 if it is not there; int64",
    }
    outputs: ClassVar = {
        "outputs": "batch_size x num_outputs: by data.objective, scores of the classes (softmax makes probabilities),"
        " of the labels (the logistic function does), or numbers (times label_std, plus label_mean)"
    }

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

    def examples(self, count: int, length: int, rng: np.random.Generator) -> list[dict[str, Any]]:
        """Some cells are empty, some words unknown."""
        fitted = self.fitted
        columns: dict[str, list[Any]] = {
            name: [*(mean + std * rng.standard_normal(count)).tolist(), ""]
            for name, mean, std in zip(fitted.numbers, fitted.mean, fitted.std, strict=True)
        }
        columns |= {name: [*words, "an unknown word", ""] for name, words in fitted.categories.items()}
        return [{name: cells[rng.integers(len(cells))] for name, cells in columns.items()} for _ in range(count)]

    def postprocess(self, outputs: Mapping[str, Any]) -> list[Record]:
        """Of a multilabel, the labels that apply; else a class, or numbers."""
        if self.params.data.objective == "multilabel":
            return label_records(outputs["outputs"], self.params.data.classes)
        return super().postprocess(outputs)
