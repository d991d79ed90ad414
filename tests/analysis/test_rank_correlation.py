from __future__ import annotations

import math
import time

import numpy as np
import pytest

from raynas.analysis.rank_correlation import Agreement, Ranking, compare

N = 300


def related(tau_like: float, n: int = N, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A truth and a noisy score of it; normal variables of correlation r have tau = 2/pi * asin(r)."""
    rng = np.random.default_rng(seed)
    r = math.sin(math.pi / 2 * tau_like)
    truth = rng.normal(size=n)
    return r * truth + math.sqrt(1 - r * r) * rng.normal(size=n), truth


def chance(ranking: Ranking) -> Agreement:
    return ranking.baselines[-1]


def test_tau_and_spearman_by_hand() -> None:
    # Pairs of (1,1) (2,3) (3,2) (4,4): 5 in order, 1 not. tau = 4/6. Ranks differ by 0, 1, 1, 0: rho = 1 - 6*2/(4*15).
    ranking = compare([1, 2, 3, 4], [1, 3, 2, 4], resamples=50)
    assert ranking.score.tau.value == pytest.approx(4 / 6)
    assert ranking.score.spearman.value == pytest.approx(0.8)


def test_ties_by_hand() -> None:
    # score 1 1 2 3, truth 1 2 2 3. Of 6 pairs one is tied in the score, another in the truth, the other 4 agree:
    # tau-b = 4 / sqrt(5 * 5). Mid-ranks 1.5 1.5 3 4 and 1 2.5 2.5 4: rho = 3.75 / 4.5.
    ranking = compare([1, 1, 2, 3], [1, 2, 2, 3], resamples=50)
    assert ranking.score.tau.value == pytest.approx(4 / 5)
    assert ranking.score.spearman.value == pytest.approx(3.75 / 4.5)


def test_the_same_order_and_the_reverse() -> None:
    truth = np.arange(N, dtype=float)
    same, reverse = compare(np.exp(truth / 100), truth, resamples=100), compare(-truth, truth, resamples=100)
    assert (same.score.tau.low, same.score.tau.value, same.score.tau.high) == pytest.approx((1, 1, 1))
    assert (same.score.favourite, same.score.overlap) == (1, 1.0)
    assert same.finds_the_best and same.trustworthy
    assert reverse.score.tau.value == pytest.approx(-1)
    assert (reverse.score.favourite, reverse.score.overlap) == (N, 0.0)
    assert not reverse.finds_the_best and not reverse.trustworthy


def test_the_top_by_hand() -> None:
    truth = np.arange(100.0)
    score = truth.copy()
    score[[99, 95]] = 95.5, 200  # the favourite is truly number 5
    score[[98, 50]] = 50.5, 98.5  # one of the top ten changes places with one from the middle
    ranking = compare(score, truth, resamples=20)
    assert (ranking.architectures, ranking.top, ranking.best) == (100, 10, 1)
    assert ranking.score.favourite == 5
    assert ranking.score.overlap == pytest.approx(0.9)
    assert not ranking.finds_the_best
    assert (chance(ranking).favourite, chance(ranking).overlap) == (50.5, pytest.approx(0.1))


def test_equal_scores_gain_nothing_from_the_order_of_the_rows() -> None:
    truth = np.arange(N, dtype=float)[::-1]
    ranking = compare(np.zeros(N), truth, resamples=100)
    assert ranking.score.tau.value == ranking.score.tau.high == 0
    assert (ranking.score.favourite, ranking.score.overlap) == (N, 0.0)
    assert "no better than chance" in ranking.sentence()


def test_a_coarse_score_is_judged_by_its_worst_reading() -> None:
    ranking = compare([1, 1, 1, 0, 0, 0, 0, 0, 0, 0], np.arange(10)[::-1], resamples=20)
    assert ranking.score.favourite == 3


@pytest.mark.slow
def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    covered = 0
    for seed in range(40):
        score, truth = related(0.5, n=60, seed=seed)
        tau = compare(score, truth, resamples=80).score.tau
        assert tau.low < tau.value < tau.high
        covered += tau.low <= 0.5 <= tau.high
    assert 33 <= covered <= 40


def test_chance_is_around_nothing_and_as_wide_as_theory_says() -> None:
    _, truth = related(0.5)
    tau = chance(compare(truth, truth)).tau
    width = 1.96 * math.sqrt(2 * (2 * N + 5) / (9 * N * (N - 1)))  # Kendall's variance without ties
    assert tau.value == 0
    assert (tau.low, tau.high) == pytest.approx((-width, width), rel=0.2)


@pytest.mark.slow
def test_noise_is_told_from_a_score() -> None:
    flagged = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        ranking = compare(rng.normal(size=80), rng.normal(size=80), resamples=100)
        flagged += "no better than chance" not in ranking.sentence()
    assert flagged <= 3


@pytest.mark.slow
def test_a_good_score_is_called_good_and_must_beat_the_baselines() -> None:
    score, truth = related(0.8)
    weak = truth + np.random.default_rng(1).normal(size=N)
    good = compare(score, truth, {"MACs": weak, "parameters": weak**3}, name="The supernet", resamples=300)
    assert good.unbeaten == ()
    assert [b.name for b in good.baselines] == ["MACs", "parameters", "chance"]
    assert good.sentence().startswith("The supernet can be trusted")
    lead = good.baselines[0].lead
    assert lead.value == pytest.approx(good.score.tau.value - good.baselines[0].tau.value)
    assert 0 < lead.low < lead.value < lead.high

    beaten = compare(weak, truth, {"MACs": score}, name="The supernet", resamples=200)
    assert [b.name for b in beaten.unbeaten] == ["MACs"]
    assert beaten.sentence().startswith("The supernet adds nothing certain to MACs alone")

    rough = compare(weak, truth)
    assert "rough guide" in rough.sentence() and not rough.trustworthy


def test_comparison_with_a_baseline_is_paired() -> None:
    score, truth = related(0.5)
    nearly = score + 1e-3 * np.random.default_rng(3).normal(size=N)
    same = compare(score, truth, {"MACs": nearly}, resamples=200).baselines[0]
    assert same.lead.high - same.lead.low < 0.1 * (same.tau.high - same.tau.low)


def test_the_sentence_holds_the_figures() -> None:
    score, truth = related(0.7)
    ranking = compare(score, truth)
    text = ranking.sentence()
    assert f"tau {ranking.score.tau.value:.2f} [{ranking.score.tau.low:.2f}, {ranking.score.tau.high:.2f}]" in text
    assert f"about {50 * (1 + ranking.score.tau.value):.0f} % of all pairs" in text
    assert "300 architectures" in text and f"number {ranking.score.favourite:.0f}" in text


def test_same_seed_same_figures() -> None:
    score, truth = related(0.6, n=50)
    first = compare(score, truth, {"MACs": truth**3}, seed=4, resamples=50)
    assert compare(score, truth, {"MACs": truth**3}, seed=4, resamples=50) == first
    assert compare(score, truth, {"MACs": truth**3}, seed=5, resamples=50) != first


@pytest.mark.slow
def test_a_thousand_architectures_take_seconds() -> None:
    score, truth = related(0.6, n=1000)
    started = time.process_time()
    compare(score, truth, {"MACs": truth**3})
    assert time.process_time() - started < 10


@pytest.mark.parametrize(
    ("score", "truth", "named"),
    [
        ([1, 2], [1, 2, 3], r"'The score' has shape \(2,\), but the truth has 3"),
        ([1, 2], [1, 2], "2 architectures"),
        ([1, math.nan, 2], [1, 2, 3], "'The score' is nan at place 1"),
        ([1, 2, 3], [1, 2, math.inf], "'truth' is inf at place 2"),
        ([1, 2, 3], [5, 5, 5], "all 3 architectures are equally good"),
    ],
)
def test_bad_values_are_named(score: list[float], truth: list[float], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        compare(score, truth)


def test_a_baseline_may_not_take_a_reserved_name() -> None:
    with pytest.raises(ValueError, match="'chance'"):
        compare([1, 2, 3], [1, 2, 3], {"chance": [1, 2, 3]})
