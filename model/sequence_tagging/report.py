"""Outputs -> what a person looks at: scores by type, tagged sentences, and every single prediction."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import torch

from engine.reports import Report as BaseReport
from engine.reports import score_table
from utils import write_atomically

from .entities import bracket, find_entities
from .net import f1, precision, recall

SHOWN_SENTENCES = 6


class Report(BaseReport):
    """Scores by type of entity, some tagged sentences, and predictions in CoNLL's columns."""

    def write(self, model_dir: Path, name: str) -> str:
        """Write predictions_{name}.txt: word, label and prediction of each line, an empty line after each sentence.

        Returns the table of scores by type, and some sentences as they were tagged.
        """
        tags = [*self.params.data.tags, *self.params.data.unseen_tags]
        labels = (tags[number] for number in self.dataset.labels.tolist())
        sentences = [
            (words, [next(labels) for _ in words], record["prediction"])
            for words, record in zip(self.dataset.sentences, self.records, strict=True)
        ]
        lines = [[" ".join(columns) for columns in zip(*sentence, strict=True)] for sentence in sentences]
        write_atomically(model_dir / f"predictions_{name}.txt", "\n".join("\n".join(block) + "\n" for block in lines))

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
        table = score_table(["type", "precision", "recall", "F1", "labelled", "predicted"], rows, 2)
        return "\n\n".join(["\n".join(tagged), f"All of them: {model_dir / f'predictions_{name}.txt'}", table])


def scores(correct: int, predicted: int, labelled: int) -> list[float]:
    """Precision, recall, F1, and the two counts that they are shares of."""
    counts = torch.tensor([correct, predicted, labelled])
    return [precision(counts), recall(counts), f1(counts), labelled, predicted]
