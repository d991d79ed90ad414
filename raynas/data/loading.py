"""Data sets by name, split the same way everywhere.

``load("digits")`` gives a :class:`Dataset` of three splits. The training images are divided, by the seed and class by
class, into *train* and *validation*; *test* is the data set's own and no part of any search. A data set of your own
needs no registration: ``load("my_pkg.data:load")`` calls your function.

Images of files are decoded once into memory where they fit (*resident*), otherwise when a step of training needs them
(*streaming*).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from typing_extensions import Unpack

from raynas.data.array_checks import check_images, check_labels
from raynas.data.assembly import LoaderSettings, SplitSettings, assemble
from raynas.data.dataset import Data, Dataset
from raynas.data.readers import builtin
from raynas.data.readers.image_folder import image_folder
from raynas.data.readers.parquet import Columns, parquet
from raynas.data.readers.source import Source, from_arrays
from raynas.data.splits import spread
from raynas.data.text import TEXTS, TextData, load_text
from raynas.exceptions import ConfigError, DataError
from raynas.utils.imports import resolve
from raynas.utils.user_code import one_line_with_place

__all__ = ["NAMES", "LoadOptions", "load"]

NAMES = ("digits", "fashion_mnist", "cifar10", "cifar100", "images", "parquet", *TEXTS)


class LoadOptions(Columns, total=False):
    """What is given by name alone: for ``parquet`` the names of columns, ``label`` and ``image``."""

    loader: LoaderSettings | None
    """Whether images of files are decoded now, or when they are needed."""


def load(
    name: str,
    folder: str | Path | None = None,
    *,
    validation: float | int = 0.2,
    seed: int = 0,
    limit: int | None = None,
    size: int | None = None,
    **options: Unpack[LoadOptions],
) -> Data:
    """Load a data set.

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
        options: See :class:`LoadOptions`.

    Raises:
        DataError: Unknown name, absent or damaged files, images or labels that do not fit.
    """
    columns = Columns(label=options.get("label"), image=options.get("image"))
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
    return assemble(
        name, train, test, SplitSettings(validation, seed, limit), options.get("loader") or LoaderSettings()
    )


def _open(name: str, folder: Path | None, size: int | None, columns: Columns) -> tuple[Source, Source]:
    if name not in NAMES:
        raise DataError(f"unknown data set {name!r}; legal ones: {', '.join(NAMES)}, or 'package.module:function'")
    if name == "digits":
        return builtin.digits()
    if folder is None:
        raise DataError(f"data set {name!r} needs the folder that holds it: data.folder=...")
    if not folder.is_dir():
        raise DataError(f"data set {name!r}: there is no folder {folder.absolute()}")
    if name == "fashion_mnist":
        return builtin.fashion_mnist(folder)
    if name == "images":
        return image_folder(folder, size or 224)
    if name == "parquet":
        return parquet(folder, size, columns)
    return builtin.torchvision_cifar(name, folder)


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
        raise DataError(f"data set {path!r} failed: {one_line_with_place(error)}") from error


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
    return from_arrays(train_x.numpy(), train_y), from_arrays(test_x.numpy(), test_y)


def _shorten(dataset: Dataset, limit: int, seed: int) -> Dataset:
    """A user's data set with at most ``limit`` images in each of its splits."""
    parts: dict[str, Any] = {}
    for name in ("train", "validation", "test"):
        split = getattr(dataset, name)
        parts[name] = split.select(spread(split.targets.numpy(), min(limit, len(split)), seed))
    return replace(dataset, **parts)
