"""Well-known data sets in their own files: each reader returns two sources of images in memory, training and test.

Nothing is ever downloaded.
"""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt

from raynas.data.readers.source import Source, from_arrays
from raynas.exceptions import DataError

__all__ = ["digits", "fashion_mnist", "torchvision_cifar"]


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
