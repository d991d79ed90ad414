"""The client of the replicas of a supernet: sends requests to those that respond. Imports no torch: thin trials use it.

Ray restarts a replica whose process died, and repeats its requests. If its node is gone and no other node has room, Ray
would wait for one, perhaps for ever: then the requests go to other replicas.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import ray

from raynas.distributed import health as watch
from raynas.utils.periods import PERIODS

__all__ = ["LOOK", "TIMEOUT", "ReplicaPool", "Request"]

LOOK = PERIODS.look
"""Seconds to wait for a result before the replicas are checked, and for the check itself."""
TIMEOUT = 600.0
"""Seconds to wait while no replica responds."""
_MOVES = 3
"""How often a request goes to another replica: an architecture that kills its replica must not kill all of them."""


@dataclass
class Request:
    """The arguments of one call of a replica, and its result."""

    arguments: tuple[Any, ...]
    place: int
    """Number of the replica; afterwards that of the one which answered."""
    moves: int = 0
    answer: Any = None


class ReplicaPool:
    """The replicas of a supernet, seen from one process.

    Args:
        replicas: Handles of :class:`raynas.supernet.actor.SupernetActor`.
    """

    def __init__(self, replicas: Sequence[Any]) -> None:
        self.replicas = list(replicas)
        self._probes: dict[int, Any] = {}
        """Unanswered calls of replicas that do not respond: once one is answered, its replica is back."""

    def __len__(self) -> int:
        """How many replicas there were at the start."""
        return len(self.replicas)

    def least_busy(self) -> int:
        """Of two random replicas the one with fewer waiting requests: balances the load without a central queue."""
        present = self._present() or list(range(len(self)))
        if len(present) == 1:
            return present[0]
        pair = random.sample(present, 2)
        waiting = self._queue_lengths(pair, 2.0)
        return min(waiting, key=lambda place: waiting[place], default=pair[0])

    def call(self, method: str, requests: Sequence[Request]) -> None:
        """Send all requests at the same time, and enter their answers.

        Raises:
            RuntimeError: No replica responded for ``TIMEOUT``.
            Exception: What the method of the replica raised.
        """
        pending = {self._send(method, request): request for request in requests}
        last_response = time.monotonic()
        while pending:
            ready, _ = ray.wait([*pending], timeout=LOOK)
            for answer in ready:
                pending.pop(answer).answer = watch.get(answer)
            if ready:
                last_response = time.monotonic()
                continue
            places = {request.place for request in pending.values()}
            silent = places - self._queue_lengths(places, LOOK).keys()
            present = self._present()
            if present:
                last_response = time.monotonic()
            elif time.monotonic() - last_response > TIMEOUT:
                raise RuntimeError(
                    f"none of {len(self)} replicas of the supernet was there for {TIMEOUT / 60:g} minutes"
                )
            for answer, request in list(pending.items()):
                if request.place in silent and present and request.moves < _MOVES:
                    del pending[answer]
                    request.place, request.moves = random.choice(present), request.moves + 1
                    pending[self._send(method, request)] = request

    def _send(self, method: str, request: Request) -> Any:
        return getattr(self.replicas[request.place], method).remote(*request.arguments)

    def _present(self) -> list[int]:
        """The replicas that are not known to be gone."""
        for place, probe in list(self._probes.items()):
            if ray.wait([probe], timeout=0)[0]:
                del self._probes[place]
        return [place for place in range(len(self)) if place not in self._probes]

    def _queue_lengths(self, places: Collection[int], seconds: float) -> dict[int, float]:
        """How many requests wait at each replica; those that do not respond are left out. Busy replicas respond."""
        for place in places:
            self._probes.setdefault(place, self.replicas[place].waiting.remote())
        probes = [self._probes[place] for place in places]
        ready, _ = ray.wait(probes, num_returns=len(probes), timeout=seconds)
        return {place: _count(self._probes.pop(place)) for place in places if self._probes[place] in ready}


def _count(probe: Any) -> float:
    try:
        return float(watch.get(probe))
    except ray.exceptions.RayError:
        return math.inf  # it has just been restarted
