"""Kill real runs of all tasks at random moments, repeat the same command, and see whether anything is lost.

    python -m benchmarks.fault_injection --images data/64x64_SIGNS --text data/ner --table data/table

Then flip bytes of a checkpoint, run with TMPDIR on another file system, and fill a small file system under a run, which
only root may mount.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.hardware import describe_hardware
from engine.checkpoints import list_checkpoints, load_checkpoint, load_newest, position
from engine.devices import choose_device
from tests.helpers import timeless
from utils import UserError

ROOT = Path(__file__).parent.parent
# a checkpoint every tenth of a second, so that many kills meet one that is being written
OFTEN = {"checkpoint_minutes": 0.1 / 60}
BASES: dict[str, tuple[str, dict[str, Any]]] = {
    "images": ("base_model", {"num_epochs": 6, "dropout_rate": 0.3}),
    "text": ("ner_lstm", {"num_epochs": 6}),
    "table": ("tabular_mlp", {"num_epochs": 40, "batch_size": 32}),
}


class Experiment:
    """A run that is killed, beside one that is not."""

    def __init__(self, folder: Path, kind: str, data_dir: str):
        base, self.params = BASES[kind]
        self.params = (
            json.loads((ROOT / "experiments" / base / "params.json").read_text(encoding="utf-8")) | self.params | OFTEN
        )
        self.params |= {"data_dir": str(Path(data_dir).absolute())}
        self.folder, self.kind = folder, kind
        self.whole = self.new("whole")
        start = time.time()
        assert self.start(self.whole).wait() == 0, (self.whole / "output.txt").read_text(encoding="utf-8")
        self.seconds = time.time() - start

    def new(self, name: str) -> Path:
        model_dir = self.folder / f"{self.kind}_{name}"
        model_dir.mkdir(parents=True)
        self.write_params(model_dir)
        return model_dir

    def write_params(self, model_dir: Path, **changes: Any) -> None:
        (model_dir / "params.json").write_text(json.dumps(self.params | changes), encoding="utf-8")

    def start(self, model_dir: Path, **environment: str) -> subprocess.Popen[bytes]:
        """Each run has one thread, since how many there are decides the order of additions."""
        with open(model_dir / "output.txt", "ab") as output:
            return subprocess.Popen(
                [sys.executable, "train.py", "--model_dir", str(model_dir)],
                cwd=ROOT,
                env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
                stdout=output,
                stderr=output,
            )

    def is_equal(self, model_dir: Path) -> bool:
        """Whether all that a run leaves is bitwise that of the run that nobody killed, but for the time it took."""
        return what_is_left(model_dir) == what_is_left(self.whole)


def what_is_left(model_dir: Path) -> list[Any]:
    paths = [list_checkpoints(model_dir / folder)[-1] for folder in ("best_weights", "last_weights")]
    history = [json.loads(line) for line in (model_dir / "history.jsonl").read_text(encoding="utf-8").splitlines()]
    return [timeless(part) for part in [*map(load_checkpoint, paths), history]]


# ----------------------------------------------------------------------------------------------- kills


def kill_runs(experiment: Experiment, kills: int, seed: int) -> Counter[str]:
    """Begin runs, and kill each again and again until it is finished, until there were `kills`."""
    counts: Counter[str] = Counter()
    rng = random.Random(f"{seed} {experiment.kind}")
    left = kills
    while left > 0:
        model_dir = experiment.new(f"killed_{left}")
        newest = (-1, 0)
        while True:
            experiment.write_params(model_dir, num_workers=rng.choice([0, 0, 1]))
            process = experiment.start(model_dir)
            try:
                status = process.wait(rng.uniform(0, experiment.seconds) if left > 0 else None)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                left -= 1
                counts["kills"] += 1
                counts["of them while something was being written"] += any(model_dir.rglob("*.partial"))
                newest = look(model_dir, newest, counts)
                continue
            counts["runs"] += 1
            counts["runs that ended bitwise equal"] += status == 0 and experiment.is_equal(model_dir)
            counts["resumes"] += (model_dir / "output.txt").read_text(encoding="utf-8").count("Going on ")
            counts["runs that failed"] += status != 0
            counts["files left over"] += len([*model_dir.rglob("*.partial"), *model_dir.rglob("*.damaged")])
            shutil.rmtree(model_dir)
            break
    return counts


def look(model_dir: Path, before: tuple[int, int], counts: Counter[str]) -> tuple[int, int]:
    """Count what a kill has cost: checkpoints that are damaged, and a newest one older than the one `before`."""
    newest = (-1, 0)
    for folder in ("best_weights", "last_weights"):
        for path in list_checkpoints(model_dir / folder):
            try:
                load_checkpoint(path)
                newest = max(newest, position(path))
            except UserError:
                counts["checkpoints lost"] += 1
    counts["checkpoints lost"] += newest < before
    return newest


def print_kills(counts: Counter[str], experiments: list[Experiment]) -> None:
    for experiment in experiments:
        print(f"  {experiment.kind}: {experiment.seconds:.1f} s when nobody kills it")
    for name in (
        "kills",
        "of them while something was being written",
        "resumes",
        "runs",
        "runs that ended bitwise equal",
        "runs that failed",
        "checkpoints lost",
        "files left over",
    ):
        print(f"  {name:45s}{counts[name]:6d}")


# ------------------------------------------------------------------------------------------- full disks


@contextmanager
def small_file_system(folder: Path, megabytes: int) -> Iterator[Path]:
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def fill_disk(experiment: Experiment, folder: Path, rng: random.Random) -> None:
    """Let a run meet a full disk at different moments, with a little more room each time, until it is finished."""
    size = sum(path.stat().st_size for path in experiment.whole.rglob("*") if path.is_file())
    with small_file_system(folder, 4 * size // 2**20 + 8) as place:
        model_dir, ballast = place / "run", place / "ballast"
        model_dir.mkdir()
        experiment.write_params(model_dir)
        stops, explained, lost, partial = 0, 0, Counter[str](), 0
        room, newest = 0.0, (-1, 0)
        while True:
            ballast.write_bytes(b"")
            (model_dir / "output.txt").write_bytes(b"")
            ballast.write_bytes(bytes(max(0, shutil.disk_usage(place).free - int(room))))
            process = subprocess.run(
                [sys.executable, "train.py", "--model_dir", model_dir],
                cwd=ROOT,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                capture_output=True,
                encoding="utf-8",
            )
            if process.returncode == 0:
                break
            stops += 1
            explained += (
                process.returncode == 2 and "the disk is full" in process.stderr and "Trace" not in process.stderr
            )
            partial += len(list(model_dir.rglob("*.partial")))
            newest = look(model_dir, newest, lost)
            room += rng.uniform(0, size / 8)
        ballast.unlink()
        print(f"Disk full ({experiment.kind}): {stops} stops, {explained} of them explained in one message,", end=" ")
        print(f"{lost['checkpoints lost']} checkpoints lost, {partial} files left over;", end=" ")
        print(f"ended bitwise equal: {experiment.is_equal(model_dir)}")


# ----------------------------------------------------------------------------------------- flipped bytes


def flip_bytes(experiment: Experiment, flips: int, rng: random.Random) -> None:
    """Flip one byte of the newest checkpoint at a time. It must be noticed, and the one before it be taken."""
    model_dir = experiment.folder / "flipped"
    shutil.copytree(experiment.whole, model_dir)
    paths = list_checkpoints(model_dir / "last_weights")
    for path in list_checkpoints(model_dir / "best_weights"):
        path.unlink()
    whole = paths[-1].read_bytes()
    noticed = 0
    logging.getLogger("utils").setLevel(logging.ERROR)  # or each flipped byte would be a line on the console
    for place in rng.sample(range(len(whole)), flips):
        content = bytearray(whole)
        content[place] ^= rng.randrange(1, 256)
        paths[-1].write_bytes(content)
        found = load_newest(model_dir)
        noticed += found is not None and found["damaged"] == [paths[-1]] and found["path"] == str(paths[-2])
    print(
        f"Flipped bytes: {flips} of {len(whole):,}, one at a time; noticed, and the checkpoint before used: {noticed}"
    )


# ----------------------------------------------------------------------------------------------- TMPDIR


def run_with_tmpdir(experiment: Experiment, tmpdir: Path) -> None:
    model_dir = experiment.new("tmpdir")
    process = experiment.start(model_dir, TMPDIR=str(tmpdir))
    time.sleep(experiment.seconds / 2)
    process.kill()
    process.wait()
    status = experiment.start(model_dir, TMPDIR=str(tmpdir)).wait()
    other = os.stat(tmpdir).st_dev != os.stat(model_dir).st_dev
    print(f"TMPDIR={tmpdir} ({'another' if other else 'THE SAME'} file system), killed once: exit {status},", end=" ")
    print(f"bitwise equal: {status == 0 and experiment.is_equal(model_dir)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", default="data/64x64_SIGNS", help="built data set of images (%(default)s)")
    parser.add_argument("--text", default="data/ner", help="built data set of tagged text (%(default)s)")
    parser.add_argument("--table", default="data/table", help="built table (%(default)s)")
    parser.add_argument("--kills", type=int, default=100, help="of all tasks together (%(default)s)")
    parser.add_argument("--flips", type=int, default=200, help="bytes (%(default)s)")
    parser.add_argument("--tmpdir", type=Path, default="/dev/shm", help="where TMPDIR is to be (%(default)s)")
    parser.add_argument("--seed", type=int, default=230)
    args = parser.parse_args()
    print(describe_hardware(choose_device("cpu")))
    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        experiments = [Experiment(folder, kind, getattr(args, kind)) for kind in BASES]
        shares = [args.kills - 2 * (args.kills // 3), args.kills // 3, args.kills // 3]
        with ThreadPoolExecutor(2) as pool:  # one core for each run
            counts = list(pool.map(kill_runs, experiments, shares, [args.seed] * len(experiments)))
        print_kills(sum(counts, Counter()), experiments)
        flip_bytes(experiments[1], args.flips, rng)
        with tempfile.TemporaryDirectory(dir=args.tmpdir) as tmpdir:
            run_with_tmpdir(experiments[0], Path(tmpdir))
        for experiment in experiments:
            fill_disk(experiment, folder / f"small_{experiment.kind}", rng)


if __name__ == "__main__":
    main()
