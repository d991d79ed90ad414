"""The choice-block space of SPOS: ShuffleNetV2 units with kernel 3, 5 or 7, and an Xception-like unit.

Guo et al., "Single Path One-Shot Neural Architecture Search with Uniform Sampling", ECCV 2020. Every block of the
network is one decision with four options; the depth is fixed. Three sizes: :func:`spos` for images of 224 pixels as in
the paper, :func:`spos_32` for images of 32, :func:`spos_small` for a first run on images of 8 to 32 pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from raynas.spaces.layers import conv_bn
from torch import Tensor, nn

from raynas.nn.choice import Choice

__all__ = ["Layout", "ShuffleNet", "ShuffleUnit", "Stage", "spos", "spos_32", "spos_small"]

OPTIONS = ("k3", "k5", "k7", "xception")


class ShuffleUnit(nn.Module):
    """A ShuffleNetV2 unit: half of the channels pass through, the other half is transformed.

    Where the shape changes (stride 2, or another number of channels), both branches see the whole input and the
    passing one becomes a small projection. Maps [N, in_channels, H, W] to [N, out_channels, H / stride, W / stride].

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        hidden: Width inside the transforming branch.
        stride: 1 or 2.
        option: "k3", "k5", "k7" (one depthwise convolution of that size) or "xception" (three of size 3).
        affine: Whether the BatchNorms have learnable parameters.

    Raises:
        ValueError: The shape changes without more channels: the transforming branch would have none.
    """

    def __init__(
        self, in_channels: int, out_channels: int, hidden: int, stride: int, option: str, affine: bool = True
    ) -> None:
        super().__init__()
        self.splits = stride == 1 and in_channels == out_channels
        inputs = in_channels // 2 if self.splits else in_channels
        kernel = 3 if option == "xception" else int(option[1:])
        self.projection: nn.Module = nn.Identity()
        if not self.splits:
            self.projection = nn.Sequential(
                *_depthwise(inputs, kernel, stride, affine), *_pointwise(inputs, inputs, affine)
            )
        outputs = out_channels - inputs
        if outputs <= 0:
            raise ValueError(f"out_channels is {out_channels}: a unit that changes the shape needs more than {inputs}")
        if option == "xception":
            layers = [
                *_depthwise(inputs, 3, stride, affine),
                *_pointwise(inputs, hidden, affine),
                *_depthwise(hidden, 3, 1, affine),
                *_pointwise(hidden, hidden, affine),
                *_depthwise(hidden, 3, 1, affine),
                *_pointwise(hidden, outputs, affine),
            ]
        else:
            layers = [
                *_pointwise(inputs, hidden, affine),
                *_depthwise(hidden, kernel, stride, affine),
                *_pointwise(hidden, outputs, affine),
            ]
        self.transform = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        # Taking the even and the odd channels is the channel shuffle of the unit before.
        passing, active = (x[:, ::2], x[:, 1::2]) if self.splits else (x, x)
        return torch.cat([self.projection(passing), self.transform(active)], dim=1)


def _pointwise(inputs: int, outputs: int, affine: bool) -> list[nn.Module]:
    return [*conv_bn(inputs, outputs, 1, affine=affine), nn.ReLU(inplace=True)]


def _depthwise(channels: int, kernel: int, stride: int, affine: bool) -> list[nn.Module]:
    return conv_bn(channels, channels, kernel, stride, channels, affine)


@dataclass(frozen=True)
class Stage:
    """Blocks of one width; the first of them has the stride."""

    width: int
    depth: int
    stride: int


@dataclass(frozen=True)
class Layout:
    """The fixed part of a network: everything around the choices."""

    stages: tuple[Stage, ...]
    stem_stride: int
    head: int
    stem: int = 16
    dropout: float = 0.1


class ShuffleNet(nn.Module):
    """Stem, choice blocks, head. Maps images [N, in_channels, H, W] to logits [N, num_classes].

    Args:
        layout: Widths, depths and strides.
        num_classes: Number of classes.
        in_channels: Channels of the images.
        scales: Hidden width of each block relative to half of its output channels, one number for every block;
            1.0 everywhere by default.
        affine: Whether the BatchNorms have learnable parameters. SPOS trains its supernet without them.

    Raises:
        ValueError: Not one scale for every block.
    """

    def __init__(
        self,
        layout: Layout,
        num_classes: int,
        in_channels: int,
        scales: Sequence[float] | None = None,
        affine: bool = True,
    ) -> None:
        super().__init__()
        depth = sum(stage.depth for stage in layout.stages)
        scales = [1.0] * depth if scales is None else scales
        if len(scales) != depth:
            raise ValueError(f"{len(scales)} width scales given for {depth} blocks: give one for every block")
        self.stem = nn.Sequential(
            *conv_bn(in_channels, layout.stem, 3, layout.stem_stride, affine=affine), nn.ReLU(inplace=True)
        )
        blocks: list[nn.Module] = []
        width = layout.stem
        for stage in layout.stages:
            for position in range(stage.depth):
                stride = stage.stride if position == 0 else 1
                hidden = int(stage.width // 2 * scales[len(blocks)])
                blocks.append(Choice({o: ShuffleUnit(width, stage.width, hidden, stride, o, affine) for o in OPTIONS}))
                width = stage.width
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Sequential(*_pointwise(width, layout.head, affine))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(layout.dropout)
        self.classifier = nn.Linear(layout.head, num_classes, bias=False)
        self._initialise()

    def _initialise(self) -> None:
        """As ShuffleNetV2 and SPOS: convolutions by their fan-in, a small stem and classifier, BatchNorm bias off 0."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0.0, 1.0 / module.weight.shape[1])
            elif isinstance(module, nn.BatchNorm2d) and module.affine:
                nn.init.constant_(module.bias, 1e-4)
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0.0, 0.01)
        for module in self.stem.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0.0, 0.01)

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(self.blocks(self.stem(x)))
        x = self.dropout(torch.flatten(self.pool(x), 1))
        return self.classifier(x)


def spos(
    num_classes: int = 1000, in_channels: int = 3, scales: Sequence[float] | None = None, affine: bool = True
) -> ShuffleNet:
    """The space of the paper, for images of 224 pixels: 20 blocks, 278 to 374 million MACs in practice."""
    stages = (Stage(64, 4, 2), Stage(160, 4, 2), Stage(320, 8, 2), Stage(640, 4, 2))
    return ShuffleNet(Layout(stages, stem_stride=2, head=1024), num_classes, in_channels, scales, affine)


def spos_32(
    num_classes: int = 10, in_channels: int = 3, scales: Sequence[float] | None = None, affine: bool = True
) -> ShuffleNet:
    """The same 20 blocks for images of 32 pixels: no reduction before the second stage, narrower stages."""
    stages = (Stage(48, 4, 1), Stage(96, 4, 2), Stage(192, 8, 2), Stage(384, 4, 2))
    return ShuffleNet(Layout(stages, stem_stride=1, head=512), num_classes, in_channels, scales, affine)


def spos_small(
    num_classes: int = 10, in_channels: int = 1, scales: Sequence[float] | None = None, affine: bool = True
) -> ShuffleNet:
    """Six blocks for images of 8 to 32 pixels: 4,096 architectures, a supernet that a laptop trains in a minute."""
    stages = (Stage(32, 2, 2), Stage(64, 2, 1), Stage(128, 2, 2))
    return ShuffleNet(Layout(stages, stem_stride=1, head=128), num_classes, in_channels, scales, affine)
