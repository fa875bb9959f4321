"""Texts that a network writes, for predict.py: flags, and printing them as they come."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from engine.predicting import Predictor
from engine.tasks import Task
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


def style_of(task: Task, values: Any) -> Any:
    """How a text is to be written: the task's `Style`, of flags or of a request. Raises UserError if that cannot be."""
    if task.optional("write") is None:
        raise UserError(f"--prompt and --score are for language models; this network is one for {task.name}.")
    style = task.optional("Style")(**{name: getattr(values, name) for name in task.optional("Style")._fields})
    for name, is_right, expected in (
        ("length", style.length >= 1, "at least 1"),
        ("temperature", 0 <= style.temperature < float("inf"), "0 or more"),
        ("top_k", style.top_k >= 0, "0 or more"),
        ("top_p", 0 < style.top_p <= 1, "more than 0, and at most 1"),
        ("seed", style.seed >= 0, "0 or more"),
    ):
        if not is_right:
            raise UserError(f"--{name} {getattr(style, name)}: expected {expected}.")
    return style


def write_samples(task: Task, predictor: Predictor, args: argparse.Namespace) -> None:
    """Print texts that begin with --prompt. A single one appears while it is written. Raises UserError."""
    style = style_of(task, args)
    if args.samples < 1:
        raise UserError(f"--samples {args.samples}: expected at least 1.")
    if unknown := predictor.processing.unknown_in(args.prompt):  # type: ignore[attr-defined]
        logger.warning("The network does not know %s.", ", ".join(map(repr, unknown[:20])))
    steps = task.optional("write")(predictor, args.prompt, style, args.samples)
    if args.samples == 1:
        sys.stdout.write(args.prompt)
        for (text,) in steps:
            sys.stdout.write(text)
            sys.stdout.flush()
        sys.stdout.write("\n")
        return
    for number, parts in enumerate(zip(*steps, strict=True), start=1):
        print(f"--- {number}\n{args.prompt}{''.join(parts)}")
