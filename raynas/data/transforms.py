"""Augmentation of whole batches, each image by itself: on the images' device and without a loop over images.

Images stay uint8 until :func:`normalise`. All randomness comes from the generator that the caller passes: the same
generator state and images give the same result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from raynas.utils.formatting import counted

__all__ = ["NAMES", "Augment", "normalise"]

NAMES = ("none", "crop", "crop_flip", "imagenet")

_TRIES = 10  # rectangles drawn per image; the whole image where none of them fits in


def normalise(inputs: Tensor, mean: Sequence[float] | Tensor, std: Sequence[float] | Tensor) -> Tensor:
    """Pixels to numbers of mean 0 and deviation 1 per channel: ``(inputs / 255 - mean) / std``.

    Args:
        inputs: uint8 [N, C, H, W].
        mean: C values in units of 0..1, as :class:`raynas.data.dataset.Dataset` holds them.
        std: C values likewise, above 0.

    Returns:
        A new float32 tensor [N, C, H, W] on the device of ``inputs``.
    """
    centre, spread = (
        torch.as_tensor(values, dtype=torch.float32, device=inputs.device).view(-1, 1, 1) for values in (mean, std)
    )
    return inputs.float().sub_(centre * 255).mul_(1 / (spread * 255))


@dataclass(frozen=True)
class Augment:
    """A named augmentation: ``Augment("crop_flip", 32)(images, generator)``.

    Args:
        name: "none"; "crop": a random place of the image padded with black; "crop_flip": the same, and mirrored with
            chance 1/2; "imagenet": a random rectangle (8 to 100 % of the area, sides 3:4 to 4:3) resized to the whole,
            mirrored with chance 1/2, then brightness, contrast and saturation each changed by up to 40 %.
        size: Side of the square results in pixels.
        padding: Of "crop" and "crop_flip", on every side; an eighth of ``size`` by default (4 for 32x32).
        cutout: Side of a square that is painted over at a random place (DeVries & Taylor, 2017); 0 for none.
        colour: Of that square: a value in 0..1 for each channel, such as the training images' mean, or one for all.
        strength: Factor of the padding, rounded to pixels, and of the 40 %; the exponent of the 8 %. 0 to 2.
        mirror: Whether to mirror; by default as the name says.
        crops: "imagenet": whether to take random rectangles; False where images come as such.

    Raises:
        ValueError: An unknown name, or a size that is not positive.
    """

    name: str
    size: int
    padding: int | None = None
    cutout: int = 0
    colour: Sequence[float] = (0.0,)
    strength: float = 1.0
    mirror: bool | None = None
    crops: bool = True

    def __post_init__(self) -> None:
        if self.name not in NAMES:
            raise ValueError(f"unknown augmentation {self.name!r}; legal ones: {', '.join(NAMES)}")
        if self.size < 1 or self.cutout < 0 or (self.padding or 0) < 0:
            raise ValueError(f"size, padding and cutout must not be negative, size not 0: {self}")
        if not 0 <= self.strength <= 2:
            raise ValueError(f"the strength is {self.strength}; legal: 0 to 2")

    @property
    def least_area(self) -> float:
        """The smallest share of an image's area that a random rectangle of "imagenet" has."""
        return float(0.08**self.strength)

    @property
    def mirrors(self) -> bool:
        """Whether images are mirrored with chance 1/2."""
        return self.name in ("crop_flip", "imagenet") if self.mirror is None else self.mirror

    def __str__(self) -> str:
        parts = {
            "none": "none",
            "crop": f"cut at a random place after padding by {counted(self._padding, 'pixel')}",
            "imagenet": "a random rectangle resized to the whole, brightness, contrast and saturation changed",
        }
        text = [parts[self.name.removesuffix("_flip")], "mirrored" if self.mirrors else "not mirrored"]
        return ", ".join(text + ([f"a square of {counted(self.cutout, 'pixel')} masked"] if self.cutout else []))

    @property
    def _padding(self) -> int:
        return round((self.size // 8 if self.padding is None else self.padding) * self.strength)

    def __call__(self, inputs: Tensor, generator: Generator) -> Tensor:
        """Augment a batch.

        Args:
            inputs: uint8 [N, C, H, W]; not changed.
            generator: On the CPU or on the images' device. A CPU generator augments alike on every device.

        Returns:
            uint8 [N, C, size, size]; for "none" without cutout the inputs themselves.

        Raises:
            ValueError: Images from which ``size`` pixels cannot be taken.
        """
        if self.name == "imagenet":
            inputs = _imagenet(inputs, self, generator)
        elif self.name in ("crop", "crop_flip"):
            inputs = _crop(inputs, self.size, self._padding, self.mirrors, generator)
        elif inputs.shape[2:] != (self.size, self.size):
            raise ValueError(f"images of {list(inputs.shape[2:])} pixels are not of size {self.size}")
        return self._cut(inputs, generator) if self.cutout else inputs

    def _cut(self, inputs: Tensor, generator: Generator) -> Tensor:
        # The centre may be anywhere, so that the square may stick out over the edge, as in the paper.
        top, left = (_uniform((2, len(inputs)), inputs, generator) * self.size).long() - self.cutout // 2
        place = torch.arange(self.size, device=inputs.device)
        rows, columns = ((place >= start[:, None]) & (place < start[:, None] + self.cutout) for start in (top, left))
        colour = torch.tensor(self.colour, device=inputs.device).mul(255).round().to(torch.uint8)
        return torch.where((rows[:, :, None] & columns[:, None, :])[:, None], colour.view(-1, 1, 1), inputs)


def _uniform(shape: tuple[int, ...], like: Tensor, generator: Generator) -> Tensor:
    """Numbers in [0, 1) from the generator, on the device of ``like``."""
    return torch.rand(shape, generator=generator, device=generator.device).to(like.device)


def _crop(inputs: Tensor, size: int, padding: int, flip: bool, generator: Generator) -> Tensor:
    count, channels, height, width = inputs.shape
    if min(height, width) + 2 * padding < size:
        raise ValueError(f"images of {height}x{width} pixels padded by {padding} have no {size}x{size} to take")
    padded = F.pad(inputs, (padding,) * 4)
    draws = _uniform((3, count, 1), inputs, generator)
    place = torch.arange(size, device=inputs.device)
    rows = (draws[0] * (height + 2 * padding - size + 1)).long() + place
    columns = (draws[1] * (width + 2 * padding - size + 1)).long()
    columns = columns + (torch.where(draws[2] < 0.5, size - 1 - place, place) if flip else place)
    # One flat gather does crop and mirror in a single pass, twice as fast as cropping by windows and then mirroring.
    pixels = (rows[:, :, None] * padded.shape[3] + columns[:, None, :]).view(count, 1, size * size)
    return padded.flatten(2).gather(2, pixels.expand(-1, channels, -1)).view(count, channels, size, size)


def _imagenet(inputs: Tensor, settings: Augment, generator: Generator) -> Tensor:
    """RandomResizedCrop, mirror and ColorJitter(0.4, 0.4, 0.4) of torchvision, for all images of a batch at once."""
    count, size, strength = len(inputs), settings.size, settings.strength
    boxes = _rectangles(inputs, settings.least_area, generator) if settings.crops else _whole(inputs)
    mirrored = (_uniform((count, 1), inputs, generator) < 0.5) & settings.mirrors
    change = 0.4 * strength
    factors = (1 - change) + 2 * change * _uniform((3, count, 1, 1, 1), inputs, generator)
    # On a CPU a few images at a time, as many as its cache holds: more than twice as fast as the batch at once.
    step = max(1, 2**18 // size**2) if inputs.device.type == "cpu" else count
    parts = (slice(start, start + step) for start in range(0, count, step))
    images = (_jitter(_resized(inputs[p], boxes[:, p], mirrored[p], size), factors[:, p]) for p in parts)
    return torch.cat([part.round_().to(torch.uint8) for part in images])


def _rectangles(inputs: Tensor, least: float, generator: Generator) -> Tensor:
    """Top, left, height and width of a random rectangle for each image: float [4, N] of whole numbers.

    Each has at least the share ``least`` of the image's area.
    """
    count, _, height, width = inputs.shape
    draws = _uniform((2, _TRIES, count), inputs, generator)
    area = (least + (1 - least) * draws[0]) * (height * width)
    aspect = torch.exp((2 * draws[1] - 1) * torch.log(torch.tensor(4 / 3, device=inputs.device)))
    heights, widths = (area / aspect).sqrt().round(), (area * aspect).sqrt().round()
    fits = (heights >= 1) & (heights <= height) & (widths >= 1) & (widths <= width)
    first = fits.to(torch.uint8).argmax(0, keepdim=True)
    # Where no try fits: as much of the image as the legal proportions allow.
    whole = torch.tensor([min(height, width / 0.75), min(width, height / 0.75)], device=inputs.device).floor()
    h = torch.where(fits.any(0), heights.gather(0, first)[0], whole[0])
    w = torch.where(fits.any(0), widths.gather(0, first)[0], whole[1])
    at = _uniform((2, count), inputs, generator)
    return torch.stack([(at[0] * (height - h + 1)).floor(), (at[1] * (width - w + 1)).floor(), h, w])


def _whole(inputs: Tensor) -> Tensor:
    """All of each image, as a rectangle: float [4, N]."""
    count, _, height, width = inputs.shape
    return torch.tensor([0, 0, height, width], dtype=torch.float32, device=inputs.device)[:, None].expand(4, count)


def _resized(inputs: Tensor, boxes: Tensor, mirrored: Tensor, size: int) -> Tensor:
    """Bilinear resize of one box per image, [4, N], to float [N, C, size, size] in 0..255.

    Boxes are as a rule smaller than ``size``; a box that is larger is sampled without antialiasing.
    """
    height, width = inputs.shape[2:]
    top, left, h, w = boxes[:, :, None]
    place = (torch.arange(size, device=inputs.device) + 0.5) / size
    y = top + (place * h - 0.5).clamp_min(0).minimum(h - 1)
    x = left + (torch.where(mirrored, 1 - place, place) * w - 0.5).clamp_min(0).minimum(w - 1)
    y, x = y * (2 / max(height - 1, 1)) - 1, x * (2 / max(width - 1, 1)) - 1
    grid = torch.stack([x[:, None, :].expand(-1, size, -1), y[:, :, None].expand(-1, -1, size)], -1)
    return F.grid_sample(inputs.float(), grid, mode="bilinear", padding_mode="border", align_corners=True)


def _jitter(images: Tensor, factors: Tensor) -> Tensor:
    """Scale brightness, contrast and saturation, in this order, by ``factors`` [3, N, 1, 1, 1]."""
    brightness, contrast, saturation = factors
    images = (images * brightness).clamp_(0, 255)
    images = torch.lerp(_grey(images).mean((1, 2, 3), keepdim=True), images, contrast).clamp_(0, 255)
    return torch.lerp(_grey(images), images, saturation).clamp_(0, 255)


def _grey(images: Tensor) -> Tensor:
    """Luminance [N, 1, H, W] (ITU-R BT.601) of images in colour or grey."""
    channels = images.shape[1]
    if channels == 1:
        return images
    if channels != 3:
        raise ValueError(f"the imagenet augmentation is for 1 or 3 channels, not {channels}")
    weights = torch.tensor([0.299, 0.587, 0.114], device=images.device).view(3, 1, 1)
    return (images * weights).sum(1, keepdim=True)
