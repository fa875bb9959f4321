"""How much of the network's own speed predict.py reaches, from files to records that are written.

python -m benchmarks.predict_speed --images data/64x64_SIGNS --model_dir experiments/base_model
python -m benchmarks.predict_speed --sentences data/ner --model_dir experiments/ner_bilstm_crf
python -m benchmarks.predict_speed --photos 1000 --model_dir experiments/base_model

*Bare* is the network on the same batches, made before, and nothing else: images -> scores; words -> the best tags and
their probabilities.
With --photos, 3024 x 3024 JPEGs are drawn, and the limit is decoding them: Pillow in a thread for each core, at the
scale that build_dataset.py chooses.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import os
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.hardware import describe_hardware
from benchmarks.paired import Way, measure, print_speeds
from engine.images import list_images
from engine.predicting import WINDOW, Predictor
from engine.predictions import open_writer
from predict import load_predictor

SIDE = 3024  # pixels of a photo


def predict_way(predictor: Predictor, inputs: Iterable[Any], folder: Path) -> Way:
    """All that predict.py does: read, compute, write."""

    def predict() -> None:
        with open_writer(predictor.processing, "jsonl", str(folder / "answers.jsonl")) as writer:
            for record in predictor.stream(inputs):
                writer.write(record)

    return predict


def bare_way(predictor: Predictor, inputs: list[Any]) -> Way:
    """The network on the same batches, which lie in memory."""
    batches: list[Any] = []
    for start in range(0, len(inputs), WINDOW * predictor.params.batch_size):
        window = inputs[start : start + WINDOW * predictor.params.batch_size]
        pairs = predictor.sort_into_batches([predictor.preprocess(raw) for raw in window])
        contents = [[example.content for _, example in batch] for batch in pairs]
        batches += predictor.processing.make_batches(contents)

    def compute() -> None:
        for batch in batches:
            predictor.network(batch)

    return compute


def draw_photos(folder: Path, number: int) -> list[Path]:
    """Photos of `SIDE` pixels: smooth areas, edges and some noise, about as large as a camera's files."""
    rng = np.random.default_rng(230)
    paths = []
    for i in range(min(number, 20)):  # then links to these: the files differ, their content repeats
        coarse = Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)).resize(
            (SIDE, SIDE), Image.Resampling.BICUBIC
        )
        noise = rng.integers(-8, 9, (SIDE, SIDE, 1), dtype=np.int16)
        pixels = (np.asarray(coarse, dtype=np.int16) + noise).clip(0, 255).astype(np.uint8)
        paths.append(folder / f"{i}.jpg")
        Image.fromarray(pixels).save(paths[-1], quality=90)
    for i in range(len(paths), number):
        os.link(paths[i % len(paths)], folder / f"{i}.jpg")
        paths.append(folder / f"{i}.jpg")
    return paths


def decode_way(paths: list[Path], size: int) -> Way:
    """Decoding alone, on all cores."""

    def decode(path: Path) -> None:
        with Image.open(path) as image:
            image.draft(None, (2 * size, 2 * size))
            image.load()

    def decode_all() -> None:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for _ in pool.map(decode, paths):
                pass

    return decode_all


def repeated(items: list[Any], number: int) -> Iterator[Any]:
    return itertools.islice(itertools.cycle(items), number)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_dir", default="experiments/base_model", help="whose best weights (%(default)s)")
    parser.add_argument("--images", type=Path, help="a built data set of images: 10,000 of its files, some repeatedly")
    parser.add_argument("--sentences", type=Path, help="a built data set of text: 100,000 of its sentences")
    parser.add_argument("--photos", type=int, help="draw so many large JPEGs")
    parser.add_argument("--number", type=int, help="another number of images or sentences")
    parser.add_argument("--rounds", type=int, default=3, help="times that each way is measured (%(default)s)")
    args = parser.parse_args()
    predictor = load_predictor(args.model_dir)
    print(describe_hardware(predictor.network.device))  # type: ignore[attr-defined]
    with tempfile.TemporaryDirectory() as folder:
        if args.photos:
            inputs: list[Any] = [*draw_photos(Path(folder), args.photos)]
            ways = {"decoding alone": decode_way(inputs, predictor.params.data.image_size)}
            unit = "photos/s"
        elif args.images:
            files = [path / name for path in args.images.glob("*_signs") for name in list_images(path)]
            inputs, unit = list(repeated(files, args.number or 10_000)), "images/s"
            ways = {"bare": bare_way(predictor, inputs)}
        else:
            paths = sorted(args.sentences.glob("*/sentences.txt"))
            lines = [line for path in paths for line in path.read_text(encoding="utf-8").splitlines()]
            inputs, unit = list(repeated(lines, args.number or 100_000)), "sentences/s"
            ways = {"bare": bare_way(predictor, inputs)}
        limit = next(iter(ways))
        gc.freeze()  # as predict.py does
        ways["predict.py"] = predict_way(predictor, inputs, Path(folder))
        print(f"{args.model_dir}, {len(inputs):,} inputs, median of {args.rounds} rounds:")
        speeds = measure(ways, len(inputs), args.rounds, torch.device("cpu"))
        print_speeds(speeds, unit, {limit: f"of {limit}"})


if __name__ == "__main__":
    main()
