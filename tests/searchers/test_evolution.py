from __future__ import annotations

import math
from collections.abc import Callable
from random import Random
from statistics import mean
from typing import Any

import pytest
from ray.tune.search import Searcher

from raynas.architecture import Architecture, enumerate_all, key
from raynas.search_space.space import SearchSpace
from raynas.searchers import Evolution, EvolutionSettings, RandomSearch, evolution
from raynas.testing.searcher import CHAIN, Player, preference

SPOS_SIZED = SearchSpace({f"block{i}": ("a", "b", "c", "d") for i in range(20)})
SMALL_GENERATIONS = EvolutionSettings(population=10, parents=3, mutations=5, crossovers=4)


def distance(first: Architecture, second: Architecture) -> int:
    return sum(first[name] != second[name] for name in first)


def best(make: Callable[[int], Searcher], score: Callable[[Architecture], float], count: int) -> float:
    """The best true score found, mean over eight seeds."""
    return mean(max(map(preference, Player(score, in_flight=4).play(make(seed), count))) for seed in range(8))


def test_finds_better_ones_than_random_search_and_only_by_the_scores() -> None:
    def made(seed: int) -> Evolution:
        return Evolution(SPOS_SIZED, seed=seed)

    by_chance = best(lambda seed: RandomSearch(SPOS_SIZED, seed=seed), preference, 200)
    assert best(made, preference, 200) > by_chance + 0.8
    # The control: scores that say nothing about the architecture must not help.
    assert best(made, lambda a: Random(key(a)).random(), 200) < by_chance + 0.3


def test_a_generation_waits_for_the_one_before() -> None:
    searcher = Evolution(CHAIN, settings=SMALL_GENERATIONS)
    first = [searcher.suggest(f"t{i}")["architecture"] for i in range(10)]
    assert searcher.suggest("t10") is None
    for i in range(9):
        searcher.on_trial_complete(f"t{i}", {"score": preference(first[i])})
        assert searcher.suggest("t10") is None
    searcher.on_trial_complete("t9", error=True)
    assert isinstance(searcher.suggest("t10"), dict)


def test_children_do_not_depend_on_the_order_of_completion() -> None:
    runs = [Player(in_flight=n, seed=n).play(Evolution(CHAIN, settings=SMALL_GENERATIONS), 60) for n in (1, 4, 7)]
    assert runs[0] == runs[1] == runs[2]


def test_an_interrupted_run_ends_with_the_same_architectures() -> None:
    whole = Player().play(Evolution(CHAIN, settings=SMALL_GENERATIONS, seed=2), 70)
    for stop in (3, 10, 14, 37, 60):
        player = Player(in_flight=4, seed=stop)
        player.play(Evolution(CHAIN, settings=SMALL_GENERATIONS, seed=2), stop)
        resumed = Evolution(CHAIN, settings=SMALL_GENERATIONS, seed=2)
        for architecture in player.completed:
            resumed.add_evaluated_point({"architecture": architecture}, preference(architecture))
        rest = Player().play(resumed, 70 - len(player.completed))
        assert sorted(map(key, player.completed + rest)) == sorted(map(key, whole))


