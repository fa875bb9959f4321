"""Examples per second of a training alone, and beside another training on the same cores.

    python -m benchmarks.shared_cores --text data/ner --images data/64x64_SIGNS

OpenMP's threads spin while they wait for each other, so trainings that share their cores disturb each other. This
measures what can be done about it by environment variables. Each figure is the median of --rounds runs of --seconds,
each in a process of its own. The other training has the same variables. The choices are taken in turn.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

from benchmarks.hardware import describe_hardware
from benchmarks.paired import ratio, train_way
from engine.experiments import load_experiment
from model import TASKS

ROOT = Path(__file__).parent.parent
CHOICES = {  # name -> environment
    "nothing set": {},
    "GOMP_SPINCOUNT=10000": {"GOMP_SPINCOUNT": "10000"},
    "the same and OMP_PROC_BIND=true": {"GOMP_SPINCOUNT": "10000", "OMP_PROC_BIND": "true"},
    "OMP_NUM_THREADS=1": {"OMP_NUM_THREADS": "1"},
}


def train_for(model_dir: str, data_dir: str, seconds: float) -> None:
    """Train for whole epochs until `seconds` are over, and print examples per second. The first epoch is warm-up."""
    task, params, *_ = load_experiment(TASKS, model_dir, data_dir)
    epoch = train_way(task, params, torch.device("cpu"))
    epoch()
    print("READY", flush=True)
    epochs, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        epoch()
        epochs += 1
    print(params.data.sizes["train"] * epochs / (time.perf_counter() - start), flush=True)


def start(model_dir: str, data_dir: str, seconds: float, choice: dict[str, str]) -> subprocess.Popen[str]:
    """`train_for` in another process, which is ready when this returns."""
    environment = {name: value for name, value in os.environ.items() if name[:4] not in ("GOMP", "OMP_")} | choice
    command = [sys.executable, "-m", "benchmarks.shared_cores", "--train", model_dir, data_dir, str(seconds)]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, encoding="utf-8")
    assert process.stdout is not None
    assert process.stdout.readline() == "READY\n"
    return process


def speed_of(process: subprocess.Popen[str]) -> float:
    return float(process.communicate()[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", default="data/64x64_SIGNS", help="built data set (%(default)s)")
    parser.add_argument("--text", default="data/ner", help="built data set (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="(%(default)s)")
    parser.add_argument("--seconds", type=float, default=10, help="of each run (%(default)s)")
    parser.add_argument("--choices", nargs="*", default=list(CHOICES), help="(all)")
    parser.add_argument("--train", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.train:
        train_for(args.train[0], args.train[1], float(args.train[2]))
        return
    print(describe_hardware())
    experiments = {"base_model": args.images, "ner_lstm": args.text, "ner_bilstm_crf": args.text}
    for name, data_dir in experiments.items():
        what = (f"experiments/{name}", data_dir)
        alone: dict[str, list[float]] = {choice: [] for choice in args.choices}
        beside: dict[str, list[float]] = {choice: [] for choice in args.choices}
        for _ in range(args.rounds):
            for choice in args.choices:
                alone[choice].append(speed_of(start(*what, args.seconds, CHOICES[choice])))
                other = start(*what, 1e9, CHOICES[choice])  # as busy as this one, and set up like it
                beside[choice].append(speed_of(start(*what, args.seconds, CHOICES[choice])))
                other.kill()
                other.communicate()
        print(f"experiments/{name}, examples/s, median of {args.rounds}:")
        for choice in args.choices:
            share = ratio({"beside": beside[choice], "alone": alone[choice]}, "beside", "alone")
            speeds = (statistics.median(alone[choice]), statistics.median(beside[choice]))
            print(f"  {choice:36s}alone {speeds[0]:8.0f}   beside another {speeds[1]:8.0f}   {share:5.0%}", flush=True)


if __name__ == "__main__":
    main()
