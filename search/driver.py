"""The driver of a search: it asks the study for settings, starts their runs, judges them, and records their results."""

from __future__ import annotations

import contextlib
import json
import math
import re
import signal
import time
from statistics import mean
from typing import Any

import optuna
from optuna.trial import TrialState

from engine.experiments import create_experiment, read_run
from engine.signals import Stopped, stop
from model import TASKS
from search.display import Display
from search.study import HEARTBEAT, REDUCTION_FACTOR, SearchStudy
from search.trials import Trial, explain_failure, read_metrics
from search.workers import BUSY, Runner, Worker
from utils import UserError, logger, save_json

LOOK_EVERY = 0.25  # seconds between two looks at the runs
ASK_EVERY = 5  # seconds between two questions to the study, while other machines have trials
SAME_FAILURES = 5  # so many in a row, for the same reason, end the search


class Driver:
    """Keeps `jobs` runs going until all settings are tried."""

    def __init__(self, study: SearchStudy, runner: Runner, jobs: int, device: str = "auto"):
        self.study, self.search, self.runner, self.device = study, study.search, runner, device
        self.slots: list[Trial | None] = [None] * jobs
        self.waiting = [Trial(self.search, *left) for left in study.left_behind()]
        self.ask_at = 0.0  # by the monotonic clock; infinite once all settings are tried
        self.last_reason, self.same_reasons = "", 0
        self.beaten_at = -math.inf
        self.display = Display(study)

    def search_all(self) -> None:
        """Returns when every setting has its result.

        Raises:
            Stopped: a signal came. The runs have saved and stopped.
            UserError: trials failed for the same reason, one after another.
        """
        with stop.deferred():
            try:
                self.wait_for_earlier_runs()
                while self.has_work():
                    self.display.show(trial for trial in self.slots if trial)
                    self.runner.wait(self.workers(), LOOK_EVERY)
                    stop.check()  # first: whoever sent it may have signalled the runs too, and they did not fail
                    for slot, trial in enumerate(self.slots):
                        if trial:
                            self.look_at(slot, trial)
            except Stopped:
                logger.info("The same command goes on with the search.")
                raise
            finally:
                self.display.clear()
                for worker in self.workers():
                    worker.stop()
                for worker in self.workers():
                    worker.process.join()

    def workers(self) -> list[Worker]:
        return [trial.worker for trial in self.slots if trial and trial.worker]

    def wait_for_earlier_runs(self) -> None:
        """Runs whose driver was killed may still be saving. With them there would be more runs than `jobs`."""
        last: list[str] = []
        while busy := [trial.folder.name for trial in self.waiting if trial.is_locked()]:
            if busy != last:
                logger.info("Waiting for runs that are still going on: %s", ", ".join(busy))
            last = busy
            time.sleep(LOOK_EVERY)
            stop.check()

    def has_work(self) -> bool:
        """Send heartbeats, start what can be started, and return whether anything is left to do."""
        if time.monotonic() - self.beaten_at > HEARTBEAT / 2:
            self.study.beat(trial.entry for trial in (*self.slots, *self.waiting) if trial)
            self.beaten_at = time.monotonic()
        for slot in range(len(self.slots)):
            while self.slots[slot] is None and (trial := self.next_trial()):
                if not self.repeat(trial):
                    self.start(slot, trial)
        return any(self.slots) or bool(self.waiting) or self.ask_at < math.inf

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
            asked = self.study.ask()
            if asked is None:
                # If the driver of another machine dies, its trials come back here. So ask again while it has any.
                is_over = not self.study.is_shared or not self.study.trials(TrialState.RUNNING, TrialState.WAITING)
                self.ask_at = math.inf if is_over else time.monotonic() + ASK_EVERY
                return None
            self.waiting.append(Trial(self.search, asked))

    def repeat(self, trial: Trial) -> bool:
        """If the setting was tried before, give the trial the same result. Returns whether it was."""
        if "pruned" in trial.entry.user_attrs:  # by a driver that was killed while the run was saving
            self.tell(trial, TrialState.PRUNED)
            return True
        if not self.study.is_shared and not trial.folders[0].is_dir():
            return False  # without a query
        for earlier in self.study.trials(TrialState.COMPLETE, TrialState.PRUNED):
            if self.search.setting_of(earlier.params) == trial.setting:
                for epoch, reported in earlier.intermediate_values.items():
                    trial.entry.report(reported, epoch)
                value = earlier.value if earlier.state == TrialState.COMPLETE else None
                self.tell(trial, earlier.state, value, earlier.user_attrs.get("loss"))
                return True
        return False

    def start(self, slot: int, trial: Trial) -> None:
        """Start the run of the trial's next seed in this slot, or record why it cannot start."""
        setting = dict(trial.setting)
        if self.search.seeds > 1:
            setting["seed"] = self.search.params.seed + len(trial.results)
        if self.search.metric != self.search.params.monitor:
            setting["monitor"] = self.search.metric
        words = [f"{name}={json.dumps(value)}" for name, value in setting.items()]
        try:
            # with data_dir: an unfinished trial may name where the data lay when it began
            create_experiment(TASKS, trial.folder, self.search.parent_dir, words, self.search.params.data_dir)
        except UserError as error:
            self.fail(trial, str(error))
            return
        trial.worker = self.runner.start(trial.folder, ["--device", self.device], slot)
        self.slots[slot] = trial

    def look_at(self, slot: int, trial: Trial) -> None:
        """Judge the epochs that are new, and see to a run that has ended."""
        assert trial.worker is not None
        status = trial.worker.status  # before the last look at the history
        for entry in trial.worker.read_history():
            self.judge(trial, entry)
        if status is None:
            return
        self.slots[slot] = None
        if trial.outcome == "lost":
            return
        if status == BUSY:
            self.waiting.append(trial)
        elif trial.outcome == "pruned" and status in (143, -signal.SIGTERM):  # the latter before it handled signals
            self.tell(trial, TrialState.PRUNED)
        elif status != 0:
            self.fail(trial, *explain_failure(trial.worker, status))
        else:
            self.add_result(slot, trial)

    def add_result(self, slot: int, trial: Trial) -> None:
        """Take the result of a run that is finished, and start the next seed, or record the mean of all seeds."""
        metric, result = self.search.metric, read_metrics(trial.folder)
        if not math.isfinite(result.get(metric, math.nan)):
            self.fail(trial, f"{metric} is {result.get(metric)}")
            return
        trial.results.append(result)
        if len(trial.results) < len(trial.folders):
            self.start(slot, trial)
        else:
            value, loss = (mean(result[name] for result in trial.results) for name in (metric, "loss"))
            self.tell(trial, TrialState.COMPLETE, value, loss)

    def judge(self, trial: Trial, entry: dict[str, Any]) -> None:
        """Report an epoch to the study if it is that of a rung, and stop the run if it is to be pruned."""
        epoch, value = entry["epoch"], entry["val"][self.search.metric]
        if trial.outcome or trial.results or not math.isfinite(value):
            return  # of several seeds only the first is judged
        if not trial.rung <= epoch < trial.num_epochs:
            return
        trial.rung *= REDUCTION_FACTOR
        assert trial.worker is not None
        try:
            trial.entry.report(value, epoch)
            if trial.entry.should_prune() and trial.worker.run_before.get("status") != "finished":
                trial.outcome = "pruned"
                trial.entry.set_user_attr("pruned", True)  # for the next driver, if this one is killed now
        except optuna.exceptions.UpdateFinishedTrialError:
            logger.warning("%s: was given to another driver, since this one was silent.", trial.folder.name)
            trial.outcome = "lost"
        if trial.outcome:
            trial.worker.stop()

    def tell(self, trial: Trial, state: TrialState, value: float | None = None, loss: float | None = None) -> None:
        """Record how a trial ended, unless another driver has taken it over and recorded it."""
        if state == TrialState.PRUNED and (trial.folder / "run.json").exists():
            save_json({**read_run(trial.folder), "status": "pruned"}, trial.folder / "run.json")
        if loss is not None:
            with contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError):
                trial.entry.set_user_attr("loss", loss)
        self.study.study.tell(trial.entry, value, state, skip_if_finished=True)
        self.display.say(trial, state, value)
        if state != TrialState.FAIL:
            self.last_reason, self.same_reasons = "", 0

    def fail(self, trial: Trial, reason: str, printed: str = "") -> None:
        """Record why a trial failed, with the last lines that its run printed.

        Raises:
            UserError: the last few trials all failed for this reason.
        """
        kind = re.sub(r"\d[\d.e+-]*|/\S+", "#", reason)
        reason = f"{reason}\n{printed}".strip().replace("\n", "\n    ")
        with contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError):
            trial.entry.set_user_attr("reason", reason)
        self.tell(trial, TrialState.FAIL)
        logger.warning("%s: %s", trial.folder.name, reason)
        self.same_reasons = self.same_reasons + 1 if kind == self.last_reason else 1
        self.last_reason = kind
        if self.same_reasons == SAME_FAILURES:
            raise UserError(
                f"{SAME_FAILURES} trials in a row failed for the same reason, so the search ends here. The last:\n"
                f"{trial.folder}: {reason}\nThe same command goes on with the settings that are left."
            )
