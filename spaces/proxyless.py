"""The MobileNet-like space of ProxylessNAS, in the widths of its GPU network: kernel, expansion, or no layer at all.

Cai et al., "ProxylessNAS: Direct Neural Architecture Search on Target Task and Hardware", ICLR 2019; RLNAS (Zhang et
al., CVPR 2021) and ABS (Hu et al., ECCV 2020) search it. 21 layers with six options each, and a seventh, "skip", where
the shape does not change: 6^6 * 7^15 = 2.2e17 architectures. :func:`proxyless` is for images of 224 pixels as in the
papers, :func:`proxyless_32` for images of 32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from raynas.spaces.layers import InvertedResidual, conv_bn
from torch import Tensor, nn

from raynas.nn.choice import Choice

__all__ = [
    "DECISIONS",
    "Layout",
    "ProxylessNet",
    "canonical_form",
    "from_digits",
    "proxyless",
    "proxyless_32",
]

DEPTHS = (4, 4, 4, 4, 4, 1)
LAYERS = {f"k{kernel}_e{expansion}": (kernel, expansion) for kernel in (3, 5, 7) for expansion in (3, 6)}
DECISIONS: dict[str, tuple[str, ...]] = {
    f"blocks.{sum(DEPTHS[:stage]) + layer}": (*LAYERS, *(("skip",) if layer else ()))
    for stage, depth in enumerate(DEPTHS)
    for layer in range(depth)
}


@dataclass(frozen=True)
class Layout:
    """The fixed part of a network: widths and strides."""

    stem: int
    first: int
    """Channels after the fixed layer that follows the stem."""
    widths: tuple[int, ...]
    """Of the six stages."""
    strides: tuple[int, ...]
    """Of the stem and of the first layer of each stage."""
    head: int


class ProxylessNet(nn.Module):
    """Stem, a fixed layer, 21 searched layers, head. Maps images [N, in_channels, H, W] to logits [N, num_classes].

    Args:
        layout: Widths and strides.
        num_classes: Number of classes.
        in_channels: Channels of the images.
        affine: Whether the BatchNorms have learnable parameters.
    """

    def __init__(self, layout: Layout, num_classes: int, in_channels: int, affine: bool = True) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            *conv_bn(in_channels, layout.stem, 3, layout.strides[0], affine=affine), nn.ReLU6(inplace=True)
        )
        self.first = InvertedResidual(layout.stem, layout.first, 1, kernel=3, expansion=1, affine=affine)
        blocks: list[nn.Module] = []
        inputs = layout.first
        for depth, outputs, stage_stride in zip(DEPTHS, layout.widths, layout.strides[1:], strict=True):
            for layer in range(depth):
                stride = stage_stride if layer == 0 else 1
                options: dict[str, nn.Module] = {
                    name: InvertedResidual(inputs, outputs, stride, kernel, expansion, affine)
                    for name, (kernel, expansion) in LAYERS.items()
                }
                blocks.append(Choice({**options, "skip": nn.Identity()} if layer else options))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Sequential(*conv_bn(inputs, layout.head, 1, affine=affine), nn.ReLU6(inplace=True))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(layout.head, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0.0, 0.01)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(self.blocks(self.first(self.stem(x))))
        return self.classifier(torch.flatten(self.pool(x), 1))

    def canonical_form(self, architecture: Mapping[str, str]) -> dict[str, str]:
        """See :func:`canonical_form`."""
        return canonical_form(architecture)


def proxyless(num_classes: int = 1000, in_channels: int = 3, affine: bool = True) -> ProxylessNet:
    """The space of the papers, for images of 224 pixels: 182 to 1,037 million MACs."""
    widths, strides = (32, 56, 112, 128, 256, 432), (2, 2, 2, 2, 1, 2, 1)
    return ProxylessNet(Layout(40, 24, widths, strides, head=1728), num_classes, in_channels, affine)


def proxyless_32(num_classes: int = 10, in_channels: int = 3, affine: bool = True) -> ProxylessNet:
    """The same 21 layers for images of 32 pixels, half as wide, halving the resolution three times instead of five."""
    widths, strides = (16, 28, 56, 64, 128, 216), (1, 1, 2, 2, 1, 2, 1)
    return ProxylessNet(Layout(20, 12, widths, strides, head=864), num_classes, in_channels, affine)


def canonical_form(architecture: Mapping[str, str]) -> dict[str, str]:
    """One form for the architectures that are the same network: skipped layers come last in their stage.

    All layers of a stage but the first have the same shape, so which of them are skipped does not matter when the
    network is trained by itself. Under shared weights every network gets one set of weights by sampling canonical
    forms alone, for training as for scoring.
    """
    names = list(DECISIONS)
    form: dict[str, str] = {}
    for depth in DEPTHS:
        stage, names = names[:depth], names[depth:]
        options = [architecture[name] for name in stage]
        kept = [option for option in options if option != "skip"]
        form.update(zip(stage, kept + ["skip"] * (depth - len(kept)), strict=True))
    return form


def from_digits(digits: Sequence[int]) -> dict[str, str]:
    """The architecture that RLNAS writes as 21 numbers: 0 to 5 in the order of the options, -1 for a skipped layer.

    Raises:
        ValueError: Not 21 numbers, or one that its layer does not have.
    """
    numbers = dict(enumerate(LAYERS)) | {-1: "skip"}
    legal = len(digits) == len(DECISIONS) and all(
        numbers.get(digit) in options for digit, options in zip(digits, DECISIONS.values(), strict=True)
    )
    if not legal:
        raise ValueError(
            f"{list(digits)} is no architecture: expected {len(DECISIONS)} numbers from 0 to 5, "
            "or -1 where the shape does not change"
        )
    return {name: numbers[digit] for name, digit in zip(DECISIONS, digits, strict=True)}
