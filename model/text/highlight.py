"""Texts as a page, each word coloured by how much it spoke for the prediction."""

from __future__ import annotations

import html
from collections.abc import Sequence

from engine.answers import Record, pieces

from .tokenizer import without_breaks

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
<span style="background: {blue}">blue</span> against it (gradient times input). {note}</p>
{texts}
</html>
"""


def page_of(title: str, headings: Sequence[str], records: Sequence[Record], note: str = "") -> str:
    """HTML of the texts of `records`, which have `influence`, each below its heading. A `note` stands above them."""
    texts = [
        f"<h2>{html.escape(heading)}</h2>\n<p>{highlight(record)}</p>"
        for heading, record in zip(headings, records, strict=True)
    ]
    title, note = html.escape(title), html.escape(note)
    return PAGE.format(title=title, note=note, orange=color(1), blue=color(-1), texts="\n".join(texts))


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
