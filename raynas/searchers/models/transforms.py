"""Transforms of the scores before a model is fitted: normal scores and log-gap."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from raynas.searchers.models.encoder import Array

__all__ = ["Rank", "log_gap", "normal_score", "standardized_log_gap"]

Rank = tuple[int, float]
"""Fidelity and score, as :meth:`ArchitectureSearcher.rank` gives them: better is larger."""

_NORMAL = NormalDist()


def normal_score(rank: Rank, ordered: Sequence[Rank]) -> float:
    """The place of a rank as a quantile of the standard normal distribution ("normal score").

    0 in the middle, about 2.6 for the best of a hundred: near the top, differences count more than in the middle,
    and no score can be so bad that all others look alike. Equal ranks share the middle of their places.

    Args:
        rank: One of ``ordered``.
        ordered: All ranks, worst first.
    """
    middle = (bisect_left(ordered, rank) + bisect_right(ordered, rank)) / 2
    return _NORMAL.inv_cdf(middle / len(ordered))


def log_gap(values: Array) -> Array:
    """Scores (higher is better) such that differences near the top are large: ``-log(best - y + 0.3 (best - median))``.

    Minus the logarithm of the gap to a ceiling above the best.
    """
    best = values.max()
    span = best - float(np.median(values)) or best - values.min() or 1.0
    result: Array = -np.log(best - values + 0.3 * span)
    return result


def standardized_log_gap(values: Array) -> Array:
    """The same, standardised to mean 0 and deviation 1."""
    result = log_gap(values)
    result -= result.mean()
    return result / (float(result.std()) or 1.0)
