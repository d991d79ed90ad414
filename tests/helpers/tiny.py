"""A space that trains in seconds, as a user would write it in a package of their own."""

from __future__ import annotations

import os
import time

import numpy as np
import torch
from torch import Tensor, nn

from raynas.data.dataset import Dataset, Split
from raynas.nn.choice import Choice


class Tiny(nn.Module):
    """Three blocks of three options each: 27 architectures. It is slow as long as there is a file ``hold``."""

    def __init__(
        self, num_classes: int = 10, in_channels: int = 1, width: int = 8, norm: bool = True, hold: str = ""
    ) -> None:
        super().__init__()
        self.hold = hold

        def block(kernel: int) -> nn.Module:
            layers: list[nn.Module] = [nn.Conv2d(width, width, kernel, padding=kernel // 2, bias=not norm)]
            return nn.Sequential(*layers, *([nn.BatchNorm2d(width)] if norm else []), nn.ReLU())

        self.stem = nn.Conv2d(in_channels, width, 3, stride=2, padding=1)
        self.blocks = nn.Sequential(*(Choice(k1=block(1), k3=block(3), skip=nn.Identity()) for _ in range(3)))
        self.head = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        if self.hold and not x.is_meta and os.path.exists(self.hold):
            time.sleep(0.25)
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


def space(num_classes: int = 10, in_channels: int = 1, width: int = 8, norm: bool = True, hold: str = "") -> Tiny:
    """The builder that ``--space helpers.tiny:space`` names."""
    return Tiny(num_classes, in_channels, width, norm, hold)


def split(images: int, seed: int) -> Split:
    """Noisy textures: lines across, lines down, lines aslant, or none; random contrast."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(4, (images,), generator=generator)
    row, column = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
    patterns = torch.stack([row % 2, column % 2, (row + column) // 2 % 2, torch.zeros(8, 8, dtype=torch.int64)])
    contrast = torch.randint(40, 120, (images, 1, 1), generator=generator)
    noise = torch.randint(0, 100, (images, 8, 8), generator=generator)
    inputs = (patterns[targets] * contrast + noise).to(torch.uint8)[:, None]
    return Split(inputs, targets)


def data(train: int = 256, validation: int = 64, test: int = 64) -> Dataset:
    """Four classes, 8x8 pixels, one channel."""
    return Dataset("textures", split(train, 0), split(validation, 1), split(test, 2), 4, (0.2,), (0.2,))


def arrays() -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """The same as a user's loader returns it: ``--data helpers.tiny:arrays``."""
    train, test = split(2000, 0), split(64, 2)
    return (train.inputs.numpy(), train.targets.numpy()), (test.inputs.numpy(), test.targets.numpy())
