"""Where a score stands among all of them: what models learn whose scores may have any scale and any outlier."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from statistics import NormalDist

__all__ = ["Rank", "standing"]

Rank = tuple[int, float]
"""Fidelity and score, as :meth:`ArchitectureSearcher.rank` gives them: better is larger."""

_NORMAL = NormalDist()


def standing(rank: Rank, ordered: Sequence[Rank]) -> float:
    """The place of a rank as a quantile of the standard normal distribution ("normal score").

    0 in the middle, about 2.6 for the best of a hundred: near the top, differences count more than in the middle,
    and no score can be so bad that all others look alike. Equal ranks share the middle of their places.

    Args:
        rank: One of ``ordered``.
        ordered: All ranks, worst first.
    """
    middle = (bisect_left(ordered, rank) + bisect_right(ordered, rank)) / 2
    return _NORMAL.inv_cdf(middle / len(ordered))
