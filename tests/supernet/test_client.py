"""Replicas that are gone do not keep anybody waiting."""

from __future__ import annotations

import time
from typing import Any

import pytest
import ray

from raynas.supernet import client as module
from raynas.supernet.client import ReplicaPool, Request

pytestmark = pytest.mark.usefixtures("ray_session")


@ray.remote(num_cpus=0, max_concurrency=4)
class Replica:
    """Answers with its name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def evaluate(self, what: str, seconds: float = 0.0) -> str:
        time.sleep(seconds)
        return f"{what} {self.name}"

    def waiting(self) -> int:
        return 0


@pytest.fixture
def replicas(monkeypatch: pytest.MonkeyPatch) -> Any:
    """One that is there, and one that Ray cannot place: its node is gone."""
    monkeypatch.setattr(module, "LOOK", 3.0)
    here = Replica.remote("here")
    gone = Replica.options(resources={"a node that is gone": 1}).remote("gone")
    ray.get(here.waiting.remote())
    yield here, gone
    for actor in (here, gone):
        ray.kill(actor)


def test_another_is_asked_where_one_is_gone(replicas: Any) -> None:
    asking = ReplicaPool(replicas)
    requests = [Request((f"request {number}",), number % 2) for number in range(4)]
    asking.call("evaluate", requests)
    assert [request.answer for request in requests] == [f"request {number} here" for number in range(4)]
    assert [(request.place, request.moves) for request in requests] == [(0, 0), (0, 1), (0, 0), (0, 1)]
    begin = time.monotonic()
    assert {asking.least_busy() for _ in range(20)} == {0}, "it is known to be gone"
    assert time.monotonic() - begin < 15


def test_one_that_computes_for_long_is_not_taken_for_gone(replicas: Any) -> None:
    request = Request(("slow", 5.0), 0)
    ReplicaPool(replicas).call("evaluate", [request])
    assert (request.answer, request.moves) == ("slow here", 0)


def test_where_none_is_there_that_is_said(replicas: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 1.0)
    with pytest.raises(RuntimeError, match="none of 1 replicas of the supernet was there for"):
        ReplicaPool(replicas[1:]).call("evaluate", [Request(("anyone?",), 0)])
