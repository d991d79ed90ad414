"""What arrays of images and labels must be, and how to bring others to that form."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from raynas.exceptions import DataError

__all__ = ["check_images", "check_labels", "describe"]

_CHANNELS = (1, 3, 4)


def describe(tensor: Tensor) -> str:
    """Type and shape of a tensor."""
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def check_images(images: Tensor, name: str | None = None) -> None:
    """Images are uint8 [N, C, H, W].

    Raises:
        DataError: They are not; the message says how to make them so.
    """
    cures = []
    if images.ndim == 3:
        cures.append("images[:, None] for grey images [N, H, W]")
    elif images.ndim == 4 and images.shape[3] in _CHANNELS and images.shape[1] not in _CHANNELS:
        cures.append("images.transpose(0, 3, 1, 2) of the array for [N, H, W, C]")
    if images.dtype != torch.uint8:
        cures.append(_as_bytes(images))
    if images.dtype != torch.uint8 or images.ndim != 4 or cures:
        where = "" if name is None else f"{name}: "
        cure = f": use {', and '.join(cures)}" if cures else ""
        raise DataError(f"{where}images must be uint8 [N, C, H, W], these are {describe(images)}{cure}")


def _as_bytes(images: Tensor) -> str:
    """What makes bytes of images of another type."""
    if not images.numel() or images.is_complex():
        return "values in 0..255 of the type uint8"
    lowest, highest = float(images.min()), float(images.max())
    if images.is_floating_point() and lowest >= 0 and highest <= 1:
        return "(images * 255).round().astype('uint8') for values in 0..1"
    if lowest >= 0 and highest <= 255:
        return "images.astype('uint8') for values in 0..255"
    return f"values in 0..255 of the type uint8 (these are in {lowest:g}..{highest:g}: undo a normalisation)"


def check_labels(labels: npt.NDArray[Any], images: int, name: str) -> None:
    """Labels are [N], one for each image.

    Raises:
        DataError: They are not; the message says how to make them so.
    """
    shown = f"{labels.dtype} {list(labels.shape)}"
    if labels.ndim == 2 and labels.shape[1] == 1:
        raise DataError(f"{name}: labels must be [N], these are {shown}: use labels[:, 0]")
    if labels.ndim == 2 and bool((np.sort(labels, 1)[:, :-1] == 0).all()):
        raise DataError(f"{name}: labels must be [N], these are {shown}: use labels.argmax(1) for one-hot labels")
    if labels.ndim > 1:
        raise DataError(
            f"{name}: labels must be [N], one class for each image, these are {shown}: masks and several labels for "
            "one image need a task of your own (Dataset.task, see raynas.tasks.base.Task)"
        )
    if labels.dtype.kind in "fc":
        whole = labels.dtype.kind == "f" and bool((labels == labels.round()).all())
        cure = ": use labels.astype('int64')" if whole else ": these are no classes"
        raise DataError(f"{name}: labels must be integers, these are {shown}{cure}")
    if len(labels) != images:
        raise DataError(f"{name}: {images} images have {len(labels)} labels")
