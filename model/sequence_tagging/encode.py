"""Words -> numbers -> padded batches, for the Dataset and for predictions. All without torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from model.layers import PAD, UNK

from .params import Params

LONGEST_WORD = 40  # characters; a longer word is read without its middle


class Encoder:
    """Looks up words and characters in the vocabularies of the data."""

    def __init__(self, params: Params):
        self.normalize, self.vocabulary = params.normalize, params.vocabulary
        self.chars: np.ndarray | None = None  # the number of each character, by its code point
        if params.char_features != "none":
            points = [ord(char) for char in params.data.chars]
            self.chars = np.full(max(points) + 2, UNK)
            self.chars[points] = np.arange(len(points)) + UNK + 1

    def encode(self, sentences: Sequence[Sequence[str]]) -> Sentences:
        return Sentences(self, sentences)


class Sentences:
    """Some sentences as numbers, one behind the other.

    Attributes:
        words: of all sentences, numbers in the vocabulary; at the end PAD.
        spellings: their rows in `chars`; at the end 0.
        chars: num_spellings x num_chars characters of each different word, PAD behind its end; None if the network does
            not read them.
        starts, lengths: num_sentences first words and numbers of words.
    """

    def __init__(self, encoder: Encoder, sentences: Sequence[Sequence[str]]):
        different: dict[str, int] = {}
        spellings = [different.setdefault(word, len(different)) for words in sentences for word in words]
        self.spellings = np.array([*spellings, 0])
        self.lengths = np.array([len(words) for words in sentences])
        self.starts = self.lengths.cumsum() - self.lengths
        numbers = [encoder.vocabulary.get(encoder.normalize(word), UNK) for word in different]
        self.words = np.append(np.array(numbers)[spellings], PAD)
        self.chars: np.ndarray | None = None
        if encoder.chars is not None:
            half = LONGEST_WORD // 2
            shortened = [word if len(word) <= LONGEST_WORD else word[:half] + word[-half:] for word in different]
            self.num_chars = np.array(list(map(len, shortened)))
            self.chars = np.full((len(shortened), self.num_chars.max()), PAD, dtype=np.int32)
            points = np.frombuffer("".join(shortened).encode("utf-32-le", "surrogatepass"), np.uint32)
            flat = encoder.chars.take(points, mode="clip")  # the last one is unknown
            self.chars[np.arange(self.chars.shape[1]) < self.num_chars[:, None]] = flat

    def batches(
        self, batches: Sequence[np.ndarray], words: np.ndarray, *others: np.ndarray
    ) -> Iterator[tuple[dict[str, np.ndarray], list[np.ndarray]]]:
        """The inputs of some batches, see `data_loader.Dataset`. Made together, since a call costs more than the work
        on so few numbers.

        Args:
            batches: the indices of the sentences of each.
            words, others: a value for each word of all sentences, and at the end one for padding.

        Yields:
            The inputs, and `others` of its words, each batch_size x length.
        """
        sizes = [len(batch) for batch in batches]
        indices = np.concatenate(batches)
        starts, lengths = self.starts[indices], self.lengths[indices]
        longest = np.maximum.reduceat(lengths, np.cumsum([0, *sizes[:-1]]))  # of each batch
        width = longest.repeat(sizes)  # of each sentence in its padded batch
        # from here on, arrays have one entry per cell of the padded batches, batch after batch
        step = np.arange(width.sum()) - (width.cumsum() - width).repeat(width)
        at = np.where(step < lengths.repeat(width), starts.repeat(width) + step, len(self.words) - 1)
        taken = [values.take(at) for values in (words, *others)]
        spellings = self.spellings.take(at) if self.chars is not None else None
        first = cell = 0
        for size, length in zip(sizes, longest.tolist(), strict=True):
            cells = slice(cell, cell + size * length)
            its_words, *its_others = (values[cells].reshape(size, length) for values in taken)
            inputs = {"words": its_words, "lengths": lengths[first : first + size]}
            if spellings is not None:
                inputs["chars"], inputs["spellings"] = self._chars_of(spellings[cells].reshape(size, length))
            yield inputs, its_others
            first, cell = first + size, cells.stop

    def _chars_of(self, spellings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The characters of the different words of a batch, and which of these each word is."""
        assert self.chars is not None
        different, which = np.unique(spellings, return_inverse=True)
        # oneDNN prepares and keeps a kernel for every new shape. Rounding up makes few different shapes.
        rows = np.zeros(-(-len(different) // 64) * 64, dtype=np.int64)
        rows[: len(different)] = different
        longest = -(-self.num_chars[different].max() // 4) * 4
        return self.chars[:, :longest].take(rows, axis=0).astype(np.int64), which.reshape(spellings.shape)
