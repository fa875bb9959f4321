"""Runs of train.py as child processes, each the copy of a process that has imported everything already."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from multiprocessing import forkserver
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from engine.commands import run_command
from engine.experiments import read_history, read_run
from engine.locks import Busy, is_locked
from engine.signals import stop
from utils import UserError

BUSY = os.EX_TEMPFAIL if os.name == "posix" else 75  # exit status of a run whose folder another was using
CONSOLE = "console.txt"  # what a run says, in its folder
UNKNOWN = 255  # multiprocessing's exit status of a process whose end nobody saw
SERVER_DIED = (
    "The process that starts the runs was killed (out of memory?). Its runs save and stop; the same command goes on."
)


def choose_jobs(jobs: int | None, gpus: list[str]) -> int:
    """How many at once: one per GPU, or one per core, since small networks use two cores less than twice as well."""
    return jobs or len(gpus) or count_cores()


def count_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def list_gpus() -> list[str]:
    """The GPUs that CUDA_VISIBLE_DEVICES leaves, or all; asked without torch."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return [name for name in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if name and name[0] != "-"]
    if not shutil.which("nvidia-smi"):
        return []
    command = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    listed = subprocess.run(command, capture_output=True, text=True)
    return listed.stdout.split() if listed.returncode == 0 else []


class Runner:
    """Starts runs. A trial costs no import: a server process imports torch and the task once, and is copied."""

    def __init__(self, task: str, jobs: int, gpus: list[str]):
        # read when the server imports torch
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, count_cores() // jobs)))
        self.context: Any = multiprocessing.get_context("forkserver" if os.name == "posix" else "spawn")
        if os.name == "posix":
            plots = ["torch.utils.tensorboard", "matplotlib.figure", "matplotlib.backends.backend_agg"]
            parts = [f"model.{task}.{part}" for part in ("data_loader", "net", "report")]
            self.context.set_forkserver_preload(["search_hyperparams", "train", *plots, *parts])
            forkserver.ensure_running()  # and import meanwhile
        self.gpus = gpus

    def start(self, folder: Path, flags: list[str], slot: int) -> Run:
        gpu = self.gpus[slot % len(self.gpus)] if self.gpus else None
        process = self.context.Process(target=run_train, args=(str(folder), flags, gpu), daemon=False)
        run = Run(folder, process)
        try:
            process.start()
        except (EOFError, ConnectionError):
            raise UserError(SERVER_DIED) from None
        return run

    def wait(self, runs: list[Run], seconds: float) -> None:
        """Until one of `runs` has ended, or the time is over."""
        if runs:
            wait([run.process.sentinel for run in runs], seconds)
        else:
            time.sleep(seconds)


class Run:
    """One run of train.py in its folder."""

    def __init__(self, folder: Path, process: Any):
        self.folder, self.process = folder, process
        self.size = 0  # of history.jsonl, when it was read
        self.history: list[dict[str, Any]] = []
        self.epochs_before = len(read_history(folder))  # that an earlier process trained
        self.run_before = self.read_run()
        self.started = time.monotonic()
        self.is_stopped = False

    @property
    def status(self) -> int | None:
        """The exit status; None while it runs. Raises UserError if nobody will ever know it."""
        if self.process.exitcode == UNKNOWN:
            raise UserError(SERVER_DIED)
        return self.process.exitcode

    def read_history(self) -> list[dict[str, Any]]:
        """The entries of the epochs that are new since the last call."""
        try:
            size = (self.folder / "history.jsonl").stat().st_size
        except FileNotFoundError:
            return []
        if size == self.size:
            return []
        seen = len(self.history)
        self.size = size
        self.history = read_history(self.folder) or self.history
        return self.history[seen:]

    def read_run(self) -> dict[str, Any]:
        """Its run.json; empty while there is none, or none that can be read."""
        with contextlib.suppress(UserError):
            return read_run(self.folder)
        return {}

    @property
    def seconds_per_epoch(self) -> float:
        return (time.monotonic() - self.started) / max(1, len(self.history) - self.epochs_before)

    def stop(self) -> None:
        """Let it finish its batch and save. Only once: a second signal would not let it."""
        if self.process.exitcode is None and not self.is_stopped:
            self.is_stopped = True
            os.kill(self.process.pid, signal.SIGTERM)


def run_train(folder: str, flags: list[str], gpu: str | None) -> None:
    """In the child: `python train.py --model_dir folder`, with its output in a file there."""
    if os.name == "posix":
        os.setsid()  # Ctrl-C is for the driver, which passes it on once
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    if is_locked(Path(folder)):
        sys.exit(BUSY)  # and leave the console to the other
    output = os.open(os.path.join(folder, CONSOLE), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for descriptor in (1, 2):
        os.dup2(output, descriptor)
    threading.Thread(target=stop_with_driver, daemon=True).start()

    import train

    def main() -> None:
        try:
            train.main()
        except Busy:
            sys.exit(BUSY)

    stop.is_patient = True  # a job scheduler may signal it too, besides the driver
    sys.argv = ["train.py", "--model_dir", folder, *flags]
    run_command(main)


def stop_with_driver() -> None:
    """A driver that is killed leaves no orphans: its runs save and stop."""
    driver = multiprocessing.parent_process()
    assert driver is not None
    wait([driver.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
