"""How long 50,000 generated reviews of 230 words take to build and to start with, and how much memory they need.

    python -m benchmarks.long_texts

Reviews lie in a folder for each class, a file each, as in aclImdb; their words are drawn by Zipf's law. Prints, for
each of --counts, the seconds of build_dataset.py, the seconds from typing train.py to its first step, and the peak
memory of both.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.hardware import describe_hardware
from benchmarks.startup import ROOT, first_step

WORDS, LENGTH = 60_000, 230
# train.py for --steps batches, then the peak of its memory
TRAIN = """
import resource, sys, train
import engine.run
steps, take = int(sys.argv.pop(1)), engine.run.Run.check_finite
def stop_after(self, *arguments):
    global steps
    steps -= 1
    if not steps:
        print("PEAK", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, flush=True)
        import os; os._exit(0)
    return take(self, *arguments)
engine.run.Run.check_finite = stop_after
train.main()
"""


def write_reviews(folder: Path, count: int) -> None:
    rng = np.random.default_rng(0)
    vocabulary = np.array([f"word{i}" for i in range(WORDS)])
    shares = (1 / np.arange(1, WORDS + 1)).cumsum()
    for label in ("neg", "pos"):
        (folder / label).mkdir(parents=True)
        for i in range(count // 2):
            words = vocabulary[shares.searchsorted(shares[-1] * rng.random(LENGTH))].tolist()
            words[LENGTH // 2] += f",<br /><br />it's {'good' if label == 'pos' else 'bad'}."
            (folder / label / f"{i}.txt").write_text(" ".join(words), encoding="utf-8")


def measure(task: str, raw: Path, flags: list[str], params: dict[str, Any], steps: int, rounds: int) -> str:
    """Build `raw`, start on it, and train for some steps. Returns what that took, in words."""
    with tempfile.TemporaryDirectory() as temporary:
        data, model_dir = (Path(temporary) / name for name in ("data", "experiment"))
        build = [sys.executable, "build_dataset.py", "--task", task, "--data_dir", str(raw), *flags]
        start = time.perf_counter()
        subprocess.run([*build, "--output_dir", str(data)], cwd=ROOT, check=True, capture_output=True)
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        model_dir.mkdir()
        (model_dir / "params.json").write_text(json.dumps({"task": task, **params}), encoding="utf-8")
        starts = [first_step(model_dir, data) for _ in range(rounds)]
        places = ["--model_dir", str(model_dir), "--data_dir", str(data)]
        command = [sys.executable, "-c", TRAIN, str(steps), *places]
        output = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", check=True).stdout
    (line,) = [line for line in output.splitlines() if line.startswith("PEAK")]
    return (
        f"built in {seconds:.1f} s with {peak:.0f} MB; first step after {statistics.median(starts):.2f} s;"
        f" {int(line.split()[1]) / 1024:.0f} MB while it trains"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", nargs="+", type=int, default=[5_000, 50_000], help="reviews (%(default)s)")
    parser.add_argument("--steps", type=int, default=200, help="batches before memory is measured (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="starts (%(default)s)")
    args = parser.parse_args()
    print(describe_hardware())
    for count in args.counts:
        with tempfile.TemporaryDirectory() as raw:
            write_reviews(Path(raw), count)
            found = measure("text_classification", Path(raw), [], {}, args.steps, args.rounds)
        print(f"{count:6d} reviews: {found}", flush=True)


if __name__ == "__main__":
    main()
