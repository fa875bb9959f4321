"""An exported graph against torch, on the CPU in float32.

    python -m benchmarks.export_speed --model_dir experiments/base_model experiments/ner_bilstm_crf

Each experiment has to be trained. Its best weights are exported into a folder that is deleted afterwards. Then torch
and onnxruntime answer the same made-up batch in turn, with the same number of threads, for --seconds. Printed are the
medians, and the median of the ratios of the pairs. It also prints how long a new process takes from its start to its
first answer, with each of the two.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.hardware import describe_hardware
from engine.exporting import batch_of, export_onnx, time_in_turn
from engine.onnx_network import OnnxNetwork
from engine.torch_network import TorchNetwork, restore_net
from model import TASKS

ROOT = Path(__file__).parent.parent
ANSWER = """
import sys
import numpy as np
from predict import load_predictor
predictor = load_predictor(sys.argv[1], "cpu")
predictor(predictor.processing.examples(1, 20, np.random.default_rng(0)))
"""


def first_answer(place: Path, rounds: int) -> float:
    """Median seconds of a process that loads what was trained, and answers once."""
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", ANSWER, str(place.absolute())], cwd=ROOT, check=True)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_dir", nargs="+", default=["experiments/base_model"], help="trained experiments")
    parser.add_argument("--seconds", type=float, default=5, help="for each size of batch (%(default)s)")
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[1, 32], help="(%(default)s)")
    parser.add_argument("--length", type=int, default=20, help="words of a text (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="processes, for the first answer (%(default)s)")
    args = parser.parse_args()
    print(describe_hardware())
    for model_dir in map(Path, args.model_dir):
        trained = restore_net(TASKS, model_dir)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            difference = export_onnx(trained, path).difference
            graph = OnnxNetwork(path.read_bytes(), str(path))
            network = TorchNetwork(trained.task, trained.net, torch.device("cpu"), torch.float32)
            processing = trained.task.Processing(trained.params)
            print(f"{model_dir} ({trained.task.name}), largest difference {difference:.1e}")
            for count in args.batch_sizes:
                inputs = batch_of(processing, count, args.length)
                torch_ms, onnx_ms = time_in_turn(network, graph, inputs, args.seconds)
                ratios = [a / b for a, b in zip(torch_ms, onnx_ms, strict=True)]
                print(
                    f"  batch of {count:3d}: torch {statistics.median(torch_ms):8.2f} ms, onnxruntime"
                    f" {statistics.median(onnx_ms):8.2f} ms, {statistics.median(ratios):.2f}x as fast"
                )
            with_torch, with_onnx = (first_answer(place, args.rounds) for place in (model_dir, path))
            print(f"  first answer of a new process: torch {with_torch:.2f} s, onnxruntime {with_onnx:.2f} s")


if __name__ == "__main__":
    main()
