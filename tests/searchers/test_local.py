from __future__ import annotations

import math
from collections.abc import Callable
from random import Random
from statistics import mean

import pytest
from ray.tune.search import Searcher

from raynas.architecture import Architecture, enumerate_all, key
from raynas.search_space.space import SearchSpace
from raynas.searchers import LocalSearch, RandomSearch
from raynas.testing.searcher import CHAIN, NESTED, Player, preference

SPOS_SIZED = SearchSpace({f"block{i}": ("a", "b", "c", "d") for i in range(20)})
BITS = SearchSpace({f"b{i}": ("0", "1") for i in range(8)})


def distance(first: Architecture, second: Architecture) -> int:
    return sum(first[name] != second[name] for name in first)


def suggest(searcher: Searcher, trial: str) -> Architecture:
    return searcher.suggest(trial)["architecture"]


def score(searcher: Searcher, trial: str, value: float) -> None:
    searcher.on_trial_complete(trial, {"score": value, "training_iteration": 1})


def best(make: Callable[[int], Searcher], score: Callable[[Architecture], float]) -> float:
    """The best true score found in 150 evaluations, mean over eight seeds."""
    return mean(max(map(preference, Player(score, in_flight=4).play(make(seed), 150))) for seed in range(8))


def test_finds_better_ones_than_random_search_and_only_by_the_scores() -> None:
    def local(seed: int) -> Searcher:
        return LocalSearch(SPOS_SIZED, seed=seed)

    by_chance = best(lambda seed: RandomSearch(SPOS_SIZED, seed=seed), preference)
    assert best(local, preference) > by_chance + 1.5
    # The control: scores that say nothing about the architecture must not help.
    assert best(local, lambda a: Random(key(a)).random()) < by_chance + 0.3


def test_steps_at_once_to_the_first_neighbour_that_is_better() -> None:
    searcher = LocalSearch(SPOS_SIZED, draws=1)
    place, value = suggest(searcher, "start"), 0.0
    score(searcher, "start", value)
    for index in range(30):
        neighbour = suggest(searcher, f"t{index}")
        assert distance(neighbour, place) == 1
        change = 1.0 if index % 4 == 3 else -1.0 if index % 4 else 0.0  # an equal one is not better
        score(searcher, f"t{index}", value + change)
        if change > 0:
            place, value = neighbour, value + change


def test_neighbours_come_in_another_order_with_another_seed() -> None:
    orders = []
    for seed in (1, 2):
        searcher = LocalSearch(BITS, draws=1, seed=seed)
        searcher.add_evaluated_point({"architecture": dict.fromkeys(BITS.decisions, "0")}, 1.0)
        orders.append(Player(lambda _: 0.0).play(searcher, 8))
    assert orders[0] != orders[1]
    assert sorted(map(key, orders[0])) == sorted(map(key, orders[1]))


def test_starts_anew_on_a_summit() -> None:
    searcher, summit = LocalSearch(BITS, draws=1), dict.fromkeys(BITS.decisions, "1")
    searcher.add_evaluated_point({"architecture": summit}, 1.0)
    around = [suggest(searcher, f"t{index}") for index in range(8)]
    assert all(distance(neighbour, summit) == 1 for neighbour in around)
    for index in range(8):
        if index == 5:
            searcher.on_trial_complete(f"t{index}", error=True)  # failed, and so no better
        else:
            score(searcher, f"t{index}", 0.9)
    start = suggest(searcher, "start")
    assert distance(start, summit) > 1
    score(searcher, "start", 0.95)
    # The new climb goes on from the new start, though it is worse.
    assert distance(suggest(searcher, "next"), start) == 1


def test_a_climb_that_meets_a_known_better_one_steps_there_for_nothing() -> None:
    """And, as all around that one is known, ends there."""
    summit = dict.fromkeys(BITS.decisions, "1")
    searcher = LocalSearch(BITS, draws=1)
    for architecture in [summit, *({**summit, name: "0"} for name in summit)]:
        searcher.add_evaluated_point({"architecture": architecture}, float(architecture == summit))
    near = {**summit, "b0": "0", "b1": "0"}
    searcher.requeue([near])
    assert suggest(searcher, "near") == near
    score(searcher, "near", -1.0)
    assert distance(suggest(searcher, "next"), near) > 1


def test_several_in_flight_are_neighbours_of_one_then_new_starts() -> None:
    searcher = LocalSearch(BITS, draws=1)
    start = suggest(searcher, "start")
    score(searcher, "start", 0.0)
    flying = [suggest(searcher, f"t{index}") for index in range(10)]
    distances = [distance(architecture, start) for architecture in flying]
    assert distances[:8] == [1] * 8
    assert min(distances[8:]) > 1
    # One of them is better: the rest, which comes in later, does not lead the climb back.
    score(searcher, "t3", 1.0)
    score(searcher, "t4", 0.5)
    for index in range(3):
        assert distance(suggest(searcher, f"n{index}"), flying[3]) == 1
    # A late one that is better still does lead it.
    score(searcher, "t5", 2.0)
    assert distance(suggest(searcher, "last"), flying[5]) == 1


