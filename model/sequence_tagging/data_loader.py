"""data_dir -> batches.

A split is read once into flat arrays, a number per word, however long the sentences are (encode.py). Sentences of like
length go together, so that little of a batch is padding.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from engine.loaders import Batch, make_rng
from engine.loaders import Dataset as BaseDataset
from model.layers import PAD, UNK
from utils import UserError

from .encode import Encoder
from .formats import read_pair
from .params import NO_TAG, Params

WORD_DROPOUT = 1  # part of the key of its random numbers, to have others than the order of examples


class Dataset(BaseDataset):
    """One split of a built data set, as numbers.

    The inputs and labels of a batch are int64 and in CPU memory, since shapes depend on them:

    - labels: batch_size x length tags, NO_TAG behind a sentence's end;
    - inputs["words"]: batch_size x length words, PAD behind a sentence's end;
    - inputs["lengths"]: batch_size numbers of words;
    - inputs["chars"], where params.char_features reads them: num_spellings x num_chars characters of each different
      word in the batch, PAD behind its end;
    - inputs["spellings"]: batch_size x length, which row of "chars" each word is.

    Raises:
        UserError: a split is missing or broken, or has a tag that is not in tags.txt.

    Attributes:
        sentences: words of each sentence, as they are written.
        encoded: their words and characters as numbers.
        labels: the tags of all words; numbers from num_tags on are those that train does not have; at the end NO_TAG.
        lengths: num_sentences numbers of words.
    """

    lengths: np.ndarray

    def __init__(self, data_dir: Path, split: str, params: Params, training: bool = False):
        self.folder = data_dir / split
        data = params.data
        pairs = read_pair(data_dir / split)
        if len(pairs) != data.sizes.get(split):
            raise UserError(
                f"{data_dir / split}: {len(pairs)} sentences, but {data.sizes.get(split)} were built."
                " Build the data set again with --overwrite."
            )
        self.sentences = [pair.words for pair in pairs]
        tag_numbers = {tag: number for number, tag in enumerate([*data.tags, *data.unseen_tags])}
        labels = []
        for pair in pairs:
            for tag in pair.tags:
                if tag not in tag_numbers:
                    raise UserError(f"{pair.place}: the tag {tag} is not in tags.txt ({', '.join(data.tags)[:200]}).")
                labels.append(tag_numbers[tag])
        self.labels = np.array([*labels, NO_TAG])
        self.encoded = Encoder(params).encode(self.sentences)
        self.lengths = self.encoded.lengths
        self.seed, self.word_dropout = params.seed, params.word_dropout * training
        self.epoch = -1  # of dropped_words
        self.dropped_words = self.encoded.words

    def __len__(self) -> int:
        return len(self.sentences)

    def digest(self) -> str:
        """Of all words and labels."""
        digest = hashlib.sha256(self.labels.tobytes())
        for sentence in self.sentences:
            digest.update(" ".join([*sentence, "\n"]).encode())
        return digest.hexdigest()

    def describe(self, indices: Sequence[int]) -> str:
        return f"lines {', '.join(str(index + 1) for index in indices)} of {self.folder / 'sentences.txt'}"

    def __getitems__(self, batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
        return next(self.make_batches([batch]))

    def make_batches(self, batches: Sequence[Batch]) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        indices = [batch.indices.numpy() for batch in batches]
        made = self.encoded.batches(indices, self.words_of_epoch(batches[0].epoch), self.labels)
        for inputs, (labels,) in made:
            yield {name: torch.from_numpy(array) for name, array in inputs.items()}, torch.from_numpy(labels)

    def words_of_epoch(self, epoch: int) -> np.ndarray:
        """The numbers of all words. Some are replaced by UNK, so that the vector of the unknown word is trained.

        A word is unknown everywhere in a sentence or nowhere (Gal & Ghahramani 2016, section 4.2), and rare words more
        often than frequent ones (Kiperwasser & Goldberg 2016, "Simple and accurate dependency parsing using
        bidirectional LSTM feature representations", section 4).
        """
        if not self.word_dropout:
            return self.encoded.words
        if self.epoch != epoch:
            words = self.encoded.words[:-1]
            counts = np.bincount(words)
            rng = make_rng(self.seed, epoch, WORD_DROPOUT)
            of_word, of_sentence = rng.random(len(counts)), rng.random(len(self))
            draws = (of_word[words] + of_sentence.repeat(self.lengths)) % 1  # uniform, like the two of them
            dropped = draws < (self.word_dropout / (self.word_dropout + counts))[words]
            self.dropped_words = np.append(np.where(dropped, UNK, words), PAD)
            self.epoch = epoch
        return self.dropped_words
