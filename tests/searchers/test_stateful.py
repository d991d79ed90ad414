"""Suggest, report, complete, fail, save and restore in any order: what must hold of every searcher."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from ray.tune.search import Searcher

from raynas.architecture import key
from raynas.searchers import (
    ArchitectureSearcher,
    Evolution,
    EvolutionSettings,
    LocalSearch,
    RandomSearch,
    RegularizedEvolution,
    RegularizedSettings,
    Reinforce,
)
from raynas.testing.searcher import SMALL

MAKERS: dict[str, Any] = {
    "random": lambda seed: RandomSearch(SMALL, seed=seed, mode="max"),
    "evolution": lambda seed: Evolution(
        SMALL, seed=seed, mode="max", settings=EvolutionSettings(population=4, parents=2)
    ),
    "regularized": lambda seed: RegularizedEvolution(
        SMALL, seed=seed, mode="max", settings=RegularizedSettings(population=3, sample_size=2)
    ),
    "local": lambda seed: LocalSearch(SMALL, seed=seed, draws=2, mode="max"),
    "reinforce": lambda seed: Reinforce(SMALL, seed=seed, mode="max"),
}
SCORES = st.one_of(st.floats(-1, 1), st.sampled_from([float("nan"), float("inf")]))


class Machine(RuleBasedStateMachine):
    """Two searchers: one goes on, the other is saved and restored again and again; both must propose the same."""

    make: Any

    def __init__(self) -> None:
        super().__init__()
        self.searcher: ArchitectureSearcher = self.make(7)
        self.twin: ArchitectureSearcher = self.make(7)
        self.proposed: list[dict[str, str]] = []
        self.running: list[str] = []
        self.finished = False

    @rule()
    def suggest(self) -> None:
        trial = f"t{len(self.proposed)}"
        suggestion: Any = self.searcher.suggest(trial)
        assert self.twin.suggest(trial) == suggestion
        if suggestion is None:
            assert self.running, "it waits, but nothing runs"
        elif suggestion == Searcher.FINISHED:
            self.finished = True
        else:
            assert not self.finished, "it had finished"
            self.proposed.append(suggestion["architecture"])
            self.running.append(trial)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), score=SCORES, fidelity=st.integers(1, 3))
    def report(self, data: st.DataObject, score: float, fidelity: int) -> None:
        trial = data.draw(st.sampled_from(self.running))
        for each in (self.searcher, self.twin):
            each.on_trial_result(trial, {"score": score, "training_iteration": fidelity})

    @precondition(lambda self: self.running)
    @rule(data=st.data(), score=SCORES, error=st.booleans())
    def complete(self, data: st.DataObject, score: float, error: bool) -> None:
        trial = data.draw(st.sampled_from(self.running))
        self.running.remove(trial)
        for each in (self.searcher, self.twin):
            each.on_trial_complete(trial, None if error else {"score": score, "training_iteration": 3}, error)

    @rule(seed=st.integers(0, 9))
    def restore(self, seed: int) -> None:
        state = json.loads(json.dumps(self.twin.get_state()))
        self.twin = self.make(seed)
        self.twin.set_state(state)

    @invariant()
    def legal_feasible_and_new(self) -> None:
        assert all(SMALL.form(form) == form and SMALL.violation(form) == 0 for form in self.proposed[-1:])  # type: ignore[misc]
        assert len(set(map(key, self.proposed))) == len(self.proposed) == len(self.searcher.history)

    @invariant()
    def statuses_are_those_of_the_trials(self) -> None:
        statuses = [entry.status for entry in self.searcher.history.values()]
        assert statuses.count("running") == len(self.running)


@pytest.mark.parametrize("name", MAKERS)
def test_any_order(name: str) -> None:
    machine = type(f"Machine_{name}", (Machine,), {"make": staticmethod(MAKERS[name])}).TestCase
    machine.settings = settings(
        max_examples=8, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
    )
    machine().runTest()
