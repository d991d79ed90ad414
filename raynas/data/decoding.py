"""Encoded images (JPEG, PNG, ...) to one array of uint8 pixels.

What an image becomes depends on its mode in Pillow and on nothing else:

=========================  ===================================================================================
mode                       pixels
=========================  ===================================================================================
1, L                       grey, 8 bits, as they are
LA, La                     grey, blended over white
I;16 and its byte orders,  grey, 16 bits: the upper 8 bits are kept, ``pixel >> 8``; also I of 16-bit PNG and PGM
RGB, RGBX                  colour, as they are
P, PA                      colour, by the palette; transparent parts blended over white
RGBA, RGBa                 colour, blended over white
CMYK, YCbCr, HSV, LAB      colour, converted to RGB
I (32 bits), F, others     refused by name
=========================  ===================================================================================

Whether there is one channel or three, how many bits and which size: all images of a data set are alike. Where at least
one is in colour, grey ones are repeated in three channels.
"""

from __future__ import annotations

import io
import math
import os
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from math import ceil
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from raynas.exceptions import DataError

__all__ = ["Coloured", "Decoder", "Images", "Indices", "RandomCrop", "Read", "UnreadableError", "check_memory"]

Images = npt.NDArray[np.uint8]
Indices = npt.NDArray[np.int64]
Read = Callable[[int], tuple[bytes, str]]

_CHUNK = 256
_GREY = ("1", "L", "LA", "La")
_DEEP = ("I;16", "I;16L", "I;16B", "I;16N")
_DEEP_FORMATS = ("PNG", "PPM")
"""Of these, mode I holds 16 bits."""
_ALPHA = ("LA", "La", "RGBA", "RGBa", "PA")
_COLOUR = ("RGB", "RGBX", "P", "CMYK", "YCbCr", "HSV", "LAB", *_ALPHA)
_FEW_LEVELS = 16
_TRIES = 10
"""So many rectangles are drawn; where none fits, the largest in the middle is taken."""


@dataclass(frozen=True)
class RandomCrop:
    """A random rectangle of an image, as torchvision's RandomResizedCrop draws it.

    Args:
        seed: Decides it.
        least: The smallest share of the area.
    """

    seed: int
    least: float = 0.08

    def box(self, width: int, height: int) -> tuple[float, float, float, float]:
        """Left, upper, right and lower edge in pixels, with sides of 3:4 to 4:3."""
        rng = random.Random(self.seed)
        for _ in range(_TRIES):
            area = width * height * rng.uniform(self.least, 1.0)
            aspect = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
            w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < w <= width and 0 < h <= height:
                left, upper = rng.randint(0, width - w), rng.randint(0, height - h)
                return left, upper, left + w, upper + h
        w, h = min(width, round(height * 4 / 3)), min(height, round(width * 4 / 3))
        left, upper = (width - w) // 2, (height - h) // 2
        return left, upper, left + w, upper + h


class UnreadableError(DataError):
    """An image that cannot be read or decoded; it is named."""


class Coloured(Exception):
    """An image is in colour, where all were taken to be grey."""


