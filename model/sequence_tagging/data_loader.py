"""data_dir -> batches.

A split is read once into flat arrays, a number per word, however long the sentences are. Several batches are made by
the same few operations, since a call costs more than the work on so few numbers. Sentences of like length go together,
so that little of a batch is padding.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from engine.loaders import Batch, make_rng
from engine.loaders import Dataset as BaseDataset
from model.layers import PAD, UNK
from utils import UserError

from .formats import read_pair
from .params import NO_TAG, Params

WORD_DROPOUT = 1  # part of the key of its random numbers, to have others than the order of examples
LONGEST_WORD = 40  # characters; a longer word is read without its middle


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
        words: of all sentences one behind the other, numbers in the vocabulary; at the end PAD.
        labels: their tags; numbers from num_tags on are those that train does not have; at the end NO_TAG.
        spellings: their rows in `chars`; at the end 0.
        chars: num_spellings x num_chars characters of each different word, PAD behind its end.
        starts, lengths: num_sentences first words and numbers of words.
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
        spellings: dict[str, int] = {}
        words, labels = [], []
        for pair in pairs:
            for word in pair.words:
                words.append(spellings.setdefault(word, len(spellings)))
            for tag in pair.tags:
                if tag not in tag_numbers:
                    raise UserError(f"{pair.place}: the tag {tag} is not in tags.txt ({', '.join(data.tags)[:200]}).")
                labels.append(tag_numbers[tag])
        self.spellings, self.labels = np.array([*words, 0]), np.array([*labels, NO_TAG])
        self.lengths = np.array([len(pair.words) for pair in pairs])
        self.starts = self.lengths.cumsum() - self.lengths
        vocabulary = params.vocabulary
        numbers = np.array([vocabulary.get(params.normalize(word), UNK) for word in spellings])
        self.words = np.append(numbers[words], PAD)
        self.seed, self.word_dropout = params.seed, params.word_dropout * training
        self.epoch = -1  # of dropped_words
        self.dropped_words = self.words
        self.chars: Tensor | None = None
        if params.char_features != "none":
            char_numbers = {char: number for number, char in enumerate(data.chars, start=UNK + 1)}
            half = LONGEST_WORD // 2
            self.chars = pad_sequence(
                [
                    torch.tensor([char_numbers.get(char, UNK) for char in shortened], dtype=torch.int32)
                    for shortened in (w if len(w) <= LONGEST_WORD else w[:half] + w[-half:] for w in spellings)
                ],
                batch_first=True,
                padding_value=PAD,
            )
            self.num_chars = np.array([min(len(word), LONGEST_WORD) for word in spellings])

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
        sizes = [len(batch.indices) for batch in batches]
        indices = np.concatenate([batch.indices for batch in batches])
        starts, lengths = self.starts[indices], self.lengths[indices]
        longest = np.maximum.reduceat(lengths, np.cumsum([0, *sizes[:-1]]))  # of each batch
        width = longest.repeat(sizes)  # of each sentence in its padded batch
        # from here on, arrays have one entry per cell of the padded batches, batch after batch
        step = np.arange(width.sum()) - (width.cumsum() - width).repeat(width)
        at = np.where(step < lengths.repeat(width), starts.repeat(width) + step, len(self.words) - 1)
        cells = (longest * sizes).tolist()

        def cut(values: np.ndarray) -> list[Tensor]:
            """`values` of the cells of each batch, batch_size x length."""
            parts = torch.from_numpy(values.take(at)).split(cells)
            return [part.view(size, -1) for part, size in zip(parts, sizes, strict=True)]

        words, labels = cut(self.words_of_epoch(batches[0].epoch)), cut(self.labels)
        spellings = cut(self.spellings) if self.chars is not None else []
        for i, its_lengths in enumerate(torch.from_numpy(lengths).split(sizes)):
            inputs = {"words": words[i], "lengths": its_lengths}
            if spellings:
                inputs["chars"], inputs["spellings"] = self.chars_of(spellings[i])
            yield inputs, labels[i]

    def chars_of(self, spellings: Tensor) -> tuple[Tensor, Tensor]:
        """The characters of the different words of a batch, and which of these each word is."""
        assert self.chars is not None
        different, which = spellings.unique(return_inverse=True)
        # oneDNN prepares and keeps a kernel for every new shape. Rounding up makes few different shapes.
        different = F.pad(different, (0, -len(different) % 64))
        longest = int(self.num_chars.take(different.numpy()).max())
        return self.chars[:, : -(-longest // 4) * 4].index_select(0, different).long(), which

    def words_of_epoch(self, epoch: int) -> np.ndarray:
        """`words`, with some of them replaced by UNK, so that the vector of the unknown word is trained.

        A word is unknown everywhere in a sentence or nowhere (Gal & Ghahramani 2016, section 4.2), and rare words more
        often than frequent ones (Kiperwasser & Goldberg 2016, "Simple and accurate dependency parsing using
        bidirectional LSTM feature representations", section 4).
        """
        if not self.word_dropout:
            return self.words
        if self.epoch != epoch:
            words = self.words[:-1]
            counts = np.bincount(words)
            rng = make_rng(self.seed, epoch, WORD_DROPOUT)
            of_word, of_sentence = rng.random(len(counts)), rng.random(len(self))
            draws = (of_word[words] + of_sentence.repeat(self.lengths)) % 1  # uniform, like the two of them
            dropped = draws < (self.word_dropout / (self.word_dropout + counts))[words]
            self.dropped_words = np.append(np.where(dropped, UNK, words), PAD)
            self.epoch = epoch
        return self.dropped_words
