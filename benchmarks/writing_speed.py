"""Characters per second that a language model writes, and its training loop against the bare limit.

    python -m benchmarks.writing_speed --model_dir experiments/shakespeare --data_dir data/shakespeare

Writing: a trained experiment writes --length characters alone, and in --samples at once; medians of --rounds. Training:
in one process, in turn, for --rounds epochs each: bare (batches that were made before, network, loss, backward,
clipping, optimizer step, nothing else: the limit) and train.py (its `train` function over an epoch, everything in).
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

from benchmarks.hardware import describe_hardware
from benchmarks.paired import bare_way, measure, print_speeds, train_way
from engine.devices import choose_device
from engine.experiments import load_experiment
from engine.loaders import fetch_dataloaders
from engine.writing import Style
from model import TASKS
from predict import load_predictor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_dir", type=Path, default="experiments/shakespeare", help="trained (%(default)s)")
    parser.add_argument("--data_dir", default="data/shakespeare", help="built data set (%(default)s)")
    parser.add_argument("--length", type=int, default=2000, help="characters of each sample (%(default)s)")
    parser.add_argument("--samples", type=int, default=64, help="written at once (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="(%(default)s)")
    args = parser.parse_args()
    device = choose_device("cpu")
    print(describe_hardware(device))
    predictor = load_predictor(args.model_dir, "cpu")
    processing = predictor.processing
    style = Style(args.length)
    for samples in (1, args.samples):
        speeds = []
        for _ in range(args.rounds):
            start = time.perf_counter()
            for _ in processing.write(predictor.network, "ROMEO:", style, samples):
                pass
            speeds.append(samples * args.length / (time.perf_counter() - start))
        print(f"Writing {samples} at once: {statistics.median(speeds):,.0f} characters/s", flush=True)
    task, params, *_ = load_experiment(TASKS, args.model_dir, args.data_dir)
    batches = list(fetch_dataloaders(task, ["train"], params)["train"])
    size = params.data.sizes["train"]
    ways = {"bare": bare_way(task, params, batches, device), "train.py": train_way(task, params, device)}
    print_speeds(measure(ways, size, args.rounds, device), "characters/s", {"bare": "bare"})


if __name__ == "__main__":
    main()
