"""Every searcher of ours against the published contract."""

from __future__ import annotations

from typing import Any

from ray.tune.search import Searcher

from raynas.searchers import TPE, Evolution, EvolutionSettings, RandomSearch, SearchSpace
from raynas.testing import SearcherContract


class TestRandomSearch(SearcherContract):
    def make(self, space: SearchSpace, **keywords: Any) -> Searcher:
        return RandomSearch(space, **keywords)


class TestEvolution(SearcherContract):
    def make(self, space: SearchSpace, **keywords: Any) -> Searcher:
        return Evolution(space, **keywords)


class TestEvolutionInSmallGenerations(SearcherContract):
    def make(self, space: SearchSpace, **keywords: Any) -> Searcher:
        settings = EvolutionSettings(population=9, parents=3, mutations=4, crossovers=3)
        return Evolution(space, settings=settings, **keywords)


class TestTPE(SearcherContract):
    replays_in_any_order = False

    def make(self, space: SearchSpace, **keywords: Any) -> Searcher:
        return TPE(space, **keywords)
