"""Recurrent encoders whose output for a sequence does not depend on the padding behind it."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from .gated import GATES, GatedRNN

CELLS = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}


class LockedDropout(nn.Module):
    """Dropout with one mask for all steps of a sequence (Gal & Ghahramani 2016, "A theoretically grounded application
    of dropout in recurrent neural networks", section 3.1)."""

    def __init__(self, p: float):
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:  # batch_size x length x dim
        if not self.training or not self.p:
            return x
        return x * F.dropout(x.new_ones(x.shape[0], 1, x.shape[2]), self.p)

    def extra_repr(self) -> str:
        return f"p={self.p}"


class RecurrentEncoder(nn.Module):
    """Layers of LSTM, GRU, plain RNN or `GatedRNN`, each reading the sequence forwards, or forwards and backwards.

    Sequences are padded, not packed, since torch's kernels for padded batches are several times faster. A layer that
    reads forwards sees the padding last. For reading backwards, each sequence is reversed within its own length.

    Args:
        hidden_dim: of each direction.
        dropout: between layers, the same mask at every step.
        recurrent_dropout: of the state between two steps. The same units are dropped at every step (Gal & Ghahramani
            2016, section 3.1) and in the whole batch: the mask lies on the weights that read the state, so that torch's
            kernels can be used (Merity et al. 2018, "Regularizing and optimizing LSTM language models", section 2).
        gates, peepholes: of "gated" cells, see `GatedRNN`.
    """

    def __init__(
        self,
        cell: Literal["lstm", "gru", "rnn", "gated"],
        input_dim: int,
        hidden_dim: int,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        gates: Collection[str] = GATES,
        peepholes: bool = False,
    ):
        super().__init__()
        self.output_dim = hidden_dim * (1 + bidirectional)
        self.recurrent_dropout = recurrent_dropout
        input_dims = [input_dim] + [self.output_dim] * (num_layers - 1)
        if cell == "gated":
            make: Any = partial(GatedRNN, gates=gates, peepholes=peepholes)
        else:
            make = partial(CELLS[cell], batch_first=True)
        self.forwards = nn.ModuleList(make(dim, hidden_dim) for dim in input_dims)
        self.backwards = nn.ModuleList(make(dim, hidden_dim) for dim in input_dims if bidirectional)
        self.dropout = LockedDropout(dropout)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """
        Args:
            x: batch_size x length x input_dim
            lengths: batch_size numbers of steps; what lies behind them in x is never looked at.

        Returns:
            batch_size x length x output_dim; behind a sequence's length it means nothing.
        """
        backward_order = reversed_within(lengths, x.shape[1]) if self.backwards else None
        for layer, forwards in enumerate(self.forwards):
            if layer > 0:
                x = self.dropout(x)
            y = self._run(forwards, x)  # batch_size x length x hidden_dim
            if backward_order is not None:
                z = self._run(self.backwards[layer], reorder(x, backward_order))  # batch_size x length x hidden_dim
                y = torch.cat([y, reorder(z, backward_order)], dim=2)  # batch_size x length x 2*hidden_dim
            x = y
        return x

    def _run(self, layer: Any, x: Tensor) -> Tensor:
        if not self.training or not self.recurrent_dropout:
            return layer(x)[0]
        weight = layer.weight_hh_l0  # gates*hidden_dim x hidden_dim
        mask = F.dropout(weight.new_ones(1, weight.shape[1]), self.recurrent_dropout)
        return functional_call(layer, {"weight_hh_l0": weight * mask}, (x,))[0]


def reversed_within(lengths: Tensor, length: int) -> Tensor:
    """batch_size x length indices: n-1-i for step i of a sequence of n steps; padding keeps its index."""
    steps = torch.arange(length, device=lengths.device)
    reverse = lengths[:, None] - 1 - steps
    return torch.where(reverse >= 0, reverse, steps)


def reorder(x: Tensor, order: Tensor) -> Tensor:
    """Take the steps of x (batch_size x length x dim) in another order (batch_size x length)."""
    return x.gather(1, order.unsqueeze(2).expand_as(x))
