from __future__ import annotations

import math
from collections.abc import Callable
from random import Random
from statistics import mean

import numpy as np
import pytest
from ray.tune.search import Searcher

from raynas.architecture import Architecture, key
from raynas.search_space.space import SearchSpace
from raynas.searchers import RandomSearch, Reinforce, ReinforceSettings
from raynas.searchers.models.transforms import normal_score
from raynas.searchers.reinforce import Policy
from raynas.testing.searcher import CHAIN, NESTED, Player, preference

SPOS_SIZED = SearchSpace({f"block{i}": ("a", "b", "c", "d") for i in range(20)})
UNEVEN = SearchSpace({"a": ("x", "y", "z"), "a.y.inner": ("1", "2"), "b": ("p", "q", "r", "s")})
DEEP = {
    "depth": "3",
    "depth.3.kernel0": "3",
    "depth.3.kernel1": "5",
    "depth.3.kernel2": "7",
    "depth.3.kernel2.7.width": "wide",
}


def best(make: Callable[[int], Searcher], score: Callable[[Architecture], float]) -> float:
    """The best true score found in 200 evaluations, mean over eight seeds."""
    return mean(max(map(preference, Player(score, in_flight=4).play(make(seed), 200))) for seed in range(8))


def test_finds_better_ones_than_random_search_and_only_by_the_scores() -> None:
    def reinforce(seed: int) -> Reinforce:
        return Reinforce(SPOS_SIZED, seed=seed)

    by_chance = best(lambda seed: RandomSearch(SPOS_SIZED, seed=seed), preference)
    assert best(reinforce, preference) > by_chance + 1.0
    # The control: scores that say nothing about the architecture must not help.
    assert best(reinforce, lambda a: Random(key(a)).random()) < by_chance + 0.3


def objective(policy: Policy, architecture: Architecture, advantage: float) -> float:
    """Advantage times log-probability of an architecture, plus the entropy of its active decisions; written out."""
    chances = policy.probabilities()
    total = 0.0
    for row, (name, options) in enumerate(UNEVEN.decisions.items()):
        if name in architecture:
            total += advantage * math.log(chances[row, list(options).index(architecture[name])])
            total -= policy.settings.entropy * sum(p * math.log(p) for p in chances[row] if p > 0)
    return total


@pytest.mark.parametrize("architecture", [{"a": "y", "a.y.inner": "2", "b": "s"}, {"a": "z", "b": "q"}])
def test_the_slope_is_that_of_the_objective(architecture: Architecture) -> None:
    policy = Policy(UNEVEN, ReinforceSettings(entropy=0.3))
    policy.logits[:] = np.random.default_rng(0).normal(size=policy.logits.shape)
    rows, slope = policy.gradient(architecture, advantage=-1.7)
    expected = np.zeros_like(policy.logits)
    for place in np.ndindex(*policy.logits.shape):
        either = []
        for change in (1e-6, -1e-6):
            policy.logits[place] += change
            either.append(objective(policy, architecture, -1.7))
            policy.logits[place] -= change
        expected[place] = (either[0] - either[1]) / 2e-6
    full = np.zeros_like(policy.logits)
    full[rows] = slope
    assert np.allclose(full, expected, atol=1e-6)


def test_only_active_decisions_learn() -> None:
    policy = Policy(NESTED, ReinforceSettings())
    for _ in range(3):
        policy.update(DEEP, 1.0)
    active = [name in DEEP for name in NESTED.decisions]
    assert [bool(row.any()) for row in policy.logits] == active
    policy.update({"depth": "1", "depth.1.kernel0": "3"}, 1.0)
    before = policy.logits.copy()
    policy.update({"depth": "1", "depth.1.kernel0": "3"}, 1.0)
    names = list(NESTED.decisions)
    assert {names[row] for row in np.flatnonzero((policy.logits != before).any(1))} == {"depth", "depth.1.kernel0"}


def test_draws_follow_the_policy() -> None:
    policy = Policy(UNEVEN, ReinforceSettings())
    policy.logits[0] = np.log([0.2, 0.5, 0.3, 1.0])  # "a" has three options: the fourth place does not count
    rng = Random(0)
    drawn = [policy.sample(policy.probabilities(), rng) for _ in range(4000)]
    shares = [mean(a["a"] == option for a in drawn) for option in "xyz"]
    assert shares == pytest.approx([0.2, 0.5, 0.3], abs=0.03)
    assert all(("a.y.inner" in a) == (a["a"] == "y") for a in drawn)


