"""Batches -> outputs, loss, metrics."""

from __future__ import annotations

from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.metrics import Metric, count_correct, ratio
from model.layers.crf import CRF
from model.text.vectors import TextNet

from .entities import OUTSIDE, are_entities, goes_on, parse
from .params import NO_TAG, Params


class Net(TextNet):
    """Takes sentences, and scores the tags of each word.

    Recurrent layers read the word vectors, to which the characters of the word may add features; a linear layer scores
    the tags. With the default parameters it is the tagger of the CS230 notes. With characters, both directions and a
    CRF it is that of Lample et al. (2016) or Ma & Hovy (2016), with the dropout of Reimers & Gurevych (2017, "Optimal
    hyperparameters for deep LSTM-networks for sequence labeling tasks").
    """

    def __init__(self, params: Params):
        super().__init__(params)
        self.tags = params.data.tags
        self.encoder = self.recurrent_encoder()
        self.fc = nn.Linear(self.encoder.output_dim, len(self.tags))
        self.crf = CRF(len(self.tags), *forbidden_transitions(self.tags)) if params.crf else None
        # what the metrics need to know of each tag, including those that train does not have
        continues, types = describe_tags([*self.tags, *params.data.unseen_tags])
        self.continues: Tensor
        self.types: Tensor
        self.register_buffer("continues", continues, persistent=False)
        self.register_buffer("types", types, persistent=False)

    def forward(self, inputs: dict[str, Tensor]) -> Outputs:
        """
        Args:
            inputs: see `model.text.encode.Texts.batches`.
        """
        lengths = inputs["lengths"]
        x = self.dropout(self.embed(inputs))  # batch_size x length x word_dim
        x = self.encoder(x, lengths)  # batch_size x length x directions*lstm_hidden_dim
        logits = self.fc(self.dropout(x)).float()  # batch_size x length x num_tags
        return Outputs(logits, lengths, self.crf, self.continues, self.types)


def forbidden_transitions(tags: list[str]) -> tuple[Tensor, Tensor]:
    """Which tag never follows which, and which never comes first: in IOB2, I-x only continues an entity of type x.

    Returns:
        num_tags x num_tags [from, to] and num_tags, True where forbidden.
    """
    continues, _ = describe_tags(tags)
    inside = torch.tensor([parse(tag)[0] == "I" for tag in tags])
    return inside & ~continues[:-1, :-1], inside


def describe_tags(tags: list[str]) -> tuple[Tensor, Tensor]:
    """What `entities.py` says of the tags, as tensors.

    Returns:
        num_tags+1 x num_tags+1, True at [i, j] where a word with tag j continues the entity of a word with tag i; and
        num_tags+1 numbers of the entities' types, -1 outside of all. The last, found at index -1, is for padding.
    """
    types = sorted({parse(tag)[1] for tag in tags})
    numbers = [-1 if tag == OUTSIDE else types.index(parse(tag)[1]) for tag in tags]
    continues = torch.tensor([[goes_on(before, tag) for tag in tags] for before in tags])
    return F.pad(continues, (0, 1, 0, 1)), torch.tensor([*numbers, -1])


class Outputs:
    """What the network says of a batch of sentences.

    Attributes:
        logits: batch_size x length x num_tags, float32
        lengths: batch_size
        crf: what scores sequences of tags on top of the logits, or None
        continues, types: see `describe_tags`
    """

    def __init__(self, logits: Tensor, lengths: Tensor, crf: CRF | None, continues: Tensor, types: Tensor):
        self.logits, self.lengths, self.crf = logits, lengths, crf
        self.continues, self.types = continues, types

    @cached_property
    def tags(self) -> Tensor:
        """The best tags, batch_size x length: word by word, or of the best sequence by the CRF."""
        return self.crf.decode(self.logits, self.lengths) if self.crf is not None else self.logits.argmax(dim=2)


def answers(outputs: Outputs) -> dict[str, Tensor]:
    """What a prediction needs: the best tags, NO_TAG behind a sentence's end, and the probability of each, both
    batch_size x length; and the log-probability of all tags of a sentence together, batch_size."""
    logits, lengths = outputs.logits, outputs.lengths.to(outputs.logits.device)
    steps = torch.arange(logits.shape[1], device=logits.device)
    is_word = steps < lengths.unsqueeze(1)
    if outputs.crf is not None:
        tags, probabilities, together = outputs.crf.decode_with_probabilities(logits, lengths, outputs.tags)
    else:
        scores, tags = logits.log_softmax(dim=2).max(dim=2)
        probabilities, together = scores.exp(), scores.masked_fill(~is_word, 0).sum(dim=1)
    return {
        "tags": tags.masked_fill(~is_word, NO_TAG),
        "probabilities": probabilities,
        "log_probability": together,
    }


def num_items(labels: Tensor) -> Tensor:
    """How many words the loss is the mean of: all that are not padding."""
    return (labels != NO_TAG).sum()


