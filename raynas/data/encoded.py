"""Images that stay encoded on disk until a step of training needs them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from raynas.data.decoding import Coloured, Decoder, Images, RandomCrop, Read, UnreadableError
from raynas.data.order import EpochOrder
from raynas.data.streaming import BatchStream, Loading
from raynas.exceptions import DataError
from raynas.utils.seeds import seed_of

__all__ = ["EncodedSplit", "EncodedSteps"]


@dataclass(frozen=True)
class EncodedSplit:
    """Encoded images and their labels: 16 bytes of memory for an image, whatever its size.

    Args:
        read: Gives the encoded bytes of an image and its name; can be pickled.
        decoder: Of all parts of the data set.
        rows: The numbers of the images for ``read``, int64 [N], ascending.
        targets: int64 [N].
        image_shape: Channels, height and width of a decoded image.
        blocks: The first image of each block of images that are read together, for :class:`EpochOrder`.
    """

    read: Read
    decoder: Decoder
    rows: npt.NDArray[np.int64]
    targets: Tensor
    image_shape: tuple[int, int, int]
    blocks: tuple[int, ...] | None = None

    def __len__(self) -> int:
        return len(self.targets)

    def decode(self, index: int, crop: RandomCrop | None = None) -> Images:
        """One image, uint8 [C, H, W].

        Raises:
            DataError: It cannot be read, or is not like the others; it is named.
        """
        try:
            data, name = self.read(int(self.rows[index]))
            pixels = self.decoder.decode_one(data, name, crop)
        except UnreadableError as error:
            raise DataError(f"{error} (data.skip_unreadable=true leaves such images out)") from None
        except Coloured:
            raise DataError(
                f"{name} is in colour, and the images that were looked at first are grey: set data.channels=3"
            ) from None
        if pixels.shape != self.image_shape:
            raise DataError(f"{name} has the shape {list(pixels.shape)}, the others {list(self.image_shape)}")
        return pixels

    def images(self, indices: Tensor) -> Tensor:
        """Some images, decoded by this process with threads: uint8 [len(indices), C, H, W]."""
        rows = self.rows[indices.cpu().numpy()]
        return torch.from_numpy(self.decoder.decode(self.read, rows))

    def select(self, indices: npt.NDArray[np.int64]) -> EncodedSplit:
        """Some of the images; ``indices`` ascend."""
        return dataclasses.replace(self, rows=self.rows[indices], targets=self.targets[indices], blocks=None)

    def resized(self, size: int) -> EncodedSplit:
        """The same with images of ``size`` x ``size`` pixels."""
        decoder = dataclasses.replace(self.decoder, size=size)
        return dataclasses.replace(self, decoder=decoder, image_shape=(self.image_shape[0], size, size))

    def to(self, device: torch.device | str) -> EncodedSplit:
        """The same: images come to a device batch by batch."""
        return self

    def batches(self, size: int, loading: Loading, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        """All images in their order, in batches of at most ``size``: uint8 [n, C, H, W], and their labels."""
        starts = range(0, len(self), size)
        stream = BatchStream(partial(_consecutive, self, size), loading, device)
        try:
            for step, start in enumerate(starts):
                yield stream.batch(step), self.targets[start : start + size].to(device)
        finally:
            stream.close()


@dataclass(frozen=True)
class EncodedSteps:
    """The decoded images of a step of training, as :class:`BatchStream` asks for them.

    Args:
        split: Of the images.
        order: Which of them a step has.
        least: The smallest share of an image's area that a random rectangle has; None: images are not cropped.
    """

    split: EncodedSplit
    order: EpochOrder
    least: float | None = None

    def __call__(self, step: int) -> Tensor:
        """uint8 [n, C, H, W]."""
        rows = self.order.rows(step).tolist()
        images = torch.empty(len(rows), *self.split.image_shape, dtype=torch.uint8)
        for place, row in zip(images.numpy(), rows, strict=True):
            seed = seed_of(self.order.seed, "crop", step, row)
            place[:] = self.split.decode(row, None if self.least is None else RandomCrop(seed, self.least))
        return images


def _consecutive(split: EncodedSplit, size: int, step: int) -> Tensor:
    rows = range(step * size, min((step + 1) * size, len(split)))
    if not rows:
        return torch.empty(0, *split.image_shape, dtype=torch.uint8)  # made ahead, beyond the last batch
    return torch.from_numpy(np.stack([split.decode(row) for row in rows]))
