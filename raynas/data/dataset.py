"""Data sets by name: decoded once, resident as uint8 tensors, split the same way everywhere.

``load("digits")`` gives a :class:`Dataset` of three splits. The training images are divided, by the seed and class by
class, into *train* and *validation*; *test* is the data set's own and no part of any search. A data set of your own
needs no registration: ``load("my_pkg.data:load")`` calls your function.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from typing_extensions import Unpack

from raynas.data import readers
from raynas.data.decoding import Coloured
from raynas.data.form import check_images, check_labels, describe
from raynas.data.labels import classes_of
from raynas.data.parquet import Columns, parquet
from raynas.data.readers import Source
from raynas.data.splits import spread, statistics
from raynas.data.text import TEXTS, TextData, load_text
from raynas.exceptions import ConfigError, DataError
from raynas.utils.imports import resolve

__all__ = ["NAMES", "Data", "DataError", "Dataset", "Split", "for_search", "from_arrays", "load", "to_arrays"]

NAMES = ("digits", "fashion_mnist", "cifar10", "cifar100", "images", "parquet", *TEXTS)

_SPLITS = ("train", "validation", "test")
_PLAIN = ("name", "classes", "mean", "std", "task", "class_names", "mirror_invariant")


@dataclass(frozen=True)
class Split:
    """Images and their labels.

    Args:
        inputs: uint8 [N, C, H, W], never written in place: it may be memory that several processes share.
        targets: int64 [N].

    Raises:
        DataError: Another type or shape, no images, or as many labels as there are not images.
    """

    inputs: Tensor
    targets: Tensor

    def __post_init__(self) -> None:
        check_images(self.inputs)
        if self.targets.dtype != torch.int64 or self.targets.ndim != 1:
            raise DataError(f"labels must be int64 [N], these are {describe(self.targets)}")
        if len(self.inputs) != len(self.targets):
            raise DataError(f"{len(self.inputs)} images have {len(self.targets)} labels")
        if self.inputs.numel() == 0:
            raise DataError(f"there are no images: their shape is {list(self.inputs.shape)}")

    def __len__(self) -> int:
        return len(self.targets)

    def to(self, device: torch.device | str) -> Split:
        """The same split on a device."""
        return Split(self.inputs.to(device), self.targets.to(device))


@dataclass(frozen=True)
class Dataset:
    """Three splits of images of one size, and what is known of them.

    Args:
        name: As it was asked for.
        train: What weights are trained on.
        validation: What architectures are compared on.
        test: Looked at once, at the end.
        classes: Labels are in ``range(classes)``.
        mean: Mean of each channel over the train split, pixels taken as 0..1.
        std: Standard deviation of each channel likewise, above 0.
        task: The :class:`raynas.tasks.base.Task` that is learned from it, ``package.module:Class``.
        class_names: The name of each class; by default its number.
        mirror_invariant: Whether an image that is mirrored left to right shows the same class, as photographs of
            objects do and characters do not. Only then ``train.augment = auto`` mirrors.

    Raises:
        DataError: Labels out of range, splits of different image shapes, or statistics that do not fit the channels.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    task: str = "raynas.tasks.classification:Images"
    class_names: tuple[str, ...] = ()
    mirror_invariant: bool = False

    def __post_init__(self) -> None:
        if not self.class_names:
            object.__setattr__(self, "class_names", tuple(map(str, range(self.classes))))
        if len(self.class_names) != self.classes:
            raise DataError(f"{self.name}: {len(self.class_names)} names were given for {self.classes} classes")
        for name in _SPLITS:
            split: Split = getattr(self, name)
            if split.inputs.shape[1:] != self.train.inputs.shape[1:]:
                found, wanted = (list(each.inputs.shape[1:]) for each in (split, self.train))
                raise DataError(f"{self.name}: {name} images are {found} where train images are {wanted}")
            wrong = ((split.targets < 0) | (split.targets >= self.classes)).nonzero()
            if len(wrong):
                index = int(wrong[0])
                raise DataError(
                    f"{self.name}: label {int(split.targets[index])} of {name} image {index} is out of range: "
                    f"there are {self.classes} classes, 0..{self.classes - 1}"
                )
        channels = self.image_shape[0]
        if len(self.mean) != channels or len(self.std) != channels or min(self.std) <= 0:
            raise DataError(
                f"{self.name}: mean and std (above 0) need one value for each of the {channels} channels, "
                f"got {self.mean} and {self.std}"
            )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        _, channels, height, width = self.train.inputs.shape
        return channels, height, width

    def __str__(self) -> str:
        return f"images of shape {list(self.image_shape)}"

    @property
    def bytes(self) -> int:
        """What training and validation take in memory."""
        return self.train.inputs.nbytes + self.validation.inputs.nbytes

    def without_test(self) -> Dataset:
        """The same with validation in the place of test: what a search may see."""
        return replace(self, test=self.validation)

    def resized(self, size: int) -> Dataset:
        """The same with images of ``size`` x ``size`` pixels.

        Raises:
            DataError: They are not larger than that.
        """
        from torchvision.transforms.v2.functional import resize

        _, height, width = self.image_shape
        if size >= min(height, width):
            raise DataError(
                f"data.search_size = {size}: the images of {self.name} have {height}x{width} pixels; legal: fewer"
            )
        splits = {name: getattr(self, name) for name in _SPLITS}
        smaller = {name: replace(split, inputs=resize(split.inputs, [size, size])) for name, split in splits.items()}
        mean, std = statistics(smaller["train"].inputs)
        return replace(self, **smaller, mean=mean, std=std)

    def to(self, device: torch.device | str) -> Dataset:
        """The same data set with all images and labels on a device."""
        moved = {name: getattr(self, name).to(device) for name in _SPLITS}
        return replace(self, **moved)


