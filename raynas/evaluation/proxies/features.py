"""Zero-cost scores as features for a searcher's model of the true ones: see ``search.features``."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence

from raynas.architecture import Architecture, key
from raynas.config.run import FeaturesConfig
from raynas.evaluation.proxies.evaluator import ZeroCostProxies
from raynas.evaluation.rank_aggregation import Reference
from raynas.search_space.space import SearchSpace
from raynas.searchers.random import random_architectures

__all__ = ["Foretelling", "foretold"]


def foretold(space: SearchSpace, proxies: ZeroCostProxies, settings: FeaturesConfig, seed: int) -> SearchSpace:
    """A space with the features that ``search.features`` asks for.

    Args:
        space: With its limits.
        proxies: Takes the scores.
        settings: How many architectures tell what a high score is.
        seed: Of that sample.
    """
    sample = functools.partial(random_architectures, space, settings.sample, seed)
    return dataclasses.replace(space, features=Foretelling(proxies.measure, sample))


class Foretelling:
    """Scores of architectures as numbers of mean 0 and deviation 1, whatever their scales.

    A score becomes its rank in a random sample, which is scored when somebody asks first, laid out as a normal
    distribution; see :class:`raynas.evaluation.rank_aggregation.Reference`.

    Args:
        measure: Tells the scores of an architecture by name.
        sample: Random architectures.
    """

    def __init__(
        self, measure: Callable[[Architecture], dict[str, float]], sample: Callable[[], Sequence[Architecture]]
    ) -> None:
        self._measure, self._sample = measure, sample
        self._told: dict[str, dict[str, float]] = {}

    def __call__(self, architecture: Architecture) -> list[float]:
        """One number for each score; 0 where it is not finite."""
        told = self._scores(architecture)
        return [
            self._ranks[name].place(name, value) if name in self._ranks and math.isfinite(value) else 0.0
            for name, value in told.items()
        ]

    @functools.cached_property
    def _ranks(self) -> dict[str, Reference]:
        """What ranks each score; without those that are nowhere finite."""
        told = [self._scores(architecture) for architecture in self._sample()]
        columns = {name: [one[name] for one in told if math.isfinite(one[name])] for name in told[0]}
        return {name: Reference({name: column}) for name, column in columns.items() if column}

    def _scores(self, architecture: Architecture) -> dict[str, float]:
        """Taken once."""
        name = key(architecture)
        if name not in self._told:
            self._told[name] = self._measure(architecture)
        return self._told[name]
