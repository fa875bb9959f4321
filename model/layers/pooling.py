"""The steps of a sequence -> one vector, whatever padding stands behind the sequence."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Pooling(nn.Module):
    """Sums up a sequence.

    Args:
        kind: "last": the last state, of a backward layer that at the first step; "max" and "mean": of each feature over
            all steps; "max_mean": both; "attention": a mean whose weights are learnt (Yang et al. 2016, "Hierarchical
            attention networks for document classification", equations 5 to 7).
        bidirectional: the second half of the features was read backwards.
    """

    def __init__(self, kind: str, dim: int, bidirectional: bool = False):
        super().__init__()
        self.kind, self.bidirectional = kind, bidirectional
        self.output_dim = 2 * dim if kind == "max_mean" else dim
        self.attention: nn.Sequential | None = None
        if kind == "attention":
            self.attention = nn.Sequential(nn.Linear(dim, dim), nn.Tanh(), nn.Linear(dim, 1, bias=False))

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """
        Args:
            x: batch_size x length x dim
            lengths: batch_size numbers of steps, at least 1; what lies behind them in x is never looked at.

        Returns:
            batch_size x output_dim
        """
        if self.kind == "last":
            return last_states(x, lengths, self.bidirectional)
        is_padding = ~inside(lengths, x.shape[1])  # batch_size x length x 1
        if self.attention is not None:
            weights = self.attention(x).float().masked_fill(is_padding, -torch.inf).softmax(dim=1)
            return (weights * x.masked_fill(is_padding, 0)).sum(dim=1)
        parts = []
        if self.kind != "mean":
            parts.append(x.masked_fill(is_padding, -torch.inf).amax(dim=1))
        if self.kind != "max":
            parts.append(x.masked_fill(is_padding, 0).sum(dim=1, dtype=torch.float32) / lengths.unsqueeze(1))
        return torch.cat(parts, dim=1)


def last_states(x: Tensor, lengths: Tensor, bidirectional: bool) -> Tensor:
    """The state after reading all of each sequence (batch_size x length x dim): batch_size x dim."""
    last = x.gather(1, (lengths - 1)[:, None, None].expand(-1, 1, x.shape[2])).squeeze(1)
    if not bidirectional:
        return last
    half = x.shape[2] // 2
    return torch.cat([last[:, :half], x[:, 0, half:]], dim=1)


def inside(lengths: Tensor, length: int) -> Tensor:
    """batch_size x length x 1: whether a step is one of the sequence."""
    steps = torch.arange(length, device=lengths.device)
    return (steps < lengths.unsqueeze(1)).unsqueeze(2)
