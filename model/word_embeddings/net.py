"""Batches -> outputs, loss, metrics."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.metrics import PERPLEXITY, OfLoss, count_labels
from model.layers import PAD
from model.text.vectors import TokenNet

from .params import Params


class Net(TokenNet):
    """Vectors of words, learnt by predicting words.

    - net "cbow": a word by the mean of its neighbours' vectors; "skipgram": each neighbour by the word's (Mikolov et
      al. 2013, "Efficient estimation of word representations in vector space", section 3);
    - "ngram": a word by the vectors of the words before it, through a hidden layer (Bengio et al. 2003, "A neural
      probabilistic language model", equation 1, without direct connections).
    """

    def __init__(self, params: Params):
        super().__init__(params)
        num_tokens, dim = self.embedding.weight.shape
        nn.init.uniform_(self.embedding.weight, -0.5 / dim, 0.5 / dim)  # as word2vec.c begins
        with torch.no_grad():
            self.embedding.weight[PAD] = 0
        self.hidden: nn.Linear | None = None
        if params.net == "ngram":
            self.hidden = nn.Linear(params.context_size * dim, params.hidden_dim)
            dim = params.hidden_dim
        self.output = nn.Embedding(num_tokens, dim)  # a vector for each word that is predicted
        nn.init.zeros_(self.output.weight)

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """
        Args:
            inputs: see `Dataset`; or "query" and "signs", see `Processing`.

        Returns:
            "scores", batch_size x num_true x (1 + negatives) of the true word and those that are drawn, or
            "logits", batch_size x num_tokens; or "similarities", batch_size x num_tokens cosines.
        """
        if "query" in inputs:
            return {"similarities": self.similarities(inputs["query"], inputs["signs"])}
        context = inputs["context"]
        if self.params.net == "skipgram":
            x = self.embedding(inputs["words"])  # batch_size x embedding_dim
        elif self.hidden is not None:
            x = torch.tanh(self.hidden(self.embedding(context).flatten(1)))  # batch_size x hidden_dim
        else:
            x = F.embedding_bag(context, self.embedding.weight, mode="mean", padding_idx=PAD)
        if "negatives" not in inputs:
            return {"logits": F.linear(x, self.output.weight).float()}
        true = context if self.params.net == "skipgram" else inputs["words"][:, None]
        targets = torch.cat([true.unsqueeze(2), inputs["negatives"]], dim=2)  # batch_size x num_true x 1+negatives
        scores = self.output(targets.flatten(1)) @ x.to(self.output.weight.dtype).unsqueeze(2)
        scores = scores.view(targets.shape).float()
        is_true = inputs["negatives"] == true.unsqueeze(2)  # drawn by chance, which does not count
        return {"scores": torch.cat([scores[..., :1], scores[..., 1:].masked_fill(is_true, -torch.inf)], dim=2)}

    def similarities(self, query: Tensor, signs: Tensor) -> Tensor:
        """batch_size x num_tokens: the cosine of each word's vector with the sum of the query's directions."""
        with torch.autocast(signs.device.type, enabled=False):  # neighbours differ by less than bfloat16 can say
            directions = F.normalize(self.embedding.weight, dim=1)
            asked = (directions[query] * signs.unsqueeze(2)).sum(dim=1)  # batch_size x embedding_dim
            return F.normalize(asked, dim=1) @ directions.T


def loss_fn(outputs: dict[str, Tensor], labels: Tensor) -> Tensor:
    """Of each true word, in nats: its cross-entropy, or with negative sampling -log(sigmoid(score)), and the same of
    the words that are drawn, with the opposite sign (Mikolov et al. 2013, "Distributed representations of words and
    phrases and their compositionality", equation 4)."""
    labels = labels.view(len(labels), -1)  # batch_size x num_true
    if "logits" in outputs:
        log_p = outputs["logits"].log_softmax(dim=1)
        losses = -log_p.gather(1, labels.clamp(min=0))
    else:
        scores = outputs["scores"]
        losses = F.softplus(-scores[..., 0]) + F.softplus(scores[..., 1:]).sum(dim=2)
    return losses.masked_fill(labels < 0, 0).sum() / num_items(labels).clamp(min=1)


num_items = count_labels


def answers(outputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return outputs


def metrics(params: Params) -> dict[str, OfLoss]:
    """Where all words are scored: perplexity."""
    return {} if params.negatives else {"perplexity": PERPLEXITY}
