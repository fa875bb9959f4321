"""Texts that a network writes, for predict.py: flags, and printing them as they come."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from typing import Any

from engine.predicting import Predictor, Processing
from utils import UserError, logger


def add_writing_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("language models")
    group.add_argument("--prompt", metavar="TEXT", help="write: go on from this beginning, which may be empty")
    group.add_argument("--length", type=int, default=500, help="characters or words to write (%(default)s)")
    group.add_argument("--temperature", type=float, default=0.8, help="0: the likeliest; 1: as learnt (%(default)s)")
    group.add_argument("--top_k", type=int, default=0, help="draw from the K likeliest only; 0: from all")
    group.add_argument("--top_p", type=float, default=1.0, help="draw from the likeliest of this probability together")
    group.add_argument("--seed", type=int, default=0, help="the same seed writes the same text (%(default)s)")
    group.add_argument("--samples", type=int, default=1, help="how many texts to write (%(default)s)")
    group.add_argument("--score", metavar="FILE", help="say how well the network foresees this text (perplexity)")


def style_of(processing: Processing, values: Mapping[str, Any], prefix: str = "") -> Any:
    """How a text is to be written, as flags or a request say.

    Args:
        values: some fields of `processing.style`; the others have their defaults.
        prefix: of the names, in messages.

    Raises:
        UserError: the network does not write, or a value cannot be.
    """
    if processing.style is None:
        raise UserError("This network does not write; language models do.")
    style = processing.style(**values)
    for name, default in processing.style._field_defaults.items():
        value = getattr(style, name)
        if isinstance(default, int) and (not isinstance(value, int) or isinstance(value, bool)):
            raise UserError(f"{prefix}{name} {value!r:.50}: expected an integer.")
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise UserError(f"{prefix}{name} {value!r:.50}: expected a number.")
    for name, is_right, expected in (
        ("length", style.length >= 1, "at least 1"),
        ("temperature", 0 <= style.temperature < float("inf"), "0 or more"),
        ("top_k", style.top_k >= 0, "0 or more"),
        ("top_p", 0 < style.top_p <= 1, "more than 0, and at most 1"),
        ("seed", style.seed >= 0, "0 or more"),
    ):
        if not is_right:
            raise UserError(f"{prefix}{name} {getattr(style, name)}: expected {expected}.")
    return style


def write_samples(predictor: Predictor, args: argparse.Namespace) -> None:
    """Print texts that begin with --prompt. A single one appears while it is written. Raises UserError."""
    processing = predictor.processing
    fields = processing.style._fields if processing.style else ()
    style = style_of(processing, {name: getattr(args, name) for name in fields}, "--")
    if args.samples < 1:
        raise UserError(f"--samples {args.samples}: expected at least 1.")
    if unknown := processing.unknown_in(args.prompt):
        logger.warning("The network does not know %s.", ", ".join(map(repr, unknown[:20])))
    steps = processing.write(predictor.network, args.prompt, style, args.samples)
    if args.samples == 1:
        sys.stdout.write(args.prompt)
        for (text,) in steps:
            sys.stdout.write(text)
            sys.stdout.flush()
        sys.stdout.write("\n")
        return
    for number, parts in enumerate(zip(*steps, strict=True), start=1):
        print(f"--- {number}\n{args.prompt}{''.join(parts)}")