def loss_fn(outputs: Outputs, labels: Tensor) -> Tensor:
    """Mean negative log-likelihood per word: of its own tag, or with a CRF of all tags of its sentence.

    Args:
        labels: batch_size x length tags, NO_TAG behind a sentence's end. Tags from num_tags on do not occur in train.
            The loss counts them as the first tag, which is O in text with names.
    """
    labels = labels.where(labels < outputs.logits.shape[2], 0)
    if outputs.crf is not None:
        return -outputs.crf.log_likelihood(outputs.logits, labels, outputs.lengths).sum() / num_items(labels)
    return F.cross_entropy(outputs.logits.flatten(0, 1), labels.flatten(), ignore_index=NO_TAG)


def predictions(outputs: Outputs, labels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Predicted tags and labels, batch_size x length; and `describe_tags`."""
    return outputs.tags, labels, outputs.continues, outputs.types


def count(batches: list[tuple[Tensor, Tensor, Tensor, Tensor]]) -> Tensor:
    """Five counts over some batches: correct, predicted and labelled entities, correct words, all words."""
    _, _, continues, types = batches[0]
    tags, labels = (torch.cat([batch[side].flatten() for batch in batches]) for side in (0, 1))
    sizes, widths = torch.tensor([batch[1].shape for batch in batches], device=labels.device).unbind(1)
    num_sentences = sum(len(batch[1]) for batch in batches)
    ends = widths.repeat_interleave(sizes, output_size=num_sentences).cumsum(0)  # of sentences, with their padding
    is_word = labels != NO_TAG
    both = torch.stack([tags, labels]).where(is_word, len(types) - 1)
    words = torch.stack([(tags == labels).sum(), is_word.sum()])  # NO_TAG is never predicted
    return torch.cat([count_entities(both, ends[:-1], continues, types), words])


def count_entities(tags: Tensor, first: Tensor, continues: Tensor, types: Tensor) -> Tensor:
    """Count entities as conlleval does: a predicted one is correct if a labelled one has the same words and type.

    Args:
        tags: 2 x all words, predicted tags and labels; in IOB2, or broken. The last tag is padding.
        first: places of the first words of all sentences but the first.
        continues, types: see `describe_tags`.

    Returns:
        3 counts: correct, predicted, labelled.
    """
    before = F.pad(tags[:, :-1], (1, 0), value=len(types) - 1)
    before[:, first] = len(types) - 1
    kind = look_up(types, tags)
    words = (kind >= 0).any(dim=0).nonzero().squeeze(1)  # those inside an entity; all that follows is of these alone
    kind, tags, before = (x.index_select(1, words) for x in (kind, tags, before))
    is_continued = look_up(continues.flatten(), before * len(types) + tags)  # the entity of the word before
    starts = (kind >= 0) & ~is_continued
    steps = torch.arange(len(words) + 1, device=tags.device)
    stops = steps.where(~F.pad(is_continued, (0, 1)), len(steps))  # where no entity continues
    end = stops[:, 1:].flip(1).cummin(dim=1).values.flip(1)  # the next such place
    predicted_entity, labelled_entity = torch.stack([kind, end]).where(starts, -1).unbind(1)
    correct = (predicted_entity == labelled_entity).all(dim=0) & starts[0]
    return torch.stack([correct, *starts]).sum(dim=1)


def look_up(table: Tensor, indices: Tensor) -> Tensor:
    """table[indices], for a table of one dimension; several times as fast."""
    return table.index_select(0, indices.flatten()).view_as(indices)


def accuracy(counts: Tensor) -> float:
    """The share of the words whose tag is right."""
    return ratio(counts[[3, 4]])


def precision(counts: Tensor) -> float:
    """The share of the predicted entities that are right."""
    return ratio(counts[[0, 1]])


def recall(counts: Tensor) -> float:
    """The share of the labelled entities that were found."""
    return ratio(counts[[0, 2]])


def f1(counts: Tensor) -> float:
    """Their harmonic mean, 2 correct / (predicted + labelled) (van Rijsbergen 1979)."""
    correct, predicted, labelled = counts[:3]
    return ratio(torch.stack([2 * correct, predicted + labelled]))


def tags_and_labels(outputs: Outputs, labels: Tensor) -> Tensor:
    """2 x all words of a batch, padding too: predicted tags, and labels."""
    return torch.stack([outputs.tags.flatten(), labels.flatten()])


# The line of an epoch and the curves show the first two.
ENTITY_METRICS = {
    compute.__name__: Metric(predictions, count, compute) for compute in (f1, accuracy, precision, recall)
}
TAG_METRICS = {"accuracy": Metric(tags_and_labels, count_correct, ratio)}


def metrics(params: Params) -> dict[str, Metric]:
    """F1, accuracy, precision and recall if the tags mark entities; accuracy for others, such as parts of speech."""
    return ENTITY_METRICS if are_entities(params.data.tags) else TAG_METRICS
