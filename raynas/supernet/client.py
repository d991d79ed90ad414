"""Asking the replicas of a supernet, whichever of them are there. Imports no torch: thin trials ask, too.

Ray starts a replica again where its process died, and repeats what it was asked. Where its node is gone and no other
has room it would wait for one, perhaps for ever: others are asked instead.
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

__all__ = ["LOOK", "PATIENCE", "ReplicaPool", "Request"]

LOOK = PERIODS.look
"""Seconds after which whoever waits for an answer looks whether somebody is there to give it, and for how long."""
PATIENCE = 600.0
"""Seconds to wait where no replica is there at all."""
_MOVES = 3
"""An architecture that kills whoever scores it must not kill one replica after the other."""


@dataclass
class Request:
    """Something to ask one of the replicas."""

    arguments: tuple[Any, ...]
    place: int
    """Number of the replica to ask; afterwards that of the one which answered."""
    moves: int = 0
    answer: Any = None


class ReplicaPool:
    """The replicas of a supernet, seen from one process.

    Args:
        replicas: Handles of :class:`raynas.supernet.actor.SupernetActor`.
    """

    def __init__(self, replicas: Sequence[Any]) -> None:
        self.replicas = list(replicas)
        self._signs: dict[int, Any] = {}
        """What those who do not answer were asked: when they do, they are back."""

    def __len__(self) -> int:
        """How many replicas there were at the start."""
        return len(self.replicas)

    def least_busy(self) -> int:
        """Of two replicas drawn by chance the one with fewer requests waiting: balanced, without a master."""
        there = self._there() or list(range(len(self)))
        if len(there) == 1:
            return there[0]
        pair = random.sample(there, 2)
        waiting = self._look(pair, 2.0)
        return min(waiting, key=lambda place: waiting[place], default=pair[0])

    def call(self, method: str, requests: Sequence[Request]) -> None:
        """Ask all requests at the same time, and enter the answers.

        Raises:
            RuntimeError: No replica was there for ``PATIENCE``.
            Exception: What the method of the replica raised.
        """
        asked = {self._send(method, request): request for request in requests}
        last_sign = time.monotonic()
        while asked:
            ready, _ = ray.wait([*asked], timeout=LOOK)
            for answer in ready:
                asked.pop(answer).answer = watch.get(answer)
            if ready:
                last_sign = time.monotonic()
                continue
            places = {request.place for request in asked.values()}
            silent = places - self._look(places, LOOK).keys()
            there = self._there()
            if there:
                last_sign = time.monotonic()
            elif time.monotonic() - last_sign > PATIENCE:
                raise RuntimeError(
                    f"none of {len(self)} replicas of the supernet was there for {PATIENCE / 60:g} minutes"
                )
            for answer, request in list(asked.items()):
                if request.place in silent and there and request.moves < _MOVES:
                    del asked[answer]
                    request.place, request.moves = random.choice(there), request.moves + 1
                    asked[self._send(method, request)] = request

    def _send(self, method: str, request: Request) -> Any:
        return getattr(self.replicas[request.place], method).remote(*request.arguments)

    def _there(self) -> list[int]:
        """Those that are not known to be gone."""
        for place, sign in list(self._signs.items()):
            if ray.wait([sign], timeout=0)[0]:
                del self._signs[place]
        return [place for place in range(len(self)) if place not in self._signs]

    def _look(self, places: Collection[int], seconds: float) -> dict[int, float]:
        """How many requests wait at each of them; those that are gone are left out. Who computes answers, too."""
        for place in places:
            self._signs.setdefault(place, self.replicas[place].waiting.remote())
        signs = [self._signs[place] for place in places]
        ready, _ = ray.wait(signs, num_returns=len(signs), timeout=seconds)
        return {place: _count(self._signs.pop(place)) for place in places if self._signs[place] in ready}


def _count(sign: Any) -> float:
    try:
        return float(watch.get(sign))
    except ray.exceptions.RayError:
        return math.inf  # it has just been started again
