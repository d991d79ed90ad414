from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from random import Random
from statistics import NormalDist, mean

import numpy as np
import pytest
from ray.tune.search import Searcher

from raynas.architecture import Architecture, key
from raynas.search_space.space import SearchSpace
from raynas.searchers import Predictor, PredictorSettings, RandomSearch
from raynas.searchers.models.mlp_ensemble import MLPEnsemble
from raynas.searchers.predictor import ACQUISITIONS
from raynas.testing.searcher import CHAIN, Player, preference

MIDDLE = SearchSpace({f"block{i}": ("a", "b", "c", "d") for i in range(12)})
SPOS_SIZED = SearchSpace({f"block{i}": ("a", "b", "c", "d") for i in range(20)})
QUICK = PredictorSettings(members=2, retrain=10, children=8, random=20)
NPENAS = PredictorSettings(members=2, retrain=10, children=50, random=0, tournament=2, acquisition="mean")


def distance(first: Architecture, second: Architecture) -> int:
    return sum(first[name] != second[name] for name in first)


def best(make: Callable[[int], Searcher], score: Callable[[Architecture], float]) -> float:
    """The best true score found in 60 evaluations, mean over four seeds."""
    return mean(max(map(preference, Player(score, in_flight=2).play(make(seed), 60))) for seed in range(4))


@pytest.fixture(scope="module")
def by_chance() -> float:
    return best(lambda seed: RandomSearch(MIDDLE, seed=seed), preference)


@pytest.mark.parametrize("settings", [QUICK, NPENAS])
def test_finds_better_ones_than_random_search_and_only_by_the_scores(
    settings: PredictorSettings, by_chance: float
) -> None:
    def predictor(seed: int) -> Predictor:
        return Predictor(MIDDLE, seed=seed, settings=settings)

    assert best(predictor, preference) > by_chance + 0.7
    # The control: scores that say nothing about the architecture must not help.
    assert best(predictor, lambda a: Random(key(a)).random()) < by_chance + 0.3


@pytest.mark.parametrize("acquisition", ACQUISITIONS)
def test_every_acquisition_finds_better_ones(acquisition: str, by_chance: float) -> None:
    settings = replace(QUICK, acquisition=acquisition)
    assert best(lambda seed: Predictor(MIDDLE, seed=seed, settings=settings), preference) > by_chance + 0.7


