"""``load_run`` and the objective that a log stores: nothing about a finished run is guessed."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.bare import DECISIONS

import raynas
from raynas import Config, results
from raynas.analysis.run_data import read_run_data
from raynas.architecture import enumerate_all, key
from raynas.config.loading import dump
from raynas.config.run import SearchConfig
from raynas.exceptions import ConfigError
from raynas.metrics import Objective
from raynas.results.log import SCHEMA, Log

FORMS = list(enumerate_all(DECISIONS))[:4]


def folder_of(path: Path, trainable: str = "trainables.table:Table", **search: Any) -> Path:
    path.mkdir()
    config = Config(search=SearchConfig(trainable=trainable, **search), name=path.name, storage_path=str(path.parent))
    (path / "config.yaml").write_text(dump(config), encoding="utf-8")
    return path


def rows(**metrics: float) -> list[dict[str, Any]]:
    return [
        {"architecture": form, "status": "complete", "fidelity": 1, "max_fidelity": 1, "score": 1.0 + number,
         "macs": 100 * number, "metrics": metrics, "searcher": "random"}
        for number, form in enumerate(FORMS)
    ]  # fmt: skip


def earlier_log(folder: Path, **metrics: float) -> None:
    """A log as the version before wrote it: fixed columns without notes, and no objective."""
    with Log(folder / "scored.parquet", math.inf) as log:
        for row in rows(**metrics):
            log.append(row)
    (part,) = (folder / "scored.parquet").glob("*.parquet")
    table = pq.read_table(part)
    plain = pa.schema([pa.field(field.name, field.type) for field in table.schema])
    pq.write_table(pa.table(table.columns, schema=plain), part)


def test_a_run_says_what_its_scores_are(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "run", "my_pkg.mod:Unknown")
    with Log(folder / "scored.parquet", objective=Objective("loss", "min", "nats")) as log:
        for row in rows():
            log.append(row)
    (folder / "leaderboard.json").write_text(json.dumps([{"key": "k", "architecture": FORMS[0], "score": 1.0}]))
    found = raynas.load_run(str(folder))
    assert found.objective == Objective("loss", "min", "nats") == results.objective(folder / "scored.parquet")
    assert len(found.table) == 4 == len(found.latest()) and found.leaderboard[0]["key"] == "k" and found.front == []
    assert found.costs == ("macs",) and found.config.name == "run"
    account = read_run_data(folder)
    assert (account.mode, account.metric) == ("min", None)


def test_the_objective_survives_compaction_and_is_added_to_an_earlier_log(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "run")
    earlier_log(folder)
    log = folder / "scored.parquet"
    assert results.objective(log) is None
    before = results.read(log)
    assert results.compact(log, Objective("loss", "min")) == 0 and results.objective(log) == Objective("loss", "min")
    assert results.read(log).equals(before)
    for row in rows():
        with Log(log, objective=Objective("loss", "min")) as more:
            more.append(row)
    assert results.compact(log) == 5 and results.objective(log) == Objective("loss", "min")


def test_parts_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    for mode in ("max", "min"):
        with Log(tmp_path, objective=Objective("loss", mode)) as log:  # type: ignore[arg-type]
            log.append(rows()[0])
    with pytest.raises(ConfigError, match=r"do not compare: loss .to be max. and loss .to be min.; start a new"):
        results.objective(tmp_path)


@pytest.mark.parametrize(
    ("trainable", "search", "metrics", "wanted"),
    [
        ("trainables.table:Table", {"trainable_args": {"file": "f", "metric": "error", "mode": "min"}}, {}, "min"),
        ("trainables.table:Table", {"trainable_args": {"file": "f", "metric": "error"}}, {}, "max"),
        ("my_pkg.mod:Plain", {"mode": "min"}, {}, "min"),
        ("trainables.angle:Angle", {"combine": {"angle": 1.0}}, {}, "max"),
    ],
)
def test_the_mode_of_an_earlier_log_is_that_of_its_settings(
    tmp_path: Path, trainable: str, search: dict[str, Any], metrics: dict[str, float], wanted: str
) -> None:
    folder = folder_of(tmp_path / "run", trainable, **search)
    earlier_log(folder, **metrics)
    # The order of a leaderboard tells nothing.
    board = [{"key": key(form), "architecture": form, "score": 1.0, "final_score": 1.0 + n} for n, form in
             enumerate(FORMS[::-1 if wanted == "min" else 1])]  # fmt: skip
    (folder / "leaderboard.json").write_text(json.dumps(board))
    assert raynas.load_run(folder).objective.mode == read_run_data(folder).mode == wanted


def test_an_earlier_log_of_a_foreign_evaluator_is_refused_in_one_line(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "run", "my_pkg.mod:Own")
    earlier_log(folder)
    with pytest.raises(ConfigError, match=r"does not say whether high scores are good.*--resume .*run") as refused:
        raynas.load_run(folder)
    assert "\n" not in str(refused.value)
    with pytest.raises(ConfigError, match="resume the run once"):
        read_run_data(folder)


def test_an_earlier_log_has_its_costs(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "run")
    earlier_log(folder)
    table = results.read(folder / "scored.parquet")
    assert results.cost_names(table) == ("macs", "parameters", "latency_ms") and table.schema.names == SCHEMA.names
    assert table.column("macs").to_pylist() == [0, 100, 200, 300]
    with Log(folder / "scored.parquet", math.inf) as log:
        log.append({**rows()[0], "costs": {"bitops": 3.5}})
    table = results.read(folder / "scored.parquet")
    assert results.cost_names(table)[-1] == "bitops"
    assert table.column("bitops").to_pylist() == [None, None, None, None, 3.5]


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no folder of a run: it has no config"):
        raynas.load_run(tmp_path)
    folder = folder_of(tmp_path / "empty")
    assert len(raynas.load_run(folder).table) == 0
    assert dataclasses.is_dataclass(raynas.load_run(folder))
