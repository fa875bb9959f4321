"""data_dir -> batches of words, their neighbours, and words that are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from engine.building import digest_of
from engine.loaders import Batch, make_rng
from engine.loaders import Dataset as BaseDataset
from model.layers import PAD, UNK
from model.text.plain import map_tokens, numbers_of
from utils import UserError

from .params import Params

KEEP, WINDOW, NEGATIVES = 1, 2, 3  # parts of the keys of its random numbers
NUM_DRAWN = 64  # words that a batch shares
TABLE = 2**20  # entries in which each word stands as often as it is drawn


class Dataset(BaseDataset):
    """One split of a built data set, without line feeds and words that the vocabulary does not have.

    An example is a word of the text. In training, frequent words are left out at random (Mikolov et al. 2013,
    "Distributed representations of words and phrases and their compositionality", equation 5, as word2vec.c computes
    it), and of the neighbours a random number is looked at. Neighbours are of the same line. So every epoch has other
    words; their number is the expected one.

    The inputs of a batch are:

    - "words": batch_size; and "context": batch_size x num_neighbours, PAD where there is none;
    - "drawn": NUM_DRAWN words, drawn by frequency^0.75 (section 2.2), if params.negatives is not 0.

    Its labels are what is predicted: batch_size words ("skipgram": their neighbours), -1 where there is none.
    """

    is_shuffled = False  # `draw` shuffles
    kind = "word"

    def __init__(self, data_dir: Path, split: str, params: Params, training: bool = False):
        self.folder, self.params, self.training = data_dir / split, params, training
        self.path = self.folder / "tokens.bin"
        data = params.data.complete(data_dir)
        raw = map_tokens(self.path, data.num_tokens, params.data.sizes.get(split))
        ends = np.array([*(token == "\n" for token in data.tokens), False])
        numbers = numbers_of(data.tokens, params).astype(np.int32)
        lines, words = ends[raw].cumsum(dtype=np.int32), numbers[raw]
        is_word = (words != UNK) & ~ends[raw]
        self.text, self.lines = words[is_word], lines[is_word]
        if not len(self.text):
            raise UserError(f"{self.path}: no word that the vocabulary has. Build the data set again.")
        train = map_tokens(data_dir / "train" / "tokens.bin", data.num_tokens, params.data.sizes["train"])
        counts = np.bincount(numbers[train[~ends[train]]], minlength=int(numbers.max()) + 1).astype(float)
        counts[UNK] = 0
        share = counts / counts.sum() / (params.subsample or np.inf)
        with np.errstate(divide="ignore"):
            self.keep = np.minimum(1, np.sqrt(1 / share) + 1 / share) if training else np.ones(len(counts))
        self.size = max(1, int(self.keep[self.text].sum()))  # the expected number
        powers = (counts**0.75).cumsum()
        self.table = powers.searchsorted((np.arange(TABLE) + 0.5) * powers[-1] / TABLE).astype(np.int32)
        self.epoch = -1
        self.labels = self.text

    def __len__(self) -> int:
        return self.size

    def draw(self, epoch: int) -> None:
        """Choose the words of an epoch, and their order."""
        self.epoch = epoch
        rng = make_rng(self.params.seed, epoch, KEEP)
        kept = rng.random(len(self.text)) < self.keep[self.text] if self.training else np.ones(len(self.text), bool)
        kept[0] |= not kept.any()
        self.kept, self.kept_lines = self.text[kept], self.lines[kept]
        self.order = rng.permutation(len(self.kept)) if self.training else np.arange(len(self.kept))

    def __getitems__(self, batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
        epoch = batch.epoch if self.training else 0
        if epoch != self.epoch:
            self.draw(epoch)
        indices, params = batch.indices.numpy(), self.params
        at = self.order.take(indices, mode="wrap")  # the number of words that are kept is the expected one, about
        size = params.context_size
        offsets = np.arange(-size, 0) if params.net == "ngram" else np.array([*range(-size, 0), *range(1, size + 1)])
        beside = at[:, None] + offsets
        there = (beside >= 0) & (beside < len(self.kept))
        beside = beside.clip(0, len(self.kept) - 1)
        there &= self.kept_lines[beside] == self.kept_lines[at][:, None]
        key = (params.seed, epoch, int(indices[0]))
        if self.training and params.net != "ngram":
            there &= np.abs(offsets) <= make_rng(*key, WINDOW).integers(1, size + 1, len(at))[:, None]
        words, context = self.kept[at].astype(np.int64), np.where(there, self.kept[beside], PAD).astype(np.int64)
        labels = np.where(there, context, -1) if params.net == "skipgram" else words
        if params.net == "cbow":
            labels = np.where(there.any(axis=1), words, -1)
        inputs = {"words": torch.from_numpy(words), "context": torch.from_numpy(context)}
        if params.negatives:
            drawn = self.table[make_rng(*key, NEGATIVES).integers(0, TABLE, NUM_DRAWN)]
            inputs["drawn"] = torch.from_numpy(drawn.astype(np.int64))
        return inputs, torch.from_numpy(labels)

    def digest(self) -> str:
        return digest_of(self.path)

    def describe(self, indices: Sequence[int]) -> str:
        numbers = ", ".join(str(index + 1) for index in indices)
        return f"words {numbers} of those that are drawn for the epoch from {self.path}"
