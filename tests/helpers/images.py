"""Small files of images."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

COLOURS = {"red": (200, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 200)}


def encoded(pixels: npt.NDArray[np.uint8], kind: str = "PNG") -> bytes:
    """The bytes of a file with these pixels, [H, W] or [H, W, 3]."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def save(path: Path, pixels: npt.NDArray[np.uint8]) -> None:
    """Write pixels, [H, W] or [H, W, 3], in the format that the name says."""
    Image.fromarray(pixels).save(path)


def image_folder(folder: Path, train: int, test: int, grey: bool = False, size: int = 20) -> Path:
    """``train/CLASS/*.jpg`` and ``test/CLASS/*.jpg``: so many noisy images of each of three colours, of two sizes."""
    rng = np.random.default_rng(0)
    for part, count in (("train", train), ("test", test)):
        for name, colour in COLOURS.items():
            place = folder / part / name
            place.mkdir(parents=True)
            for number in range(count):
                noise = rng.integers(-40, 40, (size, size + 8 * (number % 2), 3))
                pixels = (np.array(colour) + noise).clip(0, 255).astype(np.uint8)
                save(place / f"{number}.jpg", pixels[:, :, list(COLOURS).index(name)] // 2 if grey else pixels)
    return folder
