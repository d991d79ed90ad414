"""Labels as people keep them, words, truth values or any integers, and the classes that a network tells apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from raynas.exceptions import DataError

__all__ = ["Classes", "classes_of"]

_FEW = 8
"""So many labels are listed in a message."""
_SMALL = 10
"""In smaller data sets every image may have a class of its own."""


@dataclass(frozen=True)
class Classes:
    """Which class a label stands for.

    Args:
        values: The label of each class, sorted.
        names: What each class is called.
    """

    values: npt.NDArray[Any]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.values)

    def numbers(self, labels: npt.NDArray[Any], name: str, part: str) -> npt.NDArray[np.int64]:
        """The class of each label, int64 [N].

        Raises:
            DataError: A label is none of the values; the data set, the part and the image are named.
        """
        place = np.minimum(np.searchsorted(self.values, labels), len(self) - 1)
        wrong = np.flatnonzero(self.values[place] != labels)
        if len(wrong):
            label = labels[wrong[0]]
            if _unlabelled(labels, wrong):
                raise DataError(_UNLABELLED.format(name=name, part=part, count=len(wrong), of=len(labels)))
            where = f"{name}: label {_shown(label)} of {part} image {wrong[0]} is out of range"
            legal = f"there are {len(self)} classes, {_range(self.values)}"
            raise DataError(f"{where}: {legal}; remove such images, or add some of that class to the training part")
        return place.astype(np.int64)


_UNLABELLED = (
    "{name}: {count} of {of} labels of the {part} part are -1, which stands for images without a label: remove these "
    "rows; where a test part has no labels at all, move its files away, and a validation part beside it is taken"
)


def classes_of(name: str, labels: npt.NDArray[Any], names: Sequence[str] | None = None) -> Classes:
    """The classes of a data set, from the labels of its training part.

    Integers that are 0 to the number of classes are taken as they are. Others (from 1 on, with gaps), words and truth
    values are numbered in their order.

    Args:
        name: Of the data set, for messages.
        labels: Of all training images: integers, texts or truth values, [N].
        names: What the classes are called, where the data set says so: then labels are the places in it.

    Raises:
        DataError: Labels of another type, images without a label, one class alone, or a class for each image.
    """
    if labels.dtype.kind not in "iubUSO":
        raise DataError(f"{name}: labels must be integers, words or truth values, these are {labels.dtype}")
    if labels.dtype.kind == "O" and not all(isinstance(label, (str, bytes)) for label in labels):
        kinds = ", ".join(sorted({type(label).__name__ for label in labels}))
        raise DataError(f"{name}: labels must be integers, words or truth values, these are of the types {kinds}")
    values = np.unique(labels.astype(np.int64) if labels.dtype.kind in "iu" else labels)
    numbers = values.dtype.kind == "i"
    if numbers and values[0] == -1 and values.tolist() != [-1, 1]:
        count = int((labels == -1).sum())
        raise DataError(_UNLABELLED.format(name=name, part="training", count=count, of=len(labels)))
    if len(values) == 1 and (names is None or len(names) < 2):
        found = f"all {len(labels)} training images have the label {_shown(values[0])}"
        raise DataError(f"{name}: {found}: at least 2 classes are needed")
    if len(values) == len(labels) > _SMALL:
        raise DataError(
            f"{name}: each of the {len(labels)} training images has a label of its own ({_listed(values)}): these are "
            "no classes; name the column of the labels, data.label=..."
        )
    if numbers and names is not None and values[0] >= 0 and values[-1] < len(names):
        return Classes(np.arange(len(names)), tuple(map(str, names)))
    return Classes(values, tuple(_text(value) for value in values))


def _unlabelled(labels: npt.NDArray[Any], wrong: npt.NDArray[np.int64]) -> bool:
    return labels.dtype.kind in "i" and bool((labels[wrong] == -1).all())


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _shown(value: Any) -> str:
    return repr(_text(value)) if isinstance(value, (str, bytes)) else str(value)


def _listed(values: npt.NDArray[Any]) -> str:
    return ", ".join(_shown(value) for value in values[:_FEW]) + (", ..." if len(values) > _FEW else "")


def _range(values: npt.NDArray[Any]) -> str:
    """The labels in short: 0..3, or one after the other."""
    whole = values.dtype.kind == "i" and values[-1] - values[0] == len(values) - 1
    return f"{values[0]}..{values[-1]}" if whole else _listed(values)
