"""engine/cache.py: an array is computed once, however many runs ask for it at once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

import engine.cache as engine_cache
from engine.cache import cached_array
from tests.conftest import ROOT

SHAPE = (3, 1000)

# a run that says when it fills the cache, and goes on when it reads a line. Process ids are alike, as in two containers
RUN = """
import os, sys
from pathlib import Path
from engine.cache import cached_array
from utils import set_logger

def fill(array):
    print("FILLING", flush=True)
    sys.stdin.readline()
    array.fill_(7)

os.getpid = lambda: 7
set_logger()
array = cached_array(Path(sys.argv[1]), "train", sys.argv[2], (3, 1000), fill)
print("SUM", array.sum().item())
"""


def start_run(folder: Path, state: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", RUN, str(folder), state],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def fill_with_sevens(array: Tensor) -> None:
    array.fill_(7)


@pytest.mark.parametrize("state", ["same", "other"])
def test_two_first_runs_at_once(tmp_path: Path, state: str) -> None:
    """The second waits for the first. It fills the cache itself only if it needs another state."""
    first = start_run(tmp_path, "same")
    assert first.stdout is not None
    assert first.stdout.readline() == "FILLING\n"
    second = start_run(tmp_path, state)
    assert second.stdout is not None
    assert "another run is filling the cache" in second.stdout.readline()
    outputs = [process.communicate("go on\n" * 2) for process in (first, second)]
    assert [out.splitlines()[-1] for out, _ in outputs] == ["SUM 21000"] * 2, outputs
    assert "no cache" not in str(outputs)
    assert ("FILLING" in outputs[1][0]) == (state == "other")
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"train-{state}.uint8", "train.lock"]


def test_what_a_killed_run_left_is_deleted(tmp_path: Path) -> None:
    """Its process id may be that of another process now."""
    (tmp_path / f"train-old.{os.getppid()}").touch()
    (tmp_path / "train-old.uint8").touch()
    array = cached_array(tmp_path, "train", "new", SHAPE, fill_with_sevens)
    assert torch.equal(array, torch.full(SHAPE, 7, dtype=torch.uint8))
    array[0] = 0  # changes no file
    assert cached_array(tmp_path, "train", "new", SHAPE, lambda _: pytest.fail("it was there")).min() == 7
    assert sorted(path.name for path in tmp_path.iterdir()) == ["train-new.uint8", "train.lock"]


def test_a_cache_that_vanishes_while_it_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run in another state deletes it just then, so it is computed again."""
    cached_array(tmp_path, "train", "state", SHAPE, fill_with_sevens)
    real = engine_cache._map

    def map_too_late(path: Path, *arguments: object, **options: object) -> Tensor:
        monkeypatch.setattr(engine_cache, "_map", real)
        path.unlink()
        return real(path, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(engine_cache, "_map", map_too_late)
    filled = []
    array = cached_array(tmp_path, "train", "state", SHAPE, lambda array: filled.append(array.fill_(5)))
    assert array.unique().tolist() == [5]
    assert len(filled) == 1
