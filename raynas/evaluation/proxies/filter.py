"""Searching only the better part of a space by a zero-cost score: see ``search.filter``."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence

import numpy as np

from raynas.architecture import Architecture, key
from raynas.config.run import FilterConfig
from raynas.evaluation.proxies.evaluator import ZeroCostProxies
from raynas.evaluation.rank_aggregation import Reference
from raynas.exceptions import ConfigError
from raynas.search_space.space import SearchSpace
from raynas.searchers.random import random_architectures

__all__ = ["ZeroCostFilter", "filtered"]


def filtered(space: SearchSpace, proxies: ZeroCostProxies, settings: FilterConfig, seed: int) -> SearchSpace:
    """The part of a space that ``search.filter`` keeps.

    Args:
        space: With its limits.
        proxies: Takes the scores.
        settings: How much to keep, and how many architectures tell what that is.
        seed: Of the sample.
    """
    sample = functools.partial(random_architectures, space, settings.sample, seed)
    return dataclasses.replace(space, violation=ZeroCostFilter(proxies, sample, settings.keep, space.violation))


class ZeroCostFilter:
    """How far an architecture is from the part of the space that is kept: a constraint, as searchers take it.

    The part is bounded by a quantile of the score in a random sample, which is scored when somebody asks first.

    Args:
        proxies: Takes the scores; several are combined by rank.
        sample: Random architectures, those that keep the limits alone.
        keep: Which share of them to keep.
        limits: The run's own constraint; None without limits. Asked first: it costs less.
    """

    def __init__(
        self,
        proxies: ZeroCostProxies,
        sample: Callable[[], Sequence[Architecture]],
        keep: float,
        limits: Callable[[Architecture], float] | None = None,
    ) -> None:
        self.proxies, self.sample, self.keep, self.limits = proxies, sample, keep, limits
        self._bounds: tuple[float, float] | None = None
        self._reference: Reference | None = None
        self._scores: dict[str, float] = {}

    def __call__(self, architecture: Architecture) -> float:
        """0 where it is kept, else by how much it misses, in units of the spread of the sample."""
        excess = 0.0 if self.limits is None else self.limits(architecture)
        if excess > 0.0:
            return excess
        least, spread = self.bounds()
        return max(least - self.score(architecture), 0.0) / spread

    def bounds(self) -> tuple[float, float]:
        """The least score that is kept, and the distance between the quartiles of the sample."""
        if self._bounds is None:
            drawn = list(self.sample())
            told = [self.proxies.measure(architecture) for architecture in drawn]
            wrong = [name for one in told for name, value in one.items() if math.isnan(value)]
            if wrong:
                raise ConfigError(f"search.filter.score: {wrong[0]} of a random architecture is no number")
            if len(told[0]) > 1:
                self._reference = Reference({name: [one[name] for one in told] for name in told[0]})
            for architecture, one in zip(drawn, told, strict=True):
                self._scores[key(architecture)] = self._value(one)
            scores = list(self._scores.values())
            low, least, high = np.quantile(scores, [0.25, 1.0 - self.keep, 0.75])
            self._bounds = float(least), float(high - low) or 1.0
        return self._bounds

    def score(self, architecture: Architecture) -> float:
        """The score of one architecture, taken once."""
        name = key(architecture)
        if name not in self._scores:
            score = self._value(self.proxies.measure(architecture))
            self._scores[name] = -math.inf if math.isnan(score) else score
        return self._scores[name]

    def _value(self, told: dict[str, float]) -> float:
        return next(iter(told.values())) if self._reference is None else self._reference(told)
