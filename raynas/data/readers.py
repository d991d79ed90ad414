"""Readers of image data sets on disk: each returns two sources of uint8 images, training and test.

A :class:`Source` knows its labels and decodes only the images that it is asked for, so that a small part of a large
data set costs little. Nothing is ever downloaded.
"""

from __future__ import annotations

import functools
import gzip
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from raynas.data.decoding import Decoder, Images, Indices
from raynas.exceptions import DataError

__all__ = ["Source", "digits", "fashion_mnist", "from_arrays", "image_folder", "torchvision_cifar"]


class Source(NamedTuple):
    """One part of a data set: its labels, and its images when they are asked for."""

    labels: npt.NDArray[Any]
    """Integers, words or truth values, [N]."""
    decode: Callable[[Indices], Images]
    """Decodes the images of the given indices to uint8 [len(indices), C, H, W]."""
    names: tuple[str, ...] | None = None
    """What the classes are called, if that is known: then labels are the places in it."""
    decoder: Decoder | None = None
    """What decodes the images of all parts; None where they are in memory."""
    mirror_invariant: bool = False
    """Whether a mirrored image is one of the same class."""


def from_arrays(images: Images, labels: npt.ArrayLike, names: Sequence[str] | None = None) -> Source:
    """A source of images that are in memory already, uint8 [N, C, H, W]."""

    def pick(indices: Indices) -> Images:
        whole = len(indices) == len(images)  # indices are sorted and distinct: all of them need no copy
        return images if whole else images[indices]

    return Source(np.asarray(labels), pick, None if names is None else tuple(names))


def digits() -> tuple[Source, Source]:
    """The 1,797 handwritten digits of scikit-learn, 1x8x8, 10 classes; every fifth image of a class is test."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = (bunch.images * (255 / 16)).round().astype(np.uint8)[:, None]
    rank = np.zeros(len(images), np.int64)
    for label in range(10):
        rank[bunch.target == label] = np.arange((bunch.target == label).sum())
    test = rank % 5 == 4
    return from_arrays(images[~test], bunch.target[~test]), from_arrays(images[test], bunch.target[test])


def torchvision_cifar(name: str, folder: Path) -> tuple[Source, Source]:
    """CIFAR-10 or CIFAR-100 in the layout of torchvision (``cifar-10-batches-py/``, ``cifar-100-python/``)."""
    from torchvision import datasets

    kind = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
    try:
        parts = [kind(str(folder), train=train, download=False) for train in (True, False)]
    except RuntimeError as error:
        raise DataError(
            f"no {name} in {folder}: expected torchvision's files in {folder / kind.base_folder} "
            f"(torchvision.datasets.{kind.__name__}({str(folder)!r}, download=True) fetches them)"
        ) from error
    train, test = (from_arrays(part.data.transpose(0, 3, 1, 2), part.targets, part.classes) for part in parts)
    return train._replace(mirror_invariant=True), test  # photographs of animals and things


def fashion_mnist(folder: Path) -> tuple[Source, Source]:
    """Fashion-MNIST's four idx files, gzipped or not, in ``folder`` or in torchvision's ``FashionMNIST/raw`` below."""
    from torchvision import datasets

    names = datasets.FashionMNIST.classes
    places = [folder, folder / "raw", folder / "FashionMNIST" / "raw"]
    stems = [f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
    for place in places:
        files = [next((f for f in (place / s, place / f"{s}.gz") if f.is_file()), None) for s in stems]
        found = [file for file in files if file is not None]
        if len(found) == len(stems):
            train_x, train_y, test_x, test_y = map(_read_idx, found)
            return from_arrays(train_x[:, None], train_y, names), from_arrays(test_x[:, None], test_y, names)
    raise DataError(
        f"no fashion_mnist in {folder}: expected {stems[0]}[.gz] and its three sisters there or in FashionMNIST/raw "
        "below (the Debian package dataset-fashion-mnist has them, or torchvision.datasets.FashionMNIST fetches them)"
    )


def _read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """An idx file of unsigned bytes: two zeros, 8 (the type), the rank, the sizes as big-endian int32, the data."""
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        zeros, kind, rank = struct.unpack_from(">HBB", data)
        shape = struct.unpack_from(f">{rank}i", data, 4)
    except (OSError, EOFError, struct.error) as error:
        raise DataError(f"{path} is damaged: {error}") from error
    values = np.frombuffer(data, np.uint8, offset=4 + 4 * rank)
    if zeros != 0 or kind != 8 or values.size != np.prod(shape):
        raise DataError(f"{path} is no idx file of unsigned bytes: {values.size} values for the shape {shape}")
    return values.reshape(shape).copy()  # writable: torch warns of memory that is not


def image_folder(folder: Path, size: int) -> tuple[Source, Source]:
    """Images in ``train/CLASS/*`` and ``test/CLASS/*`` (or ``val/``), each fitted to ``size`` x ``size`` pixels."""
    from torchvision import datasets

    places = [folder / "train", folder / ("test" if (folder / "test").is_dir() else "val")]
    if not all(place.is_dir() for place in places):
        raise DataError(f"no images in {folder}: expected train/ and test/ (or val/) with a folder for each class")
    try:
        train, test = (datasets.ImageFolder(str(place)) for place in places)
    except FileNotFoundError as error:  # torchvision's message names the folder and the classes
        raise DataError(str(error).splitlines()[0]) from error
    if train.classes != test.classes:
        odd = sorted(set(train.classes) ^ set(test.classes))[0]
        raise DataError(f"class {odd!r} is in only one of {places[0]} and {places[1]}")
    decoder = Decoder(size)

    def source(samples: list[tuple[str, int]]) -> Source:
        def read(index: int) -> tuple[bytes, str]:
            path = samples[index][0]
            return Path(path).read_bytes(), path

        labels = np.array([label for _, label in samples], np.int64)
        return Source(labels, functools.partial(decoder.decode, read), tuple(train.classes), decoder)

    return source(train.samples), source(test.samples)
