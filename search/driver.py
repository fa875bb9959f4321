"""Keeps runs going until all settings are tried."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import re
import signal
import time
from pathlib import Path
from statistics import mean
from typing import Any

import optuna
from optuna.trial import TrialState

from engine.experiments import create_experiment, read_run
from engine.locks import is_locked
from engine.signals import stop
from model import TASKS
from search.display import Display
from search.space import Search
from search.study import HEARTBEAT, REDUCTION_FACTOR, ask, beat, is_shared, left_behind
from search.workers import BUSY, CONSOLE, Run, Runner
from utils import UserError, logger, save_json

LOOK_EVERY = 0.25  # seconds, at the runs
ASK_EVERY = 5  # seconds, what other machines have done
SAME_FAILURES = 5  # in a row end the search


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
            create_experiment(TASKS, trial.folder, self.search.parent_dir, words, self.args.data_dir)
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
