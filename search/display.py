"""What a person sees of a search while it runs."""

from __future__ import annotations

import math
import shutil
import sys
import time
from collections import Counter
from typing import Any

import optuna
from optuna.trial import TrialState

from search.space import Search
from search.study import best_of, is_lost
from utils import logger

LOOK_EVERY = 0.25  # seconds, at the runs
ASK_EVERY = 5  # seconds, what other machines have done
SAME_FAILURES = 5  # in a row end the search


class Display:
    """What a person sees while it runs: a line for each run on a terminal, a line for each finished trial elsewhere."""

    def __init__(self, search: Search):
        self.search = search
        self.lines = 0
        self.is_live = sys.stdout.isatty()
        self.summary, self.summed_up_at = "", -math.inf

    def show(self, study: optuna.Study, trials: list[Any]) -> None:
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

    def say(self, study: optuna.Study, trial: Any, state: TrialState, value: float | None) -> None:
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

    def describe(self, trial: Any) -> str:
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
