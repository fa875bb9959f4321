"""Tables: the training loop against its bare limit, and logistic regression against scikit-learn's.

    python -m benchmarks.tables --csv diabetes.csv

The loop of tabular_mlp is measured on the sample table, ten times as long as build_dataset.py --sample makes it. For
the comparison, --csv is built with --seeds different splits. Each time, experiments/tabular_logistic is trained by
train.py, and LogisticRegression of scikit-learn (pip install scikit-learn), with its defaults, on the same rows.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np

from benchmarks.hardware import describe_hardware
from benchmarks.paired import bare_way, measure, print_speeds, train_way
from engine.devices import choose_device
from engine.experiments import load_experiment
from engine.loaders import fetch_dataloaders
from model import TASKS
from model.tabular_prediction import sample

ROOT = Path(__file__).parent.parent


def run(*words: object) -> None:
    subprocess.run([sys.executable, *map(str, words)], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def measure_loop(folder: Path, rounds: int) -> None:
    """Rows per second of tabular_mlp at its default batch size, over epochs of 19,200 rows."""
    (folder / "raw").mkdir()
    with mock.patch.object(sample, "NUM_ROWS", 10 * sample.NUM_ROWS):
        sample.write_sample(folder / "raw", seed=230)
    build = ["--task", "tabular_prediction", "--data_dir", folder / "raw", "--output_dir", folder / "built"]
    run("build_dataset.py", *build)
    device = choose_device("cpu")
    task, params, *_ = load_experiment(TASKS, ROOT / "experiments" / "tabular_mlp", str(folder / "built"))
    loader = fetch_dataloaders(task, ["train"], params, device)["train"]
    num_rows = params.data.sizes["train"]
    ways = {"bare": bare_way(task, params, list(loader), device), "train.py": train_way(task, params, device)}
    print(f"tabular_mlp, {num_rows} rows in batches of {params.batch_size}, median of {rounds} epochs:")
    print_speeds(measure(ways, num_rows, rounds, device), "rows/s", {"bare": "bare"})


def compare(csv: Path, folder: Path, seeds: int) -> None:
    """Accuracy on test of logistic regression, ours and scikit-learn's, on the same splits."""
    from sklearn.linear_model import LogisticRegression

    accuracies: dict[str, list[float]] = {"train.py": [], "scikit-learn": []}
    for seed in range(seeds):
        built, model_dir = folder / f"built{seed}", folder / f"logistic{seed}"
        build = ["--task", "tabular_prediction", "--data_dir", csv.resolve(), "--output_dir", built, "--seed", seed]
        run("build_dataset.py", *build)
        run("train.py", "--model_dir", model_dir, "--base", "experiments/tabular_logistic", "--data_dir", built)
        run("evaluate.py", "--model_dir", model_dir)
        ours = json.loads((model_dir / "metrics_test_best_weights.json").read_text(encoding="utf-8"))["accuracy"]
        x, y = ({s: np.load(built / s / f"{name}.npy") for s in ("train", "test")} for name in ("numbers", "labels"))
        fitted = LogisticRegression().fit(x["train"], y["train"])
        accuracies["train.py"].append(ours)
        accuracies["scikit-learn"].append(fitted.score(x["test"], y["test"]))
    print(f"Logistic regression on {csv.name}, {seeds} splits, accuracy on test:")
    for name, values in accuracies.items():
        print(f"  {name:16s}{statistics.mean(values):.4f}  ({', '.join(f'{value:.4f}' for value in values)})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--csv", type=Path, help="table of numbers whose last column is a class; none: no comparison")
    parser.add_argument("--seeds", type=int, default=5, help="splits of it (%(default)s)")
    parser.add_argument("--rounds", type=int, default=25, help="epochs of each way (%(default)s)")
    args = parser.parse_args()
    print(describe_hardware(choose_device("cpu")))
    with tempfile.TemporaryDirectory() as folder:
        measure_loop(Path(folder), args.rounds)
        if args.csv:
            compare(args.csv, Path(folder), args.seeds)


if __name__ == "__main__":
    main()
