"""Recurrent encoders whose output for a sequence does not depend on the padding behind it."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from .gated import GATES, GatedRNN

CELLS = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}
STEPS: dict[Any, Any] = {nn.LSTM: torch.lstm_cell, nn.GRU: torch.gru_cell, nn.RNN: torch.rnn_tanh_cell}


class LockedDropout(nn.Module):
    """Dropout with one mask for all steps of a sequence (Gal & Ghahramani 2016, "A theoretically grounded application
    of dropout in recurrent neural networks", section 3.1)."""

    def __init__(self, p: float):
        super().__init__()
        self.p = p
        self.keeps_mask = False
        self.mask: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:  # batch_size x length x dim
        if not self.training or not self.p:
            return x
        mask = self.mask if self.mask is not None else F.dropout(x.new_ones(x.shape[0], 1, x.shape[2]), self.p)
        self.mask = mask if self.keeps_mask else None
        return x * mask

    def extra_repr(self) -> str:
        return f"p={self.p}"


@contextlib.contextmanager
def kept_masks(net: nn.Module) -> Iterator[None]:
    """Every `LockedDropout` of `net` keeps one mask for the whole block, in which a sequence is read step by step."""
    dropouts = [module for module in net.modules() if isinstance(module, LockedDropout)]
    for dropout in dropouts:
        dropout.keeps_mask, dropout.mask = True, None
    try:
        yield
    finally:
        for dropout in dropouts:
            dropout.keeps_mask, dropout.mask = False, None


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
        self.num_layers, self.state_dim = num_layers, hidden_dim * (1 + (cell == "lstm"))
        input_dims = [input_dim] + [self.output_dim] * (num_layers - 1)
        if cell == "gated":
            make: Any = partial(GatedRNN, gates=gates, peepholes=peepholes)
        else:
            make = partial(CELLS[cell], batch_first=True)
        self.forwards = nn.ModuleList(make(dim, hidden_dim) for dim in input_dims)
        self.backwards = nn.ModuleList(make(dim, hidden_dim) for dim in input_dims if bidirectional)
        self.dropouts = nn.ModuleList(LockedDropout(dropout) for _ in range(num_layers - 1))
        self.recurrent_dropouts = nn.ModuleList(
            LockedDropout(recurrent_dropout) for _ in (*self.forwards, *self.backwards)
        )

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """
        Args:
            x: batch_size x length x input_dim
            lengths: batch_size numbers of steps; what lies behind them in x is never looked at.

        Returns:
            batch_size x length x output_dim; behind a sequence's length it means nothing.
        """
        backward_order = reversed_within(lengths, x.shape[1]) if self.backwards else None
        for layer in range(self.num_layers):
            if layer > 0:
                x = self.dropouts[layer - 1](x)
            y, _ = self._run(layer, x)  # batch_size x length x hidden_dim
            if backward_order is not None:
                z, _ = self._run(self.num_layers + layer, reorder(x, backward_order))
                y = torch.cat([y, reorder(z, backward_order)], dim=2)  # batch_size x length x 2*hidden_dim
            x = y
        return x

    def read_on(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Read the next steps of sequences, of which the steps before have been read. For layers that read forwards.

        Args:
            x: batch_size x length x input_dim
            state: batch_size x num_layers x state_dim; zeros before the first step. An LSTM's is its output and its
                cell.

        Returns:
            batch_size x length x hidden_dim, and the state after the last step.
        """
        states = []
        for layer in range(self.num_layers):
            if layer > 0:
                x = self.dropouts[layer - 1](x)
            x, after = self._run(layer, x, state[:, layer])
            states.append(after)
        return x, torch.stack(states, dim=1)

    def _run(self, number: int, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Any]:
        """One layer, `number` of those that read forwards and then of those that read backwards. A state is batch_size
        x state_dim."""
        layer: Any = self.forwards[number] if number < self.num_layers else self.backwards[number - self.num_layers]
        weight = layer.weight_hh_l0
        dropout: Any = self.recurrent_dropouts[number]
        drops = self.training and dropout.p > 0
        if drops:
            weight = dropout(weight.unsqueeze(0)).squeeze(0)
        if state is None:
            return (functional_call(layer, {"weight_hh_l0": weight}, (x,)) if drops else layer(x))[0], None
        parts = state.unsqueeze(0).split(layer.hidden_size, dim=2)  # each 1 x batch_size x hidden_dim
        parts = tuple(part.contiguous() for part in parts)
        if x.shape[1] == 1 and not torch.jit.is_tracing():  # for one step, several times faster than the layer
            before = tuple(part.squeeze(0) for part in parts)
            biases = layer.bias_ih_l0, layer.bias_hh_l0
            found = STEPS[type(layer)](
                x.squeeze(1), before if len(before) > 1 else before[0], layer.weight_ih_l0, weight, *biases
            )
            after = found if isinstance(found, tuple) else (found,)
            return after[0].unsqueeze(1), torch.cat(after, dim=1)
        arguments = (x, parts if len(parts) > 1 else parts[0])
        y, last = functional_call(layer, {"weight_hh_l0": weight}, arguments) if drops else layer(*arguments)
        return y, torch.cat(last if isinstance(last, tuple) else (last,), dim=2).squeeze(0)


def reversed_within(lengths: Tensor, length: int) -> Tensor:
    """batch_size x length indices: n-1-i for step i of a sequence of n steps; padding keeps its index."""
    steps = torch.arange(length, device=lengths.device)
    reverse = lengths[:, None] - 1 - steps
    return torch.where(reverse >= 0, reverse, steps)


def reorder(x: Tensor, order: Tensor) -> Tensor:
    """Take the steps of x (batch_size x length x dim) in another order (batch_size x length)."""
    return x.gather(1, order.unsqueeze(2).expand_as(x))
