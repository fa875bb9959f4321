"""Batches -> outputs, loss, metrics."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.metrics import Metric, class_metrics
from model.layers.ngrams import HashedNgrams, TextCNN
from model.layers.pooling import Pooling
from model.text.vectors import TextNet

from .params import Params


class Net(TextNet):
    """Takes texts, and scores the classes.

    - net "rnn": recurrent layers read the word vectors, and their states are pooled;
    - "cnn": the strongest responses of convolutions (Kim 2014);
    - "bag": the vectors of all words and n-grams, added up and divided by the number of words (Joulin et al. 2016, "Bag
      of tricks for efficient text classification", divide by the number of words and n-grams). A linear model
      of their counts.
    """

    def __init__(self, params: Params):
        super().__init__(params)
        self.ngrams = self.encoder = None
        if params.ngram_length > 1:
            self.ngrams = HashedNgrams(params.num_buckets, self.word_dim, params.ngram_length)
        self.pool: Pooling | TextCNN
        if params.net == "rnn":
            self.encoder = self.recurrent_encoder()
            self.pool = Pooling(params.pooling, self.encoder.output_dim, params.bidirectional)
        elif params.net == "cnn":
            self.pool = TextCNN(self.word_dim, params.filter_widths, params.num_filters)
        else:
            self.pool = Pooling("mean", self.word_dim)
        self.fc = nn.Linear(self.pool.output_dim, len(params.data.classes))

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        """Inputs as `model.text.encode.Texts.batches` describes them -> batch_size x num_classes logits, float32."""
        return self.score(self.embed(inputs), inputs["lengths"])

    def embed(self, inputs: dict[str, Tensor]) -> Tensor:
        """The vector of each word, with those of the n-grams that end there: batch_size x length x word_dim."""
        x = super().embed(inputs)
        return x if self.ngrams is None else x + self.ngrams(inputs["words"], inputs["lengths"])

    def score(self, x: Tensor, lengths: Tensor) -> Tensor:
        """batch_size x length x word_dim vectors -> batch_size x num_classes logits, float32."""
        x = self.dropout(x)
        if self.encoder is not None:
            x = self.encoder(x, lengths)  # batch_size x length x directions*lstm_hidden_dim
        x = self.pool(x, lengths)  # batch_size x pool.output_dim
        return self.fc(F.dropout(x, self.params.dropout_rate, self.training)).float()


loss_fn = F.cross_entropy


def metrics(params: Params) -> dict[str, Metric]:
    """Accuracy and macro F1; of two classes, also AUC."""
    return class_metrics(with_auc=len(params.data.classes) == 2)


def influence(net: Net, inputs: dict[str, Tensor], outputs: Tensor) -> Tensor:
    """How much each word speaks for the class that `outputs` predict, batch_size x length: gradient times input
    (Shrikumar et al. 2016, "Not just a black box", section 2). What is explained is the score of the class, minus the
    mean of all."""
    with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):  # cuDNN has no gradient in evaluation
        x = net.embed(inputs).detach().requires_grad_()
        scores = net.score(x, inputs["lengths"])
        explained = scores.gather(1, outputs.argmax(dim=1, keepdim=True)).squeeze(1) - scores.mean(dim=1)
        (gradient,) = torch.autograd.grad(explained.sum(), x)
    return (gradient * x).sum(dim=2).detach().float()
