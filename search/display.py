"""What a person sees of a search while it runs."""

from __future__ import annotations

import math
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterable

from optuna.trial import TrialState

from search.study import SearchStudy, best_of, is_lost
from search.trials import Trial
from utils import logger

SUM_UP_EVERY = 5  # seconds
NAMES = {TrialState.COMPLETE: "done", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}


class Display:
    """A line for each run, renewed all the time, on a terminal; elsewhere a line for each trial that ended."""

    def __init__(self, study: SearchStudy):
        self.study, self.search = study, study.search
        self.lines = 0
        self.is_live = sys.stdout.isatty()
        self.summary, self.summed_up_at = "", -math.inf

    def show(self, trials: Iterable[Trial]) -> None:
        if self.is_live:
            self.clear()
            if time.monotonic() - self.summed_up_at > SUM_UP_EVERY:
                self.sum_up()
            width = shutil.get_terminal_size().columns - 1
            lines = [self.summary[:width], *(f"  {self.describe(trial)}"[:width] for trial in trials)]
            print("\n".join(lines), flush=True)
            self.lines = len(lines)

    def clear(self) -> None:
        if self.lines:
            print(f"\x1b[{self.lines}F\x1b[J", end="", flush=True)
            self.lines = 0

    def say(self, trial: Trial, state: TrialState, value: float | None) -> None:
        self.clear()
        self.sum_up()
        outcome = f"{self.search.metric} {value:.4f}" if value is not None else state.name.lower()
        logger.info("%s: %s | %s", trial.folders[0].name, outcome, self.summary)

    def sum_up(self) -> None:
        trials = self.study.trials()
        counts = Counter(trial.state for trial in trials if not is_lost(trial))
        parts = [f"{counts[state]} {name}" for state, name in NAMES.items() if counts[state] or name == "done"]
        self.summary = f"{', '.join(parts)} of {self.search.num_trials}"
        if best := best_of(self.search, trials):
            folder = self.search.folders_of(self.search.setting_of(best.params))[0]
            self.summary += f" | best {self.search.metric} {best.value:.4f}: {folder.name}"
        self.summed_up_at = time.monotonic()

    def describe(self, trial: Trial) -> str:
        """The numbers come first, since a narrow terminal cuts off the end."""
        worker = trial.worker
        assert worker is not None
        done, value, left = len(worker.history), "", ""
        if done:
            value = f"{worker.history[-1]['val'][self.search.metric]:.4f}"
            seconds = int(worker.seconds_per_epoch * (trial.num_epochs - done))
            left = f"{seconds // 60}:{seconds % 60:02d} left"
        epoch, width = min(done + 1, trial.num_epochs), len(str(trial.num_epochs))
        numbers = f"epoch {epoch:{width}}/{trial.num_epochs}  {self.search.metric} {value:>6}  {left:>10}"
        return f"{numbers}  {worker.folder.name}"
