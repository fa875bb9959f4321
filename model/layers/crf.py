"""A linear-chain conditional random field (Lafferty, McCallum & Pereira 2001), as a layer on top of a tagger."""

from __future__ import annotations

import torch
from torch import Tensor, nn

RULED_OUT = -1e4  # so low that no path takes it, but finite: sums and differences are never NaN


class CRF(nn.Module):
    """Scores a whole tag sequence: the sum of the score of each tag at its word (the logits), of each pair of
    neighbouring tags, of the first tag and of the last (Lample et al. 2016, "Neural architectures for named entity
    recognition", equation 1).

    In all methods, `logits` are batch_size x length x num_tags, `lengths` batch_size numbers from 1 to length. What
    lies behind a sequence's length changes nothing.

    Args:
        forbidden: num_tags x num_tags; True at [i, j] where tag j never follows tag i.
        forbidden_first: num_tags; True where a tag never comes first.
    """

    def __init__(self, num_tags: int, forbidden: Tensor | None = None, forbidden_first: Tensor | None = None):
        super().__init__()
        self.transition = nn.Parameter(torch.empty(num_tags, num_tags).uniform_(-0.1, 0.1))  # [from, to]
        self.first = nn.Parameter(torch.empty(num_tags).uniform_(-0.1, 0.1))
        self.last = nn.Parameter(torch.empty(num_tags).uniform_(-0.1, 0.1))
        self.forbidden: Tensor
        self.forbidden_first: Tensor
        none = torch.zeros(num_tags, num_tags, dtype=torch.bool)
        self.register_buffer("forbidden", none if forbidden is None else forbidden, persistent=False)
        self.register_buffer(
            "forbidden_first", none[0] if forbidden_first is None else forbidden_first, persistent=False
        )

    def _scores(self) -> tuple[Tensor, Tensor]:
        return (
            self.transition.masked_fill(self.forbidden, RULED_OUT),
            self.first.masked_fill(self.forbidden_first, RULED_OUT),
        )

    def log_likelihood(self, logits: Tensor, tags: Tensor, lengths: Tensor) -> Tensor:
        """The log-probability of each tag sequence (batch_size x length): batch_size numbers."""
        return self.score(logits, tags, lengths) - self.log_partition(logits, lengths)

    def score(self, logits: Tensor, tags: Tensor, lengths: Tensor) -> Tensor:
        """The score of each tag sequence (batch_size x length): batch_size numbers."""
        return score_of(logits, tags, lengths, *self._scores(), self.last)

    def log_partition(self, logits: Tensor, lengths: Tensor) -> Tensor:
        """The logarithm of the sum of exp(score) over all tag sequences, by the forward algorithm (Rabiner 1989,
        "A tutorial on hidden Markov models", equations 19-21): batch_size numbers."""
        transition, first = self._scores()
        at_word, is_inside = logits.unbind(1), inside(lengths, logits.shape[1])
        alpha = first + at_word[0]  # batch_size x num_tags: sequences so far, by their last tag
        for step in range(1, len(at_word)):
            # batch_size x from x 1  +  from x to, summed over from
            longer = (alpha.unsqueeze(2) + transition).logsumexp(dim=1) + at_word[step]  # batch_size x num_tags
            alpha = torch.where(is_inside[step], longer, alpha)
        return (alpha + self.last).logsumexp(dim=1)

    @torch.no_grad()
    def decode(self, logits: Tensor, lengths: Tensor) -> Tensor:
        """The best tag sequence: batch_size x length tags, int64; behind a sequence's length, its last tag again."""
        return viterbi(logits, lengths, *self._scores(), self.last)

    @torch.no_grad()
    def decode_with_probabilities(
        self, logits: Tensor, lengths: Tensor, tags: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The best tag sequence, and how probable it is.

        Args:
            tags: the best ones, if `decode` has found them already.

        Returns:
            batch_size x length tags, as `decode` returns them; batch_size x length probabilities of each of these tags
            at its word, whatever the other tags are; batch_size log-probabilities of the whole sequence.
        """
        tags = self.decode(logits, lengths) if tags is None else tags
        # in float64, since the sums of a long sentence lose digits; MPS has none
        device = torch.device("cpu") if logits.device.type == "mps" else logits.device
        logits, inputs = logits.to(device, torch.float64), (tags.to(device), lengths.to(device))
        scores = [part.to(device, torch.float64) for part in (*self._scores(), self.last)]
        marginals, log_partition = forward_backward(logits, inputs[1], *scores)
        together = score_of(logits, *inputs, *scores) - log_partition
        return tags, marginals.gather(2, inputs[0].unsqueeze(2)).squeeze(2).float(), together.float()


def score_of(logits: Tensor, tags: Tensor, lengths: Tensor, transition: Tensor, first: Tensor, last: Tensor) -> Tensor:
    """See `CRF.score`; `transition`, `first` and `last` as in `viterbi`."""
    steps = torch.arange(logits.shape[1], device=logits.device)
    tags = tags.clamp(min=0)  # padding, whose value does not matter
    at_words = logits.gather(2, tags.unsqueeze(2)).squeeze(2)  # batch_size x length
    # one index in place of two, of which torch's exporter makes a graph that fails for sentences of one word
    between = transition.flatten()[tags[:, :-1] * transition.shape[0] + tags[:, 1:]]  # batch_size x length-1
    last_tag = tags.gather(1, (lengths - 1).unsqueeze(1)).squeeze(1)  # batch_size
    return (
        first[tags[:, 0]]
        + at_words.masked_fill(steps >= lengths[:, None], 0).sum(dim=1)
        + between.masked_fill(steps[1:] >= lengths[:, None], 0).sum(dim=1)
        + last[last_tag]
    )


# In an exported graph, the loops of these two become loops of the graph, so that its length is free: they are compiled
# as TorchScript while the export traces the network, and are plain Python otherwise.


@torch.jit.script_if_tracing
def viterbi(logits: Tensor, lengths: Tensor, transition: Tensor, first: Tensor, last: Tensor) -> Tensor:
    """The best tag sequence, by the Viterbi algorithm (Forney 1973, "The Viterbi algorithm").

    Args:
        logits, lengths: as in `CRF`.
        transition: num_tags x num_tags [from, to]; first, last: num_tags.

    Returns:
        batch_size x length tags, int64; behind a sequence's length, its last tag again.
    """
    best = first + logits[:, 0]  # batch_size x num_tags: the best score so far, by last tag
    came_from = []
    for step in range(1, logits.shape[1]):
        longer, previous = (best.unsqueeze(2) + transition).max(dim=1)  # batch_size x num_tags
        best = torch.where((lengths > step).unsqueeze(1), longer + logits[:, step], best)
        came_from.append(previous)
    tag = (best + last).argmax(dim=1, keepdim=True)  # batch_size x 1
    path = [tag]
    for i in range(len(came_from)):
        step = len(came_from) - i
        tag = torch.where((lengths > step).unsqueeze(1), came_from[step - 1].gather(1, tag), tag)
        path.append(tag)
    return torch.cat(path, dim=1).flip(1)


@torch.jit.script_if_tracing
def forward_backward(
    logits: Tensor, lengths: Tensor, transition: Tensor, first: Tensor, last: Tensor
) -> tuple[Tensor, Tensor]:
    """The probability of each tag at each word, by the forward-backward algorithm with scaling (Rabiner 1989,
    "A tutorial on hidden Markov models", section V.A). Arguments as in `viterbi`, best float64.

    Returns:
        batch_size x length x num_tags probabilities; behind a sequence's length they mean nothing. And batch_size
        logarithms of the sum of exp(score) over all tag sequences.
    """
    highest = logits.amax(dim=2, keepdim=True)  # exp(logits - highest) is at most 1
    emission, factor = (logits - highest).exp(), transition.exp()
    end = last.exp()
    alpha = first.exp() * emission[:, 0]  # batch_size x num_tags: probabilities of the words so far, by last tag
    total = alpha.sum(dim=1, keepdim=True)
    alpha = alpha / total
    alphas = [alpha]
    log_partition = total.log() + highest[:, 0]  # batch_size x 1
    for step in range(1, logits.shape[1]):
        is_inside = (lengths > step).unsqueeze(1)
        longer = (alpha @ factor) * emission[:, step]
        total = longer.sum(dim=1, keepdim=True)
        alpha = torch.where(is_inside, longer / total, alpha)
        log_partition = torch.where(is_inside, log_partition + total.log() + highest[:, step], log_partition)
        alphas.append(alpha)
    log_partition = log_partition.squeeze(1) + (alpha @ end).log()
    beta = end.expand_as(alpha)  # batch_size x num_tags: in proportion to the words that follow, by tag
    marginals = [alpha * beta]
    for i in range(1, logits.shape[1]):
        step = logits.shape[1] - i
        longer = (emission[:, step] * beta) @ factor.t()
        longer = longer / longer.sum(dim=1, keepdim=True)
        beta = torch.where((lengths > step).unsqueeze(1), longer, beta)
        marginals.append(alphas[step - 1] * beta)
    products = torch.stack(marginals, dim=1).flip(1)  # batch_size x length x num_tags
    return products / products.sum(dim=2, keepdim=True), log_partition


def inside(lengths: Tensor, length: int) -> tuple[Tensor, ...]:
    """For each step, batch_size x 1: whether the sequence is that long."""
    steps = torch.arange(length, device=lengths.device)
    return (steps[:, None, None] < lengths[:, None]).unbind()
