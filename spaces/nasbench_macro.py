"""The space of NAS-Bench-Macro: eight layers for CIFAR-10, each an identity or one of two inverted residuals.

Su et al., "Prioritized Architecture Sampling with Monto-Carlo Tree Search", CVPR 2021. 3^8 = 6,561 architectures, of
which 3,969 are different networks.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from raynas.spaces.layers import InvertedResidual, conv_bn
from torch import Tensor, nn

from raynas.nn.choice import Choice

__all__ = [
    "DECISIONS",
    "NasBenchMacro",
    "canonical_form",
    "from_string",
    "nasbench_macro",
    "to_string",
]

# In the order of the benchmark's digits 0, 1 and 2.
OPTIONS = ("identity", "mb3_k3", "mb6_k5")
DEPTHS = (2, 3, 3)
DECISIONS: dict[str, tuple[str, ...]] = {f"blocks.{i}": OPTIONS for i in range(sum(DEPTHS))}


class _Block(InvertedResidual):
    """The inverted residual of the benchmark, with ReLU in place of ReLU6."""

    activation = nn.ReLU


def _layer(inputs: int, outputs: int, stride: int) -> Choice:
    changes = stride != 1 or inputs != outputs
    return Choice(
        identity=nn.Sequential(*conv_bn(inputs, outputs, 1, stride)) if changes else nn.Identity(),
        mb3_k3=_Block(inputs, outputs, stride, expansion=3, kernel=3),
        mb6_k5=_Block(inputs, outputs, stride, expansion=6, kernel=5),
    )


class NasBenchMacro(nn.Module):
    """Stem, three stages that halve the resolution and double the width, head.

    Maps images [N, in_channels, H, W] to logits [N, num_classes].
    """

    def __init__(self, num_classes: int, in_channels: int, channels: int, head: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(*conv_bn(in_channels, channels, 3), nn.ReLU(inplace=True))
        layers: list[nn.Module] = []
        for depth in DEPTHS:
            layers.append(_layer(channels, 2 * channels, stride=2))
            channels *= 2
            layers.extend(_layer(channels, channels, stride=1) for _ in range(depth - 1))
        self.blocks = nn.Sequential(*layers)
        self.head = nn.Sequential(*conv_bn(channels, head, 1), nn.ReLU(inplace=True))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(head, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0.0, 0.01)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(self.blocks(self.stem(x)))
        return self.classifier(torch.flatten(self.pool(x), 1))

    def canonical_form(self, architecture: Mapping[str, str]) -> dict[str, str]:
        """See :func:`canonical_form`."""
        return canonical_form(architecture)


def nasbench_macro(num_classes: int = 10, in_channels: int = 3, channels: int = 32, head: int = 1280) -> NasBenchMacro:
    """The space of the benchmark; by default for CIFAR-10.

    Args:
        num_classes: Number of classes.
        in_channels: Channels of the images.
        channels: Width of the stem; the stages have twice, four and eight times as many.
        head: Width of the last convolution.
    """
    return NasBenchMacro(num_classes, in_channels, channels, head)


def canonical_form(architecture: Mapping[str, str]) -> dict[str, str]:
    """One form for the architectures that are the same network: identities come last in their stage.

    After the first layer of a stage an identity changes nothing, so its place among the others does not matter when
    the network is trained by itself. Under shared weights the places have weights of their own: sampling canonical
    forms alone, for training as for scoring, gives every network one set of weights.
    """
    names = list(DECISIONS)
    form: dict[str, str] = {}
    for depth in DEPTHS:
        stage, names = names[:depth], names[depth:]
        options = [architecture[name] for name in stage]
        kept = [option for option in options[1:] if option != "identity"]
        kept += ["identity"] * (depth - 1 - len(kept))
        form.update(zip(stage, [options[0], *kept], strict=True))
    return form


def to_string(architecture: Mapping[str, str]) -> str:
    """The architecture as the benchmark's eight digits, ``"22212220"``."""
    return "".join(str(OPTIONS.index(architecture[name])) for name in DECISIONS)


def from_string(text: str) -> dict[str, str]:
    """The architecture of the benchmark's eight digits; the inverse of :func:`to_string`.

    Raises:
        ValueError: Not eight digits of 0, 1 and 2.
    """
    if len(text) != len(DECISIONS) or any(digit not in "012" for digit in text):
        raise ValueError(f"{text!r} is not a NAS-Bench-Macro architecture: expected {len(DECISIONS)} digits 0, 1 or 2")
    return {name: OPTIONS[int(digit)] for name, digit in zip(DECISIONS, text, strict=True)}
