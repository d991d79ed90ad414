"""The actors of a supernet as one group: started together on reserved resources, waited for, and ended together."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.util.placement_group import PlacementGroup, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from raynas.config.run import Config
from raynas.distributed import health as watch
from raynas.distributed.placement import Placement, reserve
from raynas.supernet.actor import ActorPayload, SupernetActor

__all__ = ["ActorGroup"]


class ActorGroup:
    """Handles of :class:`SupernetActor` processes; empty until :meth:`launch`.

    Args:
        config: The run's settings.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.actors: list[Any] = []
        self.placement = Placement(0, 0.0, 0.0)
        """How many actors there are, and the resources of each."""
        self._reserved: PlacementGroup | None = None

    def launch(self, payload: ActorPayload, placement: Placement, name: str, **options: Any) -> None:
        """Start the actors, spread over the nodes.

        Args:
            payload: What each of them hosts.
            placement: How many, and their resources.
            name: Of the actors, without their number.
            options: Of Ray, for each of them.

        Raises:
            RuntimeError: The resources are in use by others, and were not given back for a minute.
        """
        self.placement = placement
        self._reserved = reserve([placement.each] * placement.count, "actors")
        remote = ray.remote(SupernetActor)
        self.actors = [
            remote.options(
                num_cpus=placement.cpus,
                num_gpus=placement.gpus,
                scheduling_strategy=PlacementGroupSchedulingStrategy(self._reserved, number),
                **options,
            ).remote(payload.pack(), self.config, f"{name}-{number}")
            for number in range(placement.count)
        ]

    def gather(self, references: Sequence[Any]) -> list[Any]:
        """Wait for all results; the first failure is raised at once, for the others may then wait for ever."""
        left = list(references)
        while left:
            ready, left = watch.wait(left)
            watch.get(ready)
        results: list[Any] = watch.get(list(references))
        return results

    def someone_died(self, seconds: float = 60.0) -> bool:
        """Whether one of the actors is gone; those that are busy do not answer, and live.

        Ray reports the actors of a lost node only after the node has not answered for a while.
        """
        deadline, left = time.monotonic() + seconds, [actor.process.remote() for actor in self.actors]
        while left and time.monotonic() < deadline:
            ready, left = ray.wait(left, timeout=1.0)
            try:
                watch.get(ready)
            except (RayActorError, OutOfMemoryError):
                return True
        return False

    def close(self) -> None:
        """End the actors and release their resources."""
        for actor in self.actors:
            ray.kill(actor)
        self.actors = []
        if self._reserved is not None:
            remove_placement_group(self._reserved)
            self._reserved = None
