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
import math
import re
import shutil
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from statistics import mean
from typing import Any

import optuna
from optuna.trial import TrialState

from model import create_experiment, read_params_file, read_run
from searches import (
    HEARTBEAT,
    REDUCTION_FACTOR,
    STUDY,
    Search,
    ask,
    beat,
    best_of,
    cannot_be_reached,
    folder_of,
    is_lost,
    is_shared,
    left_behind,
    open_study,
    read_search,
    study_url,
)
from synthesize_results import FORMATS, find_experiments, make_table, merge_seeds
from trials import BUSY, CONSOLE, Run, Runner, choose_jobs, list_gpus
from utils import UserError, is_locked, list_checkpoints, locked, logger, run_command, save_json, set_logger, stop

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


class Trial:
    """A setting that is being tried: one run for each seed, one after the other."""

    def __init__(self, search: Search, trial: optuna.Trial, times_judged: int = 0):
        self.trial = trial
        self.setting = search.setting_of(trial.params)
        self.folders = search.folders_of(self.setting)
        self.results: list[dict[str, float]] = []  # of the seeds that are done
        self.rung = search.first_rung * REDUCTION_FACTOR**times_judged  # the epoch after which it is judged next
        self.num_epochs: int = self.setting.get("num_epochs", search.params.num_epochs)
        self.outcome = ""  # "pruned" or "lost", once its run was asked to stop
        self.run: Run | None = None

    @property
    def folder(self) -> Path:
        return self.folders[len(self.results)]

    def is_locked(self) -> bool:
        return any(is_locked(folder) for folder in self.folders if folder.is_dir())


