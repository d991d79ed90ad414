"""Features that a space tells of its architectures, such as zero-cost scores."""

from __future__ import annotations

import dataclasses
from random import Random
from statistics import mean

import numpy as np
import pytest

from raynas.architecture import Architecture, key
from raynas.search_space.space import SearchSpace
from raynas.searchers import Bayes, BayesSettings, Evolution
from raynas.searchers.models.gp import GaussianProcess
from raynas.testing.searcher import CHAIN, Player

LARGE = SearchSpace({f"block{i}": ("a", "b", "c", "d") for i in range(20)})


def hidden(architecture: Architecture) -> float:
    """A score without any structure that a model of decisions could find."""
    return Random(f"hidden/{key(architecture)}").gauss(0.0, 1.0)


def related(architecture: Architecture) -> list[float]:
    """One feature that correlates with it by 0.8, and one that tells nothing."""
    rng = Random(f"noise/{key(architecture)}")
    return [0.8 * hidden(architecture) + 0.6 * rng.gauss(0.0, 1.0), rng.gauss(0.0, 1.0)]


def found(space: SearchSpace, seed: int, count: int = 30) -> float:
    searcher = Bayes(space, settings=BayesSettings(candidates=100, shortlist=20), seed=seed)
    return max(map(hidden, Player(hidden).play(searcher, count)))


def test_what_the_features_tell_is_used() -> None:
    with_features = dataclasses.replace(LARGE, features=related)
    assert mean(found(with_features, seed) for seed in range(3)) > mean(found(LARGE, seed) for seed in range(3)) + 0.4


def test_few_architectures_are_asked_for_theirs_and_each_once() -> None:
    asked: list[str] = []

    def features(architecture: Architecture) -> list[float]:
        asked.append(key(architecture))
        return related(architecture)

    settings = BayesSettings(shortlist=7)
    space = dataclasses.replace(CHAIN, features=features)
    Player(hidden, in_flight=2).play(Bayes(space, settings=settings), 16)
    assert len(set(asked)) == len(asked) <= 16 + 7 * 7


def test_it_begins_with_the_given_ones_and_with_the_best_of_some_by_their_features() -> None:
    given = {name: "a" for name in CHAIN.decisions}
    space, settings = dataclasses.replace(CHAIN, features=related), BayesSettings(shortlist=8)
    searcher = Bayes(space, settings=settings, points_to_evaluate=[given])
    drawn = [searcher.planned(i) for i in range(8)]
    best = sorted(drawn, key=lambda form: -mean(related(form)))[:5]
    wanted = [given, *(form for form in best if form != given)]
    assert [searcher.suggest(str(i))["architecture"] for i in range(len(wanted))] == wanted


def test_suggestions_depend_on_what_was_scored_alone() -> None:
    space = dataclasses.replace(CHAIN, features=related)
    one, other = (Bayes(space, seed=3, settings=BayesSettings(shortlist=10)) for _ in range(2))
    Player(hidden).play(one, 14)
    other.set_state(one.get_state())
    for number in range(3):
        assert one.suggest(f"n{number}") == other.suggest(f"n{number}")


@pytest.mark.parametrize("structured", [False, True])
def test_the_slope_is_the_one_of_finite_differences(structured: bool) -> None:
    graph = (lambda a: [(i, i + 1, o) for i, o in enumerate(a.values())]) if structured else None
    searcher = Bayes(dataclasses.replace(CHAIN, graph=graph, features=related))
    drawn = [searcher.planned(i) for i in range(12)]
    seen = searcher.encoder(drawn)
    assert seen.told == pytest.approx(np.array([related(form) for form in drawn]), abs=1e-6)
    model = GaussianProcess(searcher.encoder.blocks, structured, told=2)
    theta = model.theta + np.random.default_rng(0).normal(size=len(model.theta)) * 0.3
    targets, doubt = np.random.default_rng(1).normal(size=12), np.linspace(1, 3, 12)
    _, slope = model._evidence(theta, seen, targets, doubt)
    for index, step in enumerate(np.eye(len(theta)) * 1e-5):
        up, down = (model._evidence(theta + s, seen, targets, doubt)[0] for s in (step, -step))
        assert slope[index] == pytest.approx((up - down) / 2e-5, abs=1e-5)
    model.condition(seen, targets, doubt)
    deviation = model.predict(seen)[1]
    prior = model._parts(model.theta, seen, seen)
    assert (deviation**2 < sum(part for part in prior.values()).diagonal()).all()
    assert model._prior_variance(seen) == pytest.approx(sum(prior.values()).diagonal(), rel=1e-4)


def test_other_searchers_refuse_them() -> None:
    with pytest.raises(ValueError, match=r"Evolution does not look at features; those that do: .*Bayes"):
        Evolution(dataclasses.replace(CHAIN, features=related))
