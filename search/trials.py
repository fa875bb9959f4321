"""A trial while it runs, and why its run failed."""

from __future__ import annotations

import json
from pathlib import Path

import optuna

from engine.locks import is_locked
from search.space import Search
from search.study import REDUCTION_FACTOR
from search.workers import CONSOLE, Worker
from utils import UserError


class Trial:
    """A setting that is being tried: one run for each seed, one after the other.

    Args:
        entry: the trial in Optuna's study.
        times_judged: how often an earlier driver has judged it.
    """

    def __init__(self, search: Search, entry: optuna.Trial, times_judged: int = 0):
        self.entry = entry
        self.setting = search.setting_of(entry.params)
        self.folders = search.folders_of(self.setting)
        self.results: list[dict[str, float]] = []  # of the seeds that are done
        self.rung = search.first_rung * REDUCTION_FACTOR**times_judged  # the epoch after which it is judged next
        self.num_epochs: int = self.setting.get("num_epochs", search.params.num_epochs)
        self.outcome = ""  # "pruned" or "lost", once its run was asked to stop
        self.worker: Worker | None = None

    @property
    def folder(self) -> Path:
        """The folder of the seed that is next, or running."""
        return self.folders[len(self.results)]

    def is_locked(self) -> bool:
        return any(is_locked(folder) for folder in self.folders if folder.is_dir())


def read_metrics(folder: Path) -> dict[str, float]:
    path = folder / "metrics_eval_best_weights.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def explain_failure(worker: Worker, status: int) -> tuple[str, str]:
    """Why a run ended with `status`, and the last lines that it printed."""
    console = worker.folder / CONSOLE
    text = console.read_text(encoding="utf-8", errors="replace") if console.exists() else ""
    lines = [line for line in text.splitlines() if line.strip()] or [f"exit status {status}"]
    tail, after = "\n".join(lines[-5:]), worker.read_run()
    if status < 0:
        return f"killed by signal {-status}" + (" (out of memory?)" if status == -9 else ""), tail
    if after.get("error") and after != worker.run_before:
        return after["error"].split("\n")[0], tail
    if status == UserError.exit_status:  # it refused to begin, and printed only why
        return "\n".join(lines[:5]), ""
    return lines[-1], tail
