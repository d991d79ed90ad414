"""The closed forms against brute force: sampled scores, and the hypervolume of moocore."""

from __future__ import annotations

import itertools

import moocore
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from raynas.searchers.models.acquisition import (
    HypervolumeImprovement,
    front_ranks,
    log_expected_improvement,
    log_gap_expected_improvement,
)


def volume(scores: np.ndarray, costs: np.ndarray, floor: float, most: np.ndarray) -> float:
    """By a library: the volume above the lowest score and below the largest budget."""
    return float(moocore.hypervolume(np.column_stack([-scores, costs]), ref=[-floor, *most]))


@pytest.mark.parametrize("kinds", [1, 2, 3])
def test_expected_improvement_of_the_volume_is_that_of_sampled_scores(kinds: int) -> None:
    rng = np.random.default_rng(kinds)
    scores, costs, most = rng.normal(size=8), rng.uniform(size=(8, kinds)), np.full(kinds, 1.1)
    asked, mean, deviation = rng.uniform(size=(5, kinds)), rng.normal(1, 0.5, 5), rng.uniform(0.3, 1, 5)
    steps = HypervolumeImprovement(scores, costs, -1.0, most)
    found = np.exp(
        steps.log_expected(asked, lambda levels: log_expected_improvement(mean[:, None], deviation[:, None], levels))
    )
    before = volume(scores, costs, -1.0, most)
    for place in range(5):
        # Quantiles instead of random numbers: a thousand of them are enough.
        sampled = norm.ppf((np.arange(1000) + 0.5) / 1000, mean[place], deviation[place])
        gains = [
            volume(np.append(scores, score), np.vstack([costs, asked[place]]), -1.0, most) - before for score in sampled
        ]
        assert found[place] == pytest.approx(np.mean(gains), rel=5e-3, abs=2e-4)


def test_improvement_of_a_gap_is_that_of_sampled_gaps() -> None:
    for mean, deviation, best in itertools.product((-1.0, 0.0, 2.0), (0.01, 0.3, 1.5), (-0.5, 0.1, 1.0)):
        density = norm(mean, deviation).pdf
        expected, _ = quad(
            lambda t, pdf=density, to=best: (np.exp(-to) - np.exp(-t)) * pdf(t), best, max(best, mean) + 12 * deviation,
            points=[mean] if mean > best else None, epsabs=0, epsrel=1e-10,
        )  # fmt: skip
        found = log_gap_expected_improvement(np.array([mean]), np.array([deviation]), np.array([best]))[0]
        if expected > 1e-250:
            assert found == pytest.approx(np.log(expected), abs=1e-5)
        else:
            assert found < -500


def test_improvement_of_a_gap_orders_what_is_far_below() -> None:
    below = log_gap_expected_improvement(np.linspace(-40, 5, 200), np.full(200, 0.2), np.zeros(200))
    assert np.isfinite(below).all() and (np.diff(below) > 0).all()
    # A gap that is hardly closed is closed linearly.
    far, close = np.array([-0.3, 0.2]), np.full(2, 1e-3)
    assert log_gap_expected_improvement(far, close, 0 * far)[0] == pytest.approx(
        log_expected_improvement(far, close, 0.0)[0], abs=0.01
    )


def test_what_costs_too_much_or_is_beaten_for_sure_adds_nothing() -> None:
    steps = HypervolumeImprovement(np.array([1.0, 2.0]), np.array([[1.0], [2.0]]), 1.0, np.array([3.0]))
    asked, mean = np.array([[3.5], [2.5], [0.5], [np.inf]]), np.array([[9.0], [1.5], [1.5], [9.0]])
    with np.errstate(divide="ignore"):
        gains = np.exp(steps.log_expected(asked, lambda levels: np.log(np.maximum(mean - levels, 0))))
    assert gains.tolist() == pytest.approx([0, 0, 0.5 * 0.5 + 0.5, 0])


def test_a_thinned_grid_loses_little() -> None:
    rng = np.random.default_rng(0)
    costs = rng.uniform(size=(300, 2))
    scores, asked = np.log(costs + 0.1).sum(1) + rng.normal(0, 0.05, 300), rng.uniform(size=(50, 2))

    def improvement(cells: int) -> np.ndarray:
        steps = HypervolumeImprovement(scores, costs, scores.min(), np.full(2, 1.1), cells)
        return np.exp(
            steps.log_expected(asked, lambda levels: log_expected_improvement(np.zeros((50, 1)), 1.0, levels))
        )

    exact = improvement(10**6)
    assert np.corrcoef(improvement(500), exact)[0, 1] > 0.99
    assert (improvement(500) > exact - 1e-12).all()  # what is known counts a little later, never too early


def test_front_ranks_by_brute_force() -> None:
    rng = np.random.default_rng(1)
    scores, costs = rng.integers(0, 6, 60).astype(float), rng.integers(0, 6, (60, 2)).astype(float)
    costs[7] = np.inf
    points = np.column_stack([-scores, costs])
    left, rank, expected = set(range(60)), 0, np.zeros(60, int)
    while left:
        front = {
            i for i in left if not any((points[j] <= points[i]).all() and (points[j] < points[i]).any() for j in left)
        }
        expected[list(front)] = rank
        left, rank = left - front, rank + 1
    assert front_ranks(scores, costs).tolist() == expected.tolist()
