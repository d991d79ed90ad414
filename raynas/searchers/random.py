"""Random search, the baseline of all searchers."""

from __future__ import annotations

from typing import Any

from ray.tune.search import Searcher

from raynas.architecture import Architecture, key
from raynas.search_space.space import SearchSpace
from raynas.searchers.base import ArchitectureSearcher

__all__ = ["RandomSearch", "random_architectures"]


class RandomSearch(ArchitectureSearcher):
    """Samples feasible architectures uniformly, without replacement.

    The sequence depends on the seed alone. After a replay it continues with the first architecture of the sequence
    without a score, so that an interrupted run evaluates the same architectures as an uninterrupted one.
    """

    weighs_costs = True  # the baseline with objectives, too

    _passed = 0  # so many at the beginning of the sequence are in the history

    def propose(self) -> Architecture | str | None:
        """The next architecture of the seed's sequence."""
        while (candidate := self.planned(self._passed)) is not None:
            if key(candidate) not in self.history:
                return candidate
            self._passed += 1
        return Searcher.FINISHED

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores what :meth:`get_state` returned; see :meth:`ArchitectureSearcher.set_state`."""
        super().set_state(state)
        self._passed = 0


def random_architectures(space: SearchSpace, count: int, seed: int) -> list[Architecture]:
    """Samples distinct, feasible architectures by a seed; fewer where the space has no more."""
    searcher = RandomSearch(space, seed=seed)
    sampled = map(searcher.planned, range(count))
    return [architecture for architecture in sampled if architecture is not None]