Data = Dataset | TextData
"""What a run learns from; what is to be learned of it tells :mod:`raynas.tasks.base`."""


def for_search(data: Data, size: int | None) -> Data:
    """What a search may see: nothing of the test part, and images of ``size`` x ``size`` pixels, if that is given.

    Raises:
        DataError: The data are no images, or none that are larger.
    """
    if size is None:
        return data.without_test()
    if not isinstance(data, Dataset):
        raise DataError(f"data.search_size = {size} is of images, and {data.name} is a text: leave it out")
    return data.without_test().resized(size)


def load(
    name: str,
    folder: str | Path | None = None,
    *,
    validation: float | int = 0.2,
    seed: int = 0,
    limit: int | None = None,
    size: int | None = None,
    **columns: Unpack[Columns],
) -> Data:
    """Load a data set into memory.

    Args:
        name: One of :data:`NAMES`, or the import path ``"package.module:function"`` of your own function. It is called
            with ``folder`` if that is given, else without arguments, and returns a :class:`Dataset`, or
            :class:`raynas.data.text.TextData`, taken as it is, or ``((train_x, train_y), (test_x, test_y))``: arrays or
            tensors, uint8 [N, C, H, W] and integers [N].
        folder: Where the files are; ``digits`` needs none.
        validation: How much of the training images to hold out: a share in (0, 1), or a number of images.
        seed: Of the division into train and validation. Equal seeds divide equally on every machine.
        limit: At most so many training images (held-out ones among them) and test images, of all classes alike; of a
            text the first so many words of each part.
        size: Side of the square images to make, for ``images`` (default 224) and ``parquet`` (default: as they are).
        columns: For ``parquet``, the names of the columns: ``label`` and ``image``.

    Raises:
        DataError: Unknown name, absent or damaged files, images or labels that do not fit.
    """
    if limit is not None and limit < 2:
        raise DataError(f"limit must be at least 2, got {limit}")
    if size is not None and (name not in ("images", "parquet") or size < 1):
        raise DataError(f"size={size} cannot be used: it is for images and parquet, and at least 1")
    for column, value in columns.items():
        if value is not None and name != "parquet":
            raise DataError(f"{column}={value} cannot be used with {name}: it names a column, for parquet")
    if ":" in name:
        found = _call(name, folder)
        if isinstance(found, Dataset):
            return found if limit is None else _shorten(found, limit, seed)
        if isinstance(found, TextData):
            return found if limit is None else found.first(limit)
        train, test = _sources_of(name, found)
    elif name in TEXTS:
        return load_text(name, None if folder is None else Path(folder), validation, limit)
    else:
        train, test = _open(name, None if folder is None else Path(folder), size, columns)
    for part, source in (("training", train), ("test", test)):
        if not len(source.labels):
            raise DataError(f"{name}: there are no {part} images")
    return _assemble(name, train, test, SplitSettings(validation, seed, limit))


def _open(name: str, folder: Path | None, size: int | None, columns: Columns) -> tuple[Source, Source]:
    if name not in NAMES:
        raise DataError(f"unknown data set {name!r}; legal ones: {', '.join(NAMES)}, or 'package.module:function'")
    if name == "digits":
        return readers.digits()
    if folder is None:
        raise DataError(f"data set {name!r} needs the folder that holds it: data.folder=...")
    if not folder.is_dir():
        raise DataError(f"data set {name!r}: there is no folder {folder.absolute()}")
    if name == "fashion_mnist":
        return readers.fashion_mnist(folder)
    if name == "images":
        return readers.image_folder(folder, size or 224)
    if name == "parquet":
        return parquet(folder, size, columns)
    return readers.torchvision_cifar(name, folder)


