"""What a language model of the same texts is worth when few of them have labels.

    python -m benchmarks.pretraining --trees trees/train.txt trees/dev.txt --tagged ner_dataset.csv

Sentiment: --labelled sentences of the treebank with labels, the text of all of them without, judged on dev. Names: the
same with tagged sentences, of which the last 2,000 are for judging, and the words of the others for the language model.
The same network is trained with each seed from scratch, from the vectors of the language model alone, and from vectors
and recurrent layer. Prints means and standard deviations.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.hardware import describe_hardware
from benchmarks.startup import ROOT
from model.text.trees import parse_tree

SIZES: dict[str, Any] = {"embedding_dim": 128, "lstm_hidden_dim": 128, "optimizer": "adamw", "lowercase_words": True}
LANGUAGE: dict[str, Any] = {
    **SIZES,
    **{"task": "language_modeling", "learning_rate": 3e-3, "scheduler": "onecycle", "num_epochs": 12, "batch_size": 16},
    **{"num_steps": 35, "dropout_rate": 0.4, "embedding_dropout": 0.1, "tied_weights": True, "clip_grad_norm": 1.0},
}
LABELLED: dict[str, Any] = {
    **SIZES,
    **{"learning_rate": 2e-3, "scheduler": "onecycle", "num_epochs": 30, "batch_size": 32, "dropout_rate": 0.5},
    **{"word_dropout": 0.2},
}
TASKS: dict[str, dict[str, Any]] = {
    "text_classification": {"pooling": "max_mean", "monitor": "accuracy"},
    "sequence_tagging": {"char_features": "none", "crf": True, "monitor": "f1"},
}


def run(command: str, *arguments: Any) -> None:
    subprocess.run([sys.executable, command, *map(str, arguments)], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def train(folder: Path, data: Path, params: dict[str, Any]) -> dict[str, float]:
    folder.mkdir(parents=True)
    (folder / "params.json").write_text(json.dumps({**params, "data_dir": str(data)}), encoding="utf-8")
    run("train.py", "--model_dir", folder)
    return json.loads((folder / "metrics_eval_best_weights.json").read_text(encoding="utf-8"))


def write_trees(paths: list[Path], raw: Path, labelled: int) -> list[str]:
    """Files of splits with few trees in train; returns all training sentences."""
    train_lines, dev_lines = (path.read_text(encoding="utf-8").splitlines() for path in paths)
    random.Random(0).shuffle(train_lines)
    raw.mkdir()
    for name, lines in (("train", train_lines[:labelled]), ("dev", dev_lines), ("test", dev_lines)):
        (raw / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return [" ".join(parse_tree(line)[0]) for line in train_lines]


def write_tagged(path: Path, raw: Path, labelled: int) -> list[str]:
    """The same of tagged sentences, in columns."""
    sentences: list[list[tuple[str, str]]] = []
    with open(path, encoding="windows-1252", newline="") as file:
        for row in csv.DictReader(file):
            if row["Sentence #"]:
                sentences.append([])
            sentences[-1].append((row["Word"], row["Tag"]))
    random.Random(0).shuffle(sentences)
    raw.mkdir()
    for name, part in (("train", sentences[:labelled]), ("dev", sentences[-2000:]), ("test", sentences[-2000:])):
        blocks = ("".join(f"{word} {tag}\n" for word, tag in sentence) for sentence in part)
        (raw / f"{name}.conll").write_text("\n".join(blocks), encoding="utf-8")
    return [" ".join(word for word, _ in sentence) for sentence in sentences[:-2000]]


def compare(task: str, texts: list[str], raw: Path, folder: Path, seeds: list[int]) -> None:
    plain, metric = folder / "plain", TASKS[task]["monitor"]
    plain.mkdir()
    parts = {"train": texts[:-200], "valid": texts[-200:-100], "test": texts[-100:]}
    for name, lines in parts.items():
        (plain / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    words = ["--level", "word", "--tokenized", "--output_dir", folder / "lm_data"]
    run("build_dataset.py", "--task", "language_modeling", "--data_dir", plain, *words)
    found = train(folder / "lm", folder / "lm_data", LANGUAGE)
    print(f"{task}: language model of {len(texts):,} texts, perplexity {found['perplexity']:.1f}", flush=True)
    run("build_dataset.py", "--task", task, "--data_dir", raw, "--output_dir", folder / "data")
    ways: dict[str, dict[str, Any]] = {
        "from scratch": {},
        "its vectors": {"pretrained_encoder": str(folder / "lm"), "bidirectional": True, "lstm_hidden_dim": 64},
        "its vectors and layer": {"pretrained_encoder": str(folder / "lm"), "freeze_epochs": 2},
    }
    ways = {"from scratch, both directions": {"bidirectional": True, "lstm_hidden_dim": 64}, **ways}
    for name, changed in ways.items():
        params = {**LABELLED, "task": task, **TASKS[task], **changed}
        scores = [train(folder / name / str(seed), folder / "data", {**params, "seed": seed})[metric] for seed in seeds]
        spread = statistics.stdev(scores) if len(scores) > 1 else 0.0
        print(f"  {name}: {metric} {statistics.mean(scores):.4f} ± {spread:.4f} on dev", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trees", nargs=2, type=Path, metavar=("TRAIN", "DEV"), help="files of the treebank")
    parser.add_argument("--tagged", type=Path, help="the table of Kaggle's named entities")
    parser.add_argument("--labelled", type=int, default=500, help="sentences with labels (%(default)s)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[230, 231, 232], help="(%(default)s)")
    args = parser.parse_args()
    print(describe_hardware())
    with tempfile.TemporaryDirectory() as temporary:
        for task, source in (("text_classification", args.trees), ("sequence_tagging", args.tagged)):
            if source:
                folder = Path(temporary) / task
                folder.mkdir()
                write = write_trees if task == "text_classification" else write_tagged
                texts = write(source, folder / "raw", args.labelled)
                compare(task, texts, folder / "raw", folder, args.seeds)


if __name__ == "__main__":
    main()
