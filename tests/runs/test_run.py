"""What a run makes of the log at the end of a search; the searches themselves are tested with their trainables."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import plain
from helpers.bare import DECISIONS, MANY
from ray import tune

from raynas import results
from raynas.architecture import Architecture, enumerate_all
from raynas.cli.main import main
from raynas.config.run import Config, SearchConfig
from raynas.results.log import Log
from raynas.runs.phases.leaderboard import write_leaderboard
from raynas.runs.run import Run
from raynas.search_space.space import SearchSpace
from raynas.searchers import Evolution, EvolutionSettings, RandomSearch
from raynas.tune.spec import EvaluationSpec

ALL = list(enumerate_all(DECISIONS))


def truth(architectures: Sequence[Architecture]) -> list[float]:
    return [10.0 - ALL.index(architecture) for architecture in architectures]


def test_what_the_searcher_recommends_is_scored_again(tmp_path: Path) -> None:
    config = Config(search=SearchConfig(top=3), storage_path=str(tmp_path), name="run")
    run = Run(config, SearchSpace(DECISIONS), None, RandomSearch, tune.Trainable)
    with Log(run.folder / "scored.parquet") as log:
        for place, architecture in enumerate(ALL[:8]):
            log.append({"architecture": architecture, "status": "complete", "fidelity": 1, "score": float(place)})

    def board(*recommended: Architecture) -> list[Any]:
        return [row["architecture"] for row in write_leaderboard(run.context, doubtful, recommended)]

    doubtful = EvaluationSpec(tune.Trainable, rescore=truth)
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
    run = Run(config, space, None, evolution, plain.Told)
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


def noisy(folder: Path) -> Path:
    """A table of scores that get clearer from fidelity to fidelity."""
    rng, rows = Random(0), list(enumerate_all(MANY))
    values: dict[str, Any] = {name: [row[name] for row in rows] for name in MANY}
    truth = [sum(("a", "b", "c", "d").index(option) for option in row.values()) for row in rows]
    values |= {f"after_{step}": [score + rng.gauss(0, 4 / step) for score in truth] for step in (1, 2, 3, 4)}
    pq.write_table(pa.table(values), folder / "scores.parquet")
    return folder / "scores.parquet"


def fates(folder: Path) -> list[tuple[Any, ...]]:
    """All reports of a search in their order."""
    rows = results.read(folder / "scored.parquet").to_pylist() if (folder / "scored.parquet").exists() else []
    return [(row["key"], row["fidelity"], row["score"], row["status"]) for row in rows]


@pytest.mark.usefixtures("ray_session")
def test_a_search_that_is_killed_twice_stops_the_same_early(tmp_path: Path) -> None:
    """One trial at a time, so that the order of the reports, on which ASHA's decisions depend, is no chance."""
    words = [
        "--space", "helpers.bare:MANY", "--storage-path", str(tmp_path), "--num-samples", "50", "--max-concurrent", "1",
        "search.method=random", "search.trainable=helpers.slow:SlowTable", "after=[]",
        f"search.trainable_args.file={noisy(tmp_path)}", "search.trainable_args.metric=after_4",
        "search.trainable_args.fidelities=[after_1,after_2,after_3]",
    ]  # fmt: skip
    assert main([*words, "--name", "whole"]) == 0
    whole, killed = fates(tmp_path / "whole"), tmp_path / "killed"
    assert {status for *_, status in whole} == {"running", "stopped", "complete"}
    line = [sys.executable, "-m", "raynas.launch", *words, "--name", "killed"]
    for more in ([], ["--resume"]):
        with subprocess.Popen([*line, *more], stdout=subprocess.DEVNULL, start_new_session=True) as driver:
            enough = len(fates(killed)) + len(whole) // 4
            while len(fates(killed)) < enough and driver.poll() is None:
                time.sleep(0.01)
            if driver.poll() is None:
                os.killpg(driver.pid, signal.SIGKILL)
        assert driver.returncode == -signal.SIGKILL and len(fates(killed)) < len(whole), "it ended before it was killed"
    assert main([*words, "--name", "killed", "--resume"]) == 0
    assert fates(killed) == whole
