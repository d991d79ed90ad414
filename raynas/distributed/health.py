"""Whether Ray's own processes are alive, and waiting that ends when they are not.

A driver needs two of them: the raylet of its node and the GCS of the head node. When one of them has died, Ray's
library waits on, or prints pages and ends the program. Here it is one line, a
:class:`raynas.exceptions.ClusterLostError`, and the run goes on with ``--resume``.

    watch.start(own=True)              # once Ray is there
    watch.get(reference)               # as ray.get, and ClusterLostError where it would wait for ever
    watch.leave(code)                  # ends the program without waiting for what has died
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import ray
from ray.exceptions import GetTimeoutError

from raynas import _compat
from raynas.distributed.local_ray import end_processes, own_processes
from raynas.exceptions import ClusterLostError
from raynas.utils.periods import PERIODS

__all__ = ["get", "leave", "lost", "make_sure", "start", "starting", "wait"]

GRACE = 15.0
"""Seconds for the program to end by itself, the last rows of the log being written meanwhile."""
START_GRACE = 3.0
"""Seconds for Ray to say by itself why it does not start, after one of its processes has ended."""
_CONNECT = 5.0
"""Seconds within which a process takes a connection, if it lives."""
Address = tuple[str, int]


@dataclass
class _Cluster:
    """What of a cluster must answer."""

    gcs: Address
    raylet: Address
    own: bool
    """Whether it was started here: then nobody starts its GCS again."""
    silent: dict[Address, float] = field(default_factory=dict)
    """Since when those that do not answer do not."""

    def lost(self) -> str | None:
        """What has died, if anything."""
        if self._gone(self.raylet, 0.0):
            return "the raylet, Ray's own process on this node, has died"
        # Where the head node is started again within a minute, Ray goes on.
        minute = float(os.environ.get("RAY_gcs_rpc_server_reconnect_timeout_s", "60"))  # noqa: SIM112
        if self._gone(self.gcs, 0.0 if self.own else 0.75 * minute):
            return "the GCS, Ray's own process on the head node, has died"
        return None

    def _gone(self, address: Address, seconds: float) -> bool:
        """Whether nothing has taken a connection for so long, at two looks at least."""
        try:
            socket.create_connection(address, timeout=_CONNECT).close()
        except ConnectionRefusedError:
            pass
        except OSError:
            seconds = max(seconds, 45.0)  # a network that is out of order for a moment
        else:
            self.silent.pop(address, None)
            return False
        now = time.monotonic()
        return now - self.silent.setdefault(address, now) > max(seconds, 0.5 * PERIODS.alive)


@dataclass
class _Watch:
    """What this process knows."""

    clusters: dict[str, _Cluster] = field(default_factory=dict)
    """By the address of the GCS; there is one at a time."""
    thread: threading.Thread | None = None
    found: str | None = None
    """What has died."""
    ends: bool = False
    """Whether the program may be ended, for it is ours."""
    onward: str = ""
    """How to go on with what the program does, in words."""

    def cluster(self, own: bool = False) -> _Cluster | None:
        """The cluster of this process."""
        if not ray.is_initialized():
            return None
        name = str(ray.get_runtime_context().gcs_address)
        if name not in self.clusters:
            here = ray.get_runtime_context().get_node_id()
            node = next(node for node in ray.nodes() if node["NodeID"] == here)
            raylet = (str(node["NodeManagerAddress"]), int(node["NodeManagerPort"]))
            host, _, port = name.rpartition(":")
            self.found, self.clusters = None, {name: _Cluster((host.strip("[]"), int(port)), raylet, own)}
        return self.clusters[name]

    def run(self, cluster: _Cluster) -> None:
        """Look again and again; when something has died, tell the main thread, and end the program if that hangs."""
        while self.clusters.get(_name(cluster)) is cluster and ray.is_initialized():
            died = cluster.lost()
            if died is not None and ray.is_initialized():  # it may just have been ended by this process
                self.found = died
                os.kill(os.getpid(), signal.SIGTERM)  # whose handler raises what terminated() returns
                time.sleep(GRACE)
                if self.ends:
                    self.end(died)
                return
            time.sleep(PERIODS.alive)

    def run_start(self, started: threading.Event) -> None:
        """Look at Ray's own processes while Ray starts; end the program when one of them has died, if that hangs."""
        seen: dict[str, float] = {}
        while not started.wait(0.1 * PERIODS.alive):
            now, running = time.monotonic(), own_processes()
            seen |= dict.fromkeys(running, now)
            died = [name for name, last in seen.items() if now - last > START_GRACE]
            if died and not started.is_set():
                self.end(f"Ray does not start here: {died[0]}, Ray's own process, has died")

    def end(self, died: str) -> NoReturn:
        """End the program from a thread that is not the main one."""
        print(f"error: {died}; {self.onward or 'try again'}", file=sys.stderr, flush=True)
        end_processes()
        os._exit(1)


