"""What a run makes of the log at the end of a search; the searches themselves are tested with their trainables."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import plain
import pytest
from bare import DECISIONS
from ray import tune

from raynas import results
from raynas.architecture import Architecture, enumerate_all
from raynas.config import Config, SearchConfig
from raynas.results import Log
from raynas.scoring import Scoring
from raynas.search_run import NoCosts, SearchRun
from raynas.searchers import Evolution, EvolutionSettings, RandomSearch, SearchSpace

ALL = list(enumerate_all(DECISIONS))


def truth(architectures: Sequence[Architecture]) -> list[float]:
    return [10.0 - ALL.index(architecture) for architecture in architectures]


def test_what_the_searcher_recommends_is_scored_again(tmp_path: Path) -> None:
    config = Config(search=SearchConfig(top=3), storage_path=str(tmp_path), name="run")
    costs = NoCosts()
    run = SearchRun(config, SearchSpace(DECISIONS, costs=costs), costs, RandomSearch, tune.Trainable)
    with Log(run.folder / "scored.parquet") as log:
        for place, architecture in enumerate(ALL[:8]):
            log.append({"architecture": architecture, "status": "complete", "fidelity": 1, "score": float(place)})

    def board(*recommended: Architecture) -> list[Any]:
        return [row["architecture"] for row in run.leaderboard(doubtful, recommended)]

    doubtful = Scoring(tune.Trainable, rescore=truth)
    # What is scored again is in the order of its new scores, and filled up with the best of the log.
    assert board(ALL[2], ALL[0]) == [ALL[0], ALL[2], ALL[7]]
    assert board() == [ALL[5], ALL[6], ALL[7]]
    # What the log does not know is left out.
    assert board(ALL[9], ALL[1]) == [ALL[1], ALL[6], ALL[7]]


def told(folder: Path, num_samples: int, population: int, others: int = 0) -> list[str]:
    """What the processes of a search in generations have left; all its scores must have come."""
    space = SearchSpace({f"d{place}": ("a", "b", "c", "d") for place in range(4)})
    (processes := folder / "processes").mkdir()
    arguments = {"folder": str(processes), "others": others}
    search = SearchConfig(num_samples=num_samples, slices=1, scheduler="none", trainable_args=arguments)
    config = Config(search=search, storage_path=str(folder), name="run")
    evolution = functools.partial(Evolution, settings=EvolutionSettings(population=population, parents=4))
    run = SearchRun(config, space, NoCosts(), evolution, plain.Told)
    run.search()
    rows = results.read(run.folder / "scored.parquet").to_pylist()
    assert len({row["key"] for row in rows}) == num_samples and {row["status"] for row in rows} == {"complete"}
    return [path.read_text() for path in processes.iterdir()]


@pytest.mark.usefixtures("ray_session")
def test_a_searcher_that_waits_costs_no_processes(tmp_path: Path) -> None:
    """Between generations nothing is staged, and some trials take longer than others."""
    assert 1 < len(told(tmp_path, num_samples=60, population=10)) <= 4


@pytest.mark.usefixtures("ray_session")
def test_processes_that_die_while_they_wait_cost_no_score(tmp_path: Path) -> None:
    """A machine is lost with one trial and all that wait: the trial finds these dead before it gets a new process."""
    said = told(tmp_path, num_samples=5, population=4, others=3)
    assert said.count("killed") == 4 and len(said) <= 4 + 4
