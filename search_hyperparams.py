"""Search the hyperparameters of an experiment: many runs at once, each an ordinary experiment in a folder of its own.

    python search_hyperparams.py --parent_dir experiments/learning_rate
    python search_hyperparams.py --parent_dir experiments/learning_rate --set learning_rate=1e-4,1e-3,1e-2

The parent has a params.json, which the runs share, and a search.json, which says what is tried (or --set, for a grid).
The same command goes on with a search that was interrupted.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from engine.commands import command_line, run_command
from results.experiments import find_results
from results.terminal import print_tables
from search.best import write_best
from search.driver import Driver
from search.space import read_search
from search.study import opened_study
from search.workers import Runner, choose_jobs, list_gpus
from utils import UserError, logger, set_logger

# what a run imports besides train.py, and the file of this command, which each child process looks into
PRELOAD = ["search_hyperparams", "torch.utils.tensorboard", "matplotlib.figure", "matplotlib.backends.backend_agg"]
TASK_FILES = ("data_loader", "net", "report")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--parent_dir",
        default="experiments/learning_rate",
        help="folder with params.json and search.json (%(default)s)",
    )
    parser.add_argument("--data_dir", help="built data set to train on (the one that params.json names)")
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE,VALUE",
        help="a grid, instead of search.json",
    )
    parser.add_argument("--method", choices=["grid", "random", "tpe"], help="instead of search.json's")
    parser.add_argument("--num_trials", type=int, help="instead of search.json's")
    parser.add_argument("--jobs", type=int, help="runs at once (one per GPU, or per core)")
    parser.add_argument("--no_prune", action="store_true", help="train every setting to the end")
    parser.add_argument("--storage", help="where the study is kept: an SQLAlchemy URL (study.db in the parent)")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda", "mps"], help="(%(default)s)")
    args = parser.parse_args()
    for name in ("jobs", "num_trials"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise UserError(f"--{name} {getattr(args, name)}: expected 1 or more.")
    return args


def main() -> None:
    args = parse_args()
    parent_dir = Path(args.parent_dir)
    search = read_search(parent_dir, args.set, args.method, args.num_trials, args.data_dir)
    gpus = list_gpus(args.device)
    jobs = min(choose_jobs(args.jobs, gpus), search.num_trials)
    task_modules = [f"model.{search.params.task}.{name}" for name in TASK_FILES]
    runner = Runner("train", jobs, gpus, preload=[*PRELOAD, *task_modules])
    with opened_study(search, args.storage, prune=search.prune and not args.no_prune) as study:
        set_logger(parent_dir / "search.log")
        logger.info("%d trials, %d at once, by %s", search.num_trials, jobs, search.method)
        Driver(study, runner, jobs, args.device).search_all()
        print_tables(find_results(parent_dir), parent_dir)
        page = ("--parent_dir", parent_dir, "--html", parent_dir / "report.html")
        logger.info("A page of it: %s", command_line("synthesize_results.py", *page))
        write_best(study)


if __name__ == "__main__":
    run_command(main)
