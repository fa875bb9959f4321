"""Outputs -> the report of classes, and the surest mistakes with the words that decided them."""

from __future__ import annotations

from pathlib import Path

from engine.answers import Record
from engine.reports import ClassReport, suffix
from engine.torch_network import predictor_of
from model.text.highlight import page_of
from model.text.tokenizer import without_breaks
from utils import write_atomically

MOST_MISTAKES, PRINTED_MISTAKES = 50, 5
LONGEST_PRINTED = 100  # characters


class Report(ClassReport):
    """The report of any classifier, and mistakes.html, which shows the most confident mistakes."""

    def write(self, model_dir: Path, name: str) -> str:
        table = super().write(model_dir, name)
        worst = self.surest_mistakes(MOST_MISTAKES)
        page = model_dir / f"mistakes{suffix(name)}.html"
        page.unlink(missing_ok=True)  # of an earlier evaluation
        if not worst:
            return table
        numbers, labels, _ = zip(*worst, strict=True)
        records = predictor_of(self.task, self.params, self.net).explaining(self.dataset.raw_texts(numbers))
        headings = [
            f"line {i + 1}: {label}, but predicted {record['prediction']} ({record['probability']:.3f})"
            for i, label, record in zip(numbers, labels, records, strict=True)
        ]
        note = f"Lines are those of {self.dataset.folder}/texts.txt."
        write_atomically(page, page_of(f"The surest mistakes on {name}", headings, records, note))
        printed = [
            f"  {record['probability']:.3f} {record['prediction']}, not {label}: {shorten(record)}"
            for label, record in zip(labels[:PRINTED_MISTAKES], records, strict=False)
        ]
        return "\n".join([table, "", f"The surest mistakes (more, coloured, in {page}):", *printed])


def shorten(record: Record) -> str:
    text = " ".join(without_breaks(record["input"]).split())
    return text if len(text) <= LONGEST_PRINTED else text[:LONGEST_PRINTED] + "..."
