"""A search that starts with the scores of another run: what it reads, and what it refuses before Ray starts."""

from __future__ import annotations

import dataclasses
import re
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.bare import DECISIONS

from raynas import prepare, results
from raynas.architecture import Architecture, enumerate_all
from raynas.cli.main import main
from raynas.config.loading import dump
from raynas.config.run import Config, DataConfig
from raynas.exceptions import ConfigError
from raynas.results.log import Log
from raynas.searchers import Bayes

EVERYTHING = list(enumerate_all(DECISIONS))


def number(architecture: Architecture) -> int:
    """From 0 for the worst architecture to 26 for the best."""
    places = [DECISIONS[name].index(architecture[name]) for name in DECISIONS]
    return places[0] + 3 * places[1] + 9 * places[2]


def settings(folder: Path, name: str = "target", table: dict[str, Any] | None = None, **search: Any) -> Config:
    """Of a run on a table with two columns that agree: accuracy, and error, which is to be low."""
    file = folder / "scores.parquet"
    columns: dict[str, Any] = {name: [row[name] for row in EVERYTHING] for name in DECISIONS}
    columns |= {"accuracy": [float(number(row)) for row in EVERYTHING], "size": [number(row) % 5 for row in EVERYTHING]}
    columns["error"] = [26.0 - score for score in columns["accuracy"]]
    pq.write_table(pa.table(columns), file)
    arguments = {"file": str(file), "metric": "accuracy", **(table or {})}
    values = {"method": "random", "trainable": "trainables.table:Table", "trainable_args": arguments, **search}
    return Config(space="helpers.bare:DECISIONS", search=values, storage_path=str(folder), name=name)  # type: ignore[arg-type]


def write(log: Path, scores: dict[int, float | None], fidelity: int = 1, measure: str = "metric") -> Path:
    """A log in which the architectures of these numbers have these scores; None for one that failed."""
    by_number = {number(architecture): architecture for architecture in EVERYTHING}
    with Log(log) as rows:
        for place, score in scores.items():
            row = {"architecture": by_number[place], "fidelity": fidelity, "max_fidelity": 2}
            found = {"status": "complete", "score": score, "metrics": {measure: score}}
            done = {"status": "error"} if score is None else found
            rows.append({**row, **done})
    return log


def first(run: Any, count: int = 3) -> list[int]:
    """The numbers of the first architectures that a fresh searcher of the run proposes."""
    searcher = run.searcher()
    return [number(searcher.suggest(f"t{i}")["architecture"]) for i in range(count)]


def test_the_best_of_the_other_run_that_keep_the_limits_come_first(tmp_path: Path, no_ray: None) -> None:
    write(tmp_path / "source" / "scored.parquet", {3: 0.1, 24: 0.9, 19: None, 11: 0.5, 7: 0.7, 22: 0.6})
    for named in (str(tmp_path / "source"), str(tmp_path / "source" / "scored.parquet"), "source"):
        assert first(prepare(settings(tmp_path, warm_start=named))) == [24, 7, 22]
    limited = dataclasses.replace(settings(tmp_path, warm_start="source"), limits={"size": 2})
    assert first(prepare(limited)) == [7, 22, 11]
    # What was stopped early stands behind all that were not.
    write(tmp_path / "source" / "scored.parquet", {11: 0.2, 3: 0.3}, fidelity=2)
    assert first(prepare(settings(tmp_path, warm_start="source"))) == [3, 11, 24]


def test_scores_that_were_to_be_low_change_their_sign(tmp_path: Path, no_ray: None) -> None:
    write(tmp_path / "source" / "scored.parquet", {3: 0.1, 24: 0.9, 11: 0.5})
    low = {"metric": "error", "mode": "min"}
    (tmp_path / "source" / "config.yaml").write_text(dump(settings(tmp_path, "source", low)))
    assert first(prepare(settings(tmp_path, warm_start="source"))) == [3, 11, 24]
    assert first(prepare(settings(tmp_path, table=low, warm_start="source"))) == [3, 11, 24]
    (tmp_path / "source" / "config.yaml").write_text(dump(settings(tmp_path, "source")))
    assert first(prepare(settings(tmp_path, table=low, warm_start="source"))) == [24, 11, 3]


