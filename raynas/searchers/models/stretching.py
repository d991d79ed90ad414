"""Scores as the Gaussian process sees them: what matters in a search are differences near the top."""

from __future__ import annotations

import numpy as np

from raynas.searchers.models.encoder import Array

__all__ = ["stretched", "transformed"]


def stretched(values: Array) -> Array:
    """Scores (higher is better) such that differences near the top are large: ``-log(best - y + 0.3 (best - median))``.

    Minus the logarithm of the gap to a ceiling above the best.
    """
    best = values.max()
    span = best - float(np.median(values)) or best - values.min() or 1.0
    result: Array = -np.log(best - values + 0.3 * span)
    return result


def transformed(values: Array) -> Array:
    """The same, standardised to mean 0 and deviation 1."""
    result = stretched(values)
    result -= result.mean()
    return result / (float(result.std()) or 1.0)
