"""Random search: the baseline that every other searcher has to beat."""

from __future__ import annotations

import dataclasses

from ray.tune.search import Searcher

from raynas.architecture import Architecture, key
from raynas.search_space.space import SearchSpace
from raynas.searchers.base import ArchitectureSearcher

__all__ = ["RandomSearch", "random_architectures"]


class RandomSearch(ArchitectureSearcher):
    """Proposes feasible architectures at random, each of them once.

    The sequence depends on the seed alone. After a replay it goes on with the first architecture of the sequence
    that is not scored yet, so that an interrupted run ends with the same ones as an uninterrupted run.
    """

    weighs_costs = True  # it looks at nothing, so it is the baseline of both

    _passed = 0  # so many at the beginning of the sequence are known

    def propose(self) -> Architecture | str | None:
        """The next architecture of the seed's sequence."""
        while (candidate := self.planned(self._passed)) is not None:
            if key(candidate) not in self.history:
                return candidate
            self._passed += 1
        return Searcher.FINISHED


def random_architectures(space: SearchSpace, count: int, seed: int) -> list[Architecture]:
    """The first of the seed's random sequence: distinct, within the limits; fewer where the space has no more."""
    searcher = RandomSearch(dataclasses.replace(space, features=None), seed=seed)
    drawn = map(searcher.planned, range(count))
    return [architecture for architecture in drawn if architecture is not None]
