"""Batches -> outputs, loss, metrics."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.metrics import PERPLEXITY, OfLoss, count_labels
from model.layers.recurrent import LockedDropout, RecurrentEncoder, kept_masks
from model.text.vectors import TokenNet

from .params import Params


class Net(TokenNet):
    """Reads tokens, and scores which one comes next.

    In training, the state after a batch is the state before the next one, but gradients end there (truncated
    backpropagation through time). It is a part of a checkpoint.

    Attributes:
        states: batch_size x num_layers x state_dim after the last batch of training, and of evaluation.
    """

    def __init__(self, params: Params):
        super().__init__(params)
        self.encoder = RecurrentEncoder(
            params.rnn,
            params.embedding_dim,
            params.lstm_hidden_dim,
            params.num_layers,
            dropout=params.dropout_rate,
            recurrent_dropout=params.recurrent_dropout,
        )
        self.dropout, self.output_dropout = (LockedDropout(params.dropout_rate) for _ in range(2))
        num_tokens, dim = self.embedding.weight.shape
        self.project = nn.Linear(params.lstm_hidden_dim, dim) if params.tied_weights else None
        self.fc = nn.Linear(dim if params.tied_weights else params.lstm_hidden_dim, num_tokens)
        if params.tied_weights:  # Press & Wolf 2017, "Using the output embedding to improve language models"
            nn.init.uniform_(self.embedding.weight, -0.1, 0.1)
            self.fc.weight = self.embedding.weight
        self.states: dict[bool, Tensor] = {}  # by `training`

    def forward(self, inputs: dict[str, Tensor]) -> Tensor | dict[str, Tensor]:
        """
        Args:
            inputs: "tokens", batch_size x length; and "continues", see `Dataset`, or "lengths", see `Processing`.

        Returns:
            batch_size x length x num_tokens logits of what comes next, float32; see `answers` for "lengths".
        """
        tokens, vectors = inputs["tokens"], self.vectors()
        if "lengths" in inputs:
            x, state = self.read(tokens, inputs["state"], vectors)
            last = (inputs["lengths"] - 1)[:, None, None].expand(-1, 1, x.shape[2])
            return {"scores": self.score(x.gather(1, last).squeeze(1)), "next_state": state}
        before = self.states.get(self.training)
        state = before if before is not None and len(before) == len(tokens) else self.first_state(len(tokens))
        state = state.where(inputs["continues"][:, None, None], 0)
        if self.training and self.params.teacher_forcing < 1:
            logits, state = self.read_own(tokens, state, vectors)
        else:
            x, state = self.read(tokens, state, vectors)
            logits = self.score(x)
        self.states[self.training] = state.detach()
        return logits

    def first_state(self, batch_size: int) -> Tensor:
        return self.embedding.weight.new_zeros(batch_size, self.encoder.num_layers, self.encoder.state_dim)

    def vectors(self) -> Tensor:
        """num_tokens x embedding_dim; in training, some are dropped as a whole (Gal & Ghahramani 2016, section 4.2)."""
        weight, rate = self.embedding.weight, self.params.embedding_dropout
        return weight * F.dropout(weight.new_ones(len(weight), 1), rate) if self.training and rate else weight

    def read(self, tokens: Tensor, state: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens, and the state before them -> batch_size x length x lstm_hidden_dim, and the state after them."""
        x = F.embedding(tokens, vectors)  # batch_size x length x embedding_dim
        x, state = self.encoder.read_on(self.dropout(x), state)
        return self.output_dropout(x), state.float()

    def score(self, x: Tensor) -> Tensor:
        """... x lstm_hidden_dim -> ... x num_tokens logits of what comes next."""
        return self.fc(x if self.project is None else self.project(x)).float()

    def read_own(self, tokens: Tensor, state: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Logits, and the state after the tokens. They are read step by step: where a draw decides against the true
        token, the network's own is read, drawn from what it says (Bengio et al. 2015, "Scheduled sampling for sequence
        prediction with recurrent neural networks")."""
        is_true = torch.rand(tokens.shape, device=tokens.device) < self.params.teacher_forcing
        is_true[:, 0] = True
        logits: list[Tensor] = []
        with kept_masks(self):
            for step in range(tokens.shape[1]):
                token = tokens[:, step]
                if step > 0:
                    own = logits[-1].detach().softmax(dim=1).multinomial(1).squeeze(1)
                    token = token.where(is_true[:, step], own)
                x, state = self.read(token[:, None], state, vectors)
                logits.append(self.score(x).squeeze(1))
        return torch.stack(logits, dim=1), state

    def get_extra_state(self) -> Tensor:
        """What a checkpoint holds besides the weights."""
        return self.states.get(True, self.embedding.weight.new_zeros(0))

    def set_extra_state(self, state: Tensor) -> None:
        self.states = {True: state.to(self.embedding.weight.device)} if len(state) else {}


def loss_fn(outputs: Tensor, labels: Tensor) -> Tensor:
    """The mean cross-entropy of the tokens that count, in nats."""
    loss = F.cross_entropy(outputs.flatten(0, 1), labels.flatten(), ignore_index=-1, reduction="sum")
    return loss / num_items(labels).clamp(min=1)


num_items = count_labels


def answers(outputs: Tensor | dict[str, Tensor]) -> dict[str, Tensor]:
    """Of a network that was given "lengths": "scores", batch_size x num_tokens logits of what comes after each text;
    and "next_state", batch_size x num_layers x state_dim."""
    return outputs if isinstance(outputs, dict) else {"scores": outputs[:, -1]}


def metrics(params: Params) -> dict[str, OfLoss]:
    """Perplexity; of characters, also bits per character."""
    found = {"perplexity": PERPLEXITY}
    if params.data.level == "char":
        found["bits_per_character"] = OfLoss(lambda loss: loss / math.log(2))
    return found
