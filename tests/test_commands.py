"""How commands start."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

# say how OpenMP's threads will wait, at the moment when torch is imported
WATCH = """
import os, sys
class Watch:
    def find_spec(name, path, target=None):
        if name == "torch":
            print(os.environ.get("GOMP_SPINCOUNT"), flush=True)
            os._exit(0)
sys.meta_path.insert(0, Watch)
"""


@pytest.mark.parametrize(
    ("asked", "expected"),
    [({}, "10000"), ({"GOMP_SPINCOUNT": "77"}, "77"), ({"OMP_WAIT_POLICY": "active"}, "None")],
)
@pytest.mark.parametrize("module", ["train", "evaluate", "engine.run", "benchmarks.training_speed"])
def test_threads_do_not_spin_for_long(module: str, asked: dict[str, str], expected: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"} | asked
    command = [sys.executable, "-c", f"{WATCH}import {module}"]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.stdout == f"{expected}\n", result.stderr
