"""How long a plain text of a gigabyte takes to build and to start with, and how much memory it needs.

    python -m benchmarks.large_text

Its words are drawn by Zipf's law. Prints, for each of --megabytes and each level, the seconds of build_dataset.py, the
seconds from typing train.py to its first step, and the peak memory of both. Each size runs in a process of its own,
since a process remembers the largest of the processes that it started.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.hardware import describe_hardware
from benchmarks.long_texts import measure
from benchmarks.startup import ROOT

WORDS, LINE, LINES = 200_000, 12, 100_000  # words in all, in a line, and lines that are drawn; then they come again


def write_text(path: Path, megabytes: int) -> None:
    rng = np.random.default_rng(0)
    vocabulary = np.array(["".join(rng.choice(list("etaoinshrdlu"), rng.integers(1, 12))) for _ in range(WORDS)])
    shares = (1 / np.arange(1, WORDS + 1)).cumsum()
    words = vocabulary[shares.searchsorted(shares[-1] * rng.random((LINES, LINE)))]
    block = "".join(" ".join(line) + ".\n" for line in words.tolist()).encode()
    with open(path, "wb") as file:
        while file.tell() < megabytes * 10**6:
            file.write(block)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", nargs="+", type=int, default=[100, 1000], help="sizes (%(default)s)")
    parser.add_argument("--levels", nargs="+", default=["char", "word"], help="(%(default)s)")
    parser.add_argument("--steps", type=int, default=100, help="batches before memory is measured (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="starts (%(default)s)")
    args = parser.parse_args()
    if len(args.megabytes) * len(args.levels) > 1:
        print(describe_hardware(), flush=True)
        same = ["--steps", str(args.steps), "--rounds", str(args.rounds)]
        for level in args.levels:
            for megabytes in args.megabytes:
                one = ["--megabytes", str(megabytes), "--levels", level]
                subprocess.run([sys.executable, "-m", "benchmarks.large_text", *one, *same], cwd=ROOT, check=True)
        return
    (megabytes,), (level,) = args.megabytes, args.levels
    with tempfile.TemporaryDirectory() as folder:
        write_text(Path(folder) / "text.txt", megabytes)
        flags = ["--level", level]
        found = measure("language_modeling", Path(folder) / "text.txt", flags, {}, args.steps, args.rounds)
    print(f"{megabytes:5d} MB by {level}s: {found}", flush=True)


if __name__ == "__main__":
    main()
