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
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks.hardware import describe_hardware
from benchmarks.paired import Way, bare_way, measure, new, print_speeds, train_way
from engine.devices import choose_device
from engine.experiments import load_experiment
from engine.images import list_images
from engine.loaders import fetch_dataloaders
from model import TASKS
from model.image_classification.dataset import label_of


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


def make_ways(model_dir: Path, data_dir: str | None, device: torch.device) -> tuple[dict[str, Way], int]:
    """The ways to train for one epoch, by name, and the number of images in an epoch."""
    task, shipped, *_ = load_experiment(TASKS, model_dir, data_dir)
    plain = shipped.model_copy(update={"augmentation": 0.0, "horizontal_flip": False})
    tutorial = plain.model_copy(update={"channels_last": False, "fused_optimizer": False, "scheduler": "none"})

    loader = fetch_dataloaders(task, ["train"], plain, device)["train"]
    images, labels = (part.to(device) for part in next(iter(loader)))
    num_images = len(loader.dataset)  # type: ignore[arg-type]
    batches = [(images, labels)] * round(num_images / len(images))

    folder = Path(shipped.data_dir) / "train_signs"
    slow_loader = DataLoader(TutorialDataset(folder, shipped.data.classes), shipped.batch_size, True, num_workers=2)
    slow_net, slow_optimizer = new(task, tutorial, device)
    return {
        "bare": bare_way(task, plain, batches, device),
        "train.py, augmentation off": train_way(task, plain, device),
        "train.py as shipped": train_way(task, shipped, device),
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
    print(f"{args.model_dir}, {num_images} images, median of {args.rounds} epochs:")
    speeds = measure(ways, num_images, args.rounds, device)
    print_speeds(speeds, "images/s", {"bare": "bare", "tutorial": "tutorial"})


if __name__ == "__main__":
    main()