class Driver:
    """Keeps `jobs` runs going until all settings are tried."""

    def __init__(self, search: Search, study: optuna.Study, runner: Runner, jobs: int, args: argparse.Namespace):
        self.search, self.study, self.runner, self.args = search, study, runner, args
        self.slots: list[Trial | None] = [None] * jobs
        self.waiting = [Trial(search, *trial) for trial in left_behind(study, search)]
        self.ask_at = 0.0  # by the monotonic clock; never once all is tried
        self.last_reason, self.same_reasons = "", 0
        self.beaten_at = -math.inf
        self.display = Display(search)

    def search_all(self) -> None:
        self.wait_for_others()
        try:
            while True:
                self.beat()
                self.fill_slots()
                if not any(self.slots) and not self.waiting and self.ask_at == math.inf:
                    return
                self.display.show(self.study, [trial for trial in self.slots if trial])
                self.runner.wait([trial.run for trial in self.slots if trial and trial.run], LOOK_EVERY)
                stop.check()  # first: the signal may have reached the runs too
                for slot, trial in enumerate(self.slots):
                    if trial:
                        self.look_at(slot, trial)
        finally:
            self.display.clear()
            running = [trial.run for trial in self.slots if trial and trial.run]
            for run in running:
                run.stop()
            for run in running:
                run.process.join()

    def wait_for_others(self) -> None:
        """Never more at once than there are slots: runs whose driver was killed may still be saving."""
        last: list[str] = []
        while busy := [trial.folder.name for trial in self.waiting if trial.is_locked()]:
            if busy != last:
                logger.info("Waiting for runs that are still going on: %s", ", ".join(busy))
            last = busy
            time.sleep(LOOK_EVERY)
            stop.check()

    def beat(self) -> None:
        if time.monotonic() - self.beaten_at > HEARTBEAT / 2:
            beat(self.study, [trial.trial for trial in (*self.slots, *self.waiting) if trial])
            self.beaten_at = time.monotonic()

    def fill_slots(self) -> None:
        for slot in range(len(self.slots)):
            while self.slots[slot] is None:
                trial = self.next_trial()
                if trial is None:
                    return
                if not self.repeat(trial) and self.start(slot, trial):
                    self.slots[slot] = trial

    def next_trial(self) -> Trial | None:
        """The next trial that can be started now, if there is one."""
        running = {trial.folders[0] for trial in self.slots if trial}
        while True:
            for trial in self.waiting:
                if trial.folders[0] not in running and not trial.is_locked():
                    self.waiting.remove(trial)
                    return trial
            if time.monotonic() < self.ask_at:
                return None
            asked = ask(self.study, self.search)
            if asked is None:
                # all are tried; but those of other machines come back here if one falls silent
                unfinished = (TrialState.RUNNING, TrialState.WAITING)
                others_run = is_shared(self.study) and self.study.get_trials(deepcopy=False, states=unfinished)
                self.ask_at = time.monotonic() + ASK_EVERY if others_run else math.inf
                return None
            self.waiting.append(Trial(self.search, asked))

    def repeat(self, trial: Trial) -> bool:
        """Give a setting that was tried before the result that it had. Returns whether it was."""
        if "pruned" in trial.trial.user_attrs:  # by a driver that was killed while the run was saving
            self.tell(trial, TrialState.PRUNED)
            return True
        if not trial.folders[0].is_dir() and not is_shared(self.study):
            return False  # which spares the study a question
        for earlier in self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED)):
            if self.search.setting_of(earlier.params) == trial.setting:
                for epoch, value in earlier.intermediate_values.items():
                    trial.trial.report(value, epoch)
                is_done = earlier.state == TrialState.COMPLETE
                self.tell(trial, earlier.state, earlier.value if is_done else None, earlier.user_attrs.get("loss"))
                return True
        return False

    def start(self, slot: int, trial: Trial) -> bool:
        """Start the run of the trial's next seed. Returns whether it could start."""
        setting = dict(trial.setting)
        if self.search.seeds > 1:
            setting["seed"] = self.search.params.seed + len(trial.results)
        if self.search.metric != self.search.params.monitor:
            setting["monitor"] = self.search.metric
        words = [f"{name}={json.dumps(value)}" for name, value in setting.items()]
        try:
            create_experiment(trial.folder, self.search.parent_dir, words, self.args.data_dir)
        except UserError as error:
            self.fail(trial, str(error))
            return False
        trial.run = self.runner.start(trial.folder, ["--device", self.args.device], slot)
        return True

    def look_at(self, slot: int, trial: Trial) -> None:
        assert trial.run is not None
        status = trial.run.status  # before the last look at the history
        for entry in trial.run.read_history():
            self.judge(trial, entry)
        if status is None:
            return
        self.slots[slot] = None
        if trial.outcome == "lost":
            return
        if status == BUSY:
            self.waiting.append(trial)
        elif trial.outcome == "pruned" and status in (143, -signal.SIGTERM):  # the latter before it listened
            self.tell(trial, TrialState.PRUNED)
        elif status != 0:
            self.fail(trial, *explain_failure(trial.run, status))
        else:
            result = read_metrics(trial.folder)
            if not math.isfinite(result.get(self.search.metric, math.nan)):
                self.fail(trial, f"{self.search.metric} is {result.get(self.search.metric)}")
                return
            trial.results.append(result)
            if len(trial.results) < len(trial.folders):
                if self.start(slot, trial):
                    self.slots[slot] = trial
            else:
                value, loss = (mean(result[name] for result in trial.results) for name in (self.search.metric, "loss"))
                self.tell(trial, TrialState.COMPLETE, value, loss)

    def judge(self, trial: Trial, entry: dict[str, Any]) -> None:
        """Tell the study of an epoch if it is that of a rung, and stop the run if it is not worth the next."""
        epoch, value = entry["epoch"], entry["val"][self.search.metric]
        if trial.outcome or trial.results or not math.isfinite(value):
            return  # of several seeds the first is judged
        if not trial.rung <= epoch < trial.num_epochs:
            return
        trial.rung *= REDUCTION_FACTOR
        assert trial.run is not None
        try:
            trial.trial.report(value, epoch)
            if trial.trial.should_prune() and trial.run.run_before.get("status") != "finished":
                trial.outcome = "pruned"
                trial.trial.set_user_attr("pruned", True)  # a driver that is killed now would not judge it again
        except optuna.exceptions.UpdateFinishedTrialError:
            logger.warning("%s: was given to another driver, since this one was silent.", trial.folder.name)
            trial.outcome = "lost"
        if trial.outcome:
            trial.run.stop()

    def tell(self, trial: Trial, state: TrialState, value: float | None = None, loss: float | None = None) -> None:
        if state == TrialState.PRUNED and (trial.folder / "run.json").exists():
            save_json({**read_run(trial.folder), "status": "pruned"}, trial.folder / "run.json")
        if loss is not None:
            with contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError):
                trial.trial.set_user_attr("loss", loss)
        self.study.tell(trial.trial, value, state, skip_if_finished=True)  # by another driver, if this one was silent
        self.display.say(self.study, trial, state, value)
        if state != TrialState.FAIL:
            self.last_reason, self.same_reasons = "", 0

    def fail(self, trial: Trial, reason: str, said: str = "") -> None:
        """Record a failure, and the end of what the run said, and go on. Raises UserError if it is always the same."""
        kind = re.sub(r"\d[\d.e+-]*|/\S+", "#", reason)
        reason = f"{reason}\n{said}".strip().replace("\n", "\n    ")
        with contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError):
            trial.trial.set_user_attr("reason", reason)
        self.tell(trial, TrialState.FAIL)
        logger.warning("%s: %s", trial.folder.name, reason)
        self.same_reasons = self.same_reasons + 1 if kind == self.last_reason else 1
        self.last_reason = kind
        if self.same_reasons == SAME_FAILURES:
            raise UserError(
                f"{SAME_FAILURES} trials in a row failed for the same reason, so the search ends here. The last:\n"
                f"{trial.folder}: {reason}\nThe same command goes on with the settings that are left."
            )


