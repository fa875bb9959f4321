"""Export a trained network to one file that is enough to use it.

    python export.py --model_dir experiments/base_model                    # model.onnx: runs without torch
    python export.py --model_dir experiments/base_model --format torch     # model.pt: the weights alone, for torch

predict.py and serve.py read both. The ONNX file holds the graph, classes and vocabularies, and a description of its
inputs and outputs. It is written only if it computes the same as the network.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from engine.commands import run_command
from engine.exporting import OPSET, SUFFIXES, check_installed, check_output, export_onnx, export_torch
from engine.torch_network import restore_net
from model import TASKS
from utils import logger


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_dir", default="experiments/base_model", help="folder of the experiment (%(default)s)")
    parser.add_argument("--weights", metavar="FILE", help="a checkpoint (the best of --model_dir)")
    parser.add_argument("--output", metavar="FILE", help="file to write (model.onnx or model.pt, beside them)")
    parser.add_argument("--format", default="onnx", choices=SUFFIXES, help="(%(default)s)")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if args.format == "onnx":
        check_installed()
    trained = restore_net(TASKS, Path(args.weights or args.model_dir))
    folder = Path(args.weights).parent if args.weights else Path(args.model_dir)
    output = Path(args.output or folder / f"model{SUFFIXES[args.format]}")
    check_output(output, args.format)
    if args.format == "torch":
        export_torch(trained, output)
    else:
        report = export_onnx(trained, output)
        logger.info("ONNX opset %d; differs from the network by at most %.1e", OPSET, report.difference)
        for count, (torch_ms, onnx_ms) in report.milliseconds.items():
            logger.info("batch of %2d: torch %.2f ms, onnxruntime %.2f ms", count, torch_ms, onnx_ms)
    weights = Path(trained.about.path)
    sizes = [path.stat().st_size / 1e6 for path in (weights, output)]
    logger.info("%s (%.2f MB) -> %s (%.2f MB)", weights, sizes[0], output, sizes[1])


if __name__ == "__main__":
    run_command(main)
