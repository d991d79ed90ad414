from __future__ import annotations

import json
import math
from random import Random

import pytest
from ray.tune.search import Searcher

from raynas import searchers
from raynas.architecture import enumerate_all, key
from raynas.exceptions import ArchitectureError
from raynas.search_space.space import SearchSpace
from raynas.searchers import ArchitectureSearcher, RandomSearch
from raynas.searchers.base import WEIGH_COSTS
from raynas.testing.searcher import CHAIN, SMALL, Player, preference


class InOrder(ArchitectureSearcher):
    """The smallest searcher that one can write: the space from its first architecture to its last."""

    def propose(self) -> dict[str, str] | str | None:
        unknown = (a for a in enumerate_all(self.space.decisions) if key(a) not in self.history)
        return next(unknown, Searcher.FINISHED)


def test_a_searcher_is_one_method() -> None:
    first = list(enumerate_all(CHAIN.decisions))[:5]
    assert Player().play(InOrder(CHAIN), 5) == first


def test_scores_by_fidelity() -> None:
    searcher = InOrder(CHAIN, metric="accuracy")
    searcher.suggest("t")
    for fidelity in (1, 2, 3):
        searcher.on_trial_result("t", {"accuracy": fidelity / 10, "training_iteration": fidelity})
    searcher.on_trial_complete("t", {"accuracy": 0.4, "training_iteration": 4})
    (entry,) = searcher.history.values()
    assert (entry.status, entry.fidelity, entry.score) == ("done", 4, 0.4)
    assert entry.scores == {1: 0.1, 2: 0.2, 3: 0.3, 4: 0.4}


@pytest.mark.parametrize(
    ("result", "error", "status"),
    [
        ({"score": 0.5}, False, "done"),
        ({"score": 0.5}, True, "error"),
        ({"score": math.nan}, False, "error"),
        ({"score": math.inf}, False, "error"),
        ({"score": None}, False, "error"),
        ({}, False, "error"),
        (None, True, "error"),
        (None, False, "error"),
    ],
)
def test_what_counts_as_failed(result: dict[str, float] | None, error: bool, status: str) -> None:
    searcher = InOrder(CHAIN)
    searcher.suggest("t")
    searcher.on_trial_complete("t", result, error)
    assert [entry.status for entry in searcher.history.values()] == [status]


def test_recommends_the_best_that_keep_the_limits() -> None:
    searcher = InOrder(SMALL, mode="min")
    rows = [({"a": "x", "b": b, "c": c}, scores) for b in "pq" for c, scores in (("1", [2.0]), ("2", [1.0, 3.0]))]
    for architecture, scores in (*rows, ({"a": "y", "b": "p", "c": "3"}, [0.0, 0.0])):
        searcher.add_evaluated_point({"architecture": architecture}, scores[-1], intermediate_values=scores)
    # Those that came further stand first, equal ones by key; the best of all breaks the constraint.
    further, less = (sorted((form for form, scores in rows if len(scores) == count), key=key) for count in (2, 1))
    assert searcher.recommend(9) == [*further, *less]
    assert searcher.recommend() == further[:1] and searcher.recommend(3) == [*further, *less][:3]


def test_a_trial_stopped_without_a_last_result_keeps_its_scores() -> None:
    searcher = InOrder(CHAIN)
    searcher.suggest("t")
    searcher.on_trial_result("t", {"score": 0.5, "training_iteration": 2})
    searcher.on_trial_complete("t")
    (entry,) = searcher.history.values()
    assert (entry.status, entry.scores) == ("done", {2: 0.5})


def test_a_last_score_of_nan_fails_a_trial_that_began_well() -> None:
    searcher = InOrder(CHAIN)
    searcher.suggest("t")
    searcher.on_trial_result("t", {"score": 0.5, "training_iteration": 1})
    searcher.on_trial_complete("t", {"score": math.nan, "training_iteration": 2})
    assert [entry.status for entry in searcher.history.values()] == ["error"]


def test_trials_of_others_are_passed_over() -> None:
    searcher = InOrder(CHAIN)
    searcher.on_trial_result("stranger", {"score": 1.0})
    searcher.on_trial_complete("stranger", {"score": 1.0})
    assert not searcher.history


def test_rank_puts_fidelity_before_score_and_failures_last() -> None:
    for mode, sign in (("max", 1), ("min", -1)):
        searcher = InOrder(CHAIN, mode=mode)
        a, b, c, d = list(enumerate_all(CHAIN.decisions))[:4]
        searcher.add_evaluated_point({"architecture": a}, sign * 0.9, intermediate_values=[0.0, 0.9])
        searcher.add_evaluated_point({"architecture": b}, sign * 0.5, intermediate_values=[math.nan] * 8)
        searcher.add_evaluated_point({"architecture": c}, sign * 0.6, intermediate_values=[0.1] * 8)
        searcher.add_evaluated_point({"architecture": d}, sign * 99.0, error=True)
        ranked = sorted(searcher.history.values(), key=searcher.rank)
        assert [entry.architecture for entry in ranked] == [d, a, b, c]


