"""A folder of images for each class, in the layout of ImageNet and torchvision's ImageFolder."""

from __future__ import annotations

import os
from collections.abc import Iterable
from itertools import accumulate
from pathlib import Path

import numpy as np

from raynas.data.decoding import Decoder, UnreadableError
from raynas.data.readers.source import Source, from_encoded
from raynas.exceptions import DataError

__all__ = ["FileList", "image_folder"]


class FileList:
    """Reads the files of a long list below one folder. The names are one array of bytes, not a million objects.

    Args:
        root: The folder.
        names: Paths below it.
    """

    def __init__(self, root: Path, names: Iterable[str]) -> None:
        encoded = [os.fsencode(name) for name in names]
        self.root = os.fspath(root)
        self._names = b"".join(encoded)
        self._ends = np.fromiter(accumulate(map(len, encoded)), np.int64, len(encoded))

    def __len__(self) -> int:
        return len(self._ends)

    def path(self, index: int) -> str:
        """The path of a file."""
        begin = int(self._ends[index - 1]) if index else 0
        return os.path.join(self.root, os.fsdecode(self._names[begin : int(self._ends[index])]))

    def __call__(self, index: int) -> tuple[bytes, str]:
        """The bytes of a file, and its path.

        Raises:
            UnreadableError: It cannot be read.
        """
        path = self.path(index)
        try:
            with open(path, "rb") as file:
                return file.read(), path
        except OSError as error:
            raise UnreadableError(f"{path} cannot be read: {error.strerror}") from error


def image_folder(folder: Path, size: int) -> tuple[Source, Source]:
    """Images in ``train/CLASS/*`` and ``test/CLASS/*`` (or ``val/``), each fitted to ``size`` x ``size`` pixels.

    Raises:
        DataError: No such folders, a class without an image, or classes that are not the same in both.
    """
    places = [folder / "train", folder / ("test" if (folder / "test").is_dir() else "val")]
    if not all(place.is_dir() for place in places):
        raise DataError(f"no images in {folder}: expected train/ and test/ (or val/) with a folder for each class")
    train, test = (sorted(entry.name for entry in os.scandir(place) if entry.is_dir()) for place in places)
    if not train:
        raise DataError(f"no images in {places[0]}: expected a folder for each class")
    if train != test:
        odd = sorted(set(train) ^ set(test))[0]
        raise DataError(f"class {odd!r} is in only one of {places[0]} and {places[1]}")
    decoder = Decoder(size)
    first, second = (_source(place, train, decoder) for place in places)
    return first, second


def _source(place: Path, classes: list[str], decoder: Decoder) -> Source:
    files, counts = [], []
    for name in classes:
        found = list(_images(place, name))
        if not found:
            raise DataError(f"class {name!r} has no images in {place}: remove the folder {place / name}, or fill it")
        files += found
        counts.append(len(found))
    return from_encoded(np.repeat(np.arange(len(classes)), counts), FileList(place, files), decoder, classes)


def _images(place: Path, name: str) -> Iterable[str]:
    """The images of a class below ``place``, in the order of torchvision's ImageFolder."""
    from torchvision.datasets.folder import IMG_EXTENSIONS

    for root, _, files in sorted(os.walk(place / name, followlinks=True)):
        below = os.path.relpath(root, place)
        yield from (os.path.join(below, file) for file in sorted(files) if file.lower().endswith(IMG_EXTENSIONS))
