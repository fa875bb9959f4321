"""Which device, in which precision; whether others use the cores too."""

from __future__ import annotations

import contextlib
import ctypes
import sys
import time
from pathlib import Path
from typing import Any

import torch

from utils import UserError, logger

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def choose_device(name: str = "auto") -> torch.device:
    """The device called `name`; for "auto" CUDA, else MPS, else the CPU. Raises UserError if it is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda", "mps"):
            raise RuntimeError("expected cpu, cuda or mps")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).split("\n")[0].rstrip(".")
        raise UserError(f"--device {name}: not available here ({reason}). Leave it out for what there is.") from None
    return device


def keep_freed_memory() -> None:
    """Let the C library keep what tensors free, for the next tensors.

    Otherwise glibc returns it to the system, and the next batch gets it back page by page. If images are read between
    two batches, these page faults cost as much time as a small network.
    """
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError):  # a C library without mallopt
            mallopt = ctypes.CDLL(None).mallopt
            # 32 MB is the most that glibc before 2.35 takes. Only if it takes that, the second call is of use: both
            # switch off what glibc learns from the sizes that are freed.
            if mallopt(M_MMAP_THRESHOLD, 32 * 2**20):
                mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def choose_precision(device: torch.device, name: str = "auto") -> torch.dtype:
    """The type to compute in; for "auto" bfloat16 where the hardware multiplies it, float32 elsewhere."""
    if name != "auto":
        return torch.bfloat16 if name == "bfloat16" else torch.float32
    if device.type == "cuda":
        fast = torch.cuda.get_device_capability(device) >= (8, 0)
    elif device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        fast = bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    else:
        fast = False
    return torch.bfloat16 if fast else torch.float32


def autocast(device: torch.device, precision: torch.dtype) -> torch.autocast:
    """The context in which a network computes in `precision`; its weights stay float32."""
    return torch.autocast(device.type, precision, enabled=precision != torch.float32)


SPAN = 5  # seconds


class SharedCores:
    """Notices when other processes use the cores too.

    OpenMP's threads spin while they wait for each other. If one of them has no core, the others burn theirs, and a step
    takes up to 20 times as long. A single thread waits for nobody.
    """

    def __init__(self) -> None:
        self.is_said = False
        self.start()

    def start(self) -> None:
        self.started, self.waited = time.monotonic(), seconds_without_core()

    def check(self) -> None:
        """Warn, once, if a fifth of the time since the last check was lost. Waits for `SPAN` seconds to judge."""
        seconds = time.monotonic() - self.started
        if seconds < SPAN:
            return
        lost = (seconds_without_core() - self.waited) / seconds
        if lost > 0.2 and torch.get_num_threads() > 1 and not self.is_said:
            logger.warning(
                "This process waited %.0f %% of its time for a core: more threads want to run than there are cores."
                " Trainings beside each other are usually several times faster with OMP_NUM_THREADS=1 before the"
                " command. The result then differs by rounding.",
                100 * lost,
            )
            self.is_said = True
        self.start()


def seconds_without_core() -> float:
    """How long this thread was ready to run, but other threads had the cores; 0 on systems that do not say."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_text(encoding="utf-8").split()[1]) / 1e9
    except OSError:
        return 0.0


def to_device(batch: Any, device: torch.device) -> Any:
    """Move a tensor, or a dict of tensors."""
    if isinstance(batch, dict):
        return {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}
    return batch.to(device, non_blocking=True)


def get_random_states(device: torch.device) -> dict[str, Any]:
    """The states of the generators that draw the dropout. Order and augmentation need none: see engine/loaders.py."""
    states = {"cpu": torch.get_rng_state()}
    if device.type != "cpu":
        states[device.type] = torch.get_device_module(device).get_rng_state(device)
    return states


def set_random_states(states: dict[str, Any], device: torch.device) -> None:
    torch.set_rng_state(states["cpu"])
    if device.type in states and device.type != "cpu":
        torch.get_device_module(device).set_rng_state(states[device.type], device)
