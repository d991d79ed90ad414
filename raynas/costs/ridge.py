"""What architectures cost where that is about a sum over their options: a ridge regression on a few that are known."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
from scipy import stats

from raynas.architecture import Architecture, Decisions

__all__ = ["OptionRidge"]

Array = npt.NDArray[np.float64]
_PENALTIES = np.logspace(-4, 3, 15)


class OptionRidge:
    """Predicts a cost from the options of an architecture and from costs that are known exactly.

    The penalty is the one under which each architecture is predicted best by all others.

    Args:
        decisions: Of the space.
        known: Exact costs of an architecture, such as MACs.
        architectures: Canonical ones whose cost was measured.
        values: The costs, all above 0.
    """

    def __init__(
        self,
        decisions: Decisions,
        known: Callable[[Architecture], Mapping[str, float]],
        architectures: Sequence[Architecture],
        values: Sequence[float],
    ) -> None:
        pairs = ((decision, option) for decision, options in decisions.items() for option in options)
        self._column = {pair: number for number, pair in enumerate(pairs)}
        self._known = known
        self._names = sorted(known(architectures[0]))
        rows = np.array([self._features(architecture) for architecture in architectures])
        y = np.array(values, float)
        self._mean, self._scale, self._level = rows.mean(0), rows.std(0), float(y.mean())
        self._scale[self._scale == 0.0] = math.inf  # what all have in common tells nothing
        u, s, vt = np.linalg.svd((rows - self._mean) / self._scale, full_matrices=False)
        fits = [self._left_out(u, s, y, penalty * len(y)) for penalty in _PENALTIES]
        best = int(np.argmin([np.square(y - each).mean() for each in fits]))
        self._weights = vt.T @ (s / (s**2 + _PENALTIES[best] * len(y)) * (u.T @ (y - self._level)))
        self.error = float(np.mean(np.abs(fits[best] / y - 1.0)))
        """How far each one's prediction by all others is off: the mean of the relative errors."""
        self.tau = float(stats.kendalltau(fits[best], y).statistic)
        """Kendall's tau between these predictions and the values."""

    def _left_out(self, u: Array, s: Array, y: Array, penalty: float) -> Array:
        """What is predicted of each row by a fit to all others."""
        shrunk = u * (s**2 / (s**2 + penalty))
        fitted = self._level + shrunk @ (u.T @ (y - self._level))
        own = np.minimum((shrunk * u).sum(1) + 1.0 / len(y), 1.0 - 1e-9)
        left_out: Array = y - (y - fitted) / (1.0 - own)
        return left_out

    def _features(self, architecture: Architecture) -> Array:
        row = np.zeros(len(self._column) + len(self._names))
        for pair in architecture.items():
            row[self._column[pair]] = 1.0
        costs = self._known(architecture)
        row[len(self._column) :] = [costs[name] for name in self._names]
        return row

    def __call__(self, architecture: Architecture) -> float:
        """The predicted cost of one architecture."""
        z = (self._features(architecture) - self._mean) / self._scale
        return max(self._level + float(z @ self._weights), 1e-6)
