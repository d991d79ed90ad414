from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random
from statistics import mean

import pytest
from optuna.trial import TrialState

from raynas.architecture import Architecture, enumerate_all, key
from raynas.search_space.space import SearchSpace
from raynas.searchers import TPE, RandomSearch
from raynas.testing.searcher import CHAIN, Player, preference

SPOS_SIZED = SearchSpace({f"block{i}": ("a", "b", "c", "d") for i in range(20)})


def best(make: Callable[[int], object], score: Callable[[Architecture], float]) -> float:
    """The best true score found in 80 evaluations, mean over four seeds."""
    return mean(max(map(preference, Player(score, in_flight=2).play(make(seed), 80))) for seed in range(4))


def test_finds_better_ones_than_random_search_and_only_by_the_scores() -> None:
    by_chance = best(lambda seed: RandomSearch(SPOS_SIZED, seed=seed), preference)
    assert best(lambda seed: TPE(SPOS_SIZED, seed=seed), preference) > by_chance + 0.7
    # The control: scores that say nothing about the architecture must not help.
    assert best(lambda seed: TPE(SPOS_SIZED, seed=seed), lambda a: Random(key(a)).random()) < by_chance + 0.3


def test_stopped_trials_are_told_as_pruned_with_their_intermediate_scores() -> None:
    searcher = TPE(CHAIN, startup=1)
    for i, (scores, error) in enumerate([([0.1], False), ([0.2, 0.4, 0.6], False), ([0.3, 0.5], False), ([], True)]):
        searcher.suggest(f"t{i}")
        for fidelity, score in enumerate(scores, start=1):
            searcher.on_trial_result(f"t{i}", {"score": score, "training_iteration": fidelity})
        searcher.on_trial_complete(f"t{i}", error=error)
    searcher.suggest("in flight")
    searcher.suggest("another")
    trials = searcher.study_of_history().get_trials(deepcopy=False)
    told = {tuple(trial.intermediate_values.values()): trial for trial in trials if trial.intermediate_values}
    # The first looked complete, until others reached a higher fidelity.
    assert told[0.1,].state == told[0.3, 0.5].state == TrialState.PRUNED
    assert told[0.2, 0.4, 0.6].state == TrialState.COMPLETE
    assert told[0.2, 0.4, 0.6].value == 0.6
    assert Counter(trial.state for trial in trials)[TrialState.RUNNING] == 2


def test_every_finished_trial_is_told_once() -> None:
    searcher = TPE(CHAIN)
    player = Player(in_flight=5)
    player.play(searcher, 30)
    states = Counter(trial.state for trial in searcher.study_of_history().get_trials(deepcopy=False))
    assert states[TrialState.COMPLETE] == len(player.completed)
    assert states[TrialState.RUNNING] == 30 - len(player.completed)


def test_a_tight_constraint_keeps_the_guidance_of_the_model() -> None:
    """Where nearly all suggestions are infeasible they are altered, not thrown away."""
    decisions = {f"b{i}": ("0", "1", "2", "3") for i in range(12)}
    space = SearchSpace(decisions, violation=lambda a: max(0.0, sum(map(int, a.values())) - 6))

    def late(make: Callable[[int], object]) -> float:
        return mean(mean(map(preference, Player().play(make(seed), 40)[20:])) for seed in range(2))

    assert late(lambda seed: TPE(space, seed=seed)) > late(lambda seed: RandomSearch(space, seed=seed)) + 0.3


def test_replayed_scores_guide_it_at_once() -> None:
    searcher = TPE(SPOS_SIZED)
    strangers = Player().play(RandomSearch(SPOS_SIZED, seed=8), 150)
    for architecture in strangers:
        searcher.add_evaluated_point({"architecture": architecture}, preference(architecture))
    proposed = Player().play(searcher, 10)
    assert mean(map(preference, proposed)) > mean(map(preference, strangers)) + 1.0


def test_given_points_are_proposed_even_after_a_replay() -> None:
    known, point = list(enumerate_all(CHAIN.decisions))[:40], {name: "d" for name in CHAIN.decisions}
    searcher = TPE(CHAIN, points_to_evaluate=[point])
    for architecture in known:
        searcher.add_evaluated_point({"architecture": architecture}, 0.0)
    assert Player().play(searcher, 1) == [point]


def test_bad_startup() -> None:
    with pytest.raises(ValueError, match="setting startup = 0: input should be greater than or equal to 1"):
        TPE(CHAIN, startup=0)
