"""From typing the command to the first answer of predict.py, beside importing torch alone; from weights and from ONNX.

    python -m benchmarks.first_answer --model_dir experiments/base_model --input photo.jpg

Each figure is a whole process, median of --rounds, run in turn. The ONNX file is exported first.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.hardware import describe_hardware


def seconds(words: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *words], capture_output=True, check=True)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_dir", default="experiments/base_model", help="whose best weights (%(default)s)")
    parser.add_argument("--input", required=True, help="a photo, a sentence or a CSV file")
    parser.add_argument("--rounds", type=int, default=7, help="times that each is run (%(default)s)")
    args = parser.parse_args()
    print(describe_hardware())
    with tempfile.TemporaryDirectory() as folder:
        exported = str(Path(folder) / "model.onnx")
        seconds(["export.py", "--model_dir", args.model_dir, "--output", exported])
        ways = {
            "import torch": ["-c", "import torch"],
            "predict.py": ["predict.py", "--model_dir", args.model_dir, args.input],
            "predict.py, ONNX": ["predict.py", "--weights", exported, args.input],
        }
        taken: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(args.rounds + 1):  # the first fills caches
            for name, words in ways.items():
                taken[name].append(seconds(words))
    for name, values in taken.items():
        print(f"  {name:18s}{statistics.median(values[1:]):6.2f} s")


if __name__ == "__main__":
    main()
