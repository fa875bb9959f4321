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
            "scores", batch_size x num_true of the true words, and "drawn", batch_size: what the words that are drawn
            add to the loss of each; or "logits", batch_size x num_tokens; or "similarities", cosines of the same shape.
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
        weight = self.output.weight
        if "drawn" not in inputs:
            return {"logits": F.linear(x, weight).float()}
        true = context if self.params.net == "skipgram" else inputs["words"][:, None]  # batch_size x num_true
        scores = (self.output(true) @ x.to(weight.dtype).unsqueeze(2)).squeeze(2).float()
        drawn = F.linear(x, self.output(inputs["drawn"])).float()  # batch_size x num_drawn
        is_true = (inputs["drawn"] == true.unsqueeze(2)).any(dim=1)  # by chance, which does not count
        losses = F.softplus(drawn).masked_fill(is_true, 0).mean(dim=1)
        return {"scores": scores, "drawn": self.params.negatives * losses}

    def similarities(self, query: Tensor, signs: Tensor) -> Tensor:
        """batch_size x num_tokens: the cosine of each word's vector with the sum of the query's directions."""
        with torch.autocast(signs.device.type, enabled=False):  # neighbours differ by less than bfloat16 can say
            directions = F.normalize(self.embedding.weight, dim=1)
            asked = (directions[query] * signs.unsqueeze(2)).sum(dim=1)  # batch_size x embedding_dim
            return F.normalize(asked, dim=1) @ directions.T


def loss_fn(outputs: dict[str, Tensor], labels: Tensor) -> Tensor:
    """Of each true word, in nats: its cross-entropy, or with negative sampling -log(sigmoid(score)), and the same of
    the words that are drawn, with the opposite sign (Mikolov et al. 2013, "Distributed representations of words and
    phrases and their compositionality", equation 4). A batch shares the words that are drawn: there are more than
    `negatives` of them, and each weighs less, so that the expected loss is the same."""
    labels = labels.view(len(labels), -1)  # batch_size x num_true
    if "logits" in outputs:
        losses = -outputs["logits"].log_softmax(dim=1).gather(1, labels.clamp(min=0))
    else:
        losses = F.softplus(-outputs["scores"]) + outputs["drawn"].unsqueeze(1)
    return losses.masked_fill(labels < 0, 0).sum() / num_items(labels).clamp(min=1)


num_items = count_labels


def answers(outputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return outputs


def metrics(params: Params) -> dict[str, OfLoss]:
    """Where all words are scored: perplexity."""
    return {} if params.negatives else {"perplexity": PERPLEXITY}
