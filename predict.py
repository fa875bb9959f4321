"""Use what was trained: the answers of an experiment's best weights for new inputs.

    python predict.py --model_dir experiments/base_model photo.jpg more_photos/ 'others/*.png'
    python predict.py --model_dir experiments/ner_bilstm_crf "Anna Smith lives in Kent."
    python predict.py --model_dir experiments/tabular_mlp visitors.csv --output answers.csv
    python predict.py --model_dir experiments/reviews "A lovely film." --explain
    python predict.py --model_dir experiments/shakespeare --prompt "ROMEO:" --length 500 --temperature 0.8
    python predict.py --model_dir experiments/shakespeare --score sonnet.txt

From Python: `predictor = load_predictor("experiments/base_model")`, then `predictor(["photo.jpg"])`.

Exit status: 0 if every input was answered, 1 if some could not be read, 2 if none could.
"""

from __future__ import annotations

import argparse
import gc
import sys
from pathlib import Path
from typing import Any

from engine.commands import run_command
from engine.predicting import Options, Predictor
from engine.predictions import FORMATS, check_output, open_writer
from engine.writing import add_writing_arguments, check_flags, write_samples
from model import TASKS
from utils import Progress, UserError


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("inputs", nargs="*", metavar="INPUT", help="images, folders, sentences, CSV files; - for stdin")
    parser.add_argument("--model_dir", default="experiments/base_model", help="folder of the experiment (%(default)s)")
    parser.add_argument("--weights", metavar="FILE", help="use this checkpoint or exported file instead")
    parser.add_argument("--file", help="text: lines of a file, CoNLL's columns, or a table; - for stdin")
    parser.add_argument("--columns", action="store_true", help="text: --file has CoNLL's columns, whatever its ending")
    parser.add_argument("--text_column", metavar="NAME", help="classes of text: where --file, a table, has its texts")
    parser.add_argument("--tokenized", action="store_true", help="text is tokenized already: split it at spaces only")
    parser.add_argument("--encoding", default="utf-8", help="text: of --file (%(default)s)")
    parser.add_argument("--top", type=int, default=1, help="how many classes to list (%(default)s)")
    parser.add_argument("--explain", action="store_true", help="classes of text: also say which words decided")
    parser.add_argument("--analogy", nargs=3, metavar=("A", "B", "C"), help="word vectors: A is to B as C is to what?")
    parser.add_argument("--format", choices=FORMATS, help="output format (that of --output's ending, else text)")
    parser.add_argument("--output", metavar="FILE", help="write to a file, which appears when it is whole")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, mps (the fastest available)")
    add_writing_arguments(parser)
    return parser.parse_args()


def load_predictor(place: str | Path, device: str = "auto", top: int = 1) -> Predictor:
    """What was trained, ready to answer: `predictor(inputs)` returns a record for each input.

    Args:
        place: folder of an experiment, whose best weights are taken; a checkpoint; or what export.py wrote.
        top: how many classes a record lists.

    Raises:
        UserError: there are no weights, or these are not of this project, or of another version of it.
    """
    if Path(place).suffix.lower() == ".onnx":
        from engine.onnx_network import load_onnx  # without torch

        return load_onnx(TASKS, Path(place), top, device)
    from engine.torch_network import load_checkpointed

    return load_checkpointed(TASKS, Path(place), device, top)


def score(predictor: Any, path: Path, encoding: str) -> None:
    """Print how well a language model foresees the text of a file."""
    from engine.loaders import loader_of  # torch, which an exported graph does without
    from evaluate import evaluate

    task, params, network = TASKS[predictor.task], predictor.params, predictor.network
    if task.optional("load_text") is None:
        raise UserError(f"--score is for language models; this network is for {task.name.replace('_', ' ')}.")
    if not hasattr(network, "net"):
        raise UserError("--score takes weights; an exported graph says what comes next, but does not score a text.")
    loader = loader_of(task.optional("load_text")(path, params, encoding), params)
    numbers = evaluate(network.net, loader, task, params, network.device)
    print("  ".join(f"{name} {value:.4f}" for name, value in numbers.items()))


def main() -> None:
    args = parse_args()
    if args.top < 1:
        raise UserError(f"--top {args.top}: expected at least 1.")
    check_flags(args)
    check_output(args.output, (args.file, *args.inputs))
    predictor = load_predictor(args.weights or args.model_dir, args.device, args.top)
    if args.explain:
        predictor = predictor.explaining
    if args.prompt is not None:
        return write_samples(predictor, args)
    if args.score:
        return score(predictor, Path(args.score), args.encoding)
    gc.freeze()  # what is loaded stays, so the garbage collector need not look through it again and again
    if args.analogy:
        args.inputs.append(" ".join(args.analogy))
    options = Options(args.file, args.tokenized, args.columns, args.text_column, args.encoding)
    inputs = predictor.processing.read(args.inputs, options)
    with open_writer(predictor.processing, args.format, args.output) as writer:
        records = predictor.stream(inputs, is_live="-" in (args.file, *args.inputs))
        if args.output or not sys.stdout.isatty():
            records = iter(Progress(records, "predicting"))
        for record in records:
            writer.write(record)


if __name__ == "__main__":
    run_command(main)
