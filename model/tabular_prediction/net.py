"""Batches -> outputs, loss, metrics."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.metrics import Metric, class_metrics, label_metrics, number_metrics

from .params import Params


class Net(nn.Module):
    """Logistic or linear regression; with hidden_dims, a perceptron on top of it (Rumelhart et al. 1986)."""

    def __init__(self, params: Params):
        super().__init__()
        columns, data = params.data.columns, params.data
        dims = [*params.hidden_dims, len(data.classes) or len(data.label_columns)]
        self.numbers = nn.Linear(columns.num_numbers, dims[0]) if columns.num_numbers else None
        # a word adds a vector of its own: the same as a linear layer on one-hot inputs
        sizes = [len(words) + 1 for words in columns.categories.values()]
        self.categories = nn.EmbeddingBag(sum(sizes), dims[0], mode="sum") if sizes else None
        self.first: Tensor
        self.register_buffer("first", torch.tensor(sizes).cumsum(0) - torch.tensor(sizes), persistent=False)
        if self.categories is not None:
            nn.init.normal_(self.categories.weight, std=0.1)
            self.categories.weight.data[self.first] = 0  # a new word is one that says nothing
        self.hidden = nn.Sequential()
        for dim, next_dim in itertools.pairwise(dims):
            norm = [nn.BatchNorm1d(dim)] if params.batch_norm else []
            self.hidden.extend([*norm, nn.ReLU(), nn.Dropout(params.dropout_rate), nn.Linear(dim, next_dim)])

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        """Inputs as data_loader.py describes them -> batch_size x num_outputs logits, or standardised numbers."""
        x = torch.zeros((), device=self.first.device)
        if self.numbers is not None:
            x = x + self.numbers(inputs["numbers"])  # batch_size x dims[0]
        if self.categories is not None:
            x = x + self.categories(inputs["categories"] + self.first)  # batch_size x dims[0]
        return self.hidden(x).float()


def loss_fn(outputs: Tensor, labels: Tensor) -> Tensor:
    """The mean over rows and outputs of the squared error (numbers), or of the negative log-likelihood of the class
    (batch_size class numbers) or of each label (batch_size x num_labels 0 or 1)."""
    if labels.is_floating_point():
        return F.mse_loss(outputs, labels)
    if labels.ndim == 1:
        return F.cross_entropy(outputs, labels)
    return F.binary_cross_entropy_with_logits(outputs, labels.float())


def metrics(params: Params) -> dict[str, Metric]:
    """Those of the data's objective."""
    if params.data.objective == "regression":
        return number_metrics(torch.tensor(params.data.label_std))
    return label_metrics() if params.data.objective == "multilabel" else class_metrics()
