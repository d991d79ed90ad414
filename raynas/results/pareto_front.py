"""The front of a search: what no other architecture beats in score and costs, and the hypervolume below it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import moocore
import numpy as np

from raynas.search_space.constraints import Limits, Profile

__all__ = ["Hypervolume", "front_of"]

_FIRST = 10
"""So many scores say what a bad one is."""


def front_of(
    rows: Sequence[Mapping[str, Any]], objectives: Sequence[str], mode: str, score: str = "score"
) -> list[int]:
    """The places of the rows that no other one beats, best score first.

    Args:
        rows: Each with a finite number for the score and for each objective.
        objectives: Names of costs, which are minimised.
        mode: Whether a high score is good (max) or a low one (min).
        score: Name of the score.
    """
    if not rows:
        return []
    sign = -1.0 if mode == "max" else 1.0
    points = np.array([[sign * row[score], *(row[name] for name in objectives)] for row in rows], float)
    kept = np.flatnonzero(moocore.is_nondominated(points, keep_weakly=True))
    return [int(place) for place in kept[np.lexsort(points[kept].T[::-1])]]


class Hypervolume:
    """The hypervolume of the front while a search goes on. It never falls.

    It has the unit of the score: how much, in the mean over all budgets, the best score within a budget is
    better than the worst of the first ten full scores. Budgets reach from the least to the largest cost of the space
    that the limits allow. There is no number before there are ten scores.

    Args:
        objectives: Names of the costs.
        ranges: What each of them is in the space.
        limits: Hard limits.
        mode: Whether a high score is good (max) or a low one (min).
    """

    def __init__(
        self, objectives: Sequence[str], ranges: Mapping[str, Profile], limits: Limits, mode: str = "max"
    ) -> None:
        self.objectives, self._sign = tuple(objectives), -1.0 if mode == "max" else 1.0
        bounds = [limits.bounds.get(name, (None, None)) for name in objectives]
        lowest = (-math.inf if low is None else low for low, _ in bounds)
        self._least = [max(ranges[name].minimum, low) for name, low in zip(objectives, lowest, strict=True)]
        highest = (math.inf if high is None else high for _, high in bounds)
        self._most = [min(ranges[name].maximum, high) for name, high in zip(objectives, highest, strict=True)]
        self._worst = -math.inf
        self._points: list[list[float]] = []
        self._count = 0
        self.value: float | None = None
        """The newest one."""

    def add(self, score: float, costs: Mapping[str, float]) -> float | None:
        """Take in a full score; returns the hypervolume with it."""
        own = [costs.get(name, math.nan) for name in self.objectives]
        self._count += 1
        if self._count <= _FIRST:
            self._worst = max(self._worst, self._sign * score)
        if not any(map(math.isnan, own)):
            inside = [max(cost, least) for cost, least in zip(own, self._least, strict=True)]
            points = np.array([*self._points, [self._sign * score, *inside]])
            self._points = points[moocore.is_nondominated(points)].tolist()
        if self._count >= _FIRST:
            # A cost of which there is only one does not count.
            wide = [place for place, (low, high) in enumerate(zip(self._least, self._most, strict=True)) if low < high]
            budgets = math.prod(self._most[place] - self._least[place] for place in wide)
            reference = [self._worst, *(self._most[place] for place in wide)]
            known = np.array(self._points).reshape(-1, 1 + len(self.objectives))[:, [0, *(place + 1 for place in wide)]]
            self.value = float(moocore.hypervolume(known, ref=reference)) / budgets if len(known) else 0.0
        return self.value
