from __future__ import annotations

import random

import pytest

from raynas.results.pareto_front import Hypervolume, front_of
from raynas.search_space.constraints import Limits, Profile, check_objectives

RANGES = {"macs": Profile(10, 20, 30), "parameters": Profile(1, 2, 5)}


def test_front_by_brute_force() -> None:
    rng = random.Random(0)
    rows = [{"score": rng.randint(0, 9), "macs": rng.randint(0, 9), "key": place} for place in range(80)]

    def beats(one: dict[str, int], other: dict[str, int]) -> bool:
        no_worse = one["score"] >= other["score"] and one["macs"] <= other["macs"]
        return no_worse and (one["score"], one["macs"]) != (other["score"], other["macs"])

    kept = front_of(rows, ["macs"], "max")
    assert set(kept) == {row["key"] for row in rows if not any(beats(other, row) for other in rows)}
    scores = [rows[place]["score"] for place in kept]
    assert scores == sorted(scores, reverse=True)
    turned = [row | {"score": -row["score"]} for row in rows]
    assert front_of(turned, ["macs"], "min") == kept
    assert front_of([], ["macs"], "max") == []


@pytest.mark.parametrize("mode", ["max", "min"])
def test_hypervolume_is_the_mean_gain_over_budgets(mode: str) -> None:
    """Against a sum over a fine grid of budgets."""
    rng = random.Random(3)
    sign = 1 if mode == "max" else -1
    volume = Hypervolume(["macs", "parameters"], RANGES, Limits({"macs": (None, 25.0)}), mode)
    seen: list[tuple[float, float, float]] = []
    last = 0.0
    for number in range(30):
        score, macs, parameters = rng.gauss(50, 10), rng.uniform(10, 26), rng.uniform(1, 5)
        seen.append((score, macs, parameters))
        value = volume.add(sign * score, {"macs": macs, "parameters": parameters})
        assert (value is None) == (number < 9)
        if value is None or number % 5 != 4:
            continue
        worst, total, steps = min(score for score, _, _ in seen[:10]), 0.0, 40
        for i in range(steps):
            for j in range(steps):
                budget = 10 + 15 * (i + 0.5) / steps, 1 + 4 * (j + 0.5) / steps
                within = [score for score, *costs in seen if costs[0] <= budget[0] and costs[1] <= budget[1]]
                total += max(max(within, default=worst) - worst, 0) / steps**2
        assert value == pytest.approx(total, rel=0.05, abs=0.05)
        assert value >= last
        last = value


def test_hypervolume_of_odd_input() -> None:
    same = Hypervolume(["macs"], {"macs": Profile(5, 5, 5)}, Limits())
    for score in range(12):
        value = same.add(float(score), {"macs": 5.0})
    assert value == 11  # nothing but the score differs
    below = Hypervolume(["log"], {"log": Profile(-3, 0, 5)}, Limits())
    for score in range(12):
        value = below.add(float(score), {"log": -3.0 if score == 11 else 5.0})
    assert value == 11  # the best is had within every budget
    unknown = Hypervolume(["macs"], RANGES, Limits())
    for score in range(12):
        value = unknown.add(float(score), {})
    assert value == 0


def test_bad_objectives() -> None:
    assert check_objectives(["macs"]) == ("macs",)
    with pytest.raises(ValueError, match="unknown objective 'flops'; legal ones: macs, parameters"):
        check_objectives(["flops"])
    with pytest.raises(ValueError, match="names 'macs' twice"):
        check_objectives(["macs", "macs"])
