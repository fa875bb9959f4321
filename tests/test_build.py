"""Raw photos of every kind -> a data set, whole or not at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from engine.building import replace_folder
from engine.images import open_rgb
from model.image_classification.dataset import Photo, split_photos
from model.image_classification.sample import SIZES, write_sample
from tests.conftest import ROOT, read_json, refused, run
from tests.helpers import draw_photo, draw_photos


def build(data_dir: Path, output_dir: Path, *flags: str) -> None:
    result = run("build_dataset", "--data_dir", data_dir, "--output_dir", output_dir, "--size", 16, *flags)
    assert result.status == 0, result.err


def images_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.jpg"))


# -------------------------------------------------------------------------------------------- layouts


def test_signs_layout(photos: Path, shared_data: Path) -> None:
    found = read_json(shared_data / "dataset_params.json")
    assert found["classes"] == ["0", "1", "2"]
    assert found["sizes"] == {"train": 48, "val": 12, "test": 15}
    assert found["image_size"] == 16
    for split, count in found["sizes"].items():
        assert len(images_in(shared_data / f"{split}_signs")) == count
    for number in range(3):  # stratified: 80 % of each class
        assert len(list((shared_data / "train_signs").glob(f"{number}_IMG_*"))) == 16
    built = [name for split in ("train", "val") for name in images_in(shared_data / f"{split}_signs")]
    assert sorted(built) == sorted(path.name for path in (photos / "train_signs").iterdir())


def test_statistics_are_of_the_training_images_as_built(shared_data: Path) -> None:
    images = [np.asarray(Image.open(path)) / 255 for path in (shared_data / "train_signs").iterdir()]
    pixels = np.stack(images).reshape(-1, 3)
    found = read_json(shared_data / "dataset_params.json")
    assert found["mean"] == pytest.approx(pixels.mean(0))
    assert found["std"] == pytest.approx(pixels.std(0))


@pytest.mark.parametrize("val", [None, "val", "valid", "dev"])
def test_class_folders(tmp_path: Path, val: str | None) -> None:
    for split in ("train", "test", *([val] if val else [])):
        for number, name in enumerate(["cat", "dog", "Ünïcode näme"]):
            for i in range(5):
                draw_photo(tmp_path / "raw" / split / name / f"{split} {i}.JPG", number)
    build(tmp_path / "raw", tmp_path / "built")
    found = read_json(tmp_path / "built" / "dataset_params.json")
    assert found["classes"] == ["cat", "dog", "Ünïcode näme"]
    assert found["sizes"] == ({"train": 15, "val": 15, "test": 15} if val else {"train": 12, "val": 3, "test": 15})
    assert "dog/test 0.jpg" in images_in(tmp_path / "built" / "test_signs")


def test_flat_folder_of_classes(tmp_path: Path) -> None:
    for number in range(12):
        for i in range(25):
            draw_photo(tmp_path / "raw" / str(number) / f"{i}.png", number % 4)
    (tmp_path / "raw" / ".DS_Store").touch()
    (tmp_path / "raw" / "3" / "notes.txt").touch()
    build(tmp_path / "raw", tmp_path / "built")
    found = read_json(tmp_path / "built" / "dataset_params.json")
    assert found["classes"] == [str(number) for number in range(12)]  # as numbers: 9 before 10
    assert found["sizes"] == {"train": 12 * 16, "val": 12 * 4, "test": 12 * 5}


def test_same_name_with_other_ending_is_another_photo(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        for i in range(6):
            for ending in (".jpg", ".png", ".webp"):
                draw_photo(tmp_path / "raw" / name / f"{i}{ending}", 0 if name == "cat" else 1)
    build(tmp_path / "raw", tmp_path / "built")
    assert len(images_in(tmp_path / "built")) == 36


def test_split_is_a_function_of_seed_and_names() -> None:
    photos = [Photo(Path(f"{i}.jpg"), f"{i % 3}_IMG_{i}.jpg", str(i % 3), "train") for i in range(60)]
    split = split_photos(photos, seed=1)
    assert split_photos(photos[::-1], seed=1) == split
    assert split_photos(photos, seed=2) != split
    elsewhere = [photo._replace(path=Path("/elsewhere") / photo.path) for photo in photos]
    assert [photo.target for photo in split_photos(elsewhere, seed=1)] == [photo.target for photo in split]


def test_digest_tells_data_apart(photos: Path, shared_data: Path, tmp_path: Path) -> None:
    digest = read_json(shared_data / "dataset_params.json")["digest"]
    build(photos, tmp_path / "same")
    assert read_json(tmp_path / "same" / "dataset_params.json")["digest"] == digest
    build(photos, tmp_path / "other", "--seed", "1")
    assert read_json(tmp_path / "other" / "dataset_params.json")["digest"] != digest


def test_a_class_whose_name_ends_like_a_split(tmp_path: Path) -> None:
    for number, name in enumerate(("bullet_train", "crash-test", "car")):
        for i in range(10):
            draw_photo(tmp_path / "raw" / name / f"{i}.jpg", number)
    build(tmp_path / "raw", tmp_path / "built")
    assert read_json(tmp_path / "built" / "dataset_params.json")["classes"] == ["bullet_train", "car", "crash-test"]


# ------------------------------------------------------------------------------------- kinds of files


def half_and_half(mode: str) -> Image.Image:
    """Left half dark, right half bright."""
    image = Image.new("L", (40, 20), 50)
    image.paste(200, (20, 0, 40, 20))
    return image.convert(mode)


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("a.jpg", "L"),
        ("a.jpg", "RGB"),
        ("a.jpeg", "CMYK"),
        ("a.png", "RGBA"),
        ("a.png", "LA"),
        ("a.png", "P"),
        ("a.PNG", "I;16"),
        ("a.webp", "RGB"),
    ],
)
def test_modes(tmp_path: Path, name: str, mode: str) -> None:
    if mode == "I;16":
        image = Image.fromarray(np.asarray(half_and_half("L")).astype(np.uint16) * 257)
    else:
        image = half_and_half(mode)
    image.save(tmp_path / name, lossless=True)  # which only webp listens to
    pixels = np.asarray(open_rgb(tmp_path / name, 8)).astype(int)
    assert pixels.shape == (8, 8, 3)
    assert abs(pixels[:, :3] - 50).max() <= 4
    assert abs(pixels[:, 5:] - 200).max() <= 4


def test_black_and_white_and_transparent(tmp_path: Path) -> None:
    half_and_half("L").point(lambda value: 255 * (value > 100)).convert("1").save(tmp_path / "one.png")
    assert np.asarray(open_rgb(tmp_path / "one.png", 8))[0, 7].tolist() == [255, 255, 255]
    Image.new("RGBA", (9, 9), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    assert np.asarray(open_rgb(tmp_path / "clear.png", 8))[0, 0].tolist() == [255, 255, 255]
    palette = Image.new("P", (9, 9), 3)
    palette.putpalette([255, 0, 0] * 256)
    palette.save(tmp_path / "palette.png", transparency=3)
    assert np.asarray(open_rgb(tmp_path / "palette.png", 8))[0, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(40, 20), (300, 150)])  # the larger one is decoded at a reduced scale
def test_exif_rotation(tmp_path: Path, size: tuple[int, int], orientation: int) -> None:
    image = half_and_half("RGB").resize(size)
    image.paste((250, 0, 0), (0, 0, size[0] // 4, size[1] // 2))  # no symmetry: red in the top left corner
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "a.jpg", exif=exif, quality=95, subsampling=0)
    with Image.open(tmp_path / "a.jpg") as stored:
        upright = ImageOps.exif_transpose(stored).resize((8, 8), Image.Resampling.BILINEAR)
    assert np.abs(np.asarray(open_rgb(tmp_path / "a.jpg", 8)).astype(int) - np.asarray(upright)).max() < 25


def test_reduced_decoding_is_close_to_full_scale(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (50, 50, 3), dtype=np.uint8))
    coarse.resize((1500, 1500), Image.Resampling.BICUBIC).save(tmp_path / "a.jpg")
    with Image.open(tmp_path / "a.jpg") as image:
        full = np.asarray(image.resize((64, 64), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(np.asarray(open_rgb(tmp_path / "a.jpg", 64)).astype(int) - full).mean() < 3


# ------------------------------------------------------------------------------------------ bad input


def test_missing_folder_says_what_to_do(tmp_path: Path) -> None:
    result = run("build_dataset", "--data_dir", tmp_path / "no", "--output_dir", tmp_path / "built")
    refused(result, "no such folder", "https://", "--sample", "train_signs/")
    assert list(tmp_path.iterdir()) == []


def test_unreadable_files_are_all_named(tmp_path: Path) -> None:
    raw = draw_photos(tmp_path / "raw")
    (raw / "train_signs" / "1_IMG_broken.jpg").write_bytes(b"no image")
    (raw / "test_signs" / "2_IMG_empty.png").touch()
    whole = (raw / "train_signs" / "0_IMG_train0.jpg").read_bytes()
    (raw / "train_signs" / "0_IMG_train0.jpg").write_bytes(whole[: len(whole) // 2])
    result = run("build_dataset", "--data_dir", raw, "--output_dir", tmp_path / "built", "--size", 16)
    refused(result, "3 unreadable", "1_IMG_broken.jpg", "2_IMG_empty.png", "0_IMG_train0.jpg", "--skip_bad")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["raw"]

    result = run("build_dataset", "--data_dir", raw, "--output_dir", tmp_path / "built", "--size", 16, "--skip_bad")
    assert result.status == 0
    assert "Left out 3 unreadable" in result.out
    assert "1_IMG_broken.jpg" in result.out
    assert sum(read_json(tmp_path / "built" / "dataset_params.json")["sizes"].values()) == 74


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda raw: [path.unlink() for path in (raw / "train_signs").glob("2_*")], ["missing from train: 2"]),
        (lambda raw: draw_photo(raw / "test_signs" / "7_IMG_1.jpg", 0), ["missing from train: 7", "7_IMG_1.jpg"]),
        (lambda raw: [path.unlink() for path in (raw / "test_signs").iterdir()], ["test_signs: no photos"]),
        (lambda raw: [path.unlink() for path in (raw / "train_signs").iterdir()], ["train_signs: no photos"]),
        (lambda raw: (raw / "train_signs" / "dog").mkdir(), ["no photos of the class dog"]),
        (lambda raw: draw_photo(raw / "train_signs" / "nameless.jpg", 0), ["without a label", "nameless.jpg"]),
        (lambda raw: (raw / "train_signs").rename(raw / "somewhere"), ["no train folder beside test_signs"]),
        (lambda raw: (raw / "train").mkdir(), ["train and train_signs are both train"]),
    ],
)
def test_classes_and_splits_must_fit(tmp_path: Path, spoil, words: list[str]) -> None:  # type: ignore[no-untyped-def]
    raw = draw_photos(tmp_path / "raw")
    spoil(raw)
    refused(run("build_dataset", "--data_dir", raw, "--output_dir", tmp_path / "built", "--size", 16), *words)
    assert not (tmp_path / "built").exists()


def test_one_class_or_one_photo_is_too_few(tmp_path: Path) -> None:
    draw_photos(tmp_path / "one", classes=1)
    refused(run("build_dataset", "--data_dir", tmp_path / "one", "--output_dir", tmp_path / "b"), "Only one class")
    draw_photos(tmp_path / "few", train=1)
    refused(run("build_dataset", "--data_dir", tmp_path / "few", "--output_dir", tmp_path / "b"), "val split", "empty")


def test_sizes_and_places_that_make_no_sense(photos: Path, tmp_path: Path) -> None:
    common = ["--data_dir", photos, "--output_dir"]
    refused(run("build_dataset", *common, tmp_path / "b", "--size", 0), "8 to 4096")
    refused(run("build_dataset", *common, tmp_path / "b", "--size", "x"), "--size")
    refused(run("build_dataset", *common, photos / "built"), "neither may be inside")
    refused(run("build_dataset", *common, photos.parent, "--overwrite"), "neither may be inside")
    refused(run("build_dataset", *common, tmp_path / "b", "--seed", "-1"), "--seed")
    refused(run("build_dataset", "--task", "image_clasification"), "Did you mean image_classification?")
    (tmp_path / "file").touch()
    refused(run("build_dataset", *common, tmp_path / "file" / "b"), "cannot be written")


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    raw = draw_photos(tmp_path / "raw")
    (raw / "train_signs" / "0_IMG_1.HEIC").touch()
    (raw / "more_signs").mkdir()
    result = run("build_dataset", "--data_dir", raw, "--output_dir", tmp_path / "built", "--size", 16)
    assert result.status == 0
    assert "not read, by their ending: 1 .heic" in result.out
    assert "since it is no split: more_signs" in result.out


def test_duplicates_are_reported(tmp_path: Path) -> None:
    raw = draw_photos(tmp_path / "raw")
    (raw / "test_signs" / "0_IMG_copy.jpg").write_bytes((raw / "train_signs" / "0_IMG_train3.jpg").read_bytes())
    result = run("build_dataset", "--data_dir", raw, "--output_dir", tmp_path / "built", "--size", 16)
    assert result.status == 0
    assert "1 images are in two splits" in result.out
    assert "0_IMG_copy.jpg" in result.out
    assert "0_IMG_train3.jpg" in result.out


# ------------------------------------------------------------------------------------- whole or not at all


def test_existing_set_is_replaced_only_on_request(data: Path, photos: Path) -> None:
    (data / "mark").touch()
    common = ["--data_dir", photos, "--output_dir", data, "--size", 8]
    refused(run("build_dataset", *common), "--overwrite")
    assert (data / "mark").exists()
    assert run("build_dataset", *common, "--overwrite").status == 0
    assert not (data / "mark").exists()
    assert read_json(data / "dataset_params.json")["image_size"] == 8
    assert [path.name for path in data.parent.iterdir()] == [data.name]


def test_a_folder_that_is_no_data_set_is_never_replaced(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").touch()
    command = ["--data_dir", photos, "--output_dir", tmp_path / "thesis", "--overwrite"]
    refused(run("build_dataset", *command), "not a built data set")
    assert (tmp_path / "thesis" / "chapter1.tex").exists()


def test_replacing_a_folder(tmp_path: Path) -> None:
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    replace_folder(tmp_path / "new", tmp_path / "old")
    assert [path.name for path in (tmp_path / "old").iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def test_a_build_killed_while_it_replaces_the_old_set(data: Path, photos: Path) -> None:
    """Between the two renames: the next build finds the old set where it was."""
    before = images_in(data)
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()  # its number is no process now
    (data.parent / f".{data.name}.building-{process.pid}").mkdir()
    data.rename(data.parent / f".{data.name}.building-{process.pid}-old")
    refused(run("build_dataset", "--data_dir", photos, "--output_dir", data, "--size", 16), "there already")
    assert images_in(data) == before
    assert [path.name for path in data.parent.iterdir()] == [data.name]


def test_a_link_is_followed(data: Path, photos: Path, tmp_path: Path) -> None:
    link = tmp_path / "links" / "built"
    link.parent.mkdir()
    link.symlink_to(data)
    build(photos, link, "--overwrite")
    assert link.is_symlink()
    assert [path.name for path in link.parent.iterdir()] == ["built"]
    assert images_in(data)


def test_failed_rebuild_leaves_the_old_set(data: Path, photos: Path, tmp_path: Path) -> None:
    before = images_in(data)
    raw = draw_photos(tmp_path / "raw")
    (raw / "train_signs" / "1_IMG_broken.jpg").write_bytes(b"no image")
    refused(run("build_dataset", "--data_dir", raw, "--output_dir", data, "--overwrite"), "1_IMG_broken.jpg")
    assert images_in(data) == before


def test_killed_build_leaves_the_old_set_and_the_next_cleans_up(data: Path, tmp_path: Path) -> None:
    before = images_in(data)
    command = [sys.executable, str(ROOT / "build_dataset.py"), "--sample", "--output_dir", str(data), "--overwrite"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".built.building-*")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert images_in(data) == before
    assert list(tmp_path.glob(".built.building-*"))

    raw = draw_photos(tmp_path / "raw")
    assert run("build_dataset", "--data_dir", raw, "--output_dir", data, "--overwrite").status == 0
    assert not list(tmp_path.glob(".built.*"))


def test_sample_is_deterministic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SIZES, "train", 12)
    monkeypatch.setitem(SIZES, "test", 6)
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        (tmp_path / name).mkdir()
        write_sample(tmp_path / name, seed)
    files = images_in(tmp_path / "a")
    assert len(files) == 18
    assert {name.split("/")[1][0] for name in files} == set("012345")
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
        assert (tmp_path / "a" / file).read_bytes() != (tmp_path / "c" / file).read_bytes()
