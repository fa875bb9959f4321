"""Search the hyperparameters of an experiment: many runs at once, each an ordinary experiment in a folder of its own.

    python search_hyperparams.py --parent_dir experiments/learning_rate
    python search_hyperparams.py --parent_dir experiments/learning_rate --set learning_rate=1e-4,1e-3,1e-2

The parent has a params.json, which the runs share, and a search.json, which says what is tried (or --set, for a grid).
The same command goes on with a search that was interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import json
from pathlib import Path

import optuna

from engine.checkpoints import list_checkpoints
from engine.commands import run_command
from engine.experiments import read_params_file
from engine.locks import locked
from engine.signals import stop
from results.experiments import find_experiments
from results.table import FORMATS, make_table, merge_seeds
from search.driver import Driver
from search.space import Search, read_search
from search.study import STUDY, best_of, cannot_be_reached, folder_of, open_study, study_url
from search.workers import CONSOLE, Runner, choose_jobs, list_gpus
from utils import UserError, logger, save_json, set_logger

LOOK_EVERY = 0.25  # seconds, at the runs
ASK_EVERY = 5  # seconds, what other machines have done
SAME_FAILURES = 5  # in a row end the search


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
    return parser.parse_args()


def write_best(search: Search, study: optuna.Study, data_dir: str | None) -> None:
    """Leave the best setting as a folder, best/, and say how to train it on."""
    best = best_of(search, study.get_trials(deepcopy=False))
    if best is None:
        raise UserError(f"{search.parent_dir}: no trial was finished; see {CONSOLE} in their folders.")
    monitor = {"monitor": search.metric} if search.metric != search.params.monitor else {}
    where = {"data_dir": data_dir} if data_dir else {}
    setting = search.setting_of(best.params)
    params = {**read_params_file(search.parent_dir).values, **setting, **monitor, **where}
    target, folder = search.parent_dir / "best", search.folders_of(setting)[0]
    of_seeds = f" (mean of {search.seeds} seeds)" if search.seeds > 1 else ""
    logger.info("Best: %s %.4f%s, %s", search.metric, best.value, of_seeds, folder)
    if (target / "run.json").exists():
        is_other = json.loads((target / "params.json").read_text()) != params
        logger.info(
            "%s was trained%s already, and stays as it is.", target, " with another setting" if is_other else ""
        )
        return
    target.mkdir(exist_ok=True)
    save_json(params, target / "params.json")
    if weights := list_checkpoints(folder / "best_weights"):
        logger.info("Its setting is in %s. To train it on from its best weights:", target)
        logger.info("  python train.py --model_dir %s --restore_file %s", target, weights[-1])
    else:
        logger.info("Its setting is in %s; its weights are on %s.", target, best.user_attrs["driver"][0])


def main() -> None:
    args = parse_args()
    parent_dir = Path(args.parent_dir)
    for name in ("jobs", "num_trials"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise UserError(f"--{name} {getattr(args, name)}: expected 1 or more.")
    search = read_search(parent_dir, args.set, args.method, args.num_trials, args.data_dir)
    storage = args.storage or study_url(parent_dir)
    folder = folder_of(storage)
    with locked(folder) if folder else contextlib.nullcontext():
        try:
            run_search(
                search, storage, STUDY if folder and folder.samefile(parent_dir) else parent_dir.resolve().name, args
            )
        except optuna.exceptions.StorageInternalError as error:
            raise UserError(f"{cannot_be_reached(storage, error)} The same command goes on.") from None


def run_search(search: Search, storage: str, study_name: str, args: argparse.Namespace) -> None:
    gpus = [] if args.device == "cpu" else list_gpus()
    jobs = min(choose_jobs(args.jobs, gpus), search.num_trials)
    runner = Runner(search.params.task, jobs, gpus)
    study = open_study(search, storage, study_name, prune=search.prune and not args.no_prune)
    set_logger(search.parent_dir / "search.log")
    logger.info("%d trials, %d at once, by %s", search.num_trials, jobs, search.method)
    with stop.deferred():
        Driver(search, study, runner, jobs, args).search_all()
    print(FORMATS["markdown"](*make_table(merge_seeds(find_experiments(search.parent_dir)))))
    where = search.parent_dir
    logger.info("A page of it: python synthesize_results.py --parent_dir %s --html %s", where, where / "report.html")
    write_best(search, study, args.data_dir)


if __name__ == "__main__":
    run_command(main)
