"""Progress of training and of a search: what the live view and the monitoring metrics show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["SearchStatus", "TrainingStatus", "advice_on_waiting"]

_MUCH = 0.1
"""Above this share of waiting there is advice."""


def advice_on_waiting(share: float) -> str | None:
    """What to do where a training waited for data in this share of its time; None where that is little."""
    if share <= _MUCH:
        return None
    return (
        f"waited for data in {share:.0%} of its time: raise data.workers if there are CPUs left, lower data.size, or "
        "set data.loader=resident if the decoded images fit into memory"
    )


@dataclass(frozen=True)
class TrainingStatus:
    """What a progress bar shows."""

    step: int
    total: int
    loss: float
    images_per_second: float
    waiting: float = 0.0
    """Share of the time in which the ranks waited for data."""


@dataclass(frozen=True)
class SearchStatus:
    """What a live view shows of a search."""

    scored: int
    """Architectures whose evaluation has ended, those of earlier searches of the run included."""
    earlier: int
    """How many of them are of earlier searches."""
    wanted: int
    stopped_at: Mapping[int, int]
    """How many of them were stopped early, by the fidelity at which they were."""
    failed: int
    """How many could not be scored in this search; the log says why."""
    best: float
    """The best score of the highest fidelity that was reached so far."""
    best_at: tuple[int, int]
    """That fidelity, and the one of a full score."""
    best_costs: Mapping[str, float]
    per_second: float
    """Architectures scored a second, in this search."""
    seconds: float
    overhead: float
    """Share of the workers' time in which they did not score."""
    hypervolume: float | None = None
    """Of the front so far, where there are objectives: see :class:`raynas.results.pareto_front.Hypervolume`."""
    simulated: float | None = None
    """Simulated seconds of this search, where the trainable tells such ones; the overhead means nothing then."""

    @property
    def stopped(self) -> int:
        """How many were stopped early."""
        return sum(self.stopped_at.values())
