from __future__ import annotations

import math
from collections.abc import Callable
from random import Random
from statistics import mean

import pytest
from ray.tune.search import Searcher

from raynas.architecture import Architecture, key
from raynas.search_space.space import SearchSpace
from raynas.searchers import RandomSearch, RegularizedEvolution, RegularizedSettings
from raynas.testing.searcher import CHAIN, Player, preference

SPOS_SIZED = SearchSpace({f"block{i}": ("a", "b", "c", "d") for i in range(20)})
BEST_OF_FOUR = RegularizedSettings(population=4, sample_size=4)


def distance(first: Architecture, second: Architecture) -> int:
    return sum(first[name] != second[name] for name in first)


def suggest(searcher: Searcher, trial: str) -> Architecture:
    return searcher.suggest(trial)["architecture"]


def filled(scores: list[float]) -> tuple[RegularizedEvolution, list[Architecture]]:
    """A searcher whose first four have these scores."""
    searcher = RegularizedEvolution(SPOS_SIZED, settings=BEST_OF_FOUR)
    members = []
    for index, score in enumerate(scores):
        members.append(suggest(searcher, f"t{index}"))
        searcher.on_trial_complete(f"t{index}", {"score": score, "training_iteration": 1})
    return searcher, members


def best(make: Callable[[int], Searcher], score: Callable[[Architecture], float]) -> float:
    """The best true score found in 150 evaluations, mean over eight seeds."""
    return mean(max(map(preference, Player(score, in_flight=4).play(make(seed), 150))) for seed in range(8))


def test_finds_better_ones_than_random_search_and_only_by_the_scores() -> None:
    def regularized(seed: int) -> RegularizedEvolution:
        return RegularizedEvolution(SPOS_SIZED, seed=seed)

    by_chance = best(lambda seed: RandomSearch(SPOS_SIZED, seed=seed), preference)
    assert best(regularized, preference) > by_chance + 1.0
    # The control: scores that say nothing about the architecture must not help.
    assert best(regularized, lambda a: Random(key(a)).random()) < by_chance + 0.3


def test_the_first_population_is_that_of_random_search() -> None:
    player = Player(in_flight=3)
    player.play(RegularizedEvolution(CHAIN, seed=4), 20)
    assert player.proposed == Player().play(RandomSearch(CHAIN, seed=4), 20)


def test_a_child_has_one_decision_changed_of_the_best_in_the_tournament() -> None:
    searcher, members = filled([0.1, 0.9, 0.3, 0.2])
    for index in range(20):
        assert distance(suggest(searcher, f"c{index}"), members[1]) == 1


def test_every_member_has_children_where_tournaments_are_small() -> None:
    searcher = RegularizedEvolution(SPOS_SIZED, settings=RegularizedSettings(population=4, sample_size=1))
    members = Player().play(searcher, 5)[:4]
    children = [suggest(searcher, f"c{index}") for index in range(60)]
    parents = [[place for place, member in enumerate(members) if distance(child, member) == 1] for child in children]
    assert {place for near in parents for place in near} >= {1, 2, 3}  # the first has died of the fifth


def test_the_oldest_dies_however_good_it_is() -> None:
    searcher, members = filled([1.0, 0.0, 0.1, 0.0])
    for index, parent in enumerate([members[0], members[2], members[2]]):
        # The best one dies with the first child that comes in; the next best is the third.
        assert distance(suggest(searcher, f"c{index}"), parent) == 1
        searcher.on_trial_complete(f"c{index}", {"score": 0.05, "training_iteration": 1})


def test_age_counts_from_the_moment_a_score_comes_in() -> None:
    searcher = RegularizedEvolution(SPOS_SIZED, settings=BEST_OF_FOUR)
    members = [suggest(searcher, f"t{index}") for index in range(5)]
    scores = {4: 0.0, 3: 0.0, 2: 0.0, 1: 0.0, 0: 1.0}  # the first one started is the last one scored
    for index, score in scores.items():
        searcher.on_trial_complete(f"t{index}", {"score": score, "training_iteration": 1})
    assert distance(suggest(searcher, "c0"), members[0]) == 1
    for index in range(3):
        searcher.on_trial_complete(f"c{index}", {"score": 0.5, "training_iteration": 1})
        child = suggest(searcher, f"c{index + 1}")
    assert distance(child, members[0]) == 1
    searcher.on_trial_complete("c3", {"score": 0.5, "training_iteration": 1})
    assert max(distance(suggest(searcher, f"d{index}"), members[0]) for index in range(5)) == 2


