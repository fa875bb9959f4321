"""Photos per second of build_dataset.py, against the obvious loop, and how far the pixels are from a full-scale resize.

    python -m benchmarks.build_speed --photos data/SIGNS/train_signs

Takes --count photos, enlarges small ones to 3024x3024 (the size that the SIGNS photos were taken at), and builds from
them in turn, --rounds times: one process that opens, resizes and saves; and build_dataset.py, its start included.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.hardware import describe_hardware
from engine.images import list_images, open_rgb

ROOT = Path(__file__).parent.parent
FULL = 3024


def obvious_loop(source: Path, target: Path, size: int, resample: Image.Resampling) -> None:
    target.mkdir(parents=True)
    for name in list_images(source):
        Image.open(source / name).resize((size, size), resample).save(target / name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, default="data/SIGNS/train_signs", help="photos to take (%(default)s)")
    parser.add_argument("--count", type=int, default=360, help="how many of them (%(default)s)")
    parser.add_argument("--noise", type=float, default=0.0, help="grain of an enlarged photo, in levels (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="(%(default)s)")
    parser.add_argument("--size", type=int, default=64, help="(%(default)s)")
    args = parser.parse_args()
    print(describe_hardware())

    with tempfile.TemporaryDirectory() as temporary:
        raw = Path(temporary) / "raw"
        rng = np.random.default_rng(0)
        names = list_images(args.photos)
        for split in ("train_signs", "test_signs"):
            (raw / split).mkdir(parents=True)
        for i, name in enumerate(names[:: max(1, len(names) // args.count)][: args.count]):
            target = raw / ("test_signs" if i % 6 == 5 else "train_signs") / name
            image = Image.open(args.photos / name).convert("RGB")
            if max(image.size) >= FULL // 2:
                shutil.copy(args.photos / name, target)
                continue
            pixels = np.asarray(image.resize((FULL, FULL), Image.Resampling.BICUBIC), dtype=np.float32)
            pixels = pixels + rng.normal(0, args.noise, (FULL, FULL, 1)).astype(np.float32)
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(target, quality=90)
        photos = [raw / name for name in list_images(raw)]
        megabytes = sum(path.stat().st_size for path in photos) / len(photos) / 1e6
        print(f"{len(photos)} photos of {FULL}x{FULL} pixels, {megabytes:.1f} MB each, to {args.size}x{args.size}")

        fast: list[float] = []
        slow: dict[str, list[float]] = {"BILINEAR": [], "BICUBIC": []}  # the notes' filter, and Pillow's default
        for i in range(args.rounds):
            for name, speeds in slow.items():
                start = time.perf_counter()
                for split in ("train_signs", "test_signs"):
                    target = Path(temporary) / f"{name}{i}" / split
                    obvious_loop(raw / split, target, args.size, Image.Resampling[name])
                speeds.append(len(photos) / (time.perf_counter() - start))
            output = ["--output_dir", f"{temporary}/fast{i}", "--size", str(args.size)]
            start = time.perf_counter()
            command = [sys.executable, str(ROOT / "build_dataset.py"), "--data_dir", str(raw), *output]
            subprocess.run(command, check=True, capture_output=True)
            fast.append(len(photos) / (time.perf_counter() - start))

        differences = []
        for path in photos[:40]:
            with Image.open(path) as image:
                full = np.asarray(image.resize((args.size, args.size), Image.Resampling.BILINEAR)).astype(int)
            differences.append(np.abs(np.asarray(open_rgb(path, args.size)).astype(int) - full).mean())
    print(f"build_dataset.py           {statistics.median(fast):7.1f} photos/s")
    for name, speeds in slow.items():
        ratio = statistics.median(a / b for a, b in zip(fast, speeds, strict=True))
        print(f"obvious loop with {name:9s}{statistics.median(speeds):7.1f} photos/s: {ratio:.1f}x")
    print(f"mean absolute difference to the full-scale resize: {statistics.mean(differences):.2f} / 255")


if __name__ == "__main__":
    main()
