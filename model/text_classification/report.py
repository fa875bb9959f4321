"""Outputs -> the report of classes, and the surest mistakes with the words that decided them."""

from __future__ import annotations

import html
from pathlib import Path

from engine.answers import Record, pieces
from engine.reports import ClassReport, suffix
from engine.torch_network import predictor_of
from model.text.tokenizer import without_breaks
from utils import write_atomically

MOST_MISTAKES, PRINTED_MISTAKES = 50, 5
LONGEST_PRINTED = 100  # characters
PAGE = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 16px/1.6 system-ui, sans-serif; max-width: 50rem; margin: 2rem auto; padding: 0 1rem; color: #222;
       background: #fff }}
p {{ margin: 0 0 1.5rem; overflow-wrap: anywhere }}
h1 {{ font-size: 1.4rem }}
h2 {{ font-size: 1rem; margin: 0 }}
span {{ border-radius: 4px }}
</style>
<h1>{title}</h1>
<p>Words on <span style="background: {orange}">orange</span> spoke for the prediction, words on
<span style="background: {blue}">blue</span> against it (gradient times input).</p>
{mistakes}
</html>
"""


class Report(ClassReport):
    """The report of any classifier, and mistakes.html, which shows the most confident mistakes."""

    def write(self, model_dir: Path, name: str) -> str:
        table = super().write(model_dir, name)
        labels = [self.params.data.classes[label] for label in self.dataset.labels.tolist()]
        wrong = [i for i, record in enumerate(self.records) if record["prediction"] != labels[i]]
        worst = sorted(wrong, key=lambda i: -self.records[i]["probability"])[:MOST_MISTAKES]
        page = model_dir / f"mistakes{suffix(name)}.html"
        page.unlink(missing_ok=True)  # of an earlier evaluation
        if not worst:
            return table
        records = predictor_of(self.task, self.params, self.net).explaining(self.dataset.raw_texts(worst))
        parts = [
            f"<h2>line {i + 1}: {html.escape(labels[i])}, but predicted {html.escape(record['prediction'])}"
            f" ({record['probability']:.3f})</h2>\n<p>{highlight(record)}</p>"
            for i, record in zip(worst, records, strict=True)
        ]
        title = f"The surest mistakes on {html.escape(name)}"
        write_atomically(page, PAGE.format(title=title, orange=color(1), blue=color(-1), mistakes="\n".join(parts)))
        printed = [
            f"  {record['probability']:.3f} {record['prediction']}, not {labels[i]}: {shorten(record)}"
            for i, record in zip(worst[:PRINTED_MISTAKES], records, strict=False)
        ]
        return "\n".join([table, "", f"The surest mistakes (more, coloured, in {page}):", *printed])


def highlight(record: Record) -> str:
    """The text of a record as HTML, each word coloured by its influence."""
    return "".join(
        f'<span style="background: {color(share)}">{html.escape(text)}</span>'
        if share
        else html.escape(without_breaks(text))
        for text, share in pieces(record)
    )


def color(share: float) -> str:
    """Of a word with a share of the strongest influence, -1 to 1. The page of serve.py has the same colours."""
    return f"rgb({'224 123 40' if share > 0 else '47 111 176'} / {0.6 * abs(share):.2f})"


def shorten(record: Record) -> str:
    text = " ".join(without_breaks(record["input"]).split())
    return text if len(text) <= LONGEST_PRINTED else text[:LONGEST_PRINTED] + "..."
