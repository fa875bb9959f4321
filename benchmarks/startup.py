"""From typing the command to the first training step, on a small data set and on one of 100,000 images.

    python -m benchmarks.startup

Each figure is a whole process, median of --rounds. The first step is the moment at which the first batch has been
learnt from; before it lie Python's start, all imports, params.json, the data, and the network. For the large data set
it also prints the memory of the process after each epoch.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.hardware import describe_hardware
from tests.helpers import draw_photos

ROOT = Path(__file__).parent.parent

# run train.py, and say when the first optimizer step is done, and how much memory each epoch leaves in use
PROBE = """
import sys, time, resource
sys.argv = ["train.py", *sys.argv[1:]]
import engine.run, train
make, save = engine.run.make_optimizer, engine.run.save_checkpoint
def make_and_watch(*arguments):
    optimizer = make(*arguments)
    def first(*_):
        print("FIRST", time.time(), flush=True)
        handle.remove()
        if "--stop" in extra:
            import os; os._exit(0)
    handle = optimizer.register_step_post_hook(first)
    return optimizer
def save_and_measure(*arguments, **named):
    pages = int(open("/proc/self/statm", encoding="utf-8").read().split()[1])
    print("MEMORY", pages * resource.getpagesize(), flush=True)
    return save(*arguments, **named)
extra = [word for word in sys.argv if word == "--stop"]
sys.argv = [word for word in sys.argv if word != "--stop"]
engine.run.make_optimizer, engine.run.save_checkpoint = make_and_watch, save_and_measure
train.main()
"""


def first_step(model_dir: Path, data_dir: Path) -> float:
    """Seconds from starting the process to the end of its first training step."""
    start = time.time()
    command = [sys.executable, "-c", PROBE, "--stop", "--model_dir", str(model_dir), "--data_dir", str(data_dir)]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", check=True).stdout
    (line,) = [line for line in output.splitlines() if line.startswith("FIRST")]
    return float(line.split()[1]) - start


def seconds(code: str) -> float:
    start = time.time()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.time() - start


def write_large(folder: Path, count: int, classes: int = 10, size: int = 64) -> None:
    """A built data set of `count` training images; a few different ones, under many names."""
    rng = np.random.default_rng(0)
    sizes = {"train": count, "val": 1000, "test": 1000}
    for split, images in sizes.items():
        (folder / f"{split}_signs").mkdir(parents=True)
        for label in range(classes):
            pixels = rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)
            original = folder / f"{split}_signs" / f"{label}_IMG_0.jpg"
            Image.fromarray(pixels).resize((size, size)).save(original)
            content = original.read_bytes()
            for i in range(1, images // classes):
                (folder / f"{split}_signs" / f"{label}_IMG_{i}.jpg").write_bytes(content)
    found = {"task": "image_classification", "classes": [str(i) for i in range(classes)], "image_size": size}
    found |= {"sizes": sizes, "mean": [0.5] * 3, "std": [0.25] * 3, "digest": "0"}
    (folder / "dataset_params.json").write_text(json.dumps(found), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000, help="size of the large data set (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="(%(default)s)")
    args = parser.parse_args()
    print(describe_hardware())
    with tempfile.TemporaryDirectory() as temporary:
        small, large = Path(temporary) / "small", Path(temporary) / "large"
        raw = draw_photos(Path(temporary) / "raw")
        build = ["build_dataset.py", "--data_dir", str(raw), "--output_dir", str(small)]
        subprocess.run([sys.executable, *build], cwd=ROOT, check=True, capture_output=True)
        write_large(large, args.images)
        model_dir = Path(temporary) / "experiment"
        model_dir.mkdir()
        tiny = {"num_channels": 1, "batch_size": 512, "num_epochs": 6, "augmentation": 0.0}
        (model_dir / "params.json").write_text(json.dumps(tiny), encoding="utf-8")

        first_step(model_dir, small)  # warm up the disk
        rows: dict[str, list[float]] = {"import torch, torchvision": [], "small": [], "large": []}
        print(f"{args.images} images, first use: {first_step(model_dir, large):.1f} s to the first step")
        for _ in range(args.rounds):
            rows["import torch, torchvision"].append(seconds("import torch, torchvision"))
            rows["small"].append(first_step(model_dir, small))
            rows["large"].append(first_step(model_dir, large))
        for name, values in rows.items():
            print(f"{name:28s}{statistics.median(values):6.2f} s (to {max(values):.2f} s)")

        command = [sys.executable, "-c", PROBE, "--model_dir", str(model_dir), "--data_dir", str(large)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        output = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, encoding="utf-8", check=True
        ).stdout
        memory = [int(line.split()[1]) / 2**20 for line in output.splitlines() if line.startswith("MEMORY")]
        print("MiB after each epoch:", " ".join(f"{value:.0f}" for value in memory))


if __name__ == "__main__":
    main()
