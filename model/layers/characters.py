"""Characters of a word -> a vector, which says something even of a word that train does not have."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from . import PAD
from .pooling import last_states
from .recurrent import RecurrentEncoder


class CharCNN(nn.Module):
    """The strongest response of each filter anywhere in the word (Ma & Hovy 2016, "End-to-end sequence labeling via
    bi-directional LSTM-CNNs-CRF", section 2.1)."""

    def __init__(self, num_chars: int, embedding_dim: int, output_dim: int, dropout: float = 0.0, window: int = 3):
        super().__init__()
        self.embedding = nn.Embedding(num_chars, embedding_dim, padding_idx=PAD)
        self.dropout = nn.Dropout(dropout)
        self.conv = nn.Conv1d(embedding_dim, output_dim, window, padding=window // 2)

    def forward(self, chars: Tensor) -> Tensor:
        """num_words x num_chars of each word, padded behind with PAD -> num_words x output_dim."""
        x = self.dropout(self.embedding(chars))  # num_words x length x embedding_dim; padding is zeros
        x = self.conv(x.transpose(1, 2))  # num_words x output_dim x length
        return x.masked_fill((chars == PAD).unsqueeze(1), -torch.inf).amax(dim=2)  # num_words x output_dim


class CharRNN(nn.Module):
    """The last states of an LSTM that reads the word forwards and of one that reads it backwards (Lample et al. 2016,
    "Neural architectures for named entity recognition", section 4.1)."""

    def __init__(self, num_chars: int, embedding_dim: int, output_dim: int, dropout: float = 0.0):
        super().__init__()
        if output_dim % 2:
            raise ValueError(f"output_dim is {output_dim}, and two directions must share it equally")
        self.embedding = nn.Embedding(num_chars, embedding_dim, padding_idx=PAD)
        self.dropout = nn.Dropout(dropout)
        self.encoder = RecurrentEncoder("lstm", embedding_dim, output_dim // 2, bidirectional=True)

    def forward(self, chars: Tensor) -> Tensor:
        """num_words x num_chars of each word, padded behind with PAD -> num_words x output_dim."""
        lengths = (chars != PAD).sum(dim=1)  # num_words
        x = self.encoder(self.dropout(self.embedding(chars)), lengths)  # num_words x length x output_dim
        return last_states(x, lengths, bidirectional=True)  # num_words x output_dim
