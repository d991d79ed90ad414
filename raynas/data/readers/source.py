"""What a reader of a data set returns: labels, and images that are decoded when they are asked for."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from raynas.data.decoding import Decoder, Images, Indices, Read

__all__ = ["Source", "from_arrays", "from_encoded"]


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
    read: Read | None = None
    """Gives the encoded bytes of an image and its name; can be pickled. None where the images are in memory."""
    blocks: npt.NDArray[np.int64] | None = None
    """The first image of each block of images that are read together; None where each is read by itself."""
    mirror_invariant: bool = False
    """Whether a mirrored image is one of the same class."""


def from_arrays(images: Images, labels: npt.ArrayLike, names: Sequence[str] | None = None) -> Source:
    """A source of images that are in memory already, uint8 [N, C, H, W]."""

    def pick(indices: Indices) -> Images:
        whole = len(indices) == len(images)  # indices are sorted and distinct: all of them need no copy
        return images if whole else images[indices]

    return Source(np.asarray(labels), pick, None if names is None else tuple(names))


def from_encoded(labels: npt.ArrayLike, read: Read, decoder: Decoder, names: Sequence[str] | None = None) -> Source:
    """A source of encoded images, which stay where they are until they are decoded.

    Args:
        labels: Of all images, [N].
        read: Gives the encoded bytes of an image and its name for messages; called from several threads and processes.
        decoder: Of all parts of the data set.
        names: What the classes are called.
    """
    return Source(
        np.asarray(labels),
        functools.partial(decoder.decode, read),
        None if names is None else tuple(names),
        decoder,
        read,
    )
