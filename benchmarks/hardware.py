"""What a figure was measured on."""

from __future__ import annotations

import platform

import torch


def describe_hardware(device: torch.device | None = None) -> str:
    """One line: processor or GPU, cores, Python, torch."""
    name = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            name = next(line.split(":")[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        pass  # not Linux: the architecture has to do
    if device is not None and device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    return f"{name}, {torch.get_num_threads()} threads, Python {platform.python_version()}, torch {torch.__version__}"
