"""Words -> numbers -> padded batches, for the Dataset and for predictions. All without torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from model.layers import PAD, UNK

from .params import TextParams

LONGEST_WORD = 40  # characters; a longer word is read without its middle
BLOCK = 2**20  # words that are counted at once, so that a mapped file of any size can be
Drop = Callable[[np.ndarray, np.ndarray], np.ndarray]  # numbers of words, the text of each -> numbers of words


class Encoder:
    """Looks up words and characters in the vocabularies of the data."""

    def __init__(self, params: TextParams):
        self.normalize, self.vocabulary = params.normalize, params.vocabulary
        self.chars: np.ndarray | None = None  # the number of each character, by its code point
        if params.char_features != "none":
            points = [ord(char) for char in params.data.chars]
            self.chars = np.full(max(points) + 2, UNK)
            self.chars[points] = np.arange(len(points)) + UNK + 1

    def encode(self, texts: Sequence[Sequence[str]], max_length: int | None = None) -> Texts:
        """Texts, each a list of words, as numbers."""
        different: dict[str, int] = {}
        tokens = np.array([different.setdefault(word, len(different)) for words in texts for word in words])
        lengths = np.array([len(words) for words in texts])
        return Texts(self, list(different), tokens, lengths, max_length)


class Texts:
    """Some texts as numbers, one behind the other.

    Args:
        spellings: the different words, as they are written.
        tokens: of all texts, which of `spellings` each word is. May be mapped from a file.
        lengths: num_texts numbers of words.
        max_length: a longer text is read without its middle.

    Attributes:
        numbers: the number of each spelling in the vocabulary.
        chars: num_spellings x num_chars characters of each spelling, PAD behind its end; None if the network does not
            read them.
        starts, lengths: num_texts first words, and numbers of words that are read.
    """

    def __init__(
        self,
        encoder: Encoder,
        spellings: Sequence[str],
        tokens: np.ndarray,
        lengths: np.ndarray,
        max_length: int | None = None,
    ):
        self.tokens, self.starts = tokens, lengths.cumsum() - lengths
        self.lengths = lengths if max_length is None else lengths.clip(max=max_length)
        self.left_out = lengths - self.lengths
        self.numbers = np.array([encoder.vocabulary.get(encoder.normalize(word), UNK) for word in spellings])
        self.chars: np.ndarray | None = None
        if encoder.chars is not None:
            half = LONGEST_WORD // 2
            shortened = [word if len(word) <= LONGEST_WORD else word[:half] + word[-half:] for word in spellings]
            self.num_chars = np.array(list(map(len, shortened)))
            self.chars = np.full((len(shortened), self.num_chars.max()), PAD, dtype=np.int32)
            points = np.frombuffer("".join(shortened).encode("utf-32-le", "surrogatepass"), np.uint32)
            flat = encoder.chars.take(points, mode="clip")  # the last one is unknown
            self.chars[np.arange(self.chars.shape[1]) < self.num_chars[:, None]] = flat

    def batches(
        self, batches: Sequence[np.ndarray], *others: np.ndarray, drop: Drop | None = None
    ) -> Iterator[tuple[dict[str, np.ndarray], list[np.ndarray]]]:
        """The inputs of some batches. Made together, since a call costs more than the work on so few numbers.

        Args:
            batches: the indices of the texts of each.
            others: a value for each word of all texts, and at the end one for padding.
            drop: see `WordDropout`.

        Yields:
            The inputs, all int64, and `others` of their words, each batch_size x length:

            - "words": batch_size x length, PAD behind a text's end;
            - "lengths": batch_size numbers of words;
            - "chars", if the network reads them: num_spellings x num_chars characters of each different word in the
              batch, PAD behind its end;
            - "spellings": batch_size x length, which row of "chars" each word is.
        """
        sizes = [len(batch) for batch in batches]
        indices = np.concatenate(batches)
        lengths = self.lengths[indices]
        longest = np.maximum.reduceat(lengths, np.cumsum([0, *sizes[:-1]]))  # of each batch
        width = longest.repeat(sizes)  # of each text in its padded batch
        # from here on, arrays have one entry per cell of the padded batches, batch after batch
        step = np.arange(width.sum()) - (width.cumsum() - width).repeat(width)
        is_word = step < lengths.repeat(width)
        at = self.starts[indices].repeat(width) + step
        if (left_out := self.left_out[indices]).any():
            at += np.where(step < ((lengths + 1) // 2).repeat(width), 0, left_out.repeat(width))
        at = np.where(is_word, at, -1)
        tokens = np.where(is_word, self.tokens.take(at), 0)
        words = self.numbers.take(tokens)
        if drop is not None:
            words = drop(words, indices.repeat(width))
        words = np.where(is_word, words, PAD)
        taken = [values.take(at) for values in others]
        first = cell = 0
        for size, length in zip(sizes, longest.tolist(), strict=True):
            cells = slice(cell, cell + size * length)
            its_words, *its_others = (values[cells].reshape(size, length) for values in (words, *taken))
            inputs = {"words": its_words, "lengths": lengths[first : first + size]}
            if self.chars is not None:
                inputs["chars"], inputs["spellings"] = self._chars_of(tokens[cells].reshape(size, length))
            yield inputs, its_others
            first, cell = first + size, cells.stop

    def _chars_of(self, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The characters of the different words of a batch, and which of these each word is."""
        assert self.chars is not None
        different, which = np.unique(tokens, return_inverse=True)
        # oneDNN prepares and keeps a kernel for every new shape. Rounding up makes few different shapes.
        rows = np.zeros(-(-len(different) // 64) * 64, dtype=np.int64)
        rows[: len(different)] = different
        longest = -(-self.num_chars[different].max() // 4) * 4
        return self.chars[:, :longest].take(rows, axis=0).astype(np.int64), which.reshape(tokens.shape)


class WordDropout:
    """Replaces some words by UNK, so that the vector of the unknown word is trained.

    A word is unknown everywhere in a text or nowhere (Gal & Ghahramani 2016, section 4.2), and rare words more often
    than frequent ones (Kiperwasser & Goldberg 2016, "Simple and accurate dependency parsing using bidirectional LSTM
    feature representations", section 4).

    Args:
        texts: in which words are counted.
        rate: x in the probability x / (x + n) of a word that they hold n times.
    """

    def __init__(self, texts: Texts, rate: float):
        counts = np.zeros(len(texts.numbers), dtype=np.int64)  # of each spelling
        for start in range(0, len(texts.tokens), BLOCK):
            counts += np.bincount(texts.tokens[start : start + BLOCK], minlength=len(counts))
        counts = np.bincount(texts.numbers, weights=counts)  # of each number: spellings may share it
        self.probability = rate / (rate + counts)
        self.num_texts = len(texts.lengths)
        self.of_word = self.of_text = np.zeros(0)

    def draw(self, rng: np.random.Generator) -> None:
        """Draw the random numbers of an epoch."""
        self.of_word, self.of_text = rng.random(len(self.probability)), rng.random(self.num_texts)

    def __call__(self, words: np.ndarray, texts: np.ndarray) -> np.ndarray:
        draws = (self.of_word.take(words) + self.of_text.take(texts)) % 1  # uniform, like the two of them
        return np.where(draws < self.probability.take(words), UNK, words)
