"""Sentences per second of the training loop on tagged text: against the bare limit, the tutorial loop, and with a CRF.

    python -m benchmarks.tagging_speed --data_dir data/ner

In one process, in turn, for --rounds epochs each:

- bare: batches that were made before, network, loss, backward, clipping, optimizer step, nothing else: the limit;
- train.py: its `train` function over an epoch, everything in; of experiments/ner_lstm, and of
  experiments/ner_bilstm_crf with and without its CRF;
- tutorial: ner_lstm's network as courses train it: batches of 5, padded by loops in Python into a numpy array, a loss
  that picks the log-probability of each label by its row, `.item()` at every step.

Then the entity F1 of ner_lstm and of the tutorial after the same number of epochs.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.hardware import describe_hardware
from benchmarks.paired import bare_way, measure, new, print_speeds, ratio, train_way
from engine.devices import choose_device
from engine.experiments import Experiment, load_experiment
from engine.loaders import fetch_dataloaders
from engine.run import Run
from evaluate import evaluate
from model import TASKS
from model.sequence_tagging.data_loader import Dataset
from model.sequence_tagging.net import Outputs, describe_tags
from train import train

LSTM, CRF = Path("experiments/ner_lstm"), Path("experiments/ner_bilstm_crf")


class TutorialNet(nn.Module):
    """Embedding, LSTM, linear layer, log-softmax."""

    def __init__(self, vocabulary_size: int, embedding_dim: int, hidden_dim: int, num_tags: int):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary_size, embedding_dim)
        self.lstm = nn.LSTM(embedding_dim, hidden_dim, batch_first=True)
        self.fc = nn.Linear(hidden_dim, num_tags)

    def forward(self, words: Tensor) -> Tensor:  # batch_size x length -> batch_size*length x num_tags
        states, _ = self.lstm(self.embedding(words))
        return F.log_softmax(self.fc(states.reshape(-1, states.shape[2])), dim=1)


class Tutorial:
    """The plain loop, on the same sentences."""

    batch_size, learning_rate = 5, 1e-3

    def __init__(self, dataset: Dataset, params: Any):
        self.params = params
        words = dataset.texts.numbers.take(dataset.texts.tokens).tolist()
        labels, starts, lengths = dataset.labels.tolist(), dataset.texts.starts.tolist(), dataset.lengths.tolist()
        self.sentences = [words[start : start + n] for start, n in zip(starts, lengths, strict=True)]
        self.labels = [labels[start : start + n] for start, n in zip(starts, lengths, strict=True)]
        torch.manual_seed(params.seed)
        size = len(params.vocabulary) + 2
        self.net = TutorialNet(size, params.embedding_dim, params.lstm_hidden_dim, len(params.data.tags))
        self.optimizer = torch.optim.Adam(self.net.parameters(), self.learning_rate)
        self.random = random.Random(params.seed)

    def batch(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        longest = max(len(self.sentences[i]) for i in indices)
        words, labels = np.zeros((len(indices), longest)), -1 * np.ones((len(indices), longest))
        for row, i in enumerate(indices):
            for column in range(len(self.sentences[i])):
                words[row][column] = self.sentences[i][column]
                labels[row][column] = self.labels[i][column]
        return torch.LongTensor(words), torch.LongTensor(labels)

    def epoch(self) -> float:
        """Train for one epoch. Returns the mean of the batches' losses, as it would."""
        self.net.train()
        order = list(range(len(self.sentences)))
        self.random.shuffle(order)
        losses = []
        for start in range(0, len(order), self.batch_size):
            words, labels = self.batch(order[start : start + self.batch_size])
            outputs = self.net(words)
            mask = (labels.view(-1) >= 0).float()
            picked = outputs[range(len(outputs)), labels.view(-1).clamp(min=0)]
            loss = -(picked * mask).sum() / mask.sum().item()
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            losses.append(loss.item())
        return sum(losses) / len(losses)


