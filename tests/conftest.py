"""Fixtures that all tests share."""

from __future__ import annotations

import os
import re
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

# Before anything imports ray: no token file in the home folder, nothing sent anywhere, no dashboard warnings.
os.environ["RAY_AUTH_MODE"] = "disabled"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_metrics_report_interval_ms"] = "2000"  # of 10,000: a test reads the metrics  # noqa: SIM112
os.environ["RAY_worker_niceness"] = "0"  # of 15: they would wait for the tests that run beside them  # noqa: SIM112
os.environ.pop("RAY_ADDRESS", None)
# Workers must find the modules that stand beside the tests.
os.environ["PYTHONPATH"] = os.pathsep.join(map(str, (Path(__file__).resolve().parents[1], Path(__file__).parent)))

import ray
import torch

from raynas.tune.files import TUNE_LOG

REPOSITORY = Path(__file__).resolve().parents[1]

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root folder of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of the real data sets and tables, which are not part of the repository."""
    named = os.environ.get("RAYNAS_DATA")
    folder = Path(named) if named else REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"needs the data of {folder}, which is not there; name another folder by RAYNAS_DATA")
    return folder.resolve()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """End Ray where a test failed: the actors that it left behind would hold what the next ones need."""
    report = yield
    if report.failed and ray.is_initialized():
        ray.shutdown()
    return report


@pytest.fixture
def ray_session() -> None:
    """A local Ray with 4 CPUs to schedule on: one for all tests, started again where a test had to end it."""
    if not ray.is_initialized():
        ray.init(
            address="local",
            num_cpus=4,
            num_gpus=0,
            include_dashboard=False,
            logging_level="ERROR",
            log_to_driver=False,
            object_store_memory=256 * 2**20,
        )


@pytest.fixture(scope="session", autouse=True)
def _ray_ends() -> Iterator[None]:
    """Whatever Ray is left is ended with the session."""
    yield
    ray.shutdown()


_SAID_ELSEWHERE = re.compile(
    r"ERROR \S+: (Trial task failed for|Trial \S+ Error stopping trial|Could not re-use actor for|"
    r"Trials did not complete)"
)
"""Errors of trials and of their processes: the run's own log tells of these."""


@pytest.fixture(autouse=True)
def _tune_has_no_error(request: pytest.FixtureRequest) -> Iterator[None]:
    """What Tune logs is not shown on the screen: an error there, in any run of a test, is a failure of the test."""
    folder: Path | None = request.getfixturevalue("tmp_path") if "tmp_path" in request.fixturenames else None
    yield
    if folder is not None:
        text = "".join(path.read_text(encoding="utf-8") for path in folder.glob(f"**/{TUNE_LOG}"))
        errors = [line for line in text.splitlines() if " ERROR " in line and not _SAID_ELSEWHERE.search(line)]
        assert not errors, "\n".join(errors)


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is refused must be refused before any cluster time is spent."""

    def forbidden(*arguments: Any, **options: Any) -> None:
        raise AssertionError("Ray was started")

    monkeypatch.setattr(ray, "init", forbidden)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)


LONG = ("cluster/test_faults.py", "cluster/test_nodes.py", "runs/test_network.py", "cli/test_main.py",
        "storage/test_object_store.py", "cluster/test_launcher.py", "supernet/test_supernet.py",
        "docs/test_examples.py", "searchers/test_conformance.py")  # fmt: skip
"""Files that take minutes: of several processes each takes one of these first, so that none is left with one alone."""
LOWEST = ("config", "results", "costs", "data", "report", "analysis", "searchers/optuna", "tune/test_loggers.py",
          "searchers/test_tune.py", "trainables/test_table.py", "test_api.py", "export/test_formats.py")  # fmt: skip
"""Tests that call every library that we depend on."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what starts Ray by the fixture that does it; a test that starts it in another way is marked where it is."""
    tests = REPOSITORY / "tests"
    for item in items:
        if {"ray_session", "quiet_ray"} & {*getattr(item, "fixturenames", ())}:
            item.add_marker(pytest.mark.ray)
        if any(item.path.is_relative_to(tests / each) for each in LOWEST):
            item.add_marker(pytest.mark.lowest)
    if "PYTEST_XDIST_WORKER" in os.environ:
        places = {tests / name: place for place, name in enumerate(LONG)}
        items.sort(key=lambda item: places.get(item.path, len(places)))


@pytest.fixture(autouse=True)
def _ray_is_marked(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that starts Ray has the mark ``ray``: ``-m 'not ray'`` is a loop of seconds."""
    before = ray.is_initialized()
    yield
    assert before or not ray.is_initialized() or request.node.get_closest_marker("ray"), "mark it with pytest.mark.ray"