@pytest.mark.parametrize("remembered", [100_000, 30, 0])
def test_a_long_replay_makes_the_same_generations(remembered: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand of 1,024 architectures, where most children are taken already, with an overlap of generations.

    Which raw children are remembered as taken, and in which process, changes no proposal.
    """
    space = SearchSpace({f"d{number}": ("a", "b", "c", "d") for number in range(5)})

    def made() -> Evolution:
        searcher = Evolution(space, settings=EvolutionSettings(20, 4, 9, 9), seed=5)
        searcher.expect_in_flight(6)
        return searcher

    whole = Player(in_flight=6, seed=1).play(made(), 1000)
    monkeypatch.setattr(evolution, "_SPELLINGS", remembered)
    assert len(set(map(key, whole))) == 1000
    for stop in (503, 980):
        player = Player(in_flight=6, seed=1)
        player.play(made(), stop)
        resumed = made()
        for architecture in player.completed:
            resumed.add_evaluated_point({"architecture": architecture}, preference(architecture))
        rest = Player(in_flight=6, seed=stop).play(resumed, 1000 - len(player.completed))
        assert sorted(map(key, player.completed + rest)) == sorted(map(key, whole))


def test_saved_in_a_replay_it_still_ends_with_the_same_architectures() -> None:
    whole = Player().play(Evolution(CHAIN, settings=SMALL_GENERATIONS, seed=2), 50)
    replayed, restored = (Evolution(CHAIN, settings=SMALL_GENERATIONS, seed=2) for _ in range(2))
    for architecture in whole[:35]:
        replayed.add_evaluated_point({"architecture": architecture}, preference(architecture))
    restored.set_state(replayed.get_state())
    assert Player().play(restored, 15) == whole[35:]


def test_a_row_that_is_known_already_changes_nothing_after_a_restore() -> None:
    searcher, restored = (Evolution(CHAIN, settings=SMALL_GENERATIONS, seed=2) for _ in range(2))
    first = Player().play(searcher, 26)[0]
    restored.set_state(searcher.get_state())
    restored.add_evaluated_point({"architecture": first}, preference(first))
    assert [restored.suggest(f"t{i}") for i in range(4)] == [searcher.suggest(f"t{i}") for i in range(4)]


def play_one_generation(searcher: Evolution, report: Callable[[int, Architecture], None]) -> None:
    for i in range(searcher.settings.population):
        report(i, searcher.suggest(f"t{i}")["architecture"])


def test_parents_are_those_of_highest_fidelity_and_never_failures() -> None:
    settings = EvolutionSettings(population=10, parents=2, mutations=10, crossovers=0, mutation_probability=0.0)
    searcher = Evolution(SPOS_SIZED, settings=settings)
    parents: list[Architecture] = []

    def report(i: int, architecture: Architecture) -> None:
        if i < 2:
            parents.append(architecture)
            searcher.on_trial_complete(f"t{i}", {"score": 0.5, "training_iteration": 8})
        elif i < 6:  # stopped early, with scores that look better
            searcher.on_trial_complete(f"t{i}", {"score": 0.9, "training_iteration": 2})
        else:
            searcher.on_trial_result(f"t{i}", {"score": 1.0, "training_iteration": 8})
            searcher.on_trial_complete(f"t{i}", error=True)

    play_one_generation(searcher, report)
    children = [searcher.suggest(f"c{i}")["architecture"] for i in range(10)]
    nearest = [min(distance(child, parent) for parent in parents) for child in children]
    assert nearest == [1] * 10


def test_failures_have_no_children_even_where_parents_are_few() -> None:
    settings = EvolutionSettings(population=10, parents=5, mutations=10, crossovers=0, mutation_probability=0.0)
    searcher = Evolution(SPOS_SIZED, settings=settings)
    generation: list[Architecture] = []

    def report(i: int, architecture: Architecture) -> None:
        generation.append(architecture)
        searcher.on_trial_complete(f"t{i}", {"score": 0.5 if i == 3 else math.nan})

    play_one_generation(searcher, report)
    assert [distance(searcher.suggest(f"c{i}")["architecture"], generation[3]) for i in range(10)] == [1] * 10


def test_crossings_take_every_decision_from_a_parent() -> None:
    settings = EvolutionSettings(population=10, parents=2, mutations=0, crossovers=10)
    searcher = Evolution(SPOS_SIZED, settings=settings)
    generation: list[Architecture] = []

    def report(i: int, architecture: Architecture) -> None:
        generation.append(architecture)
        searcher.on_trial_complete(f"t{i}", {"score": i})

    play_one_generation(searcher, report)
    first, second = generation[8:]
    for i in range(10):
        child = searcher.suggest(f"c{i}")["architecture"]
        assert all(option in (first[name], second[name]) for name, option in child.items())
        assert child not in (first, second)


def test_mutations_change_nothing_to_options_that_are_avoided() -> None:
    space = SearchSpace({f"d{place}": ("none", "a", "b") for place in range(12)})
    settings = EvolutionSettings(population=40, parents=1, mutations=40, crossovers=0, avoided=("none",))
    searcher = Evolution(space, settings=settings)
    generation: list[Architecture] = []

    def report(i: int, architecture: Architecture) -> None:
        generation.append(architecture)
        searcher.on_trial_complete(f"t{i}", {"score": i})

    play_one_generation(searcher, report)
    changed = list[str]()
    for i in range(40):
        child = searcher.suggest(f"c{i}")["architecture"]
        changed += [option for name, option in child.items() if option != generation[-1][name]]
    assert len(changed) >= 40 and set(changed) == {"a", "b"}
    with pytest.raises(ValueError, match="avoided: no decision has an option 'nothing'; legal ones: a, b, none"):
        Evolution(space, settings=EvolutionSettings(avoided=["nothing"]))


def test_what_the_children_leave_open_is_random() -> None:
    settings = EvolutionSettings(population=10, parents=1, mutations=2, crossovers=3, mutation_probability=0.0)
    searcher = Evolution(SPOS_SIZED, settings=settings)
    generation: list[Architecture] = []

    def report(i: int, architecture: Architecture) -> None:
        generation.append(architecture)
        searcher.on_trial_complete(f"t{i}", {"score": i})

    play_one_generation(searcher, report)
    distances = [distance(searcher.suggest(f"c{i}")["architecture"], generation[9]) for i in range(10)]
    assert distances[:2] == [1, 1]
    assert min(distances[2:]) > 5  # one parent cannot be crossed with itself


def test_strangers_of_a_replay_become_parents_at_once() -> None:
    settings = EvolutionSettings(population=10, parents=3, mutations=10, crossovers=0, mutation_probability=0.0)
    strangers = Player().play(RandomSearch(SPOS_SIZED, seed=77), 60)
    searcher = Evolution(SPOS_SIZED, settings=settings)
    for architecture in strangers:
        searcher.add_evaluated_point({"architecture": architecture}, preference(architecture))
    parents = sorted(strangers, key=preference)[-3:]
    for child in Player().play(searcher, 10):
        assert min(distance(child, parent) for parent in parents) == 1


def test_strangers_become_parents_also_where_others_were_in_flight() -> None:
    settings = EvolutionSettings(population=10, parents=1, mutations=10, crossovers=0, mutation_probability=0.0)
    strangers = Player().play(RandomSearch(SPOS_SIZED, seed=77), 60)
    searcher = Evolution(SPOS_SIZED, settings=settings)
    for architecture in strangers[:50]:
        searcher.add_evaluated_point({"architecture": architecture}, preference(architecture))
    searcher.requeue(strangers[50:53])
    proposed = Player(in_flight=6).play(searcher, 13)
    assert proposed[:3] == strangers[50:53]
    best_one = max(strangers[:50], key=preference)
    assert [distance(child, best_one) for child in proposed[3:]] == [1] * 10


def test_few_strangers_are_joined_by_random_ones() -> None:
    strangers = list(enumerate_all(CHAIN.decisions))[:4]
    searcher = Evolution(CHAIN, settings=SMALL_GENERATIONS)
    for architecture in strangers:
        searcher.add_evaluated_point({"architecture": architecture}, 0.0)
    assert Player().play(searcher, 6) == Player().play(RandomSearch(CHAIN), 6)


def test_parents_that_break_the_limits_of_this_run_are_passed_over() -> None:
    """A log of another run may hold better architectures, over this run's budget."""

    def violation(architecture: Architecture) -> float:
        return float(sum(option == "d" for option in architecture.values()))

    def score(architecture: Architecture) -> float:
        return violation(architecture)  # the more of what is forbidden, the better

    settings = EvolutionSettings(population=10, parents=1, mutations=10, crossovers=0, mutation_probability=0.0)
    strangers = Player().play(RandomSearch(SPOS_SIZED, seed=5), 60)
    allowed = {name: "a" for name in SPOS_SIZED.decisions}
    searcher = Evolution(SearchSpace(SPOS_SIZED.decisions, violation=violation), settings=settings)
    for architecture in [*strangers, allowed]:
        searcher.add_evaluated_point({"architecture": architecture}, score(architecture))
    # The only feasible one does not fill a population: the first generation is random, the second its mutants.
    proposed = Player(score=lambda _: -1.0).play(searcher, 19)
    assert all(violation(architecture) == 0 for architecture in proposed)
    assert all(distance(child, allowed) == 1 for child in proposed[9:])


@pytest.mark.parametrize(
    ("keywords", "match"),
    [
        ({"population": 0}, "setting population = 0: input should be greater than or equal to 1"),
        ({"mutations": -1}, "setting mutations = -1: input should be greater than or equal to 0"),
        (
            {"mutation_probability": 1.5},
            r"setting mutation_probability = 1\.5: input should be less than or equal to 1",
        ),
        ({"mutation_probability": math.nan}, "mutation_probability = nan"),
        ({"waits": "yes"}, "setting waits = 'yes': input should be a valid boolean"),
        ({"avoided": "none"}, "setting avoided = 'none': input should be a valid list"),
        ({"population": 20, "mutations": 30, "crossovers": 20}, r"mutations \+ crossovers is 50; legal: up to .*, 20"),
    ],
)
def test_bad_settings(keywords: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        EvolutionSettings(**keywords)


def test_other_settings_are_refused_at_restore() -> None:
    state = Evolution(CHAIN).get_state()
    with pytest.raises(ValueError, match="other settings"):
        Evolution(CHAIN, settings=SMALL_GENERATIONS).set_state(state)


def test_with_an_overlap_no_worker_waits_and_the_order_of_completion_does_not_count() -> None:
    def play(order: tuple[int, ...], overlap: int = 4, waits: bool = False) -> list[Architecture]:
        searcher = Evolution(CHAIN, settings=EvolutionSettings(12, 3, 6, 6, waits=waits), seed=3)
        searcher.expect_in_flight(overlap)
        proposed: list[Architecture] = []
        flying: list[int] = []
        while len(proposed) < 80:
            while len(flying) < 3:
                suggestion = searcher.suggest(str(len(proposed)))
                assert suggestion is not None, "a worker had to wait"
                flying.append(len(proposed))
                proposed.append(suggestion["architecture"])
            ended = flying.pop(order[len(proposed) % len(order)])
            score = preference(proposed[ended])
            searcher.on_trial_complete(str(ended), {"score": score, "training_iteration": 1})
        return proposed

    straight = play((0,))
    assert straight == play((1, 0))
    assert mean(map(preference, straight[-24:])) > mean(map(preference, straight[:12])) + 0.5
    with pytest.raises(AssertionError, match="had to wait"):
        play((0,), overlap=0)
    with pytest.raises(AssertionError, match="had to wait"):
        play((0,), waits=True)


@pytest.mark.parametrize(
    ("keywords", "children"),
    [({}, (25, 25)), ({"population": 21}, (10, 11)), ({"population": 20, "mutations": 4}, (4, 16))],
)
def test_children_fill_the_population_by_default(keywords: dict[str, int], children: tuple[int, int]) -> None:
    assert EvolutionSettings(**keywords).children == children
