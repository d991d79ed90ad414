from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from raynas.evaluation.rank_aggregation import Reference, aggregate

RNG = np.random.default_rng(0)
ANGLE, LOSS = RNG.normal(size=40), RNG.normal(size=40)


def test_ranks_are_combined_by_their_geometric_mean() -> None:
    # Ranks of a: 1/6, 3/6, 5/6; of b: 5/6, 1/6, 3/6.
    got = aggregate({"a": [10, 20, 30], "b": [7, 5, 6]})
    assert got == pytest.approx(np.sqrt([1 / 6 * 5 / 6, 3 / 6 * 1 / 6, 5 / 6 * 3 / 6]))
    weighted = aggregate({"a": [10, 20, 30], "b": [7, 5, 6]}, {"a": 3, "b": -1})
    assert weighted == pytest.approx([(1 / 6) ** 0.75 * (1 / 6) ** 0.25, 0.5**0.75 * (5 / 6) ** 0.25,
                                      (5 / 6) ** 0.75 * 0.5**0.25])  # fmt: skip


def test_equals_have_equal_ranks_and_scales_do_not_matter() -> None:
    values = RNG.integers(5, size=60)
    shares = aggregate({"a": values})
    assert shares == pytest.approx((stats.rankdata(values) - 0.5) / 60)
    assert aggregate({"a": np.exp(values) * 1e6}) == pytest.approx(shares)
    assert aggregate({"a": values, "constant": np.ones(60)}) == pytest.approx(np.sqrt(shares * 0.5))


def test_az_nas_orders_as_its_paper_says() -> None:
    # The paper adds the logarithms of rank / population over the scores.
    parts = {name: RNG.normal(size=50) for name in "abcd"}
    paper = sum(np.log(stats.rankdata(column) / 50) for column in parts.values())
    assert stats.kendalltau(aggregate(parts), paper).statistic > 0.98


@pytest.mark.parametrize("weights", [None, {"angle": 2.0, "loss": -0.5}])
def test_a_reference_ranks_its_own_sample_as_the_population_does(weights: dict[str, float] | None) -> None:
    sample = {"angle": np.round(ANGLE, 1), "loss": LOSS}
    reference = Reference(sample, weights)
    one_by_one = [reference({"angle": a, "loss": b}) for a, b in zip(*sample.values(), strict=True)]
    assert one_by_one == pytest.approx(100 * aggregate(sample, weights))


def test_those_beyond_the_sample_are_still_told_apart() -> None:
    reference = Reference({"a": ANGLE})
    far = np.linspace(ANGLE.min() - 2, ANGLE.max() + 2, 400)
    scores = [reference({"a": value}) for value in far]
    assert all(0 < low < high < 100 for low, high in pairwise(scores))
    # For a normal sample the shares beyond are about those of the distribution.
    large = Reference({"a": np.random.default_rng(1).normal(size=500)})
    assert 100 - large({"a": 4.0}) < 0.1 and large({"a": 2.0}) == pytest.approx(100 * stats.norm.cdf(2.0), abs=1)


def test_what_is_infinitely_bad_stays_a_number() -> None:
    reference = Reference({"a": ANGLE, "b": LOSS})
    assert 0 <= reference({"a": -1e9, "b": 0.0}) < 1e-98
    assert math.isnan(reference({"a": 1.0})) and math.isnan(reference({"a": 1.0, "b": math.nan}))
    assert Reference({"a": [3.0, 3.0]})({"a": 9.0}) == pytest.approx(50)


@pytest.mark.parametrize(
    ("scores", "weights", "message"),
    [
        ({"a": [1, 2]}, {"b": 1.0}, "there is no score 'b' to combine; there are: a"),
        ({"a": [1, 2]}, {"a": 0.0}, "combine nothing"),
        ({}, None, "combine nothing"),
        ({"a": [1, 2], "b": [1, 2, 3]}, None, "different lengths: a 2, b 3"),
        ({"a": [1, math.nan]}, None, "'a' has values that are not finite"),
    ],
)
def test_what_cannot_be_combined_is_named(scores: dict, weights: dict | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        aggregate(scores, weights)
    with pytest.raises(ValueError, match=message):
        Reference(scores, weights)
