"""experiments/shakespeare against nanoGPT's recipe for a CPU, back to back on the same text.

    git clone https://github.com/karpathy/nanoGPT /tmp/nanogpt
    python -m benchmarks.nanogpt --checkout /tmp/nanogpt --text input.txt

The last tenth of the text is val for both. nanoGPT trains by the command of its README (4 layers, 4 heads, 128
channels, 64 characters of context, 2,000 steps), and then measures all of val by its own code in blocks of 64, as it
was trained. The experiment is trained as it is shipped, and for --epochs that fit into nanoGPT's time. Times are those
of the whole training command, start to exit.
"""

from __future__ import annotations

import argparse
import json
import pickle
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.hardware import describe_hardware
from benchmarks.startup import ROOT

RECIPE = (
    "config/train_shakespeare_char.py --device=cpu --compile=False --eval_iters=20 --log_interval=100 --block_size=64"
    " --batch_size=12 --n_layer=4 --n_head=4 --n_embd=128 --max_iters=2000 --lr_decay_iters=2000 --dropout=0.0"
).split()
# the mean loss of nanoGPT's last checkpoint over all blocks of val
EVALUATE = """
import numpy as np, torch
from model import GPT, GPTConfig
checkpoint = torch.load("out-shakespeare-char/ckpt.pt", map_location="cpu")
net = GPT(GPTConfig(**checkpoint["model_args"]))
net.load_state_dict(checkpoint["model"])
net.eval()
val = torch.from_numpy(np.fromfile("data/shakespeare_char/val.bin", np.uint16).astype(np.int64))
size = 64 * ((len(val) - 1) // 64)
x, y = val[:size].view(-1, 64), val[1 : size + 1].view(-1, 64)
with torch.no_grad():
    losses = [net(a, b)[1].item() * len(a) for a, b in zip(x.split(256), y.split(256))]
print("LOSS", sum(losses) / len(x))
"""


def timed(command: list[str], folder: Path) -> tuple[float, str]:
    start = time.perf_counter()
    output = subprocess.run(command, cwd=folder, capture_output=True, encoding="utf-8", check=True).stdout
    return time.perf_counter() - start, output


def run_nanogpt(checkout: Path, text: str) -> tuple[float, float]:
    """Seconds, and loss on val."""
    folder, chars = checkout / "data" / "shakespeare_char", sorted(set(text))
    numbers = {char: i for i, char in enumerate(chars)}
    end = int(0.9 * len(text))
    for name, part in (("train", text[:end]), ("val", text[end:])):
        np.array([numbers[char] for char in part], np.uint16).tofile(folder / f"{name}.bin")
    meta = {"vocab_size": len(chars), "itos": dict(enumerate(chars)), "stoi": numbers}
    (folder / "meta.pkl").write_bytes(pickle.dumps(meta))
    seconds, _ = timed([sys.executable, "train.py", *RECIPE], checkout)
    _, output = timed([sys.executable, "-c", EVALUATE], checkout)
    return seconds, float(output.split("LOSS")[1])


def run_experiment(data: Path, folder: Path, *assignments: str) -> tuple[float, float]:
    where = ["--model_dir", str(folder), "--base", "experiments/shakespeare", "--data_dir", str(data)]
    changed = ["--set", *assignments] if assignments else []
    seconds, _ = timed([sys.executable, "train.py", *where, *changed], ROOT)
    return seconds, json.loads((folder / "metrics_eval_best_weights.json").read_text(encoding="utf-8"))["loss"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkout", type=Path, required=True, help="of nanoGPT")
    parser.add_argument("--text", type=Path, required=True, help="plain text")
    parser.add_argument("--epochs", type=int, default=4, help="that fit into nanoGPT's time (%(default)s)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[230], help="of the experiment (%(default)s)")
    args = parser.parse_args()
    print(describe_hardware())
    text = args.text.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as temporary:
        raw, data = Path(temporary) / "raw", Path(temporary) / "data"
        raw.mkdir()
        end = int(0.9 * len(text))
        for name, part in (("train", text[:end]), ("valid", text[end:]), ("test", text[end:])):
            (raw / f"{name}.txt").write_text(part, encoding="utf-8")
        words = ["--task", "language_modeling", "--data_dir", str(raw), "--output_dir", str(data)]
        timed([sys.executable, "build_dataset.py", *words], ROOT)
        print("nanoGPT: {:.1f} s, loss {:.4f} on val".format(*run_nanogpt(args.checkout, text)), flush=True)
        for seed in args.seeds:
            for name, changed in ((f"{args.epochs} epochs", [f"num_epochs={args.epochs}"]), ("as shipped", [])):
                folder = Path(temporary) / re.sub(r"\W", "_", f"{name} {seed}")
                found = run_experiment(data, folder, f"seed={seed}", *changed)
                print(f"shakespeare, {name}, seed {seed}: {found[0]:.1f} s, loss {found[1]:.4f} on val", flush=True)


if __name__ == "__main__":
    main()
