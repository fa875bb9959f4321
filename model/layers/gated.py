"""The LSTM taken apart: a recurrent layer with any subset of its gates."""

from __future__ import annotations

import math
from collections.abc import Collection

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GATES = ("input", "forget", "output")


class GatedRNN(nn.Module):
    """A layer that takes the place of nn.LSTM (batch_first, without a second bias).

    With all gates it is the LSTM of Gers et al. (2000, "Learning to forget"), as torch computes it. A gate that is left
    out is always open; without any, c_t = c_{t-1} + tanh(W x_t + U h_{t-1} + b) and h_t = tanh(c_t). With peepholes,
    each gate also sees the cell, unit by unit: input and forget gate the cell before the step, the output gate the new
    one (Gers & Schmidhuber 2000, "Recurrent nets that time and count", equations 4 to 6).

    Args:
        gates: some of GATES.
    """

    def __init__(self, input_dim: int, hidden_dim: int, gates: Collection[str] = GATES, peepholes: bool = False):
        super().__init__()
        self.has_gate = [gate in gates for gate in GATES]
        rows = (1 + sum(self.has_gate)) * hidden_dim  # of the candidate, then of each gate
        self.weight_ih_l0 = nn.Parameter(torch.empty(rows, input_dim))
        self.weight_hh_l0 = nn.Parameter(torch.empty(rows, hidden_dim))
        self.bias_l0 = nn.Parameter(torch.empty(rows))
        self.peepholes = nn.Parameter(torch.empty(len(GATES), hidden_dim)) if peepholes and any(self.has_gate) else None
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -1 / math.sqrt(hidden_dim), 1 / math.sqrt(hidden_dim))

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """batch_size x length x input_dim -> a tuple, as of nn.LSTM, of batch_size x length x hidden_dim states."""
        x = F.linear(x, self.weight_ih_l0, self.bias_l0)  # batch_size x length x rows
        peepholes = self.peepholes if self.peepholes is not None else x.new_zeros(len(GATES), 0)
        return (run_gated(x, self.weight_hh_l0, peepholes, *self.has_gate),)


@torch.jit.script_if_tracing  # in an exported graph, the loop is one of the graph, so that its length is free
def run_gated(
    x: Tensor, weight: Tensor, peepholes: Tensor, has_input: bool, has_forget: bool, has_output: bool
) -> Tensor:
    """The states of a `GatedRNN`.

    Args:
        x: batch_size x length x rows, what the inputs add to the candidate and the gates.
        weight: rows x hidden_dim, by which the state adds to them.
        peepholes: 3 x hidden_dim, or 3 x 0 if the gates do not see the cell.

    Returns:
        batch_size x length x hidden_dim.
    """
    size = weight.shape[1]
    h = torch.zeros(x.shape[0], size, dtype=weight.dtype, device=x.device)
    c = torch.zeros(x.shape[0], size, dtype=weight.dtype, device=x.device)
    states = []
    for at_step in x.unbind(1):  # which has a faster gradient than x[:, step]
        parts = (at_step + F.linear(h, weight)).to(weight.dtype)  # batch_size x rows; c sums up in full precision
        chunks = parts.split(size, dim=1)
        candidate, old, at = chunks[0].tanh(), c, 1
        if has_input:
            candidate = candidate * gate(chunks[at], old, peepholes[0])
            at += 1
        if has_forget:
            c = c * gate(chunks[at], old, peepholes[1])
            at += 1
        c = c + candidate
        h = c.tanh()
        if has_output:
            h = h * gate(chunks[at], c, peepholes[2])
        states.append(h)
    return torch.stack(states, dim=1)


def gate(part: Tensor, cell: Tensor, peephole: Tensor) -> Tensor:
    """How far a gate is open, batch_size x hidden_dim."""
    if peephole.numel() > 0:
        part = part + cell * peephole
    return part.sigmoid()