def _call(path: str, folder: str | Path | None) -> Any:
    try:
        function = resolve(path, "data.name")
    except ConfigError as error:
        raise DataError(f"the data set cannot be imported: {error}") from error
    try:
        return function() if folder is None else function(folder)
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"data set {path!r} failed: {type(error).__name__}: {error}") from error


def _sources_of(name: str, found: Any) -> tuple[Source, Source]:
    """Check what a user's function returned, before anything is divided."""
    try:
        parts = [(torch.as_tensor(x), np.asarray(y)) for x, y in found]
        (train_x, train_y), (test_x, test_y) = parts
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"{name} must return a Dataset or ((train_x, train_y), (test_x, test_y)): {error}") from error
    for images, labels in ((train_x, train_y), (test_x, test_y)):
        check_images(images, name)
        check_labels(labels, len(images), name)
    return readers.from_arrays(train_x.numpy(), train_y), readers.from_arrays(test_x.numpy(), test_y)


@dataclass(frozen=True)
class SplitSettings:
    """How the splits of a data set are drawn."""

    validation: float | int
    """Share of the training images, or how many, that are held out."""
    seed: int
    limit: int | None
    """The most images of the training and of the test part; None for all."""


def _assemble(name: str, train: Source, test: Source, settings: SplitSettings) -> Dataset:
    validation, seed, limit = settings.validation, settings.seed, settings.limit
    classes = classes_of(name, train.labels, train.names)
    labels, test_labels = classes.numbers(train.labels, name, "train"), classes.numbers(test.labels, name, "test")
    kept = spread(labels, min(limit or len(labels), len(labels)), seed)
    count = round(validation * len(kept)) if isinstance(validation, float) and validation < 1 else validation
    if not 0 < count < len(kept) or count != int(count):
        raise DataError(f"validation={validation} leaves no split: there are {len(kept)} training images to divide")
    held_out = np.zeros(len(labels), bool)
    held_out[kept[spread(labels[kept], int(count), seed)]] = True
    tested = spread(test_labels, min(limit or len(test_labels), len(test_labels)), seed)
    trained, validated = kept[~held_out[kept]], kept[held_out[kept]]
    wanted = ((train, trained), (train, validated), (test, tested))
    try:
        images = [source.decode(indices) for source, indices in wanted]
    except Coloured:
        assert train.decoder is not None
        train.decoder.grey = False  # for all parts
        images = [source.decode(indices) for source, indices in wanted]
    if train.decoder is not None:
        train.decoder.check(images[0])
    splits = [
        Split(torch.from_numpy(pixels).contiguous(), torch.from_numpy(numbers))
        for pixels, numbers in zip(images, (labels[trained], labels[validated], test_labels[tested]), strict=True)
    ]
    mean, std = statistics(splits[0].inputs)
    return Dataset(
        name,
        splits[0],
        splits[1],
        splits[2],
        classes=len(classes),
        mean=mean,
        std=std,
        class_names=classes.names,
        mirror_invariant=train.mirror_invariant,
    )


def _shorten(dataset: Dataset, limit: int, seed: int) -> Dataset:
    """A user's data set with at most ``limit`` images in each of its splits."""
    parts: dict[str, Any] = {}
    for name in _SPLITS:
        split: Split = getattr(dataset, name)
        kept = torch.from_numpy(spread(split.targets.numpy(), min(limit, len(split)), seed))
        parts[name] = Split(split.inputs[kept], split.targets[kept])
    return replace(dataset, **parts)


def to_arrays(dataset: Data) -> dict[str, Any]:
    """A data set as a flat dict of numpy arrays and plain values, which Ray's object store passes without copying."""
    if isinstance(dataset, TextData):
        return dataset.arrays()
    arrays: dict[str, Any] = {
        f"{name}.{field.name}": getattr(getattr(dataset, name), field.name).cpu().numpy()
        for name in _SPLITS
        for field in fields(Split)
    }
    return arrays | {name: getattr(dataset, name) for name in _PLAIN}


def from_arrays(arrays: Mapping[str, Any]) -> Data:
    """The data set of :func:`to_arrays`; its tensors are views of the arrays, so never write to them in place."""
    with warnings.catch_warnings():
        # Ray's arrays are read-only, of which torch warns; a Dataset's tensors are only read.
        warnings.filterwarnings("ignore", message=".*not writable")
        if "vocabulary" in arrays:
            return TextData.of_arrays(arrays)
        tensors = {name: torch.from_numpy(value) for name, value in arrays.items() if isinstance(value, np.ndarray)}
    train, validation, test = (Split(*(tensors[f"{name}.{field.name}"] for field in fields(Split))) for name in _SPLITS)
    return Dataset(train=train, validation=validation, test=test, **{name: arrays[name] for name in _PLAIN})
