"""How the time of a search was used, by its log."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raynas.results.log import SIMULATED, Meter

__all__ = ["PAUSE", "Clock", "read_clock"]

PAUSE = 60.0
"""Seconds without any work after which a run counts as interrupted rather than slow."""


@dataclass(frozen=True)
class Clock:
    """How the time of the search was used."""

    wall: float
    """Seconds from the first to the last report, pauses left out."""
    busy: float
    """Seconds that were spent scoring, summed over the workers."""
    workers: int
    simulated: bool = False
    """Whether these are simulated seconds, as a table reports them."""


def read_clock(rows: Sequence[Mapping[str, Any]]) -> tuple[list[tuple[float, float]], Clock]:
    """The seconds of search and of computing until each row, and how they were used.

    A row itself took what :class:`raynas.results.log.Meter` says. Times in which no row was in the making for longer
    than ``PAUSE`` are left out. Where all seconds are simulated they are the clock, one score after the other.
    """
    if not rows:
        return [], Clock(0.0, 0.0, 0)
    meter = Meter()
    took = [meter.took(row) for row in rows]
    busy, spent = sum(took), list(itertools.accumulate(took))
    if busy and all(row["worker"] == SIMULATED for row in rows if row["seconds"]):
        return list(zip(spent, spent, strict=True)), Clock(busy, busy, 1, simulated=True)
    ends = [row["time"].timestamp() for row in rows]
    starts = [end - seconds for end, seconds in zip(ends, took, strict=True)]
    # When the earliest of this row and all later ones began: before that, and after the last end, nobody worked.
    work = list(itertools.accumulate(reversed(starts), min))[::-1]
    elapsed, now, frontier = [], 0.0, work[0]
    for end, begun in zip(ends, work, strict=True):
        idle = max(begun - frontier, 0.0)
        now += end - frontier - (idle if idle > PAUSE else 0.0)
        frontier = end
        elapsed.append(now)
    names = {row["worker"] for row in rows if row["worker"]}
    # A host may be one name for several workers: they are at least as many as the work needs.
    return list(zip(elapsed, spent, strict=True)), Clock(
        now, busy, max(len(names), math.ceil(busy / now - 1e-6) if now else 1, 1)
    )