def test_what_scored_well_becomes_likelier() -> None:
    searcher = Reinforce(CHAIN)
    # One option of one decision is all that matters.
    Player(lambda a: float(a["block2"] == "c")).play(searcher, 120)
    searcher.catch_up()
    chances = searcher.policy.probabilities()
    assert chances[2, 2] > 0.8
    assert chances[[0, 1, 3, 4, 5]].max() < 0.8


def test_entropy_keeps_the_policy_open() -> None:
    def highest(entropy: float) -> float:
        searcher = Reinforce(CHAIN, settings=ReinforceSettings(entropy=entropy))
        Player().play(searcher, 200)
        searcher.catch_up()
        return float(searcher.policy.probabilities().max(1).mean())

    assert highest(0.0) > highest(0.5) + 0.1


@pytest.mark.parametrize("scale", [lambda x: 1e6 * x + 5, lambda x: 1e-6 * x, math.exp])
def test_the_scale_of_the_metric_does_not_matter(scale: Callable[[float], float]) -> None:
    plain = Player().play(Reinforce(CHAIN), 60)
    assert Player(lambda a: scale(preference(a))).play(Reinforce(CHAIN), 60) == plain


def test_a_failed_trial_teaches_nothing() -> None:
    searcher = Reinforce(CHAIN)
    Player(lambda _: math.nan).play(searcher, 20)
    searcher.catch_up()
    assert not searcher.policy.logits.any()


def test_strangers_teach_it() -> None:
    searcher = Reinforce(SPOS_SIZED)
    strangers = Player().play(RandomSearch(SPOS_SIZED, seed=8), 200)
    for architecture in strangers:
        searcher.add_evaluated_point({"architecture": architecture}, preference(architecture))
    proposed = [searcher.suggest(f"t{i}")["architecture"] for i in range(20)]
    assert mean(map(preference, proposed)) > mean(map(preference, strangers)) + 1.0


def test_the_policy_is_the_same_after_restore_and_replay() -> None:
    searcher, restored, replayed = (Reinforce(NESTED, seed=3) for _ in range(3))
    player = Player(in_flight=3)
    player.play(searcher, 30)
    restored.set_state(searcher.get_state())
    for architecture in player.completed:
        replayed.add_evaluated_point({"architecture": architecture}, preference(architecture))
    for each in (searcher, restored, replayed):
        each.catch_up()
    assert np.array_equal(searcher.policy.logits, restored.policy.logits)
    assert np.array_equal(searcher.policy.logits, replayed.policy.logits)


def test_a_policy_that_has_made_up_its_mind_proposes_what_is_near() -> None:
    searcher = Reinforce(CHAIN, settings=ReinforceSettings(learning_rate=50.0, entropy=0.0))
    liked = dict.fromkeys(CHAIN.decisions, "b")
    for architecture, value in ((dict.fromkeys(CHAIN.decisions, "a"), 0.0), (liked, 1.0)):
        searcher.add_evaluated_point({"architecture": architecture}, value)
    proposed = [searcher.suggest(f"t{i}")["architecture"] for i in range(10)]
    assert max(sum(a[name] != "b" for name in a) for a in proposed) < 4


def test_normal_score() -> None:
    ordered = [(1, 0.2), (1, 0.5), (1, 0.5), (2, 0.1)]
    assert normal_score((1, 0.5), ordered) == 0.0
    assert normal_score((1, 0.2), ordered) == -normal_score((2, 0.1), ordered)
    assert normal_score((2, 0.1), ordered) == pytest.approx(1.1503, abs=1e-4)  # the 87.5 % quantile


@pytest.mark.parametrize(
    ("keywords", "match"),
    [
        ({"learning_rate": 0.0}, r"setting learning_rate = 0\.0: input should be greater than 0"),
        ({"entropy": -1.0}, r"setting entropy = -1\.0: input should be greater than or equal to 0"),
        ({"baseline": 1.0}, r"setting baseline = 1\.0: input should be less than 1"),
        ({"baseline": math.nan}, "baseline = nan"),
        ({"attempts": 0}, "setting attempts = 0: input should be greater than or equal to 1"),
    ],
)
def test_bad_settings(keywords: dict[str, float], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        ReinforceSettings(**keywords)


def test_other_settings_are_refused_at_restore() -> None:
    state = Reinforce(CHAIN).get_state()
    with pytest.raises(ValueError, match="other settings"):
        Reinforce(CHAIN, settings=ReinforceSettings(entropy=0.5)).set_state(state)
