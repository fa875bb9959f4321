"""Neighbouring words -> vectors: by convolutions, or by a hash of each n-gram."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .pooling import inside

FACTOR = 116049371  # a prime, so that n-grams of different words rarely meet in a bucket


class TextCNN(nn.Module):
    """The strongest response of each filter anywhere in the text (Kim 2014, "Convolutional neural networks for sentence
    classification", section 2). A filter begins at every word; behind the text it sees zeros.

    Args:
        widths: numbers of words that filters see.
        num_filters: of each width.
    """

    def __init__(self, dim: int, widths: Sequence[int], num_filters: int):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv1d(dim, num_filters, width) for width in widths)
        self.widths = widths
        self.output_dim = len(widths) * num_filters

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """
        Args:
            x: batch_size x length x dim
            lengths: batch_size numbers of words; what lies behind them in x is never looked at.

        Returns:
            batch_size x output_dim
        """
        is_word = inside(lengths, x.shape[1])  # batch_size x length x 1
        x = x.masked_fill(~is_word, 0).transpose(1, 2)  # batch_size x dim x length
        is_padding = ~is_word.transpose(1, 2)
        found = []
        for width, conv in zip(self.widths, self.convs, strict=True):
            y = conv(F.pad(x, (0, width - 1)))  # batch_size x num_filters x length
            found.append(F.relu(y).masked_fill(is_padding, 0).amax(dim=2))
        return torch.cat(found, dim=1)


class HashedNgrams(nn.Module):
    """A vector for each n-gram, by a hash of its words (Joulin et al. 2016, "Bag of tricks for efficient text
    classification", section 2.2). N-grams that share a bucket share a vector.

    Args:
        longest: n-grams of 2 to so many words.
    """

    def __init__(self, num_buckets: int, dim: int, longest: int):
        super().__init__()
        self.longest = longest
        self.embedding = nn.Embedding(num_buckets, dim)
        nn.init.zeros_(self.embedding.weight)  # an n-gram that train does not have says nothing

    def forward(self, words: Tensor, lengths: Tensor) -> Tensor:
        """batch_size x length words -> batch_size x length x dim, the sum of the n-grams that end with each word."""
        is_word = inside(lengths, words.shape[1])
        total = torch.zeros((), device=words.device)
        hashes = words
        for n in range(2, self.longest + 1):
            before = F.pad(hashes[:, :-1], (1, 0))  # of the n-gram that ends one word before
            hashes = (before * FACTOR + words) % self.embedding.num_embeddings
            steps = torch.arange(words.shape[1], device=words.device)[:, None]
            total = total + self.embedding(hashes).masked_fill(~is_word | (steps < n - 1), 0)
        return total
