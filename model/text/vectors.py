"""What the networks of all text tasks begin with: words -> vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model.layers import PAD, UNK
from model.layers.characters import CharCNN, CharRNN
from model.layers.recurrent import LockedDropout, RecurrentEncoder
from utils import UserError

from .embeddings import read_embeddings
from .params import TextParams, VectorParams
from .pretrained import load_encoder


class TokenNet(nn.Module):
    """Turns tokens into vectors. The `Net` of a task that reads text extends it."""

    def __init__(self, params: VectorParams):
        super().__init__()
        self.params: Any = params
        self.embedding = nn.Embedding(len(params.vocabulary) + UNK + 1, params.embedding_dim, padding_idx=PAD)

    @torch.no_grad()
    def load_pretrained(self) -> None:
        """Begin with the vectors of params.pretrained_embeddings, and with what fits of params.pretrained_encoder.
        Raises UserError."""
        level: Any = getattr(self.params, "level", None) or getattr(self.params.data, "level", "word")
        if self.params.pretrained_embeddings:
            if level == "char":
                raise UserError("pretrained_embeddings: these are vectors of words, but this network reads characters.")
            vectors = read_embeddings(
                Path(self.params.pretrained_embeddings), self.params.vocabulary, self.params.embedding_dim
            )
            weight = self.embedding.weight
            weight[list(vectors)] = torch.tensor([*vectors.values()], device=weight.device)
        if getattr(self.params, "pretrained_encoder", ""):
            load_encoder(self, self.params, level, self.params.freeze_epochs > 0)

    def frozen(self, epoch: int) -> list[str]:
        """The layers that are not trained in an epoch, counted from 0: what pretrained_encoder gave is unfrozen from
        the last to the first (Howard & Ruder 2018, "Universal language model fine-tuning for text classification",
        section 3.3)."""
        if not getattr(self.params, "pretrained_encoder", "") or not self.params.freeze_epochs:
            return []
        layers = ["embedding", *(f"encoder.forwards.{i}" for i in range(self.params.num_layers))]
        return layers[: max(0, len(layers) - max(0, epoch + 1 - self.params.freeze_epochs))]


class TextNet(TokenNet):
    """Turns words into vectors, of which their characters may be a part.

    Attributes:
        word_dim: size of a vector: embedding_dim, and what the characters of the word add.
    """

    def __init__(self, params: TextParams):
        super().__init__(params)
        self.dropout = LockedDropout(params.dropout_rate)
        self.word_dim = params.embedding_dim
        self.chars: CharCNN | CharRNN | None = None
        if params.char_features != "none":
            encoder = {"cnn": CharCNN, "lstm": CharRNN}[params.char_features]
            num_chars = len(params.data.chars) + UNK + 1
            self.chars = encoder(num_chars, params.char_embedding_dim, params.char_hidden_dim, params.dropout_rate)
            self.word_dim += params.char_hidden_dim

    def embed(self, inputs: dict[str, Tensor]) -> Tensor:
        """The vectors of the words, batch_size x length x word_dim.

        Args:
            inputs: see `model.text.encode.Texts.batches`.
        """
        x = self.embedding(inputs["words"])  # batch_size x length x embedding_dim
        if self.chars is not None:
            spelt = self.chars(inputs["chars"])  # num_spellings x char_hidden_dim
            x = torch.cat([x, spelt[inputs["spellings"]]], dim=2)  # batch_size x length x word_dim
        return x

    def recurrent_encoder(self) -> RecurrentEncoder:
        """What reads the vectors, as the parameters say."""
        params = self.params
        return RecurrentEncoder(
            params.rnn,
            self.word_dim,
            params.lstm_hidden_dim,
            params.num_layers,
            params.bidirectional,
            params.dropout_rate,
            params.recurrent_dropout,
            params.gates,
            params.peepholes,
        )
