"""model/layers: the CRF against brute force, encoders against torch's own and against padding."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from model.layers.characters import CharCNN, CharRNN
from model.layers.crf import CRF, RULED_OUT
from model.layers.gated import GATES, GatedRNN
from model.layers.ngrams import FACTOR, HashedNgrams
from model.layers.recurrent import LockedDropout, RecurrentEncoder

# ------------------------------------------------------------------------------------------------- CRF


@st.composite
def crfs(draw: st.DrawFn) -> tuple[CRF, Tensor, Tensor]:
    """A CRF of 2 to 4 tags, some transitions forbidden; logits of sentences of 1 to 5 words; their lengths."""
    num_tags = draw(st.integers(2, 4))
    lengths = draw(st.lists(st.integers(1, 5), min_size=1, max_size=3))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    forbidden = torch.rand(num_tags, num_tags, generator=generator) < draw(st.sampled_from([0.0, 0.3]))
    forbidden[:, 0] = False  # there is always a way
    forbidden_first = torch.rand(num_tags, generator=generator) < 0.3
    forbidden_first[0] = False
    crf = CRF(num_tags, forbidden, forbidden_first).double()
    for parameter in crf.parameters():
        parameter.data.normal_(generator=generator)
    logits = 3 * torch.randn(len(lengths), max(lengths), num_tags, generator=generator, dtype=torch.float64)
    return crf, logits, torch.tensor(lengths)


@torch.no_grad()
def every_path(crf: CRF, logits: Tensor) -> dict[tuple[int, ...], float]:
    """The score of every tag sequence of one sentence (length x num_tags), added up by hand."""
    scores = {}
    for path in itertools.product(range(logits.shape[1]), repeat=len(logits)):
        score = float(crf.first[path[0]] + crf.last[path[-1]])
        score = RULED_OUT + float(crf.last[path[-1]]) if crf.forbidden_first[path[0]] else score
        score += sum(float(logits[step, tag]) for step, tag in enumerate(path))
        for a, b in itertools.pairwise(path):
            score += RULED_OUT if crf.forbidden[a, b] else float(crf.transition[a, b])
        scores[path] = score
    return scores


@given(crfs())
def test_crf_equals_brute_force(case: tuple[CRF, Tensor, Tensor]) -> None:
    crf, logits, lengths = case
    partition, decoded = crf.log_partition(logits, lengths), crf.decode(logits, lengths)
    for i, length in enumerate(lengths.tolist()):
        scores = every_path(crf, logits[i, :length])
        expected = torch.tensor(list(scores.values()), dtype=torch.float64).logsumexp(0)
        torch.testing.assert_close(partition[i], expected, atol=1e-9, rtol=0)
        best = max(scores, key=lambda path: scores[path])
        assert scores[tuple(decoded[i, :length].tolist())] == pytest.approx(scores[best], abs=1e-9)
        assert not any(crf.forbidden[a, b] for a, b in itertools.pairwise(decoded[i, :length].tolist()))
        assert not crf.forbidden_first[decoded[i, 0]]


@given(crfs())
def test_probabilities_of_crf_tags_equal_brute_force(case: tuple[CRF, Tensor, Tensor]) -> None:
    """Of each tag the sum over all sequences that have it there, whatever lies behind the sentence."""
    crf, logits, lengths = case
    tags, each, together = crf.decode_with_probabilities(logits, lengths)
    assert torch.equal(tags, crf.decode(logits, lengths))
    for i, length in enumerate(lengths.tolist()):
        scores = every_path(crf, logits[i, :length])
        values = torch.tensor(list(scores.values()), dtype=torch.float64).softmax(0).tolist()
        probabilities = dict(zip(scores, values, strict=True))
        best = tuple(tags[i, :length].tolist())
        assert together[i].exp().item() == pytest.approx(probabilities[best], abs=1e-5)
        for step, tag in enumerate(best):
            expected = sum(p for path, p in probabilities.items() if path[step] == tag)
            assert each[i, step].item() == pytest.approx(expected, abs=1e-5)


def test_probability_of_a_long_and_certain_sentence() -> None:
    """Sums of thousands of words in float32 would lose all digits of it."""
    torch.manual_seed(0)
    crf = CRF(3)
    logits = torch.zeros(1, 2000, 3)
    logits[0, torch.arange(2000), torch.randint(0, 3, (2000,))] = 60 + 0.1 * torch.rand(2000)
    logits[0, 500] = torch.tensor([1.0, 1.5, 0.0])  # one word of which the network is not certain
    tags, _, together = crf.decode_with_probabilities(logits, torch.tensor([2000]))
    exact = crf.double().log_likelihood(logits.double(), tags, torch.tensor([2000])).item()
    assert -1 < exact < -0.1
    assert together.item() == pytest.approx(exact, abs=1e-5)


def test_probabilities_of_crf_tags_with_extreme_scores() -> None:
    """No overflow, no division by zero: scores of hundreds in a sentence of a thousand words."""
    torch.manual_seed(0)
    crf = CRF(5, torch.eye(5, dtype=torch.bool), torch.tensor([True, False, False, False, False]))
    _, each, together = crf.decode_with_probabilities(200 * torch.randn(2, 1000, 5), torch.tensor([1000, 1]))
    assert each.isfinite().all()
    assert (each <= 1 + 1e-6).all()
    assert together.isfinite().all()
    assert (together < 1e-2).all()


@given(crfs(), st.data())
def test_crf_likelihoods_are_probabilities(case: tuple[CRF, Tensor, Tensor], data: st.DataObject) -> None:
    """Of one sentence they add up to 1 over all tag sequences, whatever lies behind its length."""
    crf, logits, lengths = case
    i = data.draw(st.integers(0, len(lengths) - 1))
    paths = torch.tensor(list(itertools.product(range(logits.shape[2]), repeat=int(lengths[i]))))
    behind = torch.full((len(paths), logits.shape[1] - int(lengths[i])), -1)
    likelihoods = crf.log_likelihood(
        logits[i].expand(len(paths), -1, -1), torch.cat([paths, behind], 1), lengths[i].expand(len(paths))
    )
    torch.testing.assert_close(likelihoods.exp().sum(), torch.tensor(1.0, dtype=torch.float64))


def test_crf_gradients() -> None:
    torch.manual_seed(0)
    forbidden = torch.tensor([[False, False, True], [False, False, False], [True, False, False]])
    crf = CRF(3, forbidden, torch.tensor([False, False, True])).double()
    logits = torch.randn(3, 4, 3, dtype=torch.float64, requires_grad=True)
    tags, lengths = torch.tensor([[0, 1, 2, 2], [1, 0, -1, -1], [0, -1, -1, -1]]), torch.tensor([4, 2, 1])

    def likelihood(logits: Tensor, *parameters: Tensor) -> Tensor:
        names = [name for name, _ in crf.named_parameters()]
        return torch.func.functional_call(
            _Likelihood(crf), dict(zip((f"crf.{n}" for n in names), parameters, strict=True)), (logits, tags, lengths)
        )

    assert torch.autograd.gradcheck(likelihood, (logits, *crf.parameters()))
    crf.log_likelihood(logits, tags, lengths).sum().backward()
    assert logits.grad is not None
    assert (logits.grad[1, 2:] == 0).all()  # what lies behind a sentence
    assert (logits.grad[2, 1:] == 0).all()


class _Likelihood(nn.Module):
    def __init__(self, crf: CRF):
        super().__init__()
        self.crf = crf

    def forward(self, *arguments: Any) -> Tensor:
        return self.crf.log_likelihood(*arguments)


def test_crf_stays_finite() -> None:
    """With scores as wide apart as a run that goes astray makes them."""
    crf = CRF(3, torch.tensor([[False, True, True]] * 3))
    logits = (1e4 * torch.randn(2, 50, 3)).requires_grad_()
    loss = -crf.log_likelihood(logits, torch.zeros(2, 50, dtype=torch.int64), torch.tensor([50, 20])).sum()
    loss.backward()
    assert loss.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert crf.transition.grad is not None
    assert crf.transition.grad.isfinite().all()


# ------------------------------------------------------------------------------------------- recurrent

LENGTHS = torch.tensor([5, 2, 7, 1])


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("num_layers", [1, 2])
def test_encoder_is_torchs_with_packed_sequences(cell: Any, bidirectional: bool, num_layers: int) -> None:
    torch.manual_seed(0)
    theirs = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}[cell](
        6, 4, num_layers, batch_first=True, bidirectional=bidirectional
    )
    ours = RecurrentEncoder(cell, 6, 4, num_layers, bidirectional)
    for name, parameter in theirs.named_parameters():  # weight_ih_l0, weight_ih_l0_reverse, ...
        layers = ours.backwards if name.endswith("_reverse") else ours.forwards
        layer, kind = int(name.split("_l")[1][0]), name.split("_l")[0]
        getattr(layers[layer], f"{kind}_l0").data.copy_(parameter.data)
    x = torch.randn(4, 7, 6)
    packed = pack_padded_sequence(x, LENGTHS, batch_first=True, enforce_sorted=False)
    expected, _ = pad_packed_sequence(theirs(packed)[0], batch_first=True)
    inside = torch.arange(7) < LENGTHS[:, None]
    torch.testing.assert_close(ours(x, LENGTHS)[inside], expected[inside])


def test_locked_dropout_is_the_same_at_every_step() -> None:
    torch.manual_seed(0)
    layer = LockedDropout(0.5)
    x = torch.ones(50, 9, 40)
    y = layer(x)
    assert (y == y[:, :1]).all()
    assert set(y.unique().tolist()) == {0.0, 2.0}
    assert y.mean() == pytest.approx(1, abs=0.1)
    assert not (y[0] == y[1]).all()
    assert torch.equal(layer.eval()(x), x)


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn", "gated"])
def test_recurrent_dropout(cell: Any) -> None:
    """Only in training, only of the state: the first step has none to lose. Gradients reach the weights."""
    torch.manual_seed(0)
    encoder = RecurrentEncoder(cell, 6, 4, bidirectional=True, recurrent_dropout=0.5)
    x, lengths = torch.randn(1, 7, 6), torch.tensor([7])
    first, second = encoder(x, lengths), encoder(x, lengths)
    torch.testing.assert_close(first[:, 0, :4], second[:, 0, :4])
    assert not torch.allclose(first[:, 1:], second[:, 1:])
    first.sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in encoder.parameters())
    encoder.eval()
    assert torch.equal(encoder(x, lengths), encoder(x, lengths))


# ----------------------------------------------------------------------------------------------- gated


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("num_layers", [1, 2])
def test_gated_cell_with_all_gates_is_torchs_lstm(dtype: torch.dtype, bidirectional: bool, num_layers: int) -> None:
    torch.manual_seed(0)
    theirs = RecurrentEncoder("lstm", 6, 4, num_layers, bidirectional).to(dtype)
    ours = RecurrentEncoder("gated", 6, 4, num_layers, bidirectional).to(dtype)

    def reordered(x: Tensor) -> Tensor:  # torch's order is input, forget, cell, output
        return x.unflatten(0, (4, -1))[[2, 0, 1, 3]].flatten(0, 1)

    pairs = list(zip([*theirs.forwards, *theirs.backwards], [*ours.forwards, *ours.backwards], strict=True))
    for lstm, gated in pairs:
        gated.weight_ih_l0.data = reordered(lstm.weight_ih_l0.data)
        gated.weight_hh_l0.data = reordered(lstm.weight_hh_l0.data)
        gated.bias_l0.data = reordered(lstm.bias_ih_l0.data + lstm.bias_hh_l0.data)
    x = torch.randn(4, 7, 6, dtype=dtype)
    weight = torch.randn(4, 7, ours.output_dim, dtype=dtype) * (torch.arange(7) < LENGTHS[:, None])[..., None]
    for encoder in (theirs, ours):
        (encoder(x, LENGTHS) * weight).sum().backward()
    torch.testing.assert_close(ours(x, LENGTHS) * weight, theirs(x, LENGTHS) * weight, atol=1e-6, rtol=0)
    atol = 1e-6 if dtype == torch.float64 else 1e-5  # of sums over 15 steps
    for lstm, gated in pairs:
        torch.testing.assert_close(gated.weight_ih_l0.grad, reordered(lstm.weight_ih_l0.grad), atol=atol, rtol=0)
        torch.testing.assert_close(gated.weight_hh_l0.grad, reordered(lstm.weight_hh_l0.grad), atol=atol, rtol=0)
        torch.testing.assert_close(gated.bias_l0.grad, reordered(lstm.bias_ih_l0.grad), atol=atol, rtol=0)


SUBSETS = [subset for size in range(4) for subset in itertools.combinations(GATES, size)]


@pytest.mark.parametrize("gates", SUBSETS)
@pytest.mark.parametrize("peepholes", [False, True])
def test_every_subset_of_gates(gates: tuple[str, ...], peepholes: bool) -> None:
    """Against the equations, one sequence and one unit at a time. A missing gate is open."""
    torch.manual_seed(0)
    layer = GatedRNN(3, 2, gates, peepholes).double()
    assert (layer.peepholes is not None) == (peepholes and bool(gates))
    x = torch.randn(2, 5, 3, dtype=torch.float64)
    (y,) = layer(x)
    parts = ["candidate", *gates]
    w, u, b = (dict(zip(parts, p.unflatten(0, (len(parts), 2)), strict=True)) for p in [*layer.parameters()][:3])
    for n in range(2):
        h, c = [torch.zeros(2, dtype=torch.float64) for _ in "hc"]
        for step in range(5):

            def total(name: str, unit: int, cell: Tensor) -> Tensor:
                seen = w[name][unit] @ x[n, step] + u[name][unit] @ h + b[name][unit]  # noqa: B023
                if name == "candidate" or layer.peepholes is None:
                    return seen
                return seen + layer.peepholes[GATES.index(name), unit] * cell

            def gate(name: str, unit: int, cell: Tensor) -> Tensor | float:
                return torch.sigmoid(total(name, unit, cell)) if name in gates else 1.0

            new_c = [
                gate("forget", i, c[i]) * c[i] + gate("input", i, c[i]) * torch.tanh(total("candidate", i, c[i]))
                for i in range(2)
            ]
            h, c = torch.stack([gate("output", i, new_c[i]) * new_c[i].tanh() for i in range(2)]), torch.stack(new_c)
            torch.testing.assert_close(y[n, step], h, atol=1e-12, rtol=0)
    assert torch.autograd.gradcheck(lambda x: layer(x)[0], x.requires_grad_())


def test_the_cell_sums_up_in_full_precision() -> None:
    """Steps of 1, and a forget gate of 0.9991. In bfloat16, 256 + 1 is no number, and such a gate would be 1."""
    layer = GatedRNN(1, 1, ["forget"])
    for parameter in layer.parameters():
        parameter.data.zero_()
    layer.bias_l0.data.copy_(torch.tensor([20.0, 7.0]))  # tanh(20) is 1
    cells: list[Tensor] = []
    tanh = Tensor.tanh

    def watched(x: Tensor) -> Tensor:
        cells.append(x)
        return tanh(x)

    with torch.autocast("cpu", torch.bfloat16), pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tensor, "tanh", watched)
        (y,) = layer(torch.zeros(1, 300, 1))
    assert y.dtype == torch.float32
    assert cells[-1].item() == pytest.approx(sum((1 / (1 + math.exp(-7))) ** step for step in range(300)), rel=1e-5)
    assert cells[-1].dtype == torch.float32


# -------------------------------------------------------------------------------------------- n-grams


def test_equal_ngrams_share_a_vector_wherever_they_stand() -> None:
    torch.manual_seed(0)
    layer = HashedNgrams(100_003, 4, 3)
    layer.embedding.weight.data.normal_()

    def of(words: list[int], padding: int = 0) -> Tensor:
        return layer(torch.tensor([words + [5] * padding]), torch.tensor([len(words)]))[0]

    def expected(*ngram: int) -> Tensor:
        number = ngram[0]
        for word in ngram[1:]:
            number = (number * FACTOR + word) % 100_003
        return layer.embedding.weight[number]

    a, b, c, d = 7, 12, 3, 9
    vectors = of([a, b, c, a, b, c, d])
    torch.testing.assert_close(vectors[0], torch.zeros(4))  # no n-gram ends with the first word
    torch.testing.assert_close(vectors[1], expected(a, b))  # none of three words begins before the text
    torch.testing.assert_close(vectors[2], expected(b, c) + expected(a, b, c))
    torch.testing.assert_close(vectors[2], vectors[5])
    assert not torch.allclose(of([a, b])[1], of([b, a])[1])
    padded = of([a, b, c], padding=4)
    torch.testing.assert_close(padded[:3], of([a, b, c]))
    assert not padded[3:].any()


def test_a_hash_does_not_overflow() -> None:
    """The largest numbers of words and buckets that fit into memory, against Python's integers."""
    most = 2**31 - 1
    assert most * FACTOR + most < 2**63
    layer, seen = HashedNgrams(1, 1, 3), []
    layer.embedding.num_embeddings = most

    def note(_: nn.Module, given: tuple[Tensor]) -> Tensor:
        seen.append(given[0])
        return torch.zeros_like(given[0])

    layer.embedding.register_forward_pre_hook(note)
    layer(torch.tensor([[most, most - 1, most - 2]]), torch.tensor([3]))
    two = [(a * FACTOR + b) % most for a, b in ((most, most - 1), (most - 1, most - 2))]
    assert seen[0][0, 1:].tolist() == two
    assert seen[1][0, 2].item() == (two[0] * FACTOR + most - 2) % most


# ------------------------------------------------------------------------------------------ characters


@pytest.mark.parametrize("encoder", [CharCNN, CharRNN])
def test_a_word_does_not_depend_on_the_padding_behind_it(encoder: Any) -> None:
    torch.manual_seed(0)
    layer = encoder(20, 5, 6)
    words = [torch.randint(1, 20, (length,)) for length in (1, 4, 9)]
    padded = nn.utils.rnn.pad_sequence(words, batch_first=True)
    together = layer(nn.functional.pad(padded, (0, 3)))
    for word, expected in zip(words, together, strict=True):
        torch.testing.assert_close(layer(word[None])[0], expected)


def test_both_ends_of_a_word_reach_the_char_lstm() -> None:
    torch.manual_seed(0)
    layer = CharRNN(20, 5, 6)
    word = torch.tensor([[3, 4, 5, 6]])
    for position in (0, 3):
        other = word.clone()
        other[0, position] = 9
        assert (layer(other) - layer(word)).abs().min() > 0  # every feature of both directions
