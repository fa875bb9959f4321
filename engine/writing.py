"""Texts that a network writes: how they may be told to be written, and printing them as they come."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

from engine.answers import is_unicode
from engine.predicting import Predictor
from utils import UserError, logger


class Style(NamedTuple):
    """How a text is written.

    Attributes:
        length: characters, or words.
        temperature: below 1 the network is surer than it says, above 1 less sure; at 0, the likeliest token is taken.
        top_k: only so many of the likeliest tokens are drawn; 0 for all.
        top_p: only the likeliest tokens whose probabilities add up to this (Holtzman et al. 2020, "The curious case of
            neural text degeneration", equation 2).
        seed: the same seed writes the same text.
    """

    length: int = 500
    temperature: float = 0.8
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0


DOES_NOT_WRITE = "This network does not write; language models do."
# what is right, and how to say so
BOUNDS: dict[str, Any] = {
    "length": (lambda value: value >= 1, "1 or more"),
    "temperature": (lambda value: 0 <= value < math.inf, "0 or more"),
    "top_k": (lambda value: value >= 0, "0 or more"),
    "top_p": (lambda value: 0 < value <= 1, "more than 0, and at most 1"),
    "seed": (lambda value: value >= 0, "0 or more"),
}


def check_style(values: Mapping[str, Any], prefix: str = "") -> Style:
    """The style that flags or a request ask for.

    Args:
        values: some fields of `Style`; the others have their defaults.
        prefix: of the names, in messages.

    Raises:
        UserError: a value cannot be.
    """
    for name, value in values.items():
        is_integer = isinstance(Style._field_defaults[name], int)
        if isinstance(value, bool) or not isinstance(value, int if is_integer else int | float):
            raise UserError(f"{prefix}{name} {value!r:.50}: expected {'an integer' if is_integer else 'a number'}.")
        is_right, expected = BOUNDS[name]
        if not is_right(value) or (not is_integer and abs(value) > sys.float_info.max):
            raise UserError(f"{prefix}{name} {value!s:.50}: expected {expected}.")
    return Style(**values)


def add_writing_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("language models")
    group.add_argument("--prompt", metavar="TEXT", help="write: go on from this beginning, which may be empty")
    for name, about in (
        ("length", "characters or words to write"),
        ("temperature", "0: the likeliest; 1: as learnt"),
        ("top_k", "draw from the K likeliest only; 0: from all"),
        ("top_p", "draw from the likeliest of this probability together"),
        ("seed", "the same seed writes the same text"),
    ):
        default = Style._field_defaults[name]
        group.add_argument(f"--{name}", type=type(default), default=default, help=f"{about} (%(default)s)")
    group.add_argument("--samples", type=int, default=1, help="how many texts to write (%(default)s)")
    group.add_argument("--score", metavar="FILE", help="say how well the network foresees this text (perplexity)")


def check_flags(args: argparse.Namespace) -> None:
    """Raises UserError if flags of predict.py do not go together."""
    asked = "--prompt" if args.prompt is not None else "--score" if args.score else ""
    given = {"INPUT": args.inputs, "--file": args.file, "--output": args.output, "--format": args.format}
    given |= {"--score": args.score if asked == "--prompt" else None}
    if asked and (other := next((name for name, value in given.items() if value), None)):
        hint = " To write to a file: > FILE" if other in ("--output", "--format") else ""
        raise UserError(f"{asked} and {other}: expected one of the two.{hint}")
    defaults = {**Style._field_defaults, "samples": 1}
    if asked != "--prompt" and (changed := [name for name in defaults if getattr(args, name) != defaults[name]]):
        raise UserError(f"--{changed[0]} says how to write, and --prompt is not given.")


def write_samples(predictor: Predictor, args: argparse.Namespace) -> None:
    """Print texts that begin with --prompt. A single one appears while it is written. Raises UserError."""
    processing = predictor.processing
    if not processing.writes:
        raise UserError(DOES_NOT_WRITE)
    style = check_style({name: getattr(args, name) for name in Style._fields}, "--")
    if args.samples < 1:
        raise UserError(f"--samples {args.samples}: expected 1 or more.")
    if not is_unicode(args.prompt):
        raise UserError("--prompt: not Unicode.")
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