_WATCH = _Watch()


def _name(cluster: _Cluster) -> str:
    return next((name for name, known in _WATCH.clusters.items() if known is cluster), "")


@contextlib.contextmanager
def starting(onward: str) -> Iterator[None]:
    """Meanwhile Ray starts here: where one of its processes dies, a program of ours ends, for Ray's library would wait.

    Args:
        onward: How to go on after that, and after any later death, in words.
    """
    _WATCH.onward = onward
    if not _WATCH.ends:
        yield
        return
    started = threading.Event()
    threading.Thread(target=_WATCH.run_start, args=(started,), name="raynas-watch-start", daemon=True).start()
    try:
        yield
    finally:
        started.set()


def start(own: bool, interrupts: bool) -> None:
    """Watch the cluster that this process has just joined.

    Args:
        own: Whether it was started here.
        interrupts: Whether the main thread is to be told, which needs the handler of SIGTERM of
            :mod:`raynas.distributed.connection`.
    """
    cluster = _WATCH.cluster(own)
    if cluster is not None and interrupts:
        _compat.mute_raylet()
        _WATCH.thread = threading.Thread(target=_WATCH.run, args=(cluster,), name="raynas-watch-ray", daemon=True)
        _WATCH.thread.start()


def found() -> ClusterLostError | None:
    """The error to raise where the watch has found that something died."""
    return None if _WATCH.found is None else ClusterLostError(_WATCH.found)


def lost() -> str | None:
    """What of Ray's own processes has died, if anything; looks now, for as long as it takes to be sure."""
    if _WATCH.found is not None:
        return _WATCH.found
    cluster = _WATCH.cluster()
    died = None
    while cluster is not None and (died := cluster.lost()) is None and cluster.silent:
        time.sleep(0.6 * PERIODS.alive)
    _WATCH.found = died
    return died


def make_sure() -> None:
    """See that Ray's own processes are alive.

    Raises:
        ClusterLostError: They are not.
    """
    died = lost()
    if died is not None:
        raise ClusterLostError(died)


def wait(references: Sequence[Any], num_returns: int = 1) -> tuple[list[Any], list[Any]]:
    """As ``ray.wait``, as long as Ray is alive.

    Raises:
        ClusterLostError: It is not.
    """
    while True:
        ready, left = ray.wait(list(references), num_returns=num_returns, timeout=PERIODS.look)
        if len(ready) >= num_returns:
            return ready, left
        make_sure()


def get(references: Any) -> Any:
    """As ``ray.get``, as long as Ray is alive.

    Raises:
        ClusterLostError: It is not.
        Exception: As ``ray.get``.
    """
    while True:
        try:
            return ray.get(references, timeout=PERIODS.look)
        except GetTimeoutError:
            make_sure()


def guard() -> None:
    """This process is a program of ours: it may be ended where it hangs after Ray has died."""
    _WATCH.ends = True


def leave(code: int) -> NoReturn:
    """End the program: at once where Ray has died, whose library would wait for what does not answer."""
    if _WATCH.found is not None:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        end_processes()
        os._exit(code)
    sys.exit(code)
