"""Costs of names that RayNAS does not know: this module alone adds them, and they are limited, minimised and shown."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from helpers.bare import DECISIONS
from helpers.handmade import page

import raynas
from raynas import Config, prepare, results
from raynas.architecture import Decisions, enumerate_all
from raynas.config.run import SearchConfig
from raynas.exceptions import ConfigError
from raynas.metrics import Metric
from raynas.results.log import Log
from raynas.runs.run import Run
from raynas.search_space.constraints import Profile
from raynas.search_space.space import SearchSpace
from raynas.searchers import RandomSearch
from raynas.tune.evaluator import EvaluationContext, EvaluatorTraits
from raynas.tune.resources import slots
from raynas.tune.spec import EvaluationSpec, Objective
from raynas.tune.trial import BatchTrial, Candidate, FidelitySchedule

FORMS = list(enumerate_all(DECISIONS))


class FourCosts:
    """MACs as RayNAS knows them, and three costs of this module."""

    def __call__(self, architecture: Mapping[str, str], /) -> dict[str, float]:
        place = float(FORMS.index(dict(architecture)))
        return {
            "macs": int(100 * place),
            "bitops": 64.0 * place,
            "memory_bytes": 4096.0 - place,
            "energy_mj": place / 8,
        }

    def profile(self) -> dict[str, Profile]:
        costs = [self(form) for form in FORMS]
        return {
            name: Profile(min(each[name] for each in costs), costs[13][name], max(each[name] for each in costs))
            for name in costs[0]
        }


class Costly(BatchTrial):
    """The score is the error of an architecture, to be low."""

    traits = EvaluatorTraits(needs_network=False, default_searcher="random")

    @classmethod
    def costs(cls, decisions: Decisions, config: Config) -> FourCosts:
        return FourCosts()

    @classmethod
    def objective(cls, config: Config, metric: Metric | None) -> Objective:
        return Objective("error", "min", "%")

    @classmethod
    def evaluation_spec(cls, context: EvaluationContext) -> EvaluationSpec:
        return EvaluationSpec(cls, {}, slots(1), bounded=False)

    def setup(self, config: dict[str, Any]) -> None:
        self.enter(config, FidelitySchedule(mode="min"), None)

    def advance(self, candidates: Any, fidelity: int) -> None:
        candidate: Candidate
        for candidate in candidates:
            candidate.score = 30.0 - FORMS.index(candidate.architecture)


def config_of(folder: Path, limits: dict[str, Any], objectives: list[str], **search: Any) -> Config:
    settings = SearchConfig(trainable=f"{__name__}:Costly", objectives=objectives, num_samples=12, cohort=4, **search)
    return Config(search=settings, limits=limits, storage_path=str(folder), name="run", after=[])


@pytest.mark.usefixtures("ray_session")
def test_a_third_and_a_fourth_cost_are_limited_minimised_logged_and_shown(tmp_path: Path) -> None:
    limits = {"memory_bytes": [None, 4090.0], "energy_mj": 2.5}  # numbers 6 to 20
    run = prepare(config_of(tmp_path, limits, ["bitops"], method="nsga2"), space=DECISIONS)
    best = run.search()
    model = FourCosts()
    log = run.folder / "scored.parquet"
    assert results.objective(log) == Objective("error", "min", "%")
    rows = results.read(log).to_pylist()
    assert len(rows) == 12 and all(6 <= FORMS.index(json.loads(row["architecture"])) <= 20 for row in rows)
    for row in (*rows, *best):
        form = row["architecture"] if isinstance(row["architecture"], dict) else json.loads(row["architecture"])
        assert {name: row[name] for name in model(form)} == model(form)
    front = run.front()
    assert len(front) > 1 and [row["bitops"] for row in front] == sorted((r["bitops"] for r in front), reverse=True)
    assert best[0]["score"] == min(row["score"] for row in rows)

    frame = pd.read_parquet(log)
    assert {"bitops", "memory_bytes", "energy_mj", "macs"} <= set(frame.columns) and frame["bitops"].min() >= 64 * 6
    found = raynas.load_run(run.folder)
    assert found.costs == ("macs", "bitops", "memory_bytes", "energy_mj") and found.objective.mode == "min"
    shown = page(run.folder)
    assert "bitops" in shown.text("front") and "energy_mj" in shown.text("best")
    run.close()


@pytest.mark.usefixtures("no_ray")
def test_limits_and_objectives_name_the_known_costs(tmp_path: Path) -> None:
    for limits, objectives in (({"flops": 3}, []), ({}, ["flops"])):
        with pytest.raises(ConfigError, match="legal ones: macs, bitops, memory_bytes, energy_mj"):
            prepare(config_of(tmp_path, limits, objectives), space=DECISIONS)


def test_a_cost_gets_a_column_of_its_own_beside_those_of_every_log(tmp_path: Path) -> None:
    row = {"architecture": FORMS[0], "status": "complete", "fidelity": 1, "score": 1.0}
    with Log(tmp_path / "log", math.inf) as log:
        log.append({**row, "costs": {"macs": 7, "bitops": 2}})
    with Log(tmp_path / "log", math.inf) as log:  # it knows the columns of the earlier parts
        log.append({**row, "bitops": 3.5})
        log.append({**row, "costs": {"macs": 8, "memory_bytes": 1e9}})
        with pytest.raises(ValueError, match="no column 'flops'"):
            log.append({**row, "flops": 1})
        for name in ("score", "time", "costs"):
            with pytest.raises(ValueError, match=f"a cost cannot be named '{name}'"):
                log.append({**row, "costs": {name: 1.0}})
    for _ in range(2):
        table = results.read(tmp_path / "log")
        assert table.schema.field("bitops").type == pa.float64() and table.schema.field("macs").type == pa.int64()
        columns = ("macs", "bitops", "memory_bytes")
        kept = [table.column(name).to_pylist() for name in columns]
        assert kept == [[7, None, 8], [2.0, 3.5, None], [None, None, 1e9]]
        assert results.compact(tmp_path / "log") in (0, 2)
    assert results.leaderboard(table, n=1).column("bitops").to_pylist()


def test_an_impossible_cost_of_any_name_is_unknown(tmp_path: Path) -> None:
    with Log(tmp_path / "log", math.inf) as log:
        log.append(
            {"architecture": FORMS[0], "status": "complete", "fidelity": 1, "score": 1.0, "costs": {"bitops": -1}}
        )
    with pytest.warns(RuntimeWarning, match="impossible 'bitops'"):
        assert results.read(tmp_path / "log").column("bitops").to_pylist() == [None]


@pytest.mark.usefixtures("no_ray")
def test_a_cost_with_the_name_of_another_column_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Clashing(FourCosts):
        def profile(self) -> dict[str, Profile]:
            return {**super().profile(), "seconds": Profile(0.0, 1.0, 2.0)}

    class Clash(Costly):
        @classmethod
        def costs(cls, decisions: Decisions, config: Config) -> FourCosts:
            return Clashing()

    Run(config_of(tmp_path, {}, [], method="random"), SearchSpace(DECISIONS), None, RandomSearch, Clash)
    assert "the cost 'seconds' has no column in the log" in caplog.text
