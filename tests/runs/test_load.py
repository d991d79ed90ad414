"""What a search costs does not grow with what was scored, and what does not fit is refused: without Ray."""

import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from raynas.analysis.random_baseline import expected_best
from raynas.architecture import key
from raynas.config.run import SearchConfig
from raynas.exceptions import ConfigError
from raynas.report.svg import DOTS, Axis, Plot
from raynas.results.log import Log, read
from raynas.search_space.space import SearchSpace
from raynas.searchers import ArchitectureSearcher, Evolution, LocalSearch, RandomSearch, RegularizedEvolution, base
from raynas.tune.experiment import LoggedHistory
from raynas.tune.resources import HEAD, check_processes, memory_of_head
from raynas.tune.trial import BatchTrial

SPACE = SearchSpace({f"layer.{number}": tuple("abcd") for number in range(6)})  # 4,096 architectures


def ask(searcher: ArchitectureSearcher, count: int) -> None:
    """Have so many proposed and scored."""
    begin = len(searcher.history)
    for number in range(begin, begin + count):
        suggestion = searcher.suggest(str(number))
        assert isinstance(suggestion, dict)
        score = int(key(suggestion["architecture"])[:6], 16)
        searcher.on_trial_complete(str(number), {"score": score, "training_iteration": 1})


@pytest.mark.parametrize("kind", [RandomSearch, Evolution, RegularizedEvolution, LocalSearch])
def test_a_proposal_looks_at_few_entries_however_many_there_are(
    kind: Callable[..., ArchitectureSearcher], monkeypatch: pytest.MonkeyPatch
) -> None:
    searcher = kind(SPACE, metric="score", mode="max")
    ask(searcher, 3000)
    ranked = []
    rank = ArchitectureSearcher.rank

    def counted(self: ArchitectureSearcher, entry: Any) -> tuple[int, float]:
        ranked.append(entry)
        return rank(self, entry)

    def refused(self: Any) -> Any:
        raise AssertionError("all entries are looked at")

    monkeypatch.setattr(ArchitectureSearcher, "rank", counted)
    monkeypatch.setattr(base.SearchHistory, "__iter__", refused)
    ask(searcher, 500)
    assert len(ranked) < 60 * 500  # ranking all of them once a generation of 50 would be as many; once a child, more
    if kind is Evolution:
        assert len(ranked) == 500


def test_drawing_from_a_space_that_fills_does_not_begin_anew() -> None:
    searcher = RandomSearch(SPACE)
    asked = 0

    class Watched(set[str]):
        def __contains__(self, name: object) -> bool:
            nonlocal asked
            asked += 1
            return super().__contains__(name)

    searcher._plan_keys = Watched()
    ask(searcher, 4096)
    assert searcher.suggest("last") == "FINISHED"
    assert asked < 4 * 4096


def test_what_ended_is_told_in_order_and_anew_where_an_old_entry_changes() -> None:
    searcher = RandomSearch(SPACE)
    ask(searcher, 3)
    ended = searcher.history.ended
    ask(searcher, 1)
    assert searcher.history.ended is ended and ended == list(searcher.history)
    first = searcher.history[ended[0]].architecture
    searcher.add_evaluated_point({"architecture": first}, None, error=True)
    assert searcher.history.ended is not ended and searcher.history.ended == [*ended[1:], ended[0]]
    assert searcher.tried == 3


def test_the_best_of_many_draws_is_the_mean_over_all_ways_to_take_them() -> None:
    values = [float(number) for number in range(2000)]
    assert expected_best(values, 1) == pytest.approx(999.5)
    assert expected_best(values, 1000) == pytest.approx(1000 * 2001 / 1001 - 1)


def test_a_plot_of_very_many_points_is_thinned_and_says_so() -> None:
    plot = Plot(Axis.of("x", [0.0, 1e5]), Axis.of("y", [0.0, 1e5]), "many")
    plot.dots([(float(number), float(number * 7919 % 100_000)) for number in range(3 * DOTS)], "full")
    assert plot.svg().count("h0") <= DOTS and "every 3 dots" in plot.note


def test_the_memory_of_a_rebuilt_search_is_bounded(tmp_path: Any) -> None:
    rows = 4000
    searcher = RandomSearch(SPACE, metric="score", mode="max")
    with Log(tmp_path, flush_seconds=3600) as log:
        for number in range(rows):
            form = searcher.planned(number)
            log.append({"architecture": form, "status": "complete", "fidelity": 1, "max_fidelity": 1, "score": 1.0,
                        "metrics": {"accuracy": 1.0}, "run": "r", "worker": "w", "searcher": "random"})  # fmt: skip
    tracemalloc.start()
    history = LoggedHistory(read(tmp_path), lambda form: True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(history.ended) == rows
    assert peak < 5000 * rows


def test_more_processes_than_the_memory_holds_are_refused_with_how_many_fit() -> None:
    search = SearchConfig(max_concurrent=400)
    with pytest.raises(ConfigError, match=r"max_concurrent = 400.*8.0 GB of the head node; 40 fit"):
        check_processes(BatchTrial, search, 8e9, "the head node")
    check_processes(BatchTrial, search, 100e9, "the head node")
    check_processes(object, search, 8e9, "the head node")  # takes processors, which bound it


def test_the_memory_of_a_cluster_is_that_of_its_head() -> None:
    nodes = [
        {"Alive": True, "Resources": {"memory": 5e9, "CPU": 4.0}},
        {"Alive": True, "Resources": {"memory": 8e9, HEAD: 1.0}},
    ]
    assert memory_of_head(nodes) == 8e9
    assert memory_of_head(nodes[:1]) == float("inf")