def test_replayed_fidelities() -> None:
    searcher = InOrder(CHAIN)
    a, b, c, d = list(enumerate_all(CHAIN.decisions))[:4]
    searcher.add_evaluated_point({"architecture": a}, 0.3, intermediate_values=[0.1, math.nan, 0.3])
    searcher.add_evaluated_point({"architecture": b}, 0.3)
    searcher.add_evaluated_point({"architecture": c}, 0.3, pruned=True)
    searcher.add_evaluated_point({"architecture": d}, None)
    assert [entry.scores for entry in searcher.history.values()] == [{1: 0.1, 3: 0.3}, {1: 0.3}, {0: 0.3}, {}]
    assert [entry.status for entry in searcher.history.values()] == ["done", "done", "done", "error"]


def test_replay_knows_the_canonical_form() -> None:
    searcher = RandomSearch(SMALL)
    searcher.add_evaluated_point({"architecture": {"a": "z", "b": "p", "c": "2"}}, 0.5)
    assert len(Player().play(searcher, 100)) == 9


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="'maximum'; legal ones: 'min', 'max'"):
        RandomSearch(CHAIN, mode="maximum")
    with pytest.raises(ArchitectureError, match="'q'; legal ones: 'a', 'b', 'c', 'd'"):
        RandomSearch(CHAIN, points_to_evaluate=[{f"block{i}": "q" for i in range(6)}])
    with pytest.raises(ValueError, match=r"violation 0\.5"):
        RandomSearch(SMALL, points_to_evaluate=[{"a": "x", "b": "p", "c": "3"}])
    with pytest.raises(ValueError, match=r"'architecture', got \{'lr': 0"):
        RandomSearch(SMALL).add_evaluated_point({"lr": 0.1}, 0.5)
    with pytest.raises(ArchitectureError, match="'block5' is missing"):
        RandomSearch(CHAIN).add_evaluated_point({"architecture": {f"block{i}": "a" for i in range(5)}}, 0.5)


def test_state_is_plain_json_and_refused_by_others(tmp_path) -> None:
    searcher = RandomSearch(CHAIN, seed=1)
    Player(in_flight=3).play(searcher, 10)
    searcher.save(str(tmp_path / "state"))
    assert json.loads((tmp_path / "state").read_text())["seed"] == 1
    for other, match in (
        (RandomSearch(SMALL, seed=1), "another decisions"),
        (InOrder(CHAIN, seed=1), "another class: 'RandomSearch' instead of 'InOrder'"),
    ):
        with pytest.raises(ValueError, match=match):
            other.restore(str(tmp_path / "state"))


def test_requeued_come_first() -> None:
    searcher, restored = RandomSearch(CHAIN), RandomSearch(CHAIN)
    kept, lost = searcher.suggest("kept")["architecture"], {name: "a" for name in CHAIN.decisions}
    other = {name: "d" for name in CHAIN.decisions}
    searcher.requeue([lost, kept, other], {key(other): {1: 0.5, 2: 0.7}})
    restored.set_state(json.loads(json.dumps(searcher.get_state())))
    for each in (searcher, restored):
        assert [each.suggest(f"again{i}")["architecture"] for i in range(2)] == [lost, other]
        # Its trial goes on where it was.
        each.on_trial_complete("again1", {"score": 0.9, "training_iteration": 3})
        assert each.history[key(other)].scores == {1: 0.5, 2: 0.7, 3: 0.9} and not each.history[key(lost)].scores
        assert each.suggest("next")["architecture"] not in (lost, kept, other)


def test_an_interrupted_random_search_ends_with_the_same_architectures() -> None:
    whole = Player().play(RandomSearch(CHAIN, seed=4), 60)
    player, searcher = Player(in_flight=7, seed=1), RandomSearch(CHAIN, seed=4)
    player.play(searcher, 35)
    # Killed here: 28 are scored, in some order; 7 were in flight.
    resumed = RandomSearch(CHAIN, seed=4)
    for architecture in player.completed:
        resumed.add_evaluated_point({"architecture": architecture}, preference(architecture))
    rest = Player(in_flight=7).play(resumed, 60 - len(player.completed))
    assert sorted(map(key, player.completed + rest)) == sorted(map(key, whole))


def test_points_given_twice_or_in_two_forms_are_one() -> None:
    point = {"a": "z", "b": "p", "c": "1"}
    searcher = RandomSearch(SMALL, points_to_evaluate=[point, {**point, "c": "2"}, point])
    assert searcher.points == (point,)
    assert len(Player().play(searcher, 100)) == 10


def test_searchers_of_one_seed_begin_alike() -> None:
    decisions = {f"b{i}": ("a", "b") for i in range(12)}
    assert RandomSearch(SearchSpace(decisions), seed=9).planned(20) == InOrder(SearchSpace(decisions), seed=9).planned(
        20
    )
    assert InOrder(SearchSpace(decisions), seed=9).rng("x", 1).random() == Random("9/x/1").random()


def test_the_searchers_that_weigh_costs_are_named() -> None:
    weigh = {name for name in searchers.__all__ if getattr(getattr(searchers, name), "weighs_costs", False)}
    assert weigh == set(WEIGH_COSTS)