def test_neighbours_under_a_nested_decision_are_whole_architectures() -> None:
    searcher = LocalSearch(NESTED, draws=1)
    start = {"depth": "1", "depth.1.kernel0": "3"}
    searcher.add_evaluated_point({"architecture": start}, 1.0)
    around = Player(lambda _: 0.0).play(searcher, 4)
    assert {(a["depth"], a.get("depth.1.kernel0")) for a in around} == {
        ("1", "5"),
        ("1", "7"),
        ("2", None),
        ("3", None),
    }
    assert all(NESTED.form(a) == a for a in around)


def test_neighbours_are_networks_not_names() -> None:
    """A change that leads to the same network is none; two that lead to one network are one."""
    space = SearchSpace(
        {f"b{i}": ("0", "1") for i in range(4)}, canonical=lambda a: dict(zip(a, sorted(a.values()), strict=True))
    )
    searcher = LocalSearch(space, draws=1)
    searcher.add_evaluated_point({"architecture": dict(zip(space.decisions, "0011", strict=True))}, 1.0)
    around = Player(lambda _: 0.0).play(searcher, 2)
    assert {"".join(a.values()) for a in around} == {"0001", "0111"}


def test_a_climb_starts_from_the_best_draw() -> None:
    searcher = LocalSearch(SPOS_SIZED, draws=5)
    drawn = []
    for index, value in enumerate([0.1, 0.4, math.nan, 0.9, 0.2, 0.3]):
        drawn.append(suggest(searcher, f"t{index}"))
        score(searcher, f"t{index}", value)
    assert distance(suggest(searcher, "next"), drawn[3]) == 1


def test_a_score_of_lower_fidelity_is_not_better() -> None:
    searcher = LocalSearch(SPOS_SIZED, draws=1)
    start = suggest(searcher, "start")
    searcher.on_trial_complete("start", {"score": 0.1, "training_iteration": 8})
    suggest(searcher, "stopped")
    searcher.on_trial_complete("stopped", {"score": 0.9, "training_iteration": 2})
    assert distance(suggest(searcher, "next"), start) == 1


def test_an_interrupted_run_goes_on_the_same_wherever_it_stopped() -> None:
    whole = Player().play(LocalSearch(BITS, draws=1, seed=2), 60)
    for stop in (1, 2, 9, 10, 18, 33):
        resumed = LocalSearch(BITS, draws=1, seed=2)
        for architecture in whole[:stop]:
            resumed.add_evaluated_point({"architecture": architecture}, preference(architecture))
        assert Player().play(resumed, 60 - stop) == whole[stop:]


def test_an_old_row_with_another_score_is_taken_as_a_new_one() -> None:
    """The climb is then that of a searcher which was rebuilt from the history."""
    searcher, restored = LocalSearch(BITS, draws=1, seed=2), LocalSearch(BITS, draws=1, seed=2)
    first = Player().play(searcher, 12)[0]
    searcher.add_evaluated_point({"architecture": first}, 100.0)
    restored.set_state(searcher.get_state())
    assert suggest(searcher, "next") == suggest(restored, "next")
    assert distance(restored.history[key(first)].architecture, suggest(searcher, "after")) == 1


def test_the_climb_goes_on_from_the_best_stranger_within_the_limits() -> None:
    def violation(architecture: Architecture) -> float:
        return float(sum(option == "d" for option in architecture.values()))

    strangers = Player().play(RandomSearch(SPOS_SIZED, seed=5), 60)
    allowed = {name: "a" for name in SPOS_SIZED.decisions}
    searcher = LocalSearch(SearchSpace(SPOS_SIZED.decisions, violation=violation), draws=1)
    for architecture in [*strangers[:30], allowed, *strangers[30:]]:
        searcher.add_evaluated_point({"architecture": architecture}, violation(architecture))
    for index in range(10):
        child = suggest(searcher, f"t{index}")
        assert violation(child) == 0
        assert distance(child, allowed) == 1


def test_finds_the_optimum_of_a_space_without_other_summits_soon() -> None:
    optimum = max(enumerate_all(CHAIN.decisions), key=preference)
    for seed in range(3):
        # Six decisions of four options: no more than 18 neighbours for each step.
        assert optimum in Player().play(LocalSearch(CHAIN, draws=1, seed=seed), 80)


def test_bad_draws_and_other_draws_at_restore() -> None:
    with pytest.raises(ValueError, match="setting draws = 0: input should be greater than or equal to 1"):
        LocalSearch(CHAIN, draws=0)
    with pytest.raises(ValueError, match="other draws: 1 instead of 2"):
        LocalSearch(CHAIN, draws=2).set_state(LocalSearch(CHAIN, draws=1).get_state())
