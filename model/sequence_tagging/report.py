"""Outputs -> what a person looks at: scores by type, tagged sentences, and every single prediction."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import torch

from engine.metrics import class_scores
from engine.reports import Report as BaseReport
from engine.reports import score_table
from utils import write_atomically

from .entities import are_entities, bracket, find_entities, with_tags
from .net import f1, precision, recall

SHOWN_SENTENCES = 6


Tagged = tuple[list[str], list[str], list[str]]  # words, labels, predictions


class Report(BaseReport):
    """Scores by type of entity or by tag, some tagged sentences, and predictions in CoNLL's columns."""

    def write(self, model_dir: Path, name: str) -> str:
        """Write predictions_{name}.txt: word, label and prediction of each line, an empty line after each sentence.

        Returns some sentences as they were tagged, and the table of scores.
        """
        tags = [*self.params.data.tags, *self.params.data.unseen_tags]
        labels = (tags[number] for number in self.dataset.labels.tolist())
        sentences = [
            (words, [next(labels) for _ in words], record["prediction"])
            for words, record in zip(self.dataset.sentences, self.records, strict=True)
        ]
        lines = [[" ".join(columns) for columns in zip(*sentence, strict=True)] for sentence in sentences]
        write_atomically(model_dir / f"predictions_{name}.txt", "\n".join("\n".join(block) + "\n" for block in lines))
        write_up = describe_entities if are_entities(self.params.data.tags) else describe_tags
        tagged, table = write_up(sentences)
        return "\n\n".join([tagged, f"All of them: {model_dir / f'predictions_{name}.txt'}", table])


def describe_entities(sentences: list[Tagged]) -> tuple[str, str]:
    """Some sentences with their entities in brackets, and the scores of each type."""
    correct, predicted, labelled = Counter[str](), Counter[str](), Counter[str]()
    tagged: list[str] = []
    for words, label_tags, predicted_tags in sentences:
        right, found = find_entities(label_tags), find_entities(predicted_tags)
        labelled.update(entity.type for entity in right)
        predicted.update(entity.type for entity in found)
        correct.update(entity.type for entity in set(right) & set(found))
        if right and len(tagged) < SHOWN_SENTENCES:
            tagged.append(bracket(words, found))
            if found != right:
                tagged[-1] += f"\n  should be: {bracket(words, right)}"
    types = sorted(labelled.keys() | predicted.keys())
    rows = [[kind, *scores(correct[kind], predicted[kind], labelled[kind])] for kind in types]
    rows.append(["all", *scores(correct.total(), predicted.total(), labelled.total())])
    return "\n".join(tagged), score_table(["type", "precision", "recall", "F1", "labelled", "predicted"], rows, 2)


def describe_tags(sentences: list[Tagged]) -> tuple[str, str]:
    """Some sentences with their tags, and the scores of each tag, the most frequent first."""
    tagged = ["Behind each word is its predicted tag; if that is wrong, the right one follows in brackets."]
    tagged += [with_tags(words, predicted, labels) for words, labels, predicted in sentences[:SHOWN_SENTENCES]]
    pairs = Counter(pair for _, labels, predicted in sentences for pair in zip(labels, predicted, strict=True))
    tags = sorted({tag for pair in pairs for tag in pair})
    numbers = {tag: number for number, tag in enumerate(tags)}
    counts = torch.zeros(len(tags), len(tags), dtype=torch.int64)
    for (label, prediction), count in pairs.items():
        counts[numbers[label], numbers[prediction]] = count
    rows = zip(tags, *(score.tolist() for score in class_scores(counts)), strict=True)
    by_support = sorted(rows, key=lambda row: -row[-1])
    return "\n".join(tagged), score_table(["tag", "precision", "recall", "F1", "support"], by_support, 1)


def scores(correct: int, predicted: int, labelled: int) -> list[float]:
    """Precision, recall, F1, and the two counts that they are shares of."""
    counts = torch.tensor([correct, predicted, labelled])
    return [precision(counts), recall(counts), f1(counts), labelled, predicted]
