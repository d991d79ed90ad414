"""Encoded images (JPEG, PNG, ...) to one array of uint8 pixels."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from raynas.exceptions import DataError

__all__ = ["Images", "Indices", "check_memory", "decoder"]

Images = npt.NDArray[np.uint8]
Indices = npt.NDArray[np.int64]
Read = Callable[[int], tuple[bytes, str]]

_CHUNK = 256
_GREY = ("1", "L")


def decoder(read: Read, size: int | None) -> Callable[[Indices], Images]:
    """A function that decodes the images of the given indices to uint8 [N, C, H, W].

    C is 1 where the images are grey and 3 otherwise, decided by a sample of them.

    Args:
        read: Gives an image's encoded bytes and its name for messages; called from several threads.
        size: Side of the square that every image is cut (its middle) and resized to; None: as they are, all equal.
    """

    def decode(indices: Indices) -> Images:
        grey = all(_is_grey(*read(int(index))) for index in indices[:: max(1, len(indices) // 50)])
        first = _decode(*read(int(indices[0])), grey, size)
        check_memory((len(indices), *first.shape))
        result = np.empty((len(indices), *first.shape), np.uint8)
        failed = threading.Event()

        def fill(start: int) -> None:
            for row in range(start, min(start + _CHUNK, len(indices))):
                if failed.is_set():
                    return
                data, name = read(int(indices[row]))
                image = _decode(data, name, grey, size)
                if image.shape != first.shape:
                    found, usual = ("x".join(map(str, shape[1:])) for shape in (image.shape, first.shape))
                    raise DataError(f"{name} has {found} pixels, the others {usual}: give size= to bring them to one")
                result[row] = image

        # Threads overlap the reading of files; Pillow holds the interpreter's lock while it decodes.
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            try:
                list(pool.map(fill, range(0, len(indices), _CHUNK)))
            except BaseException:
                failed.set()
                raise
        return result

    return decode


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


def _is_grey(data: bytes, name: str) -> bool:
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.mode in _GREY
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{name} is no image that can be decoded: {error}") from error


def _decode(data: bytes, name: str, grey: bool, size: int | None) -> Images:
    """One image as uint8 [1 or 3, H, W]."""
    try:
        with Image.open(io.BytesIO(data)) as opened:
            if grey and opened.mode not in _GREY:
                raise DataError(f"{name} is in colour, a sample of the others is grey: convert them to one kind")
            if size is not None:
                opened.draft(opened.mode, (2 * size, 2 * size))  # large JPEGs are decoded at a fraction of their size
            image = opened.convert("L" if grey else "RGB")
        if size is not None:
            image = ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR)
        pixels = np.asarray(image)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:  # Pillow's ways to say that it cannot
        raise DataError(f"{name} is no image that can be decoded: {error}") from error
    return pixels[None] if grey else pixels.transpose(2, 0, 1)