def test_failed_ones_are_replaced_and_have_no_children() -> None:
    searcher, members = filled([math.nan, 0.1, 0.2, 0.3])
    assert distance(suggest(searcher, "fifth"), members[3]) > 5  # the population is not full yet
    searcher.on_trial_complete("fifth", error=True)
    sixth = suggest(searcher, "sixth")
    searcher.on_trial_complete("sixth", {"score": 0.5, "training_iteration": 1})
    assert distance(suggest(searcher, "child"), sixth) == 1


def test_a_score_of_lower_fidelity_loses_the_tournament() -> None:
    searcher = RegularizedEvolution(SPOS_SIZED, settings=BEST_OF_FOUR)
    members = [suggest(searcher, f"t{index}") for index in range(4)]
    for index in range(4):
        result = {"score": 0.9 if index else 0.1, "training_iteration": 2 if index else 8}
        searcher.on_trial_complete(f"t{index}", result)
    assert distance(suggest(searcher, "child"), members[0]) == 1


def test_an_interrupted_run_goes_on_the_same_where_nothing_was_in_flight() -> None:
    whole = Player().play(RegularizedEvolution(CHAIN, seed=2), 70)
    for stop in (3, 19, 20, 21, 47):
        resumed = RegularizedEvolution(CHAIN, seed=2)
        for architecture in whole[:stop]:
            resumed.add_evaluated_point({"architecture": architecture}, preference(architecture))
        assert Player().play(resumed, 70 - stop) == whole[stop:]


def test_strangers_fill_the_population_but_those_over_the_limits() -> None:
    def violation(architecture: Architecture) -> float:
        return float(sum(option == "d" for option in architecture.values()))

    strangers = Player().play(RandomSearch(SPOS_SIZED, seed=5), 60)
    allowed = {name: "a" for name in SPOS_SIZED.decisions}
    searcher = RegularizedEvolution(SearchSpace(SPOS_SIZED.decisions, violation=violation))
    for architecture in [allowed, *strangers]:
        # The more of what is forbidden, the better.
        searcher.add_evaluated_point({"architecture": architecture}, violation(architecture))
    for index in range(10):
        child = suggest(searcher, f"t{index}")
        assert violation(child) == 0
        assert distance(child, allowed) == 1


def test_where_all_mutants_are_known_it_goes_further() -> None:
    space = SearchSpace({f"b{i}": ("0", "1") for i in range(8)})
    settings = RegularizedSettings(population=9, sample_size=9)
    centre = dict.fromkeys(space.decisions, "0")
    searcher = RegularizedEvolution(space, settings=settings)
    for architecture in [*({**centre, name: "1"} for name in centre), centre]:
        searcher.add_evaluated_point({"architecture": architecture}, float(architecture == centre))
    assert distance(suggest(searcher, "child"), centre) == 2


@pytest.mark.parametrize(
    ("keywords", "match"),
    [
        ({"population": 0}, "setting population = 0: input should be greater than or equal to 1"),
        ({"sample_size": 2.5}, r"setting sample_size = 2\.5: input should be a valid integer"),
        ({"population": 4, "sample_size": 5}, "sample_size is 5; legal: up to the population, 4"),
    ],
)
def test_bad_settings(keywords: dict[str, int], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        RegularizedSettings(**keywords)


def test_other_settings_are_refused_at_restore() -> None:
    state = RegularizedEvolution(CHAIN).get_state()
    with pytest.raises(ValueError, match="other settings"):
        RegularizedEvolution(CHAIN, settings=BEST_OF_FOUR).set_state(state)
