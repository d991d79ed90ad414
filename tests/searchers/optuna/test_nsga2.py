from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from optuna.trial import TrialState

from raynas.architecture import Architecture
from raynas.search_space.space import SearchSpace
from raynas.searchers import NSGA2, Bayes, Evolution, NSGA2Settings, RandomSearch
from raynas.testing.searcher import CHAIN, PRICED, Player


def test_one_generation_after_the_other() -> None:
    searcher, player = NSGA2(CHAIN, settings=NSGA2Settings(population=8)), Player(in_flight=3)
    player.play(searcher, 40)
    trials = searcher.study_of_history().get_trials(deepcopy=False, states=[TrialState.COMPLETE])
    generations = [trial.system_attrs["NSGAIISampler:generation"] for trial in trials]
    assert generations == [place // 8 for place in range(len(player.completed))]


def test_children_come_from_the_whole_front() -> None:
    """Two options are all that counts: one is better, one cheaper. What is neither dies out."""
    decisions = {f"block{i}": ("good", "cheap", "bad") for i in range(8)}
    space = SearchSpace(
        decisions,
        costs=lambda a: {"price": sum(option != "cheap" for option in a.values())},
        objectives=("price",),
    )

    def score(architecture: Architecture) -> float:
        return float(sum(option == "good" for option in architecture.values()))

    late = Player(score).play(NSGA2(space, settings=NSGA2Settings(population=10)), 150)[100:]
    options = Counter(option for architecture in late for option in architecture.values())
    assert options["bad"] < 0.6 * min(options["good"], options["cheap"])
    assert np.ptp([score(architecture) for architecture in late]) >= 5


def test_stopped_and_failed_trials_have_no_children() -> None:
    searcher = NSGA2(PRICED, settings=NSGA2Settings(population=2))
    for i, (scores, error) in enumerate([([0.1], False), ([0.2, 0.4], False), ([0.3, 0.5], False), ([], True)]):
        searcher.suggest(f"t{i}")
        for fidelity, score in enumerate(scores, start=1):
            searcher.on_trial_result(f"t{i}", {"score": score, "training_iteration": fidelity})
        searcher.on_trial_complete(f"t{i}", error=error)
    trials = searcher.study_of_history().get_trials(deepcopy=False, states=[TrialState.COMPLETE])
    assert [trial.values[0] for trial in trials] == [0.4, 0.5]
    assert all(trial.values[1] == PRICED.costs(trial.params)["price"] for trial in trials)


def test_nested_decisions_are_inherited() -> None:
    space = SearchSpace({"top": ("a", "b"), **{f"top.b.kernel{i}": ("1", "3", "5", "7") for i in range(8)}})

    def score(architecture: Architecture) -> float:
        return float(sum(option == "7" for option in architecture.values()))

    evolved = Player(score).play(NSGA2(space, settings=NSGA2Settings(population=8)), 100)[60:]
    assert np.mean([score(architecture) for architecture in evolved]) > 3.5  # 2 by chance


def test_a_searcher_that_knows_one_objective_refuses_more() -> None:
    assert Bayes.weighs_costs  # the message names the searchers that are loaded
    with pytest.raises(ValueError, match=r"Evolution optimizes the score alone, not price; .*: Bayes, NSGA2, Random"):
        Evolution(PRICED)
    assert RandomSearch(PRICED).suggest("t")
    with pytest.raises(ValueError, match="objectives price need costs"):
        SearchSpace(CHAIN.decisions, objectives=("price",))


def test_bad_settings() -> None:
    with pytest.raises(ValueError, match="setting population = 1: input should be greater than or equal to 2"):
        NSGA2Settings(population=1)
    with pytest.raises(ValueError, match="setting crossover_probability = 'high': input should be a valid number"):
        NSGA2Settings(crossover_probability="high")
    with pytest.raises(ValueError, match="setting mutation_probability = 3: input should be less than or equal to 1"):
        NSGA2Settings(mutation_probability=3)
