"""Sample photos: drawn hands that show 0 to 5 fingers, in the layout of SIGNS."""

from __future__ import annotations

import math
import signal
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from utils import Progress

SIZES = {"train": 1080, "test": 120}
PIXELS = 256  # four times what is usually built, so that shrinking smooths the edges

# A hand of palm width 1, fingers up: where each finger begins, its direction in degrees from straight up, its length.
THUMB, INDEX, MIDDLE, RING, LITTLE = range(5)
FINGERS = [(-0.42, 0.28, -62, 0.74), (-0.36, -0.40, -16, 0.88), (-0.12, -0.47, -5, 0.98), (0.13, -0.44, 6, 0.90)]
FINGERS.append((0.36, -0.34, 19, 0.72))
RAISED: list[list[tuple[int, ...]]] = [  # the ways to show each number; the first is the usual one
    [()],
    [(INDEX,), (THUMB,)],
    [(INDEX, MIDDLE), (THUMB, INDEX)],
    [(INDEX, MIDDLE, RING), (THUMB, INDEX, MIDDLE)],
    [(INDEX, MIDDLE, RING, LITTLE)],
    [(THUMB, INDEX, MIDDLE, RING, LITTLE)],
]
LIGHT_SKIN, DARK_SKIN = np.array([241, 198, 170.0]), np.array([104, 68, 50.0])


def write_sample(folder: Path, seed: int) -> None:
    """Draw train_signs/ and test_signs/ into `folder`, as {label}_IMG_{id}.jpg. The same seed draws the same hands."""
    for split in SIZES:
        (folder / f"{split}_signs").mkdir()
    jobs = [(split, number) for split, count in SIZES.items() for number in range(count)]
    leave_interrupts_alone = (signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    with ProcessPoolExecutor(initializer=signal.signal, initargs=leave_interrupts_alone) as pool:
        drawn = pool.map(partial(draw_photo, folder=folder, seed=seed), jobs, chunksize=20)
        for _ in Progress(drawn, "drawing hands", len(jobs)):
            pass


def draw_photo(job: tuple[str, int], folder: Path, seed: int) -> None:
    split, number = job
    label = number % len(RAISED)
    rng = np.random.default_rng([seed, list(SIZES).index(split), number])
    draw_hand(label, rng).save(folder / f"{split}_signs" / f"{label}_IMG_{number:04d}.jpg", quality=92)


def draw_hand(label: int, rng: np.random.Generator) -> Image.Image:
    """A hand that shows `label` fingers: any pose, size, skin, background, light and blur."""
    skin = LIGHT_SKIN + rng.uniform(0, 1) * (DARK_SKIN - LIGHT_SKIN)
    image = draw_background(skin, rng)
    limbs = pose_hand(label, rng)

    shadow = Image.new("L", image.size)
    for points, width, _ in limbs:
        draw_limb(ImageDraw.Draw(shadow), points + rng.uniform(4, 14), width, 255)
    dark = image.point(lambda value: int(0.6 * value))
    image.paste(dark, mask=shadow.filter(ImageFilter.GaussianBlur(rng.uniform(4, 12))))

    canvas = ImageDraw.Draw(image)
    for points, width, tone in limbs:
        draw_limb(canvas, points, width + 4, tuple((0.62 * tone * skin).astype(int)))  # an outline parts the fingers
        draw_limb(canvas, points, width, tuple((tone * skin).clip(0, 255).astype(int)))

    image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.5)))
    across, down = np.meshgrid(np.linspace(-1, 1, PIXELS), np.linspace(-1, 1, PIXELS))
    direction = rng.uniform(0, 2 * math.pi)
    light = rng.uniform(0.8, 1.15) + rng.uniform(0, 0.25) * (across * math.cos(direction) + down * math.sin(direction))
    noise = rng.normal(0, rng.uniform(1, 5), (PIXELS, PIXELS, 1))
    pixels = np.asarray(image) * light[:, :, None] * rng.uniform(0.94, 1.06, 3) + noise
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def draw_background(skin: np.ndarray, rng: np.random.Generator) -> Image.Image:
    """A wall or a table: one colour that is not the skin's, with soft patches of others near it."""
    colour = skin
    while np.abs(colour - skin).mean() < 70:
        colour = rng.uniform(30, 245) + rng.uniform(-30, 30, 3)  # more or less grey, as most rooms are
    coarse = colour + rng.normal(0, rng.uniform(1, 7), (4, 4, 3))
    return Image.fromarray(coarse.clip(0, 255).astype(np.uint8)).resize((PIXELS, PIXELS), Image.Resampling.BICUBIC)


def pose_hand(label: int, rng: np.random.Generator) -> list[tuple[np.ndarray, float, float]]:
    """The limbs of the hand, back to front: points (n x 2, in pixels), width in pixels, and lightness of the skin."""
    ways = RAISED[label]
    raised = ways[0] if rng.uniform() < 0.75 else ways[-1]
    turn, scale = math.radians(rng.uniform(-15, 15)), PIXELS * rng.uniform(0.32, 0.36)
    centre = PIXELS * (np.array([0.5, 0.56]) + rng.uniform(-0.05, 0.05, 2))
    mirror = rng.choice([-1, 1])
    spread = rng.uniform(1, 1.5)

    limbs = [([(0, 0.4), (rng.uniform(-0.3, 0.3), 3)], 0.62, 0.95), ([(-0.17, -0.1), (-0.12, 0.35)], 0.6, 1.0)]
    limbs += [([(0.17, -0.1), (0.12, 0.35)], 0.6, 1.0), ([(0, -0.15), (0, 0.3)], 0.8, 1.0)]  # palm
    for finger, (x, y, direction, length) in enumerate(FINGERS):
        angle = math.radians(direction * (spread if finger != THUMB else 1) + rng.normal(0, 3))
        width = 0.24 if finger == THUMB else 0.2
        if finger in raised:
            length *= rng.uniform(0.9, 1.08)
            middle = (x + length / 2 * math.sin(angle), y - length / 2 * math.cos(angle))
            bend = angle + rng.normal(0, 0.08)
            tip = (middle[0] + length / 2 * math.sin(bend), middle[1] - length / 2 * math.cos(bend))
            limbs.append(([(x, y), middle, tip], width, rng.uniform(0.96, 1.06)))
        elif finger != THUMB:  # folded over the palm
            limbs.append(([(x, y + 0.02), (0.9 * x, y + rng.uniform(0.26, 0.34))], width, rng.uniform(0.9, 1.0)))
    if THUMB not in raised:  # across the folded fingers, or along the palm under the raised ones
        limbs.append(([(-0.42, 0.25), (-0.1, 0.08), (rng.uniform(0.05, 0.2), 0.02)], 0.22, rng.uniform(0.9, 1.02)))

    rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    return [
        (centre + scale * (np.array(points) * [mirror, 1]) @ rotation.T, scale * width, tone)
        for points, width, tone in limbs
    ]


def draw_limb(canvas: ImageDraw.ImageDraw, points: np.ndarray, width: float, colour: Any) -> None:
    """A line with round ends and joints."""
    canvas.line([tuple(point) for point in points], fill=colour, width=round(width))
    for x, y in points:
        canvas.ellipse([x - width / 2, y - width / 2, x + width / 2, y + width / 2], fill=colour)
