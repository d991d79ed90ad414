"""Layers that several families of search spaces share: convolution blocks, the operations of DARTS, drop path."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["AuxiliaryHead", "DropPath", "FactorizedReduce", "InvertedResidual", "Nothing", "conv_bn", "operation"]


def conv_bn(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, affine: bool = True
) -> list[nn.Module]:
    """A convolution without bias, padded to keep the resolution at stride 1, and a BatchNorm."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(outputs, affine=affine)]


class InvertedResidual(nn.Module):
    """Expansion, depthwise convolution, projection (MobileNetV2); with a shortcut where the shape does not change.

    Maps [N, inputs, H, W] to [N, outputs, H / stride, W / stride]. With expansion 1 the first convolution is left out.

    Args:
        inputs: Channels of the input.
        outputs: Channels of the output.
        stride: Of the depthwise convolution.
        kernel: Size of the depthwise convolution.
        expansion: Width of the depthwise convolution as a multiple of ``inputs``.
        affine: Whether the BatchNorms have learnable parameters.
    """

    activation: type[nn.Module] = nn.ReLU6

    def __init__(
        self, inputs: int, outputs: int, stride: int, kernel: int, expansion: int, affine: bool = True
    ) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.adds = stride == 1 and inputs == outputs
        expand = [*conv_bn(inputs, hidden, 1, affine=affine), self.activation(inplace=True)] if expansion > 1 else []
        self.transform = nn.Sequential(
            *expand,
            *conv_bn(hidden, hidden, kernel, stride, hidden, affine),
            self.activation(inplace=True),
            *conv_bn(hidden, outputs, 1, affine=affine),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.transform(x) if self.adds else self.transform(x)


class FactorizedReduce(nn.Module):
    """Halves the resolution, half of the outputs from the even pixels and half from the odd ones.

    Maps [N, inputs, H, W] to [N, outputs, H / 2, W / 2], rounded up.
    """

    def __init__(self, inputs: int, outputs: int, relu: bool = True) -> None:
        super().__init__()
        self.relu = nn.ReLU() if relu else nn.Identity()
        self.even = nn.Conv2d(inputs, outputs // 2, 1, stride=2, bias=False)
        self.odd = nn.Conv2d(inputs, outputs - outputs // 2, 1, stride=2, bias=False)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(x)
        # Shifted by one pixel; the row and column of zeros that make room are read where the size is odd.
        shifted = F.pad(x, (0, 1, 0, 1))[:, :, 1:, 1:]
        return self.bn(torch.cat([self.even(x), self.odd(shifted)], dim=1))


def _separable(channels: int, kernel: int, stride: int, dilation: int) -> list[nn.Module]:
    padding = dilation * (kernel // 2)
    return [
        nn.ReLU(),
        nn.Conv2d(channels, channels, kernel, stride, padding, dilation, groups=channels, bias=False),
        nn.Conv2d(channels, channels, 1, bias=False),
        nn.BatchNorm2d(channels),
    ]


def operation(option: str, channels: int, stride: int, evaluation: bool) -> nn.Module:
    """An operation of a DARTS cell by its name, such as "sep_conv_3x3". Halves the resolution where ``stride`` is 2.

    Maps [N, channels, H, W] to [N, channels, H / stride, W / stride]. With ``evaluation`` pools have no BatchNorm.
    """
    kind, kernel = option.split("_")[0], option[-1]
    if kind == "sep":
        return nn.Sequential(*_separable(channels, int(kernel), stride, 1), *_separable(channels, int(kernel), 1, 1))
    if kind == "dil":
        return nn.Sequential(*_separable(channels, int(kernel), stride, 2))
    if kind == "skip":
        return nn.Identity() if stride == 1 else FactorizedReduce(channels, channels)
    average = nn.AvgPool2d(3, stride, padding=1, count_include_pad=False)
    pool = average if kind == "avg" else nn.MaxPool2d(3, stride, padding=1)
    # In a supernet, so that pools do not outweigh the operations that end in a BatchNorm.
    return pool if evaluation else nn.Sequential(pool, nn.BatchNorm2d(channels))


class DropPath(nn.Module):
    """Leaves out its input for a random part of the images, and scales up the others: the expectation stays.

    Larsson et al., "FractalNet", ICLR 2017. Only in training; the training loop sets ``drop_path``.
    """

    def __init__(self, part: float = 1.0) -> None:
        super().__init__()
        self.part = part
        """Of ``drop_path``, which is how often this path is left out: less near the input, where a network wants it."""
        self.drop_path = 0.0
        """Share of the images without a path, in [0, 1)."""

    def forward(self, x: Tensor) -> Tensor:
        dropped = self.part * self.drop_path
        if not self.training or not dropped:
            return x
        kept = torch.rand(x.shape[0], 1, 1, 1, device=x.device) >= dropped
        return x * (kept / (1 - dropped)).to(x.dtype)


class Nothing(nn.Module):
    """An edge that is not taken: adds nothing to its node."""


class AuxiliaryHead(nn.Module):
    """A classifier on the way, for a further loss in training. Maps [N, inputs, H, W] to logits [N, num_classes]."""

    def __init__(self, inputs: int, num_classes: int, imagenet: bool) -> None:
        super().__init__()
        self.stride = 2 if imagenet else 3
        self.layers = nn.Sequential(
            nn.Conv2d(inputs, 128, 1, bias=False),
            nn.BatchNorm2d(128),
            nn.ReLU(inplace=True),
            nn.Conv2d(128, 768, 2, bias=False),
            nn.Identity() if imagenet else nn.BatchNorm2d(768),
            nn.ReLU(inplace=True),
        )
        self.classifier = nn.Linear(768, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(x)
        # Of images of 32 (224) pixels 8 x 8 (7 x 7) are left, in which two windows of 5 have room; whatever the size
        # of the images, 2 x 2 go on.
        fits = 5 + self.stride <= min(x.shape[2:]) and max(x.shape[2:]) < 5 + 2 * self.stride
        x = F.avg_pool2d(x, 5, self.stride) if fits else F.adaptive_avg_pool2d(x, 2)
        return self.classifier(torch.flatten(self.layers(x), 1))
