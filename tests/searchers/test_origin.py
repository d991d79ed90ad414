"""Searchers say truly where their proposals come from."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from raynas.architecture import Architecture, enumerate_all, key
from raynas.searchers import (
    NSGA2,
    TPE,
    ArchitectureSearcher,
    Bayes,
    Evolution,
    EvolutionSettings,
    LocalSearch,
    NSGA2Settings,
    Predictor,
    RandomSearch,
    RegularizedEvolution,
    RegularizedSettings,
    Reinforce,
)
from raynas.searchers.history import ORIGINS
from raynas.testing.searcher import CHAIN, Player, preference

SMALL = EvolutionSettings(population=10, parents=3, mutations=5, crossovers=4)
MAKERS: dict[str, Any] = {
    "random": RandomSearch,
    "evolution": partial(Evolution, settings=SMALL),
    "regularized": partial(RegularizedEvolution, settings=RegularizedSettings(population=8, sample_size=4)),
    "local": partial(LocalSearch, draws=5),
    "bayes": Bayes,
    "tpe": TPE,
    "predictor": Predictor,
    "reinforce": Reinforce,
    "nsga2": partial(NSGA2, settings=NSGA2Settings(population=8)),
}
BESIDES = {
    "random": set(),
    "evolution": {"mutation", "crossover"},
    "regularized": {"mutation"},
    "local": {"neighbour"},
    "nsga2": {"child"},
}
"""What there is beside random architectures; elsewhere a model decides."""


def distance(first: Architecture, second: Architecture) -> int:
    return sum(first[name] != second[name] for name in first)


@pytest.mark.parametrize("name", MAKERS)
def test_every_proposal_has_a_true_origin(name: str) -> None:
    points = list(enumerate_all(CHAIN.decisions))[100:102]
    searcher: ArchitectureSearcher = MAKERS[name](CHAIN, seed=4, points_to_evaluate=points)
    proposed = {key(form): form for form in Player(in_flight=3).play(searcher, 60)}
    origins = {name: searcher.origins[name] for name in proposed}
    assert [origins[key(point)].how for point in points] == ["given", "given"]
    assert {one.how for one in origins.values()} - {"given", "random"} == BESIDES.get(name, {"model"})
    assert {one.how for one in origins.values()} <= set(ORIGINS)
    order = list(proposed)
    for child, origin in origins.items():
        assert all(order.index(parent) < order.index(child) for parent in origin.parents)
        parents = [proposed[parent] for parent in origin.parents]
        if origin.how in ("mutation", "neighbour"):
            assert len(parents) == 1 and distance(proposed[child], parents[0]) >= 1
            assert name == "evolution" or distance(proposed[child], parents[0]) == 1
        elif origin.how == "crossover":
            first, second = parents
            assert all(option in (first[d], second[d]) for d, option in proposed[child].items())
        else:
            assert not parents


@pytest.mark.parametrize("name", ["evolution", "regularized", "bayes"])
def test_origins_are_kept(name: str, tmp_path: Any) -> None:
    searcher, player = MAKERS[name](CHAIN, seed=4), Player()
    done = player.play(searcher, 33)
    searcher.save(str(tmp_path / "state"))
    restored = MAKERS[name](CHAIN, seed=4)
    restored.restore(str(tmp_path / "state"))
    assert restored.origins == searcher.origins
    # Rebuilt from the scores alone, as a run is resumed: what is proposed next has the origin it would have had.
    replayed = MAKERS[name](CHAIN, seed=4)
    for form in done:
        replayed.add_evaluated_point({"architecture": form}, preference(form))
    again, rest = Player().play(replayed, 12), player.play(searcher, 12)
    assert again == rest
    assert [replayed.origins[key(form)] for form in again] == [searcher.origins[key(form)] for form in rest]
