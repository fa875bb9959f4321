"""data_dir -> batches.

A split is read once into flat tensors, a number per word, however long the sentences are. A batch is a few indexing
operations; sentences of like length go together, so that little of it is padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset

from model.batches import Batch, BatchSampler, make_loader
from utils import UserError

from .formats import read_pair
from .params import PAD, UNK, Params

LONGEST_WORD = 40  # characters; of a longer one, the beginning and the end are read


def fetch_dataloader(
    splits: Sequence[str],
    data_dir: str | Path,
    params: Params,
    device: torch.device | str = "cpu",
    evaluating: bool = False,
) -> dict[str, DataLoader[Any]]:
    """A loader of (inputs, labels) for each of `splits`; "train" is shuffled, unless `evaluating`.

    Sentences of like length share a batch. All of it is int64, in CPU memory, which the shapes depend on:

    - labels: batch_size x length tags, -1 behind a sentence's end;
    - inputs["words"]: batch_size x length words, PAD behind a sentence's end;
    - inputs["lengths"]: batch_size numbers of words;
    - inputs["chars"], where params.char_features reads them: num_spellings x num_chars characters of each different
      word in the batch, PAD behind its end;
    - inputs["spellings"]: batch_size x length, which row of "chars" each word is.

    Raises:
        UserError: a split is missing or broken, or has a tag that is not in tags.txt.
    """
    loaders: dict[str, DataLoader[Any]] = {}
    for split in splits:
        dataset = TaggingDataset(Path(data_dir), split, params)
        shuffle = split == "train" and not evaluating
        sampler = BatchSampler(len(dataset), params.batch_size, shuffle, params.seed, dataset.lengths.numpy())
        pin_memory = torch.device(device).type == "cuda"
        loaders[split] = make_loader(dataset, sampler, params.num_workers, pin_memory)
    return loaders


class TaggingDataset(Dataset[Any]):
    """One split of a built data set, as numbers.

    Attributes:
        sentences: words of each sentence, as they are written.
        labels: num_words_in_all tags; numbers from num_tags on are those that train does not have.
        spellings: num_words_in_all numbers of different words.
        words: num_spellings numbers in the vocabulary.
        chars: num_spellings x num_chars characters, PAD behind a word's end.
        starts, lengths: num_sentences first words and numbers of words.
    """

    def __init__(self, data_dir: Path, split: str, params: Params):
        data = params.data
        pairs = read_pair(data_dir / split)
        if len(pairs) != data.sizes.get(split):
            raise UserError(
                f"{data_dir / split}: {len(pairs)} sentences, but {data.sizes.get(split)} were built."
                " Build the data set again with --overwrite."
            )
        self.sentences = [pair.words for pair in pairs]
        tag_numbers = {tag: number for number, tag in enumerate([*data.tags, *data.unseen_tags])}
        if split == "train":  # too rare to be learnt: the first tag instead, in text with names O
            tag_numbers.update(dict.fromkeys(data.unseen_tags, 0))
        spellings: dict[str, int] = {}
        words, labels = [], []
        for pair in pairs:
            for word in pair.words:
                words.append(spellings.setdefault(word, len(spellings)))
            for tag in pair.tags:
                if tag not in tag_numbers:
                    raise UserError(f"{pair.place}: the tag {tag} is not in tags.txt ({', '.join(data.tags)[:200]}).")
                labels.append(tag_numbers[tag])
        self.spellings, self.labels = torch.tensor(words), torch.tensor(labels)
        self.lengths = torch.tensor([len(pair.words) for pair in pairs])
        self.starts = self.lengths.cumsum(0) - self.lengths
        vocabulary = params.vocabulary
        self.words = torch.tensor([vocabulary.get(params.normalize(word), UNK) for word in spellings])
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

    def __len__(self) -> int:
        return len(self.sentences)

    def __getitem__(self, index: int) -> tuple[dict[str, Tensor], Tensor]:
        """One sentence, as a batch of its own."""
        return self.__getitems__(Batch(0, torch.tensor([index])))

    def __getitems__(self, batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
        """The sentences of a batch: see `fetch_dataloader`."""
        starts, lengths = self.starts[batch.indices].unsqueeze(1), self.lengths[batch.indices]
        steps = torch.arange(int(lengths.max()))
        inside = steps < lengths.unsqueeze(1)  # batch_size x length
        at = starts + steps * inside  # padding points to the sentence's first word, to be overwritten
        spellings = self.spellings[at]
        inputs = {"words": self.words[spellings].masked_fill_(~inside, PAD), "lengths": lengths}
        if self.chars is not None:
            different, inputs["spellings"] = spellings.unique(return_inverse=True)
            chars = self.chars[different].long()  # num_spellings x as many as the longest word of the split has
            inputs["chars"] = chars[:, : int((chars != PAD).sum(dim=1).max())]
        return inputs, self.labels[at].masked_fill_(~inside, -1)