def test_perplexities_are_low_where_they_are_good(tmp_path: Path, no_ray: None) -> None:
    write(tmp_path / "source" / "scored.parquet", {3: 9.0, 24: 2.0, 11: 5.0}, measure="perplexity")
    assert first(prepare(settings(tmp_path, warm_start="source"))) == [24, 11, 3]


def test_the_other_run_is_needed_once(tmp_path: Path, no_ray: None) -> None:
    write(tmp_path / "source" / "scored.parquet", {3: 0.1, 24: 0.9, 11: 0.5})
    run = prepare(settings(tmp_path, warm_start="source"))
    run.open()
    before = run.searcher()
    write(tmp_path / "source" / "scored.parquet", {1: 0.95})
    again = prepare(settings(tmp_path, warm_start="source"))
    assert first(again) == [24, 11, 3] and again.searcher().get_state() == before.get_state()
    shutil.rmtree(tmp_path / "source")
    assert first(prepare(settings(tmp_path, warm_start="source"))) == [24, 11, 3]
    # Another source is another start.
    write(tmp_path / "other" / "scored.parquet", {5: 0.1, 6: 0.9, 7: 0.5})
    run = prepare(settings(tmp_path, warm_start="other"))
    run.open()
    assert first(run) == [6, 7, 5] == first(prepare(settings(tmp_path, warm_start="other")))


@pytest.mark.usefixtures("ray_session")
def test_from_a_search_to_the_next(tmp_path: Path) -> None:
    low = {"metric": "error", "mode": "min"}
    prepare(settings(tmp_path, "source", low, num_samples=14)).search()
    run = prepare(settings(tmp_path, method="bayes", num_samples=6, warm_start="source"))
    best = run.search()
    scored = [row["key"] for row in results.read(run.folder / "scored.parquet").to_pylist()]
    table = results.read(tmp_path / "source" / "scored.parquet")
    assert scored[:3] == results.leaderboard(table, 3, "min").column("key").to_pylist()
    assert best[0]["score"] == 26.0
    # Extended, also by another searcher without a source, it goes on from its own log.
    again = prepare(settings(tmp_path, method="random", num_samples=8))
    again.search()
    assert len({row["key"] for row in results.read(run.folder / "scored.parquet").to_pylist()}) == 8


def test_a_network_learns_from_its_own_kind(tmp_path: Path, no_ray: None) -> None:
    config = Config(
        space="helpers.tiny:space", data=DataConfig(name="helpers.tiny:arrays"), storage_path=str(tmp_path), name="one"
    )
    one = prepare(dataclasses.replace(config, search={"method": "bayes"}))
    drawn = [one.searcher().planned(index) for index in range(5)]
    with Log(one.folder / "scored.parquet") as log:
        for place, architecture in enumerate(drawn):
            log.append({"architecture": architecture, "status": "complete", "fidelity": 1, "score": place / 10})
    warm = dataclasses.replace(config, name="two", search={"method": "bayes", "warm_start": "one"})
    searcher = prepare(warm).searcher()
    assert isinstance(searcher, Bayes) and len(searcher.source) == 5
    assert searcher.suggest("t") == {"architecture": drawn[4]}


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("nowhere", "no run with scores in nowhere; legal: a run's folder or its name"),
        ("empty", "no run with scores in empty"),
        ("failed", "there are no scores in .*failed/scored.parquet"),
        ("other", "other searched among other decisions: .*'blocks.0'"),
    ],
)
def test_refusals(named: str, message: str, tmp_path: Path, capsys: Any, no_ray: None) -> None:
    (tmp_path / "empty" / "scored.parquet").mkdir(parents=True)
    write(tmp_path / "failed" / "scored.parquet", {3: None})
    with Log(tmp_path / "other" / "scored.parquet") as log:
        log.append({"architecture": {"blocks.0": "k3"}, "status": "complete", "fidelity": 1, "score": 0.5})
    with pytest.raises(ConfigError, match=message):
        prepare(settings(tmp_path, warm_start=named))
    (tmp_path / "run.yaml").write_text(dump(settings(tmp_path, warm_start=named)))
    assert main(["--trust", "--config", str(tmp_path / "run.yaml")]) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("error: ") and "\n" not in said and re.search(message, said)