def data(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs of six one-hot decisions, and targets in which two pairs of decisions interact."""
    rng = np.random.default_rng(count)
    options = rng.integers(3, size=(count, 6))
    inputs = np.eye(3, dtype=np.float32)[options].reshape(count, 18)
    raw = (options[:, 0] == options[:, 1]) + 0.5 * options[:, 2] * (options[:, 3] - 1)
    return inputs, ((raw - raw.mean()) / raw.std()).astype(np.float32)


def test_the_ensemble_predicts_what_it_has_not_seen() -> None:
    ensemble = MLPEnsemble(3, np.random.default_rng(0))
    ensemble.fit(*data(200))
    inputs, targets = data(300)
    predicted, deviation = ensemble.predict(inputs)
    assert np.corrcoef(predicted, targets)[0, 1] > 0.9
    # Its doubt says something: it is larger away from what it has seen.
    _, seen = ensemble.predict(data(200)[0])
    known = {tuple(row) for row in data(200)[0]}
    unseen = np.array([tuple(row) not in known for row in inputs])
    assert deviation[unseen].mean() > 1.5 * seen.mean()


def test_the_slopes_of_the_ensemble_are_those_of_its_error() -> None:
    ensemble = MLPEnsemble(2, np.random.default_rng(0), width=5)
    ensemble.fit(*data(20), steps=3)
    # In double precision, and no unit exactly at the edge where its slope jumps.
    rng = np.random.default_rng(1)
    ensemble.weights = [weight + rng.normal(0.0, 0.1, weight.shape) for weight in ensemble.weights]
    inputs, targets = (np.stack([column, column[::-1]]).astype(float) for column in data(7))  # a batch for each member

    def error() -> np.ndarray:
        return ((ensemble.forward(inputs, ensemble.weights)[-1][..., 0] - targets) ** 2).mean(1)

    for weight, slope in zip(ensemble.weights, ensemble.gradients(inputs, targets), strict=True):
        for place in list(np.ndindex(*weight.shape))[::7]:
            either = []
            for change in (1e-6, -1e-6):
                weight[place] += change
                either.append(error()[place[0]])
                weight[place] -= change
            assert slope[place] == pytest.approx((either[0] - either[1]) / 2e-6, abs=1e-6)


def test_same_generator_same_networks() -> None:
    first, same, other = (MLPEnsemble(2, np.random.default_rng(seed)) for seed in (1, 1, 2))
    for ensemble in (first, same, other):
        ensemble.fit(*data(30), steps=20)
    inputs, _ = data(5)
    assert np.array_equal(first.predict(inputs)[0], same.predict(inputs)[0])
    assert not np.array_equal(first.predict(inputs)[0], other.predict(inputs)[0])


def test_acquisitions() -> None:
    means, deviations = np.array([0.0, 1.0, 0.9], np.float32), np.array([2.0, 0.1, 0.4], np.float32)
    worth = {name: f(means, deviations, 1.2, Random(0)) for name, f in ACQUISITIONS.items()}
    assert worth["mean"].tolist() == means.tolist()
    assert worth["ucb"] == pytest.approx([1.0, 1.05, 1.1])
    normal = NormalDist()
    for index, (m, d) in enumerate(zip(means, deviations, strict=True)):
        quantiles = (normal.inv_cdf((i + 0.5) / 20_000) for i in range(20_000))
        assert worth["ei"][index] == pytest.approx(mean(max(float(m + d * q) - 1.2, 0.0) for q in quantiles), abs=1e-3)
    many = ACQUISITIONS["its"](np.full(5000, 3.0, np.float32), np.full(5000, 0.5, np.float32), 0.0, Random(0))
    assert (many.mean(), many.std()) == pytest.approx((3.0, 0.5), abs=0.03)


def test_improvement_where_the_networks_agree() -> None:
    certain = ACQUISITIONS["ei"](np.array([0.0, 2.0], np.float32), np.zeros(2, np.float32), 1.0, Random(0))
    assert certain == pytest.approx([0.0, 1.0], abs=1e-5)


def test_begins_with_random_ones_and_replaces_those_that_fail() -> None:
    searcher, player = Predictor(CHAIN, seed=4, settings=QUICK), Player(lambda _: math.nan)
    assert player.play(searcher, 10) == Player().play(RandomSearch(CHAIN, seed=4), 10)
    player.play(searcher, 10)
    assert searcher.trained is None


def test_parents_are_the_best_ones_and_in_npenas_one_of_them() -> None:
    settings = {
        False: PredictorSettings(parents=1, random=0, members=1),
        True: PredictorSettings(parents=4, random=0, members=1, tournament=2),
    }
    for tournament, each in settings.items():
        searcher = Predictor(SPOS_SIZED, settings=each)
        first = sorted(Player().play(searcher, 10), key=preference, reverse=True)
        parents = set()
        for index in range(12):
            child = searcher.suggest(f"t{index}")["architecture"]
            changed = [distance(child, parent) for parent in first]
            assert min(changed) < 6  # random ones are about 15 apart
            parents.add(changed.index(min(changed)))
        assert parents <= (set(range(4)) if tournament else {0})
        assert (len(parents) > 1) == tournament


def test_is_trained_anew_after_so_many_scores() -> None:
    searcher = Predictor(CHAIN, settings=PredictorSettings(startup=6, retrain=4, members=1))
    known = []
    player = Player()
    for _ in range(16):
        player.play(searcher, 1)
        known.append(len(searcher.trained[0]) if searcher.trained else 0)
    assert known == [0] * 6 + [6] * 4 + [10] * 4 + [14] * 2


def test_the_networks_see_what_is_alike() -> None:
    """Of eight decisions one half does not matter: with that said, fewer scores are enough."""
    decisions = {f"b{i}": tuple("abcd") for i in range(8)}

    def alike(architecture: Architecture) -> Architecture:
        return {name: option if name in ("b0", "b1") else "a" for name, option in architecture.items()}

    def score(architecture: Architecture) -> float:
        return preference(alike(architecture))

    told, untold = (
        Predictor(SearchSpace(decisions, alike=f), settings=PredictorSettings(startup=30)) for f in (alike, None)
    )
    fresh = Player().play(RandomSearch(SearchSpace(decisions), seed=9), 200)
    correlations = []
    for searcher in (told, untold):
        Player(score).play(searcher, 31)
        predicted, _ = searcher.trained[1].predict(searcher.encode(fresh))
        correlations.append(np.corrcoef(predicted, list(map(score, fresh)))[0, 1])
    assert correlations[0] > max(0.9, correlations[1])


def test_strangers_teach_it() -> None:
    searcher = Predictor(SPOS_SIZED, settings=QUICK)
    strangers = Player().play(RandomSearch(SPOS_SIZED, seed=8), 100)
    for architecture in strangers:
        searcher.add_evaluated_point({"architecture": architecture}, preference(architecture))
    proposed = [searcher.suggest(f"t{i}")["architecture"] for i in range(10)]
    assert mean(map(preference, proposed)) > mean(map(preference, strangers)) + 1.5


def test_parents_meet_the_limits_of_this_run() -> None:
    def violation(architecture: Architecture) -> float:
        return float(sum(option == "d" for option in architecture.values()))

    strangers = Player().play(RandomSearch(SPOS_SIZED, seed=5), 40)
    allowed = {name: "a" for name in SPOS_SIZED.decisions}
    searcher = Predictor(SearchSpace(SPOS_SIZED.decisions, violation=violation), settings=QUICK)
    for architecture in [allowed, *strangers]:
        searcher.add_evaluated_point({"architecture": architecture}, violation(architecture))
    for index in range(5):
        child = searcher.suggest(f"t{index}")["architecture"]
        assert violation(child) == 0
        assert distance(child, allowed) < 6


@pytest.mark.parametrize(
    ("keywords", "match"),
    [
        ({"startup": 1}, "setting startup = 1: input should be greater than or equal to 2"),
        ({"children": 0}, "setting children = 0: input should be greater than or equal to 1"),
        ({"retrain": 2.5}, r"setting retrain = 2\.5: input should be a valid integer"),
        ({"acquisition": "luck"}, "setting acquisition = 'luck': input should be 'its', 'ei', 'ucb' or 'mean'"),
    ],
)
def test_bad_settings(keywords: dict[str, object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        PredictorSettings(**keywords)


def test_other_settings_are_refused_at_restore() -> None:
    state = Predictor(CHAIN).get_state()
    with pytest.raises(ValueError, match="other settings"):
        Predictor(CHAIN, settings=NPENAS).set_state(state)
