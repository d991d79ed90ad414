"""What is used of Ray by private names: the versions it was tried with, and Ray without each of the names."""

from __future__ import annotations

import importlib
import json
import logging
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
import ray
from helpers import plain
from ray.tune import tune
from ray.tune.execution.tune_controller import TuneController

from raynas import _compat, results
from raynas.config.run import Config, SearchConfig
from raynas.distributed.nodes import PreemptionNotice
from raynas.runs.run import Run
from raynas.search_space.space import SearchSpace
from raynas.searchers import RandomSearch

SPACE = SearchSpace({f"d{place}": ("a", "b", "c", "d") for place in range(4)})


@pytest.fixture(autouse=True)
def _nothing_was_said() -> None:
    _compat._warn.cache_clear()


def take_away(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A Ray in which a name is gone."""
    module, _, path = name.partition(":")
    *above, last = path.split(".")
    owner = reduce(getattr, above, importlib.import_module(module))
    for each in (owner, *getattr(owner, "__mro__", ()), *type(owner).__mro__):
        if last in vars(each):
            monkeypatch.delattr(each, last)


def test_this_ray_is_one_of_those_that_were_tried() -> None:
    assert ray.__version__ in _compat.TRIED, "try it with this Ray, and add its version to raynas/_compat.py"
    assert _compat.missing([*_compat.CLASSES, _compat.DRAINING, _compat.PRINTS]) == []


@pytest.mark.parametrize("name", _compat.CLASSES)
def test_without_a_name_tune_does_what_it_does(
    name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    take_away(monkeypatch, name)
    stock = getattr(tune, "TuneController", None)
    for _ in range(2):
        with _compat.kept_processes():
            assert getattr(tune, "TuneController", None) is stock
    (warning,) = caplog.records
    assert f"Ray {ray.__version__} has no {name}" in warning.message and _compat.TRIED[-1] in warning.message


def test_a_module_that_is_gone_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _compat.missing(["ray.tune.no_such_module:name"]) == ["ray.tune.no_such_module:name"]


@pytest.mark.parametrize("name", _compat.ATTRIBUTES)
def test_without_an_attribute_the_controller_is_the_stock_one(name: str, caplog: pytest.LogCaptureFixture) -> None:
    class Stock:
        def __init__(self) -> None:
            vars(self).update(dict.fromkeys(_compat.ATTRIBUTES, "stock"))
            del vars(self)[name]

        def __getstate__(self) -> dict[str, Any]:
            return dict(vars(self))

        def _maybe_reuse_cached_actor(self, trial: Any) -> bool:
            return True

        def _trial_task_failure(self, trial: Any, exception: Exception) -> None:
            self.failed = trial

    for _ in range(2):
        controller = _compat._controller(Stock)()
        assert controller._maybe_reuse_cached_actor("trial") is True
        controller._trial_task_failure("trial", ray.exceptions.RayActorError())
        assert controller.failed == "trial" and getattr(controller, "_actor_cache", "stock") == "stock"
    assert len(caplog.records) == 1 and name in caplog.text


def test_without_a_name_no_node_is_said_to_leave(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    take_away(monkeypatch, _compat.DRAINING)
    notice = PreemptionNotice()
    assert not notice.given() and not notice.given()
    assert len(caplog.records) == 1 and "a node that must leave is noticed only when it has gone" in caplog.text


def test_pages_of_a_raylet_that_died_are_not_shown(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shown: list[Any] = []
    worker = importlib.import_module("ray._private.worker")
    monkeypatch.setattr(worker, "print_to_stdstream", lambda data, ignore_prefix: shown.extend(data["lines"]))
    for _ in range(2):
        _compat.mute_raylet()
    worker.print_to_stdstream({"lines": ["Raylet is terminated. Termination is unexpected.\npages"]}, False)
    worker.print_to_stdstream({"lines": ["A worker was killed: no memory"]}, ignore_prefix=False)
    assert shown == ["A worker was killed: no memory"]
    monkeypatch.delattr(worker, "print_to_stdstream")
    _compat.mute_raylet()
    assert "print_to_stdstream" in caplog.text


def search(folder: Path) -> Run:
    """Thirty trials that take a moment each."""
    (folder / "processes").mkdir(parents=True)
    arguments = {"folder": str(folder / "processes")}
    settings = SearchConfig(num_samples=30, slices=1, scheduler="none", trainable_args=arguments)
    run = Run(Config(search=settings, storage_path=str(folder), name="run"), SPACE, None, RandomSearch,
                    plain.Told)  # fmt: skip
    run.search()
    rows = results.read(run.folder / "scored.parquet").to_pylist()
    assert len({row["key"] for row in rows}) == 30 and {row["status"] for row in rows} == {"complete"}
    return run


@pytest.mark.usefixtures("ray_session")
def test_the_controller_survives_snapshots_of_tune(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Tune makes them by itself, many in one search, and each can be read again."""
    made: list[dict[str, Any]] = []

    def save(controller: Any) -> None:
        TuneController.save_to_dir(controller)
        made.append(json.loads(Path(controller.experiment_state_path).read_text())["runner_data"])

    ours = _compat._controller
    monkeypatch.setattr(_compat, "_controller", lambda stock: type("Saves", (ours(stock),), {"save_to_dir": save}))
    monkeypatch.setenv("TUNE_GLOBAL_CHECKPOINT_S", "0.01")
    search(tmp_path)
    assert len(made) > 5 and not any("_own" in state for state in made)


@pytest.mark.usefixtures("ray_session")
def test_snapshots_are_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 10,000 trials each of them would take seconds."""
    monkeypatch.setenv("TUNE_GLOBAL_CHECKPOINT_S", "0.01")
    monkeypatch.setattr(TuneController, "__getstate__", lambda controller: pytest.fail("Tune wrote its state"))
    search(tmp_path)


@pytest.mark.usefixtures("ray_session")
def test_a_search_without_our_changes_ends_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_compat, "CLASSES", (*_compat.CLASSES, f"{_compat.CONTROLLER}.gone"))
    monkeypatch.setenv("TUNE_GLOBAL_CHECKPOINT_S", "0.01")
    with caplog.at_level(logging.WARNING):
        search(tmp_path)
    assert "TuneController.gone" in caplog.text
