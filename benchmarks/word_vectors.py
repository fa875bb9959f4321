"""Words per second of CBOW with negative sampling, against gensim's Word2Vec with 2 workers on the same text.

    pip install gensim
    python -m benchmarks.word_vectors

Both read a generated text (words by Zipf's law) with vectors of 100, 5 neighbours on each side, 5 negative words, and
subsampling at 1e-3. Words are those of the text, before any is left out. In turn, for --rounds epochs each: gensim
with its own loop, and train.py's `train` function with everything in. gensim is needed for this benchmark alone.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.hardware import describe_hardware
from benchmarks.large_text import write_text
from benchmarks.paired import train_way
from benchmarks.startup import ROOT
from engine.devices import choose_device
from engine.experiments import load_experiment
from model import TASKS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=20, help="of text (%(default)s)")
    parser.add_argument("--model_dir", type=Path, default="experiments/cbow", help="experiment (%(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="of gensim (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="epochs of each way (%(default)s)")
    args = parser.parse_args()
    from gensim.models import Word2Vec

    print(describe_hardware())
    device = choose_device("cpu")
    with tempfile.TemporaryDirectory() as folder:
        raw, data = Path(folder) / "text.txt", Path(folder) / "data"
        write_text(raw, args.megabytes)
        words = ["--task", "word_embeddings", "--tokenized", "--data_dir", str(raw), "--output_dir", str(data)]
        subprocess.run([sys.executable, "build_dataset.py", *words], cwd=ROOT, check=True, capture_output=True)
        task, params, *_ = load_experiment(TASKS, args.model_dir, str(data))
        size = params.data.sizes["train"]
        lines = raw.read_text(encoding="utf-8").splitlines()
        sentences = [line.split() for line in lines[: len(lines) * 9 // 10]]
        num_words = sum(map(len, sentences))
        sizes = {"vector_size": 100, "window": 5, "negative": 5, "sample": 1e-3, "min_count": 1}
        model = Word2Vec(**sizes, sg=0, workers=args.workers, max_final_vocab=params.data.num_tokens)
        model.build_vocab(sentences)

        def gensim_epoch() -> None:
            model.train(sentences, total_examples=len(sentences), epochs=1)

        ways = {"gensim": (gensim_epoch, num_words), "train.py": (train_way(task, params, device), size)}
        speeds: dict[str, list[float]] = {name: [] for name in ways}
        for way, _ in ways.values():
            way()  # warm up
        for _ in range(args.rounds):
            for name, (way, count) in ways.items():
                start = time.perf_counter()
                way()
                speeds[name].append(count / (time.perf_counter() - start))
    for name, found in speeds.items():
        print(f"  {name:12s}{statistics.median(found):12,.0f} words/s")
    ratios = [ours / theirs for ours, theirs in zip(speeds["train.py"], speeds["gensim"], strict=True)]
    print(f"  train.py / gensim: {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