@dataclass
class Decoder:
    """Decodes the images of one data set, all of its parts, to one form.

    Args:
        size: Side of the square that every image is cut (its middle) and resized to; None: as they are, all equal.
    """

    size: int | None
    grey: bool = True
    """Whether all images are grey, as far as is known: see :class:`Coloured`."""
    converts: bool = False
    """Whether images in colour become grey where ``grey`` is set."""
    _first: dict[str, tuple[object, str]] = field(default_factory=dict)
    """What was found in the first image, and its name: the depth and the size of all."""
    _largest: int = 0
    """The largest value of 16 bits."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def decode(self, read: Read, indices: Indices) -> Images:
        """The images of the given indices, uint8 [N, C, H, W].

        Args:
            read: Gives an image's encoded bytes and its name for messages; called from several threads.
            indices: Of the images.

        Raises:
            Coloured: ``grey`` is set, and one is in colour.
            DataError: One cannot be decoded, or is not like the others; it is named.
        """
        first = self.decode_one(*read(int(indices[0])))
        check_memory((len(indices), *first.shape))
        result = np.empty((len(indices), *first.shape), np.uint8)
        failed = threading.Event()
        unreadable: list[tuple[int, str]] = []

        def fill(start: int) -> None:
            for row in range(start, min(start + _CHUNK, len(indices))):
                if failed.is_set():
                    return
                try:
                    result[row] = self.decode_one(*read(int(indices[row])))
                except UnreadableError as error:
                    unreadable.append((row, str(error)))

        # Threads overlap the reading of files; Pillow holds the interpreter's lock while it decodes.
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            try:
                list(pool.map(fill, range(0, len(indices), _CHUNK)))
            except BaseException:
                failed.set()
                raise
        if unreadable:
            others = f"; {len(unreadable) - 1} other images neither" if len(unreadable) > 1 else ""
            raise UnreadableError(f"{min(unreadable)[1]}{others} (data.skip_unreadable=true leaves such images out)")
        return result

    def readable(self, read: Read, indices: Indices) -> tuple[Indices, list[str]]:
        """Those of the images that can be decoded, and what is wrong with each of the others."""

        def fault(index: int) -> str | None:
            try:
                self.decode_one(*read(index))
            except UnreadableError as error:
                return str(error)
            except Coloured:
                return None
            return None

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            faults = list(pool.map(fault, indices.tolist(), chunksize=_CHUNK))
        kept = np.array([each is None for each in faults], bool)
        return indices[kept], [each for each in faults if each is not None]

    def check(self, images: Images) -> None:
        """Refuse training images that hold nothing.

        Raises:
            DataError: All pixels of all images have the same value, or the upper bits of 16 are empty.
        """
        bits, name = self._first.get("bits per pixel", (8, ""))
        if bits == 16 and self._largest < 256 * _FEW_LEVELS:
            raise DataError(
                f"the images have 16 bits a pixel, of which only the lower ones are used: the largest value is "
                f"{self._largest} ({name} is one of them); scale them to 8 bits, or to the whole range of 16, first"
            )
        if images.size and images.min() == images.max():
            raise DataError(
                f"all pixels of all {len(images)} training images are {images.flat[0]}: there is nothing to learn from "
                "(what is drawn in an alpha channel is blended over white)"
            )

    def decode_one(self, data: bytes, name: str, crop: RandomCrop | None = None) -> Images:
        """One image as uint8 [1 or 3, H, W].

        Args:
            data: Encoded.
            name: For messages.
            crop: A random rectangle is resized to the whole; by default the largest square in the middle is.

        Raises:
            Coloured: ``grey`` is set, and it is in colour.
            DataError: It cannot be decoded, or is not like the others.
        """
        try:
            with Image.open(io.BytesIO(data)) as opened:
                full = opened.size
                box = None if crop is None else crop.box(*full)
                if self.size is not None and opened.mode in ("L", "RGB"):
                    # Large JPEGs are decoded at a fraction of their size, of which enough is left for the result.
                    width, height = full if box is None else (box[2] - box[0], box[3] - box[1])
                    least = 2 * self.size if box is None else self.size
                    opened.draft(opened.mode, (ceil(least * full[0] / width), ceil(least * full[1] / height)))
                image = self._eight_bits(opened, name)
            if box is not None:
                x, y = image.width / full[0], image.height / full[1]
                box = (box[0] * x, box[1] * y, box[2] * x, box[3] * y)
                image = image.resize((self.size or full[0], self.size or full[1]), Image.Resampling.BILINEAR, box)
            elif self.size is not None:
                image = ImageOps.fit(image, (self.size, self.size), Image.Resampling.BILINEAR)
            pixels = np.asarray(image)
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:  # Pillow's ways to say that it cannot
            raise UnreadableError(f"{name} is no image that can be decoded: {error}") from error
        pixels = pixels[None] if self.grey else pixels.transpose(2, 0, 1)
        if self.size is None:
            self._alike("pixels", "x".join(map(str, pixels.shape[1:])), name, "give size= to bring them to one")
        return pixels

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=threading.Lock())

    def _eight_bits(self, opened: Image.Image, name: str) -> Image.Image:
        """An image of mode L or RGB."""
        mode = opened.mode
        deep = mode in _DEEP or (mode == "I" and opened.format in _DEEP_FORMATS)
        if not (deep or mode in _GREY or mode in _COLOUR):
            raise DataError(
                f"{name} is an image of mode {mode} (I: 32-bit integers, F: floating-point numbers), whose range is "
                "not known: convert the images to 8 or 16 bits"
            )
        self._alike("bits per pixel", 16 if deep else 8, name, "convert them to one kind")
        if deep:
            values = np.asarray(opened).astype(np.int64)
            with self._lock:
                self._largest = max(self._largest, int(values.max(initial=0)))
            opened = Image.fromarray((values >> 8).clip(0, 255).astype(np.uint8))
        elif mode not in _GREY and self.grey and not self.converts:
            raise Coloured
        if mode in _ALPHA or "transparency" in opened.info:
            opened = opened.convert("RGBA")
            white = Image.new("RGBA", opened.size, (255, 255, 255, 255))
            opened = Image.alpha_composite(white, opened)
        return opened.convert("L" if self.grey else "RGB")

    def _alike(self, what: str, found: object, name: str, cure: str) -> None:
        usual, first = self._first.setdefault(what, (found, name))
        if found != usual:
            raise DataError(f"{name} has {found} {what}, the others {usual}: {cure} ({first} is one of them)")


def check_memory(shape: tuple[int, ...]) -> None:
    """Refuse at once what this machine cannot hold.

    Raises:
        DataError: An array of bytes of this shape is larger than the machine's memory.
    """
    needed, there = float(np.prod(shape, dtype=np.float64)), os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there:
        raise DataError(
            f"{shape[0]} images of {'x'.join(map(str, shape[1:]))} take {needed / 1e9:.1f} GB and this machine has "
            f"{there / 1e9:.1f} GB: use fewer (limit=) or smaller ones (size=)"
        )
