"""Texts per second of the training loop on text classification, against the bare limit, and the share of padding.

    python -m benchmarks.text_speed --data_dir data/sst --model_dir experiments/sst_lstm
    python -m benchmarks.text_speed --data_dir data/names --model_dir experiments/names_gru

In one process, in turn, for --rounds epochs each: bare (batches that were made before, network, loss, backward,
clipping, optimizer step, nothing else: the limit) and train.py (its `train` function over an epoch, everything in).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.hardware import describe_hardware
from benchmarks.paired import bare_way, measure, print_speeds, train_way
from engine.devices import choose_device
from engine.experiments import load_experiment
from engine.loaders import fetch_dataloaders
from model import TASKS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", default="data/sst", help="built data set (%(default)s)")
    parser.add_argument("--model_dir", type=Path, default="experiments/sst_lstm", help="experiment (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="epochs of each way (%(default)s)")
    args = parser.parse_args()
    device = choose_device("cpu")
    print(describe_hardware(device))
    task, params, *_ = load_experiment(TASKS, args.model_dir, args.data_dir)
    for batch_size in sorted({64, params.batch_size}):
        sized = params.model_copy(update={"batch_size": batch_size}).with_data(params.data)
        inputs = [inputs for inputs, _ in fetch_dataloaders(task, ["train"], sized)["train"]]
        words = sum(int(batch["lengths"].sum()) for batch in inputs)
        computed = sum(batch["words"].numel() for batch in inputs)
        print(f"Padding in batches of {batch_size}: {1 - words / computed:.2%} of the computed positions")
    batches = list(fetch_dataloaders(task, ["train"], params)["train"])
    num_texts = params.data.sizes["train"]
    print(f"{args.model_dir}, {num_texts} texts, median of {args.rounds} epochs:")
    ways = {"bare": bare_way(task, params, batches, device), "train.py": train_way(task, params, device)}
    print_speeds(measure(ways, num_texts, args.rounds, device), "texts/s", {"bare": "bare"})


if __name__ == "__main__":
    main()
