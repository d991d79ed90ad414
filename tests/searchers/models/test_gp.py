from __future__ import annotations

import dataclasses
from random import Random

import numpy as np
import pytest

from raynas.architecture import sample
from raynas.search_space.space import SearchSpace
from raynas.searchers.models.encoder import Encoder, routes
from raynas.searchers.models.gp import GaussianProcess
from raynas.testing.searcher import CHAIN, NESTED, preference

GRAPHED = SearchSpace(CHAIN.decisions, graph=lambda a: [(i, i + 1, o) for i, o in enumerate(a.values())])


def data(space: SearchSpace, count: int):
    rng = Random(0)
    drawn = [space.form(sample(space.decisions, rng)) for _ in range(count)]
    scores = np.array([preference(a) for a in drawn])
    encoder = Encoder(space)
    return encoder, encoder(drawn), (scores - scores.mean()) / scores.std()


@pytest.mark.parametrize(("space", "transfer"), [(CHAIN, False), (CHAIN, True), (NESTED, False), (GRAPHED, True)])
def test_the_slope_is_the_one_of_finite_differences(space: SearchSpace, transfer: bool) -> None:
    encoder, seen, targets = data(space, 15)
    seen = dataclasses.replace(seen, prior_mean=np.random.default_rng(1).normal(size=(15, int(transfer))))
    model = GaussianProcess(encoder.blocks, space.graph is not None, transfer)
    theta = model.theta + np.random.default_rng(0).normal(size=len(model.theta)) * 0.3
    doubt = np.linspace(1, 3, len(targets))
    _, slope = model.negative_log_likelihood(theta, seen, targets, doubt)
    for index, step in enumerate(np.eye(len(theta)) * 1e-5):
        up, down = (model.negative_log_likelihood(theta + s, seen, targets, doubt)[0] for s in (step, -step))
        assert slope[index] == pytest.approx((up - down) / 2e-5, abs=1e-5)


@pytest.mark.parametrize("space", [CHAIN, GRAPHED])
def test_predicts_what_it_has_not_seen_and_knows_how_well(space: SearchSpace) -> None:
    encoder, features, scores = data(space, 160)
    model = GaussianProcess(encoder.blocks, space.graph is not None)
    known, asked = slice(0, 80), slice(80, 160)
    model.fit(features[known], scores[known], np.ones(80))
    model.condition(features[known], scores[known], np.ones(80))
    mean, deviation = model.predict(features[asked])
    assert np.corrcoef(mean, scores[asked])[0, 1] > 0.9
    assert (np.abs(mean - scores[asked]) < 4 * deviation).mean() > 0.95
    _, seen_deviation = model.predict(features[known])
    assert seen_deviation.mean() < 0.9 * deviation.mean()


def test_shuffled_scores_predict_nothing() -> None:
    encoder, features, scores = data(CHAIN, 160)
    scores = np.random.default_rng(1).permutation(scores)
    model = GaussianProcess(encoder.blocks, structured=False)
    model.fit(features[:80], scores[:80], np.ones(80))
    model.condition(features[:80], scores[:80], np.ones(80))
    assert abs(np.corrcoef(model.predict(features[80:])[0], scores[80:])[0, 1]) < 0.35


def test_what_is_left_out_is_foretold_from_the_others() -> None:
    encoder, features, scores = data(GRAPHED, 12)
    model = GaussianProcess(encoder.blocks, structured=True)
    doubt = np.linspace(1, 2, 12)
    model.condition(features, scores, doubt)
    told = model.leave_one_out(scores)
    for place in range(12):
        others = [other for other in range(12) if other != place]
        model.condition(features[others], scores[others], doubt[others])
        assert told[place] == pytest.approx(model.predict(features[[place]])[0][0], abs=1e-4)


def test_what_is_doubted_weighs_less() -> None:
    encoder, features, _ = data(CHAIN, 2)
    model = GaussianProcess(encoder.blocks, structured=False)
    pulls = []
    for doubt in (1.0, 100.0):
        model.condition(features, np.array([1.0, 0.0]), np.array([doubt, 1.0]))
        pulls.append(model.predict(features[:1])[0][0])
    assert pulls[0] > 2 * pulls[1] > 0


def test_routes() -> None:
    cell = [(0, 1, "a"), (0, 2, None), (1, 2, "b"), (0, 3, "c"), (2, 3, None)]
    assert sorted(routes(cell)) == [(), ("a", "b"), ("c",)]
    assert routes([]) == []


def test_two_random_architectures_are_about_one_apart() -> None:
    _, features, _ = data(GRAPHED, 200)
    for values in (features.paths, features.counts):
        apart = ((values[:100] - values[100:]) ** 2).sum(1).mean()
        assert 0.5 < apart < 2
