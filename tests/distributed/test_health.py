"""What happens when Ray's own processes die: every wait ends, and one line says how to go on."""

from __future__ import annotations

import ast
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from benchmarks import soak, soak_processes
from raynas import results
from raynas.distributed import health as watch
from raynas.exceptions import ClusterLostError


@pytest.fixture
def ports() -> Iterator[list[socket.socket]]:
    """A GCS and a raylet that take connections."""
    found = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    yield found
    for each in found:
        each.close()


def watched(ports: list[socket.socket], own: bool) -> watch._Cluster:
    return watch._Cluster(*(each.getsockname() for each in ports), own)


def looks(cluster: watch._Cluster, seconds: float = 0.0) -> str | None:
    """What two looks find, so many seconds apart."""
    if (first := cluster.lost()) is not None:
        return first
    cluster.silent = {address: since - seconds for address, since in cluster.silent.items()}
    return cluster.lost()


@pytest.mark.parametrize("own", [True, False])
def test_a_raylet_that_died_does_not_come_back(ports: list[socket.socket], own: bool) -> None:
    cluster = watched(ports, own)
    assert looks(cluster) is None
    ports[1].close()
    assert "raylet" in str(looks(cluster, 1.0))


def test_a_head_that_is_started_again_within_a_minute_is_waited_for(ports: list[socket.socket]) -> None:
    cluster = watched(ports, own=False)
    port = ports[0].getsockname()[1]
    ports[0].close()
    assert looks(cluster, 30.0) is None
    ports[0] = socket.create_server(("127.0.0.1", port))
    assert looks(cluster, 30.0) is None and not cluster.silent
    ports[0].close()
    assert "GCS" in str(looks(cluster, 50.0))
    cluster.own, cluster.silent = True, {}
    assert "GCS" in str(looks(cluster, 1.0)), "nobody starts that of this machine again"


STARTING = """
import subprocess, sys, time
from raynas.distributed import health
health.START_GRACE = 0.5
if sys.argv[1] == "ours":
    health.guard()
with health.starting("go on with: python -m raynas.launch --resume runs/one"):
    line = ["/ray/gcs_server", "-c", "import time; time.sleep(60)"]
    child = subprocess.Popen(line, executable=sys.executable)
    time.sleep(0.5)
    child.kill()
    time.sleep(60 if sys.argv[1] == "ours" else 3)  # as Ray's library waits
"""
"""A program in which Ray's GCS dies while it starts."""


@pytest.mark.parametrize("whose", ["ours", "another"])
def test_a_gcs_that_dies_while_ray_starts_is_one_line(whose: str) -> None:
    done = subprocess.run([sys.executable, "-c", STARTING, whose], capture_output=True, text=True, timeout=50)
    line = "error: Ray does not start here: the GCS, Ray's own process, has died; go on with: python -m raynas.launch"
    assert done.stderr == (f"{line} --resume runs/one\n" if whose == "ours" else "")
    assert done.returncode == (1 if whose == "ours" else 0), "another's program is not ended"


def test_a_program_that_hangs_after_the_death_of_ray_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ended = watch._Watch(ends=True, onward="go on with: python -m raynas.launch --resume runs/one")
    monkeypatch.setattr(watch.os, "_exit", lambda code: None)
    ended.end("the GCS, Ray's own process on the head node, has died")
    assert capsys.readouterr().err == (
        "error: the GCS, Ray's own process on the head node, has died; go on with: "
        "python -m raynas.launch --resume runs/one\n"
    )


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("call", [lambda ref: watch.get(ref), lambda ref: watch.wait([ref])], ids=["get", "wait"])
def test_every_wait_ends_with_ray(call: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    @ray.remote(num_cpus=0, resources={"nobody has it": 1})
    def never() -> None:
        raise AssertionError

    monkeypatch.setattr(watch, "PERIODS", watch.PERIODS.read("look=0.05 alive=0.05"))
    answers, task = iter([None, None, "the raylet has died"]), never.remote()
    monkeypatch.setattr(watch, "lost", lambda: next(answers))
    with pytest.raises(ClusterLostError, match="the raylet has died"):
        call(task)
    ray.cancel(task)


@pytest.mark.usefixtures("ray_session")
def test_waiting_gives_what_ray_gives() -> None:
    assert watch.lost() is None
    references = [ray.put(number) for number in range(3)]
    assert watch.get(references) == [0, 1, 2] and watch.get(references[0]) == 0
    ready, left = watch.wait(references)
    assert len(ready) == 1 and len(left) == 2


def test_nobody_waits_for_ray_without_a_bound(repository: Path) -> None:
    """Elsewhere than in raynas/distributed/health.py, ray.get and ray.wait have a timeout."""
    paths = [*(repository / "raynas").rglob("*.py"), *(repository / "trainables").rglob("*.py")]
    calls = [
        (path, node)
        for path in paths
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("ray.get", "ray.wait")
    ]
    assert len(calls) > 5
    for path, node in calls:
        assert "timeout" in [word.arg for word in node.keywords], f"{path}:{node.lineno} waits for ever"


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("what", ["raylet", "gcs"])
def test_the_death_of_ray_is_one_line(what: str, tmp_path: Path, repository: Path, shared_data: Path) -> None:
    """What was scored stands in the log, and the run goes on to the end that it would have had."""
    words = [
        "--storage-path", str(tmp_path), "--name", "run", "--space", "spaces.nasbench201:DECISIONS", "after=[]",
        "--num-samples", "60", "search.method=random", "search.trainable=helpers.slow:SlowTable",
        "search.max_concurrent=1",
        f"search.trainable_args.file={shared_data / 'nasbench201_cifar10.parquet'}",
        "search.trainable_args.metric=cifar10_val_200",
    ]  # fmt: skip
    log = tmp_path / "run" / "scored.parquet"
    line, environment = [sys.executable, "-m", "raynas.launch", *words], {**os.environ, "RAYNAS_PERIODS": "log=0.1"}
    with subprocess.Popen(line, env=environment, cwd=repository, stderr=subprocess.PIPE, text=True) as driver:
        while driver.poll() is None and not list(log.glob("*.parquet")):
            time.sleep(0.1)
        found = soak_processes.victims(driver.pid, what)
        assert found, "there is nothing to kill"
        before = soak.scores(results.read(log).to_pylist())
        for process in found:
            os.kill(process, signal.SIGKILL)
        said = driver.communicate(timeout=60)[1]
    assert driver.returncode == 1
    named = {"raylet": "the raylet", "gcs": "the GCS"}[what]
    assert said.startswith(f"error: {named}, Ray's own process") and re.search(r"go on with.* --resume", said)
    assert len(said.splitlines()) <= 2, said
    assert before and before.items() <= soak.scores(results.read(log).to_pylist()).items()