class AsTask(nn.Module):
    """The tutorial's network with the inputs and outputs of ours, so that the same code scores it."""

    def __init__(self, net: nn.Module, params: Any):
        super().__init__()
        self.net = net
        self.about_tags = describe_tags([*params.data.tags, *params.data.unseen_tags])

    def forward(self, inputs: dict[str, Tensor]) -> Outputs:
        logits = self.net(inputs["words"]).view(*inputs["words"].shape, -1)
        return Outputs(logits, inputs["lengths"], None, *self.about_tags)


def compare_f1(data_dir: str, seeds: list[int]) -> None:
    """Entity F1 on test after the last of ner_lstm's epochs, of the tutorial loop and of train.py's."""
    task, shipped, *_ = load_experiment(TASKS, LSTM, data_dir)
    device = torch.device("cpu")
    found: dict[str, list[float]] = {"train.py": [], "tutorial": []}
    for seed in seeds:
        params = shipped.model_copy(update={"seed": seed, "save_summary_steps": 10**9})
        loaders = fetch_dataloaders(task, ["train", "test"], params)
        dataset: Any = loaders["train"].dataset
        tutorial = Tutorial(dataset, params)
        net, _ = new(task, params, device)
        run = Run(Experiment(task, params, Path(tempfile.mkdtemp())), net, loaders, device)
        for epoch in range(params.num_epochs):
            tutorial.epoch()
            train(run)
            run.history.append({"epoch": epoch + 1})
            run.begin_epoch()
        theirs, in_float32 = AsTask(tutorial.net, params), params.model_copy(update={"precision": "float32"})
        found["tutorial"].append(evaluate(theirs, loaders["test"], task, in_float32, device)["f1"])
        found["train.py"].append(evaluate(net, loaders["test"], task, params, device)["f1"])
    print(f"{LSTM}, entity F1 on test after {shipped.num_epochs} epochs, {len(seeds)} seeds:")
    for name, scores in found.items():
        print(f"  {name:32s}{statistics.mean(scores):.4f}  ({', '.join(f'{score:.4f}' for score in scores)})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", default="data/ner", help="built data set (%(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="epochs of each way (%(default)s)")
    parser.add_argument("--seeds", nargs="*", type=int, default=[230, 231, 232], help="of the F1; none for no F1")
    args = parser.parse_args()
    device = choose_device("cpu")
    print(describe_hardware(device))

    task, lstm, *_ = load_experiment(TASKS, LSTM, args.data_dir)
    _, crf, *_ = load_experiment(TASKS, CRF, args.data_dir)
    loader = fetch_dataloaders(task, ["train"], lstm)["train"]
    computed = sum(labels.numel() for _, labels in loader)
    dataset: Any = loader.dataset
    words = int(dataset.lengths.sum())
    print(f"Padding in batches of {lstm.batch_size}: {1 - words / computed:.2%} of the computed positions")

    num_sentences = len(dataset)
    ways = {
        "bare": bare_way(task, lstm, list(loader), device),
        "train.py": train_way(task, lstm, device),
        "tutorial": Tutorial(dataset, lstm).epoch,
    }
    print(f"{LSTM}, {num_sentences} sentences, median of {args.rounds} epochs:")
    speeds = measure(ways, num_sentences, args.rounds, device)
    print_speeds(speeds, "sentences/s", {"bare": "bare", "tutorial": "tutorial"})

    without = crf.model_copy(update={"crf": False})
    loader = fetch_dataloaders(task, ["train"], crf)["train"]
    ways = {
        "bare": bare_way(task, crf, list(loader), device),
        "train.py": train_way(task, crf, device),
        "train.py without the CRF": train_way(task, without, device),
    }
    print(f"{CRF}, {num_sentences} sentences, median of {args.rounds} epochs:")
    speeds = measure(ways, num_sentences, args.rounds, device)
    print_speeds(speeds, "sentences/s", {"bare": "bare"})
    print(f"  A step with the CRF takes {ratio(speeds, 'train.py without the CRF', 'train.py') - 1:.0%} longer.")
    if args.seeds:
        compare_f1(args.data_dir, args.seeds)


if __name__ == "__main__":
    main()
