"""What an experiment is judged by (accuracy, or entity F1) on the test split, over seeds; wall time of train.py.

    python -m benchmarks.accuracy --data_dir data/64x64_SIGNS
    python -m benchmarks.accuracy --data_dir data/ner --base experiments/ner_bilstm_crf

Trains each --base experiment from scratch with each seed by running `python train.py`, then `python evaluate.py`, as a
user would. The weights are those that the validation split chose.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.hardware import describe_hardware

ROOT = Path(__file__).parent.parent


def run(command: str, *arguments: str) -> float:
    """Run one of the commands. Returns its wall time in seconds, start to exit."""
    start = time.perf_counter()
    subprocess.run([sys.executable, str(ROOT / command), *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", default="data/64x64_SIGNS", help="built data set (%(default)s)")
    parser.add_argument(
        "--base", nargs="+", default=["experiments/base_model", "experiments/signs_resnet"], help="(%(default)s)"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[230, 231, 232], help="(%(default)s)")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="parameters to change for all runs")
    args = parser.parse_args()

    print(describe_hardware())
    for base in args.base:
        scores, seconds = [], []
        for seed in args.seeds:
            with tempfile.TemporaryDirectory() as folder:
                model_dir = Path(folder) / "experiment"
                where = ["--model_dir", str(model_dir), "--data_dir", args.data_dir]
                seconds.append(run("train.py", *where, "--base", base, "--set", f"seed={seed}", *args.set))
                run("evaluate.py", *where)
                test = json.loads((model_dir / "metrics_test_best_weights.json").read_text(encoding="utf-8"))
                name = json.loads((model_dir / "run.json").read_text(encoding="utf-8"))["monitor"]
                val = json.loads((model_dir / "metrics_eval_best_weights.json").read_text(encoding="utf-8"))
            scores.append(test[name])
            print(
                f"  seed {seed}: test {name} {test[name]:.4f} (loss {test['loss']:.4f}), "
                f"val {val[name]:.4f} after epoch {val['epoch']}, {seconds[-1]:.1f} s",
                flush=True,
            )
        print(
            f"{base} {' '.join(args.set)}: test {name} {statistics.mean(scores):.4f} "
            f"({min(scores):.4f} to {max(scores):.4f}), train.py {statistics.median(seconds):.1f} s, "
            f"{len(args.seeds)} seeds",
            flush=True,
        )


if __name__ == "__main__":
    main()
