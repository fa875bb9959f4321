"""Images per second of the training loop, against the bare limit and against the plain tutorial loop.

    python -m benchmarks.training_speed --data_dir data/64x64_SIGNS

Four ways to train the network of --model_dir, taken in turn for --rounds epochs each, in one process:

- bare: one batch that lies in memory, network, loss, backward, clipping, optimizer step, nothing else: the limit;
- train.py, augmentation off, and train.py as shipped: its `train` function over an epoch, everything in;
- tutorial: each image decoded by Pillow in a DataLoader with 2 workers, float32, contiguous tensors, an optimizer that
  is not fused, and `.item()` at every step.

Prints medians over the rounds, and the medians of the ratios within a round.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks.hardware import describe_hardware
from model import load_experiment
from model.hardware import autocast, choose_device, choose_precision
from model.image_classification.dataset import label_of, list_images
from model.optimizers import Schedule, make_optimizer
from runs import Summaries
from train import train


class TutorialDataset(Dataset[Any]):
    """As tutorials write it: a list of file names, and one image at a time."""

    def __init__(self, folder: Path, classes: list[str]):
        self.files = [folder / name for name in list_images(folder)]
        self.labels = [classes.index(str(label_of(name))) for name in list_images(folder)]
        self.transform = transforms.Compose([transforms.RandomHorizontalFlip(), transforms.ToTensor()])

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.open(self.files[index])), self.labels[index]


def tutorial_epoch(net: nn.Module, optimizer: torch.optim.Optimizer, loader: DataLoader[Any], loss_fn: Any) -> float:
    """One epoch of the plain loop. Returns the mean of the batches' losses, as it would."""
    net.train()
    losses, accuracies = [], []
    for images, labels in loader:
        outputs = net(255 * images)
        loss = loss_fn(outputs, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        accuracies.append((outputs.argmax(1) == labels).float().mean().item())
    return sum(losses) / len(losses)


def make_ways(model_dir: Path, data_dir: str | None, device: torch.device) -> tuple[dict[str, Callable[[], Any]], int]:
    """The ways to train for one epoch, by name, and the number of images in an epoch."""
    task, shipped = load_experiment(model_dir, data_dir)
    shipped = shipped.model_copy(update={"save_summary_steps": 10**9, "num_epochs": 10**4})
    plain = shipped.model_copy(update={"augmentation": 0.0, "horizontal_flip": False})
    tutorial = plain.model_copy(update={"channels_last": False, "fused_optimizer": False, "scheduler": "none"})
    precision = choose_precision(device, shipped.precision)
    summaries = Summaries(Path(tempfile.mkdtemp()))
    ways: dict[str, Callable[[], Any]] = {}

    def new(params: Any) -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(params.seed)
        net = task.Net(params).to(device)
        return net, make_optimizer(net, params)

    for name, params in (("train.py, augmentation off", plain), ("train.py as shipped", shipped)):
        loader = task.fetch_dataloader(["train"], params.data_dir, params, device)["train"]
        net, optimizer = new(params)
        schedule = Schedule(optimizer, params, len(loader))

        def epoch(net=net, optimizer=optimizer, schedule=schedule, loader=loader, params=params) -> None:  # type: ignore[no-untyped-def]
            train(net, optimizer, schedule, loader, task, params, device, precision, 0, summaries)

        ways[name] = epoch

    images, labels = (part.to(device) for part in next(iter(loader)))
    images = images.round().to(torch.uint8)
    bare_net, bare_optimizer = new(plain)
    num_images = len(loader.dataset)

    def bare() -> None:
        bare_net.train()
        for _ in range(round(num_images / len(images))):
            with autocast(device, precision):
                loss = task.loss_fn(bare_net(images), labels)
            bare_optimizer.zero_grad()
            loss.backward()
            if plain.clip_grad_norm:
                nn.utils.clip_grad_norm_(bare_net.parameters(), plain.clip_grad_norm)
            bare_optimizer.step()

    folder = Path(shipped.data_dir) / "train_signs"
    slow_loader = DataLoader(TutorialDataset(folder, shipped.data.classes), shipped.batch_size, True, num_workers=2)
    slow_net, slow_optimizer = new(tutorial)
    return {
        "bare": bare,
        **ways,
        "tutorial": lambda: tutorial_epoch(slow_net, slow_optimizer, slow_loader, task.loss_fn),
    }, num_images


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_dir", type=Path, default="experiments/base_model", help="whose network (%(default)s)")
    parser.add_argument("--data_dir", help="built data set (the one that params.json names)")
    parser.add_argument("--rounds", type=int, default=7, help="epochs of each way (%(default)s)")
    parser.add_argument("--device", default="cpu", help="where (%(default)s)")
    args = parser.parse_args()
    device = choose_device(args.device)
    print(describe_hardware(device))

    ways, num_images = make_ways(args.model_dir, args.data_dir, device)
    for way in ways.values():
        way()  # warm up: caches, threads, memory
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(args.rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            if device.type == "cuda":
                torch.cuda.synchronize()
            speeds[name].append(num_images / (time.perf_counter() - start))

    print(f"{args.model_dir}, {num_images} images, median of {args.rounds} epochs:")
    for name, values in speeds.items():
        of_bare = statistics.median(a / b for a, b in zip(values, speeds["bare"], strict=True))
        of_tutorial = statistics.median(a / b for a, b in zip(values, speeds["tutorial"], strict=True))
        print(
            f"  {name:28s}{statistics.median(values):7.0f} images/s{of_bare:8.1%} of bare{of_tutorial:7.2f}x tutorial"
        )


if __name__ == "__main__":
    main()
