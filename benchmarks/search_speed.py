"""What a search costs: against the same runs one after another, in the driver, and with very many trials.

python -m benchmarks.search_speed --data_dir data/ner
python -m benchmarks.search_speed --images data/64x64_SIGNS    # and what TPE finds, against a grid
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

import search.space as search_space
import search.study as search_study
from benchmarks.hardware import describe_hardware

ROOT = Path(__file__).parent.parent
GRID = ["learning_rate=3e-3,1e-2,3e-2", "batch_size=32,64,128"]


def run(*words: Any) -> float:
    """Wall time of a command in seconds, start to exit."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *map(str, words)], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def run_search(parent: Path, *flags: Any) -> tuple[float, float]:
    """Wall time of a search in seconds, and its driver's share (without the runs) of all cores' time meanwhile."""
    words = [sys.executable, "search_hyperparams.py", "--parent_dir", parent, *flags]
    start = time.perf_counter()
    process = subprocess.Popen(list(map(str, words)), cwd=ROOT, stdout=subprocess.DEVNULL)
    driver = 0.0
    while process.poll() is None:
        fields = Path(f"/proc/{process.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        driver = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        time.sleep(0.05)
    seconds = time.perf_counter() - start
    assert process.returncode == 0
    return seconds, driver / seconds / (os.cpu_count() or 1)


def write_parent(folder: Path, base: str, data_dir: str, **changes: Any) -> Path:
    folder.mkdir(parents=True)
    params = json.loads((ROOT / "experiments" / base / "params.json").read_text(encoding="utf-8"))
    (folder / "params.json").write_text(
        json.dumps(params | {"data_dir": str(Path(data_dir).absolute())} | changes), encoding="utf-8"
    )
    return folder


def values_of(parent: Path, metric: str) -> dict[str, float]:
    found = sorted(parent.glob("*/metrics_eval_best_weights.json"))
    return {path.parent.name: json.loads(path.read_text(encoding="utf-8"))[metric] for path in found}


def compare_sweep(folder: Path, data_dir: str, rounds: int) -> None:
    """Nine short trials: a sweep, and nine train.py commands one after another, in turn."""
    ratios, shares = [], []
    for i in range(rounds):
        parent = write_parent(folder / f"sweep{i}", "ner_lstm", data_dir, num_epochs=3)
        sweep, share = run_search(parent, "--no_prune", "--set", *GRID)
        shares.append(share)
        names = list(values_of(parent, "f1"))
        single = folder / f"single{i}"
        seconds = 0.0
        for name in names:
            target = single / name
            target.mkdir(parents=True)
            (target / "params.json").write_bytes((parent / name / "params.json").read_bytes())
            seconds += run("train.py", "--model_dir", target)
        ours, theirs = values_of(parent, "f1"), values_of(single, "f1")
        largest = max(abs(ours[name] - theirs[name]) for name in names)
        ratios.append(seconds / sweep)
        print(
            f"  {len(names)} trials: sweep {sweep:.1f} s, train.py one after another {seconds:.1f} s:"
            f" {ratios[-1]:.2f}x; largest difference of F1 {largest:.4f};"
            f" driver {share:.1%} of all cores' time",
            flush=True,
        )
    print(f"  median {statistics.median(ratios):.2f}x, driver {statistics.median(shares):.1%}")


def shipped_searches(folder: Path, data_dirs: dict[str, str]) -> None:
    """The share of the driver in the searches that experiments/ holds."""
    for name, data_dir in data_dirs.items():
        parent = folder / name
        parent.mkdir()
        for file in ("params.json", "search.json"):
            shutil.copy(ROOT / "experiments" / name / file, parent)
        seconds, share = run_search(parent, "--data_dir", Path(data_dir).absolute())
        print(f"  experiments/{name}: {seconds:.0f} s, driver {share:.1%} of all cores' time", flush=True)


def many_trials(folder: Path, data_dir: str, count: int) -> None:
    """`count` finished trials in one parent: the table, and a search that finds nothing left to do."""
    parent = write_parent(folder / "many", "ner_lstm", data_dir)
    space = {"learning_rate": {"min": 1e-4, "max": 1e-4 * count}}
    search_file = {"method": "random", "num_trials": count, "space": space}
    (parent / "search.json").write_text(json.dumps(search_file), encoding="utf-8")
    search = search_space.read_search(parent)
    study = search_study.open_study(search, search_study.study_url(parent), search_study.STUDY, prune=False)
    distribution = search.space["learning_rate"]
    params = search.params.model_dump()
    for i in range(count):
        rate = round(1e-4 * (i + 1), 6)
        trial = search.folders_of({"learning_rate": rate})[0]
        trial.mkdir()
        metrics = {"epoch": 3, "loss": 0.5, "f1": i / count, "accuracy": 0.9, "precision": 0.5, "recall": 0.5}
        run_json = {"status": "finished", "monitor": "f1", "params": params | {"learning_rate": rate}}
        entry = {"epoch": 1, "train": metrics, "val": metrics, "learning_rate": rate, "seconds": 1.0}
        for name, value in (
            ("params.json", params | {"learning_rate": rate}),
            ("run.json", run_json),
            ("metrics_eval_best_weights.json", metrics),
            ("metrics_eval_last_weights.json", metrics),
            ("history.jsonl", entry),
        ):
            (trial / name).write_text(json.dumps(value) + "\n", encoding="utf-8")
        (trial / "best_weights").mkdir()
        (trial / "best_weights" / "epoch_0003.pt").touch()
        study.study.add_trial(
            optuna.create_trial(
                value=i / count,
                params={"learning_rate": rate},
                distributions={"learning_rate": distribution},
            )
        )
    table = statistics.median(run("synthesize_results.py", "--parent_dir", parent) for _ in range(3))
    page = ["synthesize_results.py", "--parent_dir", parent, "--plot", "--html", folder / "many.html"]
    pictures = statistics.median(run(*page) for _ in range(3))
    again = statistics.median(run("search_hyperparams.py", "--parent_dir", parent) for _ in range(3))
    print(
        f"  {count} finished trials: synthesize_results.py {table:.2f} s (with --plot --html {pictures:.2f} s),", end=""
    )
    print(f" search_hyperparams.py with nothing left to do {again:.2f} s")


def compare_methods(folder: Path, images: str, seeds: list[int]) -> None:
    """A 3x3x3 grid, and TPE with pruning in half its time."""
    space = {
        "learning_rate": {"min": 3e-4, "max": 3e-2, "log": True},
        "batch_size": [16, 32, 64],
        "dropout_rate": {"min": 0.0, "max": 0.6, "step": 0.1},
    }
    grid = ["learning_rate=3e-4,3e-3,3e-2", "batch_size=16,32,64", "dropout_rate=0,0.3,0.6"]
    changes = {"num_epochs": 8, "warmup_epochs": 2, "num_channels": 16}
    parent = write_parent(folder / "grid", "base_model", images, **changes)
    grid_seconds, _ = run_search(parent, "--no_prune", "--set", *grid)
    best = max(values_of(parent, "accuracy").values())
    print(f"  grid of 27: best accuracy on val {best:.4f}, {grid_seconds:.0f} s", flush=True)
    for seed in seeds:
        parent = write_parent(folder / f"tpe{seed}", "base_model", images, **changes)
        search_file = {"num_trials": 27, "seed": seed, "space": space}
        (parent / "search.json").write_text(json.dumps(search_file), encoding="utf-8")
        seconds, share = run_search(parent)
        trials = optuna.load_study(study_name=search_study.STUDY, storage=search_study.study_url(parent)).get_trials()
        begin = min(trial.datetime_start for trial in trials if trial.datetime_start)
        ends = {
            (trial.datetime_complete - begin).total_seconds(): trial.value
            for trial in trials
            if trial.state == TrialState.COMPLETE and trial.datetime_complete and trial.value is not None
        }
        first = min((end for end, value in ends.items() if value >= best), default=float("nan"))
        print(f"  tpe, seed {seed}: {max(ends.values()):.4f} with {len(trials)} trials", end=" ")
        print(f"in {seconds:.0f} s, {seconds / grid_seconds:.2f} of the grid's time;", end=" ")
        print(f"as good as the grid's best after {first:.0f} s, {first / grid_seconds:.2f};", end=" ")
        print(f"driver {share:.1%} of all cores' time", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", default="data/ner", help="built data set of tagged text (%(default)s)")
    parser.add_argument("--images", help="built data set of images, for the shipped searches and the methods")
    parser.add_argument("--rounds", type=int, default=3, help="sweeps (%(default)s)")
    parser.add_argument("--trials", type=int, default=1000, help="finished trials in one parent (%(default)s)")
    parser.add_argument("--seeds", nargs="*", type=int, default=[230, 231, 232, 233, 234], help="of TPE (%(default)s)")
    args = parser.parse_args()
    print(describe_hardware())
    with tempfile.TemporaryDirectory() as name:
        compare_sweep(Path(name), args.data_dir, args.rounds)
        many_trials(Path(name), args.data_dir, args.trials)
        if args.images:
            shipped_searches(Path(name), {"learning_rate": args.images, "ner_search": args.data_dir})
            compare_methods(Path(name), args.images, args.seeds)


if __name__ == "__main__":
    main()