def read_metrics(folder: Path) -> dict[str, float]:
    path = folder / "metrics_eval_best_weights.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def explain_failure(run: Run, status: int) -> tuple[str, str]:
    """Why a run ended with `status`, and the end of what it said."""
    console = run.folder / CONSOLE
    text = console.read_text(errors="replace") if console.exists() else ""
    lines = [line for line in text.splitlines() if line.strip()] or [f"exit status {status}"]
    tail, after = "\n".join(lines[-5:]), run.read_run()
    if status < 0:
        return f"killed by signal {-status}" + (" (out of memory?)" if status == -9 else ""), tail
    if after.get("error") and after != run.run_before:
        return after["error"].split("\n")[0], tail
    if status == UserError.exit_status:  # refused before it began, so that it said nothing else
        return "\n".join(lines[:5]), ""
    return lines[-1], tail


class Display:
    """What a person sees while it runs: a line for each run on a terminal, a line for each finished trial elsewhere."""

    def __init__(self, search: Search):
        self.search = search
        self.lines = 0
        self.is_live = sys.stdout.isatty()
        self.summary, self.summed_up_at = "", -math.inf

    def show(self, study: optuna.Study, trials: list[Trial]) -> None:
        if self.is_live:
            self.clear()
            if time.monotonic() - self.summed_up_at > ASK_EVERY:
                self.sum_up(study)
            width = shutil.get_terminal_size().columns - 1
            lines = [self.summary[:width], *(f"  {self.describe(trial)}"[:width] for trial in trials)]
            print("\n".join(lines), flush=True)
            self.lines = len(lines)

    def clear(self) -> None:
        if self.lines:
            print(f"\x1b[{self.lines}F\x1b[J", end="", flush=True)
            self.lines = 0

    def say(self, study: optuna.Study, trial: Trial, state: TrialState, value: float | None) -> None:
        self.clear()
        self.sum_up(study)
        outcome = f"{self.search.metric} {value:.4f}" if value is not None else state.name.lower()
        logger.info("%s: %s | %s", trial.folders[0].name, outcome, self.summary)

    def sum_up(self, study: optuna.Study) -> None:
        trials = study.get_trials(deepcopy=False)
        counts = Counter(trial.state for trial in trials if not is_lost(trial))
        names = {TrialState.COMPLETE: "done", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
        parts = [f"{counts[state]} {name}" for state, name in names.items() if counts[state] or name == "done"]
        self.summary = f"{', '.join(parts)} of {self.search.num_trials}"
        if best := best_of(self.search, trials):
            folder = self.search.folders_of(self.search.setting_of(best.params))[0]
            self.summary += f" | best {self.search.metric} {best.value:.4f}: {folder.name}"
        self.summed_up_at = time.monotonic()

    def describe(self, trial: Trial) -> str:
        """Numbers first: a narrow terminal cuts off the name."""
        run = trial.run
        assert run is not None
        epoch = min(len(run.history) + 1, trial.num_epochs)
        value, left = "", ""
        if run.history:
            value = f"{run.history[-1]['val'][self.search.metric]:.4f}"
            seconds = int(run.seconds_per_epoch * (trial.num_epochs - len(run.history)))
            left = f"{seconds // 60}:{seconds % 60:02d} left"
        width = len(str(trial.num_epochs))
        numbers = f"epoch {epoch:{width}}/{trial.num_epochs}  {self.search.metric} {value:>6}  {left:>10}"
        return f"{numbers}  {run.folder.name}"


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
