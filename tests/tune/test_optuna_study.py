"""The search as a study of Optuna."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from raynas.architecture import key
from raynas.config.run import Config, SearchConfig
from raynas.exceptions import ConfigError
from raynas.progress import SearchStatus
from raynas.results.log import Log
from raynas.tune.loggers import listening

DECISIONS = {"a": ("x", "y"), "a.y.width": ("4", "8")}
STATUS = SearchStatus(1, 0, 3, {}, 0, 50.0, (4, 4), {}, 1.0, 1.0, 0.0)


def row(status: str, score: float | None, form: dict[str, str], **further: Any) -> dict[str, Any]:
    return {"architecture": form, "key": key(form), "status": status, "score": score, "fidelity": 2, **further}


ROWS = [
    row("complete", 50.5, {"a": "x"}, costs={"macs": 2000}, seconds=3.0, metrics={"accuracy": 50.5}),
    row("stopped", 40.0, {"a": "y", "a.y.width": "4"}, costs={"macs": 1000}),
    row("error", None, {"a": "y", "a.y.width": "8"}, error="it failed", costs={"macs": 1500}),
]


def study(folder: Path, *rows: dict[str, Any], mode: str = "max", objectives: tuple[str, ...] = ()) -> optuna.Study:
    search = SearchConfig(loggers=["optuna"], objectives=list(objectives), scheduler="none" if objectives else "asha")
    with listening(Config(name="größe", search=search), folder, DECISIONS, mode) as log:
        assert log is not None
        for each in rows:
            log(each, STATUS)
    return optuna.load_study(study_name="größe", storage=f"sqlite:///{folder / 'optuna.db'}")


def test_every_architecture_is_a_trial(tmp_path: Path) -> None:
    found = study(tmp_path, *ROWS, ROWS[0])
    complete, pruned, failed = found.get_trials()
    assert [each.state for each in found.get_trials()] == [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL]
    assert (complete.value, complete.params) == (50.5, {"a": "x"})
    assert complete.user_attrs == {"key": key({"a": "x"}), "fidelity": 2, "macs": 2000, "metrics/accuracy": 50.5}
    assert complete.duration is not None and complete.duration.total_seconds() == 3.0
    assert pruned.params == {"a": "y", "a.y.width": "4"} and pruned.intermediate_values == {2: 40.0}
    assert failed.user_attrs["error"] == "it failed"
    assert found.best_params == {"a": "x"} and found.metric_names == ["score"]


def test_the_front_is_that_of_score_and_costs(tmp_path: Path) -> None:
    forms = [{"a": "x"}, {"a": "y", "a.y.width": "4"}, {"a": "y", "a.y.width": "8"}]
    rows = [
        row("complete", s, f, costs={"macs": m}) for s, f, m in zip((3.0, 2.0, 2.5), forms, (30, 10, 40), strict=True)
    ]
    found = study(tmp_path, *rows, mode="min", objectives=("macs",))
    assert sorted(tuple(trial.values) for trial in found.best_trials) == [(2.0, 10.0)]


def test_what_the_study_lacks_is_added_and_nothing_twice(tmp_path: Path) -> None:
    study(tmp_path, ROWS[0])
    with Log(tmp_path / "scored.parquet", math.inf) as log:
        for each in (row("running", 1.0, ROWS[2]["architecture"]), *ROWS):
            log.append({name: value for name, value in each.items() if value is not None})
    found = study(tmp_path, ROWS[1])
    assert sorted(trial.user_attrs["key"] for trial in found.get_trials()) == sorted(each["key"] for each in ROWS)


def test_a_study_of_another_kind_is_refused(tmp_path: Path) -> None:
    study(tmp_path, ROWS[0])
    with pytest.raises(ConfigError, match=r"optuna cannot start: ValueError: the study 'größe' .* maximize, not min"):
        study(tmp_path, ROWS[0], mode="min")


def test_a_storage_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{tmp_path / 'mine.db'}"
    monkeypatch.setenv("OPTUNA_STORAGE", url)
    with listening(Config(name="run", search=SearchConfig(loggers=["optuna"])), tmp_path, DECISIONS) as log:
        assert log is not None
        log(ROWS[0], STATUS)
    assert len(optuna.load_study(study_name="run", storage=url).trials) == 1
    assert not (tmp_path / "optuna.db").exists()
