"""Photos in files -> small RGB images: what tasks that read images need."""

from __future__ import annotations

import glob
import io
import os
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import IO, Any, ClassVar, NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from engine.predicting import Example, Options, Processing, Unreadable, refuse_text_options
from utils import UserError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp")


def list_images(folder: Path) -> list[str]:
    """Paths, relative to `folder`, of all image files in and below it, sorted. Hidden files do not count."""
    found = []
    for root, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        below = os.path.relpath(root, folder)
        names = [name for name in files if name.lower().endswith(EXTENSIONS) and not name.startswith(".")]
        found += names if below == "." else [f"{below}/{name}".replace(os.sep, "/") for name in names]
    return sorted(found)


def open_rgb(source: Path | IO[bytes], size: int) -> Image.Image:
    """Read any photo as size x size RGB, upright.

    Raises OSError, ValueError, SyntaxError and others, as Pillow's decoders do, when the file cannot be read.
    """
    with Image.open(source) as image:
        return shrink(image, size)


def shrink(image: Image.Image, size: int) -> Image.Image:
    """An image that was opened, as size x size RGB, upright. A JPEG is decoded at the smallest scale that is at least
    twice that."""
    drafted = image.draft(None, (2 * size, 2 * size))  # JPEG only: 1/2, 1/4 or 1/8, by leaving out frequencies
    box = drafted[1] if drafted else None  # 1/8 of 1500 pixels is 187.5: where the picture ends in the last pixel
    if image.mode.startswith("I"):  # 16 bits a pixel, which convert() would clip to white
        image = Image.fromarray((np.asarray(image).clip(0, 65535) // 256).astype(np.uint8))
    mode = "RGBA" if image.has_transparency_data else "RGB"
    if image.mode != mode:
        image = image.convert(mode)
    image = ImageOps.exif_transpose(image.resize((size, size), Image.Resampling.BILINEAR, box, reducing_gap=2.0))
    if mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image


def encode(image: Image.Image) -> io.BytesIO:
    """An image as the JPEG that build_dataset.py writes."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=95, subsampling=0)
    return file


def what_is_wrong(error: Exception) -> str:
    """In words: why Pillow could not read an image."""
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


class Upload(NamedTuple):
    """A file that has no path here. `formats`: those of Pillow that may read it; None: all."""

    name: str
    content: bytes
    formats: tuple[str, ...] | None = None


class ImageProcessing(Processing):
    """Photos -> pixels of the built size, exactly as build_dataset.py and the data loader make them."""

    accepts = "images"
    about = (
        "A photo is made upright and squeezed to a square of data.image_size pixels (bilinear, antialiased)."
        " Transparent pixels become white. The network does the normalisation."
    )
    inputs: ClassVar = {"inputs": "batch_size x 3 x image_size x image_size: RGB pixels of 0..255, uint8"}

    def read(self, words: Sequence[str], options: Options) -> Iterator[Any]:
        """Files, folders and all that is below them, patterns such as 'photos/*.jpg', `-` for one on stdin."""
        refuse_text_options(options, "images")
        if not words:
            raise UserError("Which images? Expected files, folders, patterns such as 'photos/*.jpg', or - for stdin.")
        for word in words:
            if word == "-":
                # not sys.stdin: a thread that still waits for it when the command is stopped would crash Python
                with open(sys.stdin.fileno(), "rb", closefd=False) as stdin:
                    yield Upload("-", stdin.read())
            elif os.path.exists(word) or not glob.has_magic(word):
                yield from files_of(Path(word))
            elif found := sorted(glob.glob(word, recursive=True)):
                for path in found:
                    yield from files_of(Path(path))
            else:
                yield Unreadable(word, "no file has such a name")

    def preprocess(self, raw: Any) -> Example:
        """A path, bytes, an Upload, a PIL image, or an array, height x width x 3 -> size x size x 3, uint8."""
        size = self.params.data.image_size
        name, source, formats = str(raw), raw, None
        if not isinstance(raw, str | Path | Upload | bytes | Image.Image | np.ndarray):
            raise UserError("expected the path of an image, its bytes, a PIL image, or an array")
        if isinstance(raw, Upload):
            name, source, formats = raw.name, io.BytesIO(raw.content), raw.formats
        elif isinstance(raw, bytes):
            name, source = "bytes", io.BytesIO(raw)
        elif isinstance(raw, Image.Image | np.ndarray):
            name = type(raw).__name__
        try:
            if isinstance(raw, np.ndarray):
                raw = Image.fromarray(raw)
            if isinstance(raw, Image.Image):
                raw.load()  # at its full size: `shrink` would change an image that is not loaded
                return Example(name, as_built(raw, size))
            with Image.open(source, formats=formats) as image:
                return Example(name, as_built(image, size))
        except Exception as error:  # whatever is wrong in there, the file cannot be read
            raise UserError(what_is_wrong(error)) from None

    def collate(self, contents: Sequence[np.ndarray]) -> np.ndarray:
        return np.stack(contents).transpose(0, 3, 1, 2)

    def examples(self, count: int, length: int, rng: np.random.Generator) -> list[np.ndarray]:
        size = self.params.data.image_size
        return list(rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8))


def files_of(path: Path) -> Iterator[Any]:
    """A file; of a folder, all photos in and below it. What is not there is found out when it is opened."""
    if not path.is_dir():
        yield path
        return
    names = list_images(path)
    if not names:
        yield Unreadable(str(path), f"no photos in it (files ending in {', '.join(EXTENSIONS)})")
    for name in names:
        yield path / name


def as_built(image: Image.Image, size: int) -> np.ndarray:
    """The pixels, size x size x 3, that the data set would have if it were built from this image."""
    if image.size == (size, size) and is_built(image):
        return np.asarray(image)
    with Image.open(encode(shrink(image, size))) as built:
        return np.asarray(built)


def is_built(image: Image.Image) -> bool:
    """Whether `encode` wrote this image, by what tells its quality, so that it is not compressed once more."""
    return image.format == "JPEG" and "exif" not in image.info and quantization(image) == quantization_of_built()


def quantization(image: Image.Image) -> Any:
    return getattr(image, "quantization", None)


@cache
def quantization_of_built() -> Any:
    with Image.open(encode(Image.new("RGB", (8, 8)))) as image:
        return quantization(image)
