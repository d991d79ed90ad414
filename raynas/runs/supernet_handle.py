"""What an evaluator may ask of the supernet of a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from raynas.evaluation.angle import Angles
from raynas.supernet.supernet import Supernet

__all__ = ["TrainedSupernet"]


@dataclass(frozen=True)
class TrainedSupernet:
    """A :class:`raynas.tune.evaluator.SupernetHandle`; nothing is started before it is asked for."""

    supernet: Callable[[], Supernet]
    angles: Callable[[], Angles]
    """Weight angles of all architectures."""
    check_angles: Callable[[], None]
    """Refuses a space or a training that will have no angles."""

    def replicas(self) -> list[Any]:
        """Start actors that score with the trained weights."""
        return self.supernet().replicas()

    @property
    def gpus_per_replica(self) -> float:
        """How many GPUs each of them holds."""
        return self.supernet().placement.gpus
