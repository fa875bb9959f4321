"""Order and augmentation are functions of (seed, epoch, example)."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.experiments import load_experiment
from engine.loaders import BatchSampler, fetch_dataloaders
from model import TASKS
from model.image_classification.data_loader import SHIFT, augment, augmentation_draws
from tests.conftest import write_params

CPU = torch.device("cpu")


def batches_of(sampler: BatchSampler) -> list[list[int]]:
    return [batch.indices.tolist() for batch in sampler]


@given(st.integers(1, 200), st.integers(2, 40), st.booleans())
def test_every_example_once_and_none_alone(examples: int, batch_size: int, shuffle: bool) -> None:
    sampler = BatchSampler(examples, batch_size, shuffle)
    batches = batches_of(sampler)
    assert sorted(chain(*batches)) == list(range(examples))
    assert len(batches) == len(sampler)
    assert all(len(batch) > 1 for batch in batches) or examples == 1
    assert all(len(batch) == batch_size for batch in batches[:-1])


def test_order_depends_on_seed_and_epoch_only() -> None:
    sampler, again = BatchSampler(100, 8, True, seed=1), BatchSampler(100, 8, True, seed=1)
    first = batches_of(sampler)
    sampler.set_epoch(1)
    second = batches_of(sampler)
    again.set_epoch(1)
    assert batches_of(again) == second != first  # without having gone through epoch 0
    assert batches_of(BatchSampler(100, 8, True, seed=2)) != first


def loaders(data: Path, folder: Path, **params: Any) -> Any:
    task, checked, *_ = load_experiment(TASKS, write_params(folder, **params), str(data))
    return fetch_dataloaders(task, ["train", "val"], checked), checked


def by_index(loader: Any, epoch: int) -> dict[int, torch.Tensor]:
    loader.batch_sampler.set_epoch(epoch)
    order = chain(*batches_of(loader.batch_sampler))
    return dict(zip(order, torch.cat([images for images, _ in loader]), strict=True))


def test_augmentation_does_not_depend_on_the_company(shared_data: Path, tmp_path: Path) -> None:
    """The same example in the same epoch looks the same in batches of any size, and different in the next epoch."""
    small = by_index(loaders(shared_data, tmp_path / "a", batch_size=2)[0]["train"], epoch=3)
    large = by_index(loaders(shared_data, tmp_path / "b", batch_size=48)[0]["train"], epoch=3)
    later = by_index(loaders(shared_data, tmp_path / "c", batch_size=48)[0]["train"], epoch=4)
    for index, image in small.items():
        torch.testing.assert_close(image, large[index])
        assert not torch.allclose(image, later[index])


@pytest.mark.parametrize("workers", [0, 2])
def test_val_is_in_order_and_untouched(shared_data: Path, tmp_path: Path, workers: int) -> None:
    loader = loaders(shared_data, tmp_path, num_workers=workers)[0]["val"]
    images, labels = zip(*loader, strict=True)
    assert torch.equal(torch.cat(images), loader.dataset.images)
    assert torch.equal(torch.cat(labels), loader.dataset.labels)
    assert images[0].dtype == torch.uint8


def test_no_augmentation_leaves_the_pixels(shared_data: Path, tmp_path: Path) -> None:
    loader = loaders(shared_data, tmp_path, augmentation=0.0)[0]["train"]
    for index, image in by_index(loader, 0).items():
        assert torch.equal(image, loader.dataset.images[index])


def test_augment_at_rest_shifts_and_flips() -> None:
    images = torch.rand(2, 3, 8, 8) * 255
    still = torch.zeros(2, 9)
    torch.testing.assert_close(augment(images, still, 1.0, flip=False), images)

    mirror = still.clone()
    mirror[1, 0] = -1
    flipped = augment(images, mirror, 0.0, flip=True)
    torch.testing.assert_close(flipped[0], images[0])
    torch.testing.assert_close(flipped[1], images[1].flip(2))

    right = still.clone()
    right[:, 3] = 1 / SHIFT / 8  # the share of the image's 8 pixels that is exactly one
    torch.testing.assert_close(augment(images, right, 1.0, flip=False)[..., :-1], images[..., 1:], atol=1e-3, rtol=0)


def test_augmentation_draws_are_reproducible_and_spread() -> None:
    numbers = augmentation_draws(230, 0, 1000, CPU)
    assert torch.equal(numbers, augmentation_draws(230, 0, 1000, CPU))
    assert not torch.equal(numbers, augmentation_draws(230, 1, 1000, CPU))
    assert numbers.min() < -0.99
    assert numbers.max() > 0.99
    assert abs(numbers.mean()) < 0.02
