from __future__ import annotations

from typing import Any

import pytest
from ray import cloudpickle
from ray.tune.search import Searcher

from raynas.architecture import Architecture, key
from raynas.searchers import TPE, BatchSearcher, Evolution, EvolutionSettings, RandomSearch
from raynas.testing.searcher import CHAIN, SMALL, Player, preference

SETTINGS = EvolutionSettings(population=10, parents=3, mutations=5, crossovers=5)


def outcome(architecture: Architecture, status: str = "complete") -> dict[str, Any]:
    return {"architecture": architecture, "score": preference(architecture), "fidelity": 3, "status": status}


def play(cohort: BatchSearcher, count: int) -> list[list[Architecture]]:
    cohorts: list[list[Architecture]] = []
    while sum(map(len, cohorts)) < count:
        trial = f"trial{len(cohorts)}"
        suggestion: Any = cohort.suggest(trial)
        if suggestion == Searcher.FINISHED:
            break
        cohorts.append(suggestion["architectures"])
        outcomes = list(map(outcome, suggestion["architectures"]))
        # Outcomes may come in another order than they were proposed.
        cohort.on_trial_complete(trial_id=trial, result={"score": 1.0, "outcomes": outcomes[::-1]}, error=False)
    return cohorts


@pytest.mark.parametrize("size", [1, 4, 64])
def test_the_inner_searcher_is_unchanged(size: int) -> None:
    cohorts = play(BatchSearcher(Evolution(CHAIN, settings=SETTINGS), size), 60)
    alone = Player().play(Evolution(CHAIN, settings=SETTINGS), 60)
    assert [architecture for cohort in cohorts for architecture in cohort][:60] == alone
    assert all(len(cohort) <= size for cohort in cohorts)


def test_a_cohort_goes_out_smaller_where_the_inner_searcher_waits() -> None:
    cohort = BatchSearcher(Evolution(CHAIN, settings=SETTINGS), 8)
    first: Any = cohort.suggest("a")
    second: Any = cohort.suggest("b")
    assert (len(first["architectures"]), len(second["architectures"])) == (8, 2)
    assert cohort.suggest("c") is None
    for trial, suggestion in (("a", first), ("b", second)):
        cohort.on_trial_complete(trial, {"outcomes": list(map(outcome, suggestion["architectures"]))})
    third: Any = cohort.suggest("c")
    assert len(third["architectures"]) == 8


def test_ends_having_tried_everything() -> None:
    cohort = BatchSearcher(RandomSearch(SMALL), 4)
    assert list(map(len, play(cohort, 1000))) == [4, 4, 2]
    assert cohort.suggest("more") == Searcher.FINISHED


def test_ends_at_the_total() -> None:
    cohort = BatchSearcher(RandomSearch(CHAIN), 4, 10)
    assert list(map(len, play(cohort, 1000))) == [4, 4, 2]
    restored = BatchSearcher(RandomSearch(CHAIN), 4, 10)
    restored.set_state(cohort.get_state())
    assert restored.suggest("more") == Searcher.FINISHED


def test_each_outcome_reaches_its_architecture() -> None:
    inner = RandomSearch(CHAIN)
    cohort = BatchSearcher(inner, 4)
    suggestion: Any = cohort.suggest("t")
    good, bad, missing, other = suggestion["architectures"]
    cohort.on_trial_complete("t", {"outcomes": [outcome(other, "stopped"), outcome(bad, "error"), outcome(good)]})
    entries = {
        name: inner.history[key(a)] for name, a in dict(good=good, bad=bad, missing=missing, other=other).items()
    }
    assert {name: entry.status for name, entry in entries.items()} == {
        "good": "done",
        "bad": "error",
        "missing": "error",
        "other": "done",
    }
    assert entries["good"].scores == {3: preference(good)}
    assert entries["other"].scores == {3: preference(other)}


def test_a_failed_trial_fails_all_of_its_architectures_and_blocks_nothing() -> None:
    inner = Evolution(CHAIN, settings=SETTINGS)
    cohort = BatchSearcher(inner, 10)
    cohort.suggest("t")
    cohort.on_trial_complete("t", None, error=True)
    assert {entry.status for entry in inner.history.values()} == {"error"}
    suggestion: Any = cohort.suggest("u")
    assert len(suggestion["architectures"]) == 10


def test_goes_on_the_same_after_save_and_restore(tmp_path) -> None:
    original, restored = (BatchSearcher(TPE(CHAIN, seed=1), 4) for _ in range(2))
    play(original, 20)
    flying: Any = original.suggest("flying")
    original.save(str(tmp_path / "state"))
    restored.restore(str(tmp_path / "state"))
    for cohort in (original, restored):
        cohort.on_trial_complete("flying", {"outcomes": list(map(outcome, flying["architectures"]))})
    assert original.suggest("next") == restored.suggest("next")


def test_is_a_searcher_without_an_attribute_that_tune_takes_for_a_wrapper() -> None:
    cohort = BatchSearcher(RandomSearch(CHAIN), 3)
    assert isinstance(cohort, Searcher) and not hasattr(cohort, "searcher")
    assert cloudpickle.loads(cloudpickle.dumps(cohort)).suggest("t") == cohort.suggest("t")
    cohort.set_search_properties("loss", "min", {})
    assert (cohort.metric, cohort.mode, cohort.inner.mode) == ("loss", "min", "min")


def test_replay() -> None:
    first: Any = BatchSearcher(RandomSearch(CHAIN), 3).suggest("elsewhere")
    replayed = BatchSearcher(RandomSearch(CHAIN), 3)
    replayed.add_evaluated_point({"architecture": first["architectures"][0]}, 0.5)
    suggestion: Any = replayed.suggest("t")
    assert suggestion["architectures"][:2] == first["architectures"][1:]


def test_bad_size() -> None:
    with pytest.raises(ValueError, match="cohort is 0; legal: 1 or more"):
        BatchSearcher(RandomSearch(CHAIN), 0)
    with pytest.raises(ValueError, match="total of all cohorts is 0; legal: 1 or more, or None"):
        BatchSearcher(RandomSearch(CHAIN), 4, 0)


def test_scores_of_lower_fidelities_reach_the_inner_searcher() -> None:
    inner = RandomSearch(CHAIN)
    cohort = BatchSearcher(inner, 2)
    suggestion: Any = cohort.suggest("t")
    first, second = suggestion["architectures"]

    def row(architecture, score, fidelity, status="running"):
        return {"architecture": architecture, "score": score, "fidelity": fidelity, "status": status}

    cohort.on_trial_result("t", {"outcomes": [row(first, 0.1, 1), row(second, 0.2, 1)]})
    cohort.on_trial_complete("t", {"outcomes": [row(first, 0.1, 1, "stopped"), row(second, 0.3, 2, "complete")]})
    assert [inner.history[key(a)].scores for a in (first, second)] == [{1: 0.1}, {1: 0.2, 2: 0.3}]
