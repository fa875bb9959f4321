"""data_dir -> batches of text in parallel streams, and the tokens that come next."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from engine.building import digest_of
from engine.loaders import Batch, make_rng
from engine.loaders import Dataset as BaseDataset
from model.layers import PAD
from model.text.plain import cut, encoder, map_tokens, numbers_of, read_blocks, splitter_of_corpus
from utils import UserError, logger

from .params import Params

MOST_STREAMS = 64  # in which a split is evaluated
WARM_UP = 200  # tokens that are read before those that a stream is evaluated on
START = 1  # part of the key of its random numbers, to have others than the order of examples


class Streams(BaseDataset):
    """A text as streams that are read side by side.

    An example is the next `num_steps` tokens of one stream, and a batch has one of each stream. So the network goes on
    with its state from batch to batch. Examples are numbered batch after batch.

    The streams divide the text. Training has params.batch_size of them, and begins every epoch at another place, as if
    the text were a circle. Evaluation counts every token once, whatever params.batch_size is: the number of streams
    depends on the length of the text alone, and each first reads some tokens before its part, which do not count.

    The inputs of a batch are:

    - "tokens": batch_size x num_steps numbers in the vocabulary; PAD before the beginning of the text;
    - "continues": batch_size, whether the stream goes on where it was in the batch before.

    Its labels are batch_size x num_steps: the token that comes next, -1 where none counts.

    Args:
        raw: the tokens of the text, by number. May be mapped from a file.
        numbers: the number in the vocabulary of each of these numbers.
        path: of the text, for messages.
    """

    is_shuffled = False
    kind = "part"

    def __init__(self, raw: np.ndarray, numbers: np.ndarray, params: Params, path: Path, training: bool = False):
        self.raw, self.numbers, self.path, self.folder = raw, numbers, path, path.parent
        self.labels, self.seed, self.training, self.num_steps = raw, params.seed, training, params.num_steps
        streams = params.batch_size if training else max(1, min(MOST_STREAMS, len(raw) // (4 * WARM_UP)))
        if training and len(raw) < 2 * streams:
            most = f"a batch_size of at most {len(raw) // 2}" if len(raw) > 1 else "more text"
            raise UserError(f"{path}: {len(raw)} tokens, too few for {streams} parts side by side. Expected {most}.")
        if not len(raw):
            raise UserError(f"{path}: empty. Expected text.")
        self.batch_size = self.num_streams = streams
        self.warm_up = 0 if training else -(-WARM_UP // self.num_steps)  # batches
        self.stream_length = -(-len(raw) // streams)
        self.num_batches = -(-self.stream_length // self.num_steps) + self.warm_up

    def __len__(self) -> int:
        return self.num_batches * self.num_streams

    def __getitems__(self, batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
        positions, counts = self.positions(batch.indices.numpy())  # of the tokens that are predicted
        number = batch.indices.numpy() // self.num_streams - self.warm_up
        start = make_rng(self.seed, batch.epoch, START).integers(len(self.raw)) if self.training else 0
        labels, before = self.tokens_at(positions + start), self.tokens_at(positions + start - 1)
        is_beginning = (positions < 0) | (
            (positions + start) % len(self.raw) == 0
        )  # of the text, where nothing is before
        before = np.where(is_beginning, PAD, before)
        # the first stream has nothing to warm up with, so it begins where it counts
        is_first = (number == -self.warm_up) | ((number == 0) & (positions[:, 0] == 0))
        inputs = {"tokens": torch.from_numpy(before), "continues": torch.from_numpy(~is_first)}
        return inputs, torch.from_numpy(np.where(counts, labels, -1))

    def positions(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where the tokens of some examples are, and whether they count: both num_examples x num_steps."""
        batch, stream = np.divmod(indices, self.num_streams)
        step = ((batch - self.warm_up) * self.num_steps)[:, None] + np.arange(self.num_steps)  # within the stream
        positions = (stream * self.stream_length)[:, None] + step
        counts = (step >= 0) & (step < self.stream_length) & (positions >= 0) & (positions < len(self.raw))
        return positions, counts

    def tokens_at(self, positions: np.ndarray) -> np.ndarray:
        return self.numbers.take(self.raw.take(positions, mode="wrap"))

    def digest(self) -> str:
        return digest_of(self.path)

    def describe(self, indices: Sequence[int]) -> str:
        number, count = min(indices) // self.num_streams + 1, self.num_batches
        streams = ", ".join(str(index % self.num_streams + 1) for index in indices)
        return f"part {number} of {count} of the streams {streams} of {self.path}, which each epoch begins elsewhere"


class Dataset(Streams):
    """One split of a built data set."""

    def __init__(self, data_dir: Path, split: str, params: Params, training: bool = False):
        path = data_dir / split / "tokens.bin"
        data = params.data.complete(data_dir)  # as it was built; the vocabulary of the network may be another
        raw = map_tokens(path, data.num_tokens, params.data.sizes.get(split))
        super().__init__(raw, numbers_of(data.tokens, params), params, path, training)


def load_text(path: Path, params: Params, encoding: str) -> Streams:
    """A text file, to be evaluated: split as the data was. Raises UserError when it cannot be read, or is empty."""
    data = params.data
    split = splitter_of_corpus(data.level, data.tokenized)
    encode = encoder(data.tokens, split)
    texts = cut(read_blocks(path, encoding), [""], [0], path, by_words=split is not None)
    raw = np.concatenate([encode(text) for _, text in texts] or [np.zeros(0, np.int64)])
    if unknown := int((raw == len(data.tokens)).sum()):
        logger.warning("%s: %s of %s tokens are unknown to the network.", path, f"{unknown:,}", f"{len(raw):,}")
    return Streams(raw, numbers_of(data.tokens, params), params, path)
