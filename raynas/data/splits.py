"""How a data set of images is divided, and what is known of its pixels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

__all__ = ["spread", "statistics"]


def spread(labels: npt.NDArray[np.int64], count: int, seed: int) -> npt.NDArray[np.int64]:
    """Indices of ``count`` random images, ascending, with each class in the share that it has of all."""
    # RandomState's stream is frozen for good; that of default_rng may change with a version of numpy.
    order = np.random.RandomState(seed).permutation(len(labels))
    shuffled = labels[order]
    by_class = np.argsort(shuffled, kind="stable")
    _, first, sizes = np.unique(shuffled[by_class], return_index=True, return_counts=True)
    # The k-th of a class of n stands at (k + 1/2)/n: the first `count` of all positions take alike from each class.
    rank = np.arange(len(labels)) - np.repeat(first, sizes)
    position = np.empty(len(labels))
    position[by_class] = (rank + 0.5) / np.repeat(sizes, sizes)
    return np.sort(order[np.argsort(position, kind="stable")[:count]]).astype(np.int64)


def statistics(inputs: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel in units of 0..1, exact from counts of the 256 grey levels."""
    levels = torch.arange(256, dtype=torch.float64) / 255
    mean, std = [], []
    for channel in range(inputs.shape[1]):
        counts = torch.bincount(inputs[:, channel].reshape(-1), minlength=256).double()
        share = counts / counts.sum()
        centre = float(share @ levels)
        mean.append(centre)
        # A constant channel has no spread: one grey level keeps the division finite.
        std.append(max(float((share @ (levels - centre) ** 2).sqrt()), 1 / 255))
    return tuple(mean), tuple(std)
