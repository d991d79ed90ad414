"""A data set of images: three splits, in memory as uint8 tensors, or encoded on disk."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from raynas.data.array_checks import check_images, describe
from raynas.data.encoded import EncodedSplit
from raynas.data.splits import statistics
from raynas.data.streaming import Loading
from raynas.data.text import TextData
from raynas.exceptions import DataError

__all__ = ["Data", "DataError", "Dataset", "Split", "for_search", "from_arrays", "to_arrays"]

_SPLITS = ("train", "validation", "test")
_PLAIN = ("name", "classes", "mean", "std", "task", "class_names", "mirror_invariant", "loading")


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

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        _, channels, height, width = self.inputs.shape
        return channels, height, width

    def images(self, indices: Tensor) -> Tensor:
        """Some images: uint8 [len(indices), C, H, W]."""
        return self.inputs[indices]

    def select(self, indices: npt.NDArray[np.int64]) -> Split:
        """Some of the images."""
        chosen = torch.from_numpy(indices)
        return Split(self.inputs[chosen], self.targets[chosen])

    def resized(self, size: int) -> Split:
        """The same with images of ``size`` x ``size`` pixels."""
        return replace(self, inputs=_resized(self.inputs, size))

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
        calibration: Random training images, uint8 [M, C, H, W], for BatchNorm statistics; by default they are taken
            from ``train``.
        loading: How encoded images are read.

    Raises:
        DataError: Labels out of range, splits of different image shapes, or statistics that do not fit the channels.
    """

    name: str
    train: Split | EncodedSplit
    validation: Split
    test: Split | EncodedSplit
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    task: str = "raynas.tasks.classification:Images"
    class_names: tuple[str, ...] = ()
    mirror_invariant: bool = False
    calibration: Tensor | None = None
    loading: Loading = field(default_factory=Loading)

    def __post_init__(self) -> None:
        if not self.class_names:
            object.__setattr__(self, "class_names", tuple(map(str, range(self.classes))))
        if len(self.class_names) != self.classes:
            raise DataError(f"{self.name}: {len(self.class_names)} names were given for {self.classes} classes")
        for name in _SPLITS:
            split: Split | EncodedSplit = getattr(self, name)
            if split.image_shape != self.train.image_shape:
                found, wanted = (list(each.image_shape) for each in (split, self.train))
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
        return self.train.image_shape

    def __str__(self) -> str:
        return f"images of shape {list(self.image_shape)}"

    @property
    def bytes(self) -> int:
        """What training and validation take in memory."""
        resident = (part.inputs for part in (self.train, self.validation) if isinstance(part, Split))
        calibration = 0 if self.calibration is None else self.calibration.nbytes
        return sum(images.nbytes for images in resident) + calibration

    def calibration_images(self, chosen: Tensor) -> Tensor:
        """Training images for BatchNorm statistics: uint8 [n, C, H, W].

        Args:
            chosen: Which ones, where all are in memory; otherwise as many of ``calibration``, or all of them.
        """
        return self.train.images(chosen) if self.calibration is None else self.calibration[: len(chosen)]

    def without_test(self) -> Dataset:
        """The same with validation in the place of test: what a search may see."""
        return replace(self, test=self.validation)

    def resized(self, size: int) -> Dataset:
        """The same with images of ``size`` x ``size`` pixels.

        Raises:
            DataError: They are not larger than that.
        """
        _, height, width = self.image_shape
        if size >= min(height, width):
            raise DataError(
                f"data.search_size = {size}: the images of {self.name} have {height}x{width} pixels; legal: fewer"
            )
        smaller: dict[str, Any] = {name: getattr(self, name).resized(size) for name in _SPLITS}
        if self.calibration is not None:
            smaller["calibration"] = _resized(self.calibration, size)
        seen = smaller["train"].inputs if isinstance(self.train, Split) else smaller["validation"].inputs
        mean, std = statistics(seen)
        return replace(self, **smaller, mean=mean, std=std)

    def to(self, device: torch.device | str) -> Dataset:
        """The same data set with all images and labels on a device."""
        moved = {name: getattr(self, name).to(device) for name in _SPLITS}
        return replace(self, **moved)


def _resized(images: Tensor, size: int) -> Tensor:
    from torchvision.transforms.v2.functional import resize

    smaller: Tensor = resize(images, [size, size])
    return smaller


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


def to_arrays(dataset: Data) -> dict[str, Any]:
    """A data set as a flat dict of numpy arrays and plain values, which Ray's object store passes without copying."""
    if isinstance(dataset, TextData):
        return dataset.arrays()
    arrays: dict[str, Any] = {name: getattr(dataset, name) for name in _PLAIN}
    for name in _SPLITS:
        split = getattr(dataset, name)
        if isinstance(split, Split):
            arrays |= {f"{name}.inputs": split.inputs.cpu().numpy(), f"{name}.targets": split.targets.cpu().numpy()}
        else:
            arrays[name] = split
    if dataset.calibration is not None:
        arrays["calibration"] = dataset.calibration.cpu().numpy()
    return arrays


def from_arrays(arrays: Mapping[str, Any]) -> Data:
    """The data set of :func:`to_arrays`; its tensors are views of the arrays, so never write to them in place."""
    with warnings.catch_warnings():
        # Ray's arrays are read-only, of which torch warns; a Dataset's tensors are only read.
        warnings.filterwarnings("ignore", message=".*not writable")
        if "vocabulary" in arrays:
            return TextData.of_arrays(arrays)
        tensors = {name: torch.from_numpy(value) for name, value in arrays.items() if isinstance(value, np.ndarray)}
    parts: dict[str, Any] = {
        name: arrays[name] if name in arrays else Split(tensors[f"{name}.inputs"], tensors[f"{name}.targets"])
        for name in _SPLITS
    }
    plain = {name: arrays[name] for name in _PLAIN}
    return Dataset(**parts, **plain, calibration=tensors.get("calibration"))
