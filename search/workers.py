"""Runs as child processes. Each is a copy of a process that has imported everything already."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import multiprocessing
import os
import runpy
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
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
CONSOLE = "console.txt"  # what a run prints, in its folder
UNKNOWN = 255  # multiprocessing's exit status of a process whose end nobody saw
SERVER_DIED = (
    "The process that starts the runs was killed (out of memory?). Its runs save and stop; the same command goes on."
)


def choose_jobs(jobs: int | None, gpus: list[str]) -> int:
    """Runs at once: one per GPU, or one per core, since small networks train less than twice as fast on two cores."""
    return jobs or len(gpus) or count_cores()


def count_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def list_gpus(device: str = "auto") -> list[str]:
    """The GPUs for runs with --device `device`, as `gpu_variable` names them; none if they use the CPU.

    Raises:
        UserError: there is no such device.
    """
    gpus = [] if device == "cpu" else find_gpus(device)
    if not gpus and device in ("cuda", "mps"):
        raise UserError(f"--device {device}: not available here. Leave it out for what there is.")
    return gpus


def find_gpus(device: str) -> list[str]:
    """As `list_gpus`. Torch takes seconds to import, so it is asked only if nothing quicker can tell."""
    if sys.platform == "darwin" or device == "mps":
        return ask(sys.executable, "-c", LIST_GPUS, device)
    build = torch_build()
    if not (build["cuda"] or build["hip"]):
        return []
    if (visible := os.environ.get(gpu_variable())) is not None:
        return [name for name in visible.replace(" ", "").split(",") if name and name[0] != "-"]
    nvidia = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    if build["cuda"] and shutil.which(nvidia[0]) and (listed := ask(*nvidia)):
        return listed
    has_driver = build["hip"] or os.path.exists("/dev/nvidiactl")
    return ask(sys.executable, "-c", LIST_GPUS, device) if has_driver or device == "cuda" else []


# MPS is one GPU, without a name
LIST_GPUS = """
import sys, torch
if sys.argv[1] != "mps":
    print(*range(torch.cuda.device_count()))
if sys.argv[1] != "cuda" and torch.backends.mps.is_available():
    print(0)
"""


def ask(*command: str) -> list[str]:
    """The words that a program prints; none if it fails."""
    answer = subprocess.run(command, capture_output=True, encoding="utf-8")
    return answer.stdout.split() if answer.returncode == 0 else []


def torch_build() -> dict[str, Any]:
    """The versions of `cuda` and `hip` (ROCm) that torch was built for, None if it was not; without importing torch."""
    spec = importlib.util.find_spec("torch")
    assert spec is not None
    return runpy.run_path(str(Path(str(spec.origin)).with_name("version.py")))


def gpu_variable() -> str:
    """The environment variable that says which GPUs a process sees. ROCm knows two, and prefers its own."""
    has_own = "HIP_VISIBLE_DEVICES" in os.environ and torch_build()["hip"]
    return "HIP_VISIBLE_DEVICES" if has_own else "CUDA_VISIBLE_DEVICES"


class Runner:
    """Starts runs. A server process imports their modules once; each run is a fork of it, and imports nothing.

    Args:
        command: the module whose `main` a run calls, such as "train".
        jobs: runs at once, which share the cores.
        gpus: their names; the runs take turns.
        preload: other modules that a run needs.
    """

    def __init__(self, command: str, jobs: int, gpus: list[str], preload: Sequence[str] = ()):
        self.command, self.gpus = command, gpus
        # torch reads it when the server imports it
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, count_cores() // jobs)))
        self.context: Any = multiprocessing.get_context("forkserver" if os.name == "posix" else "spawn")
        if os.name == "posix":
            self.context.set_forkserver_preload([command, *preload])
            forkserver.ensure_running()  # it imports while this process goes on

    def start(self, folder: Path, flags: list[str], slot: int) -> Worker:
        gpu = self.gpus[slot % len(self.gpus)] if self.gpus else None
        process = self.context.Process(target=work, args=(self.command, str(folder), flags, gpu), daemon=False)
        worker = Worker(folder, process)
        try:
            process.start()
        except (EOFError, ConnectionError):
            raise UserError(SERVER_DIED) from None
        return worker

    def wait(self, workers: list[Worker], seconds: float) -> None:
        """Return when one of `workers` has ended, or after `seconds`."""
        if workers:
            wait([worker.process.sentinel for worker in workers], seconds)
        else:
            time.sleep(seconds)


class Worker:
    """The process of one run, and what the run has written to its folder."""

    def __init__(self, folder: Path, process: Any):
        self.folder, self.process = folder, process
        self.size = 0  # of history.jsonl, when it was read
        self.history: list[dict[str, Any]] = []
        self.epochs_before = len(read_history(folder))  # trained by an earlier process
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
        """Its run.json; empty if it is missing or broken."""
        with contextlib.suppress(UserError):
            return read_run(self.folder)
        return {}

    @property
    def seconds_per_epoch(self) -> float:
        return (time.monotonic() - self.started) / max(1, len(self.history) - self.epochs_before)

    def stop(self) -> None:
        """Let the run finish its batch and save. The signal is sent only once: a second one would end it at once."""
        if self.process.exitcode is None and not self.is_stopped:
            self.is_stopped = True
            os.kill(self.process.pid, signal.SIGTERM)


def work(command: str, folder: str, flags: list[str], gpu: str | None) -> None:
    """In the child: `python command.py --model_dir folder`. What it prints goes to a file in the folder."""
    if os.name == "posix":
        os.setsid()  # Ctrl-C reaches the driver alone, which passes it on once
    if gpu is not None:
        os.environ[gpu_variable()] = gpu
    if is_locked(Path(folder)):
        sys.exit(BUSY)  # the console belongs to the run that has the lock
    output = os.open(os.path.join(folder, CONSOLE), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for descriptor in (1, 2):
        os.dup2(output, descriptor)
    threading.Thread(target=stop_with_driver, daemon=True).start()

    def main() -> None:
        try:
            importlib.import_module(command).main()
        except Busy:
            sys.exit(BUSY)

    stop.is_patient = True  # a job scheduler may signal it too, besides the driver
    sys.argv = [f"{command}.py", "--model_dir", folder, *flags]
    run_command(main)


def stop_with_driver() -> None:
    """When the driver is killed, let the run save and stop."""
    driver = multiprocessing.parent_process()
    assert driver is not None
    wait([driver.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
