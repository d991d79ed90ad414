"""Every searcher of ours against the published contract."""

from __future__ import annotations

from typing import Any

from ray.tune.search import Searcher

from raynas.search_space.space import SearchSpace
from raynas.searchers import (
    NSGA2,
    TPE,
    Bayes,
    BayesSettings,
    Evolution,
    EvolutionSettings,
    LocalSearch,
    NSGA2Settings,
    Predictor,
    PredictorSettings,
    RandomSearch,
    RegularizedEvolution,
    RegularizedSettings,
    Reinforce,
)
from raynas.searchers.nao.searcher import NAO
from raynas.searchers.nao.settings import NAOSettings
from raynas.testing.searcher import SearcherContract


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


class TestNSGA2(SearcherContract):
    replays_in_any_order = False  # a generation is those that were scored one after the other

    def make(self, space: SearchSpace, **keywords: Any) -> Searcher:
        return NSGA2(space, settings=NSGA2Settings(population=10), **keywords)


class TestRegularizedEvolution(SearcherContract):
    replays_in_any_order = False  # the order is the age

    def make(self, space: SearchSpace, **keywords: Any) -> Searcher:
        return RegularizedEvolution(space, **keywords)


class TestRegularizedEvolutionOfFew(SearcherContract):
    replays_in_any_order = False

    def make(self, space: SearchSpace, **keywords: Any) -> Searcher:
        return RegularizedEvolution(space, settings=RegularizedSettings(population=4, sample_size=2), **keywords)


class TestLocalSearch(SearcherContract):
    replays_in_any_order = False  # a climb is its steps, one after the other

    def make(self, space: SearchSpace, **keywords: Any) -> Searcher:
        return LocalSearch(space, **keywords)


class TestLocalSearchFromAnywhere(SearcherContract):
    replays_in_any_order = False

    def make(self, space: SearchSpace, **keywords: Any) -> Searcher:
        return LocalSearch(space, draws=1, **keywords)


class TestReinforce(SearcherContract):
    replays_in_any_order = False  # the policy moves score by score

    def make(self, space: SearchSpace, **keywords: Any) -> Searcher:
        return Reinforce(space, **keywords)


class TestPredictor(SearcherContract):
    replays_in_any_order = False  # the networks know the scores up to the last training

    def make(self, space: SearchSpace, **keywords: Any) -> Searcher:
        return Predictor(space, settings=PredictorSettings(members=2, retrain=10), **keywords)


class TestPredictorAsNPENAS(SearcherContract):
    replays_in_any_order = False

    def make(self, space: SearchSpace, **keywords: Any) -> Searcher:
        npenas = PredictorSettings(tournament=2, children=100, random=0, acquisition="mean", members=1)
        return Predictor(space, settings=npenas, **keywords)


class TestBayes(SearcherContract):
    replays_in_any_order = False  # the kernel's weights are those of the first scores

    def make(self, space: SearchSpace, **keywords: Any) -> Searcher:
        return Bayes(space, settings=BayesSettings(enumerate_up_to=100, candidates=60), **keywords)


class TestNAO(SearcherContract):
    replays_in_any_order = False  # a round is learned from the scores up to its beginning

    def make(self, space: SearchSpace, **keywords: Any) -> Searcher:
        small = NAOSettings(retrain=20, raises=10, steps=15, seconds=None, embedding=8, hidden=16, width=16)
        return NAO(space, settings=small, **keywords)
