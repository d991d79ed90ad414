"""Fitting actors and trials into the nodes of a cluster."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import ray
from ray.autoscaler.sdk import request_resources
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group

from raynas.config.train import TrainConfig
from raynas.exceptions import ConfigError

__all__ = ["Placement", "check_room", "most_ranks", "place", "place_ranks", "reserve"]

log = logging.getLogger(__name__)
ROOM_SECONDS = 60.0
"""How long to wait for others to give back what is in use before giving up."""


@dataclass(frozen=True)
class Placement:
    """How many actors, and what each of them takes."""

    count: int
    cpus: float
    gpus: float

    @property
    def each(self) -> dict[str, float]:
        """What one actor takes, by Ray's names."""
        return {"CPU": self.cpus, **({"GPU": self.gpus} if self.gpus else {})}


def place(
    count: int | None,
    cpus: float | None = None,
    gpus: float | None = None,
    *,
    most: int | None = None,
    wait_minutes: float = 0.0,
) -> Placement:
    """Fit actors into the nodes of the cluster: one per GPU, or without GPUs one per CPU, at most ``most`` of them.

    Args:
        count: How many actors; default: as many as fit.
        cpus: Of each.
        gpus: Of each.
        most: A bound on the default where there are no GPUs.
        wait_minutes: How long a cluster that starts nodes on demand may take to start those that are missing.

    Raises:
        ConfigError: The cluster cannot hold them; the message says what is missing.
    """
    deadline, requested = time.monotonic() + 60 * wait_minutes, False
    try:
        while True:
            try:
                return _fit(count, cpus, gpus, most)
            except ConfigError as error:
                if time.monotonic() >= deadline:
                    raise
                if not requested:
                    log.warning("%s; waiting up to %g minutes for more nodes", error, wait_minutes)
                    request_resources(bundles=[Placement(1, cpus or 1.0, gpus or 0.0).each] * (count or 1))
                    requested = True
            time.sleep(1.0)
    finally:
        if requested:
            request_resources(num_cpus=0)  # the actors themselves hold the nodes from now on


def _fit(count: int | None, cpus: float | None, gpus: float | None, most: int | None) -> Placement:
    """See :func:`place`: what fits into the nodes that are there now."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if gpus is None:
        gpus = 1.0 if any(node.get("GPU") for node in nodes) else 0.0
    if gpus:
        most = None
    useful = [node for node in nodes if node.get("GPU", 0.0) >= gpus] if gpus else nodes
    if cpus is None and gpus:
        cpus = min((int(node.get("CPU", 0) / (node["GPU"] / gpus)) for node in useful), default=1)
        cpus = float(max(min(cpus, 8), 1))
    elif cpus is None:
        total = sum(node.get("CPU", 0.0) for node in nodes)
        wanted = int(count or min(total, most or total)) or 1
        shares = range(int(total / wanted), 0, -1)
        fits = (c for c in shares if sum(int(node.get("CPU", 0.0) / c) for node in nodes) >= wanted)
        cpus = float(next(fits, 1))

    def room(node: Mapping[str, float]) -> int:
        by_gpu = int(node.get("GPU", 0.0) / gpus) if gpus else 10**9
        return min(int(node.get("CPU", 0.0) / cpus), by_gpu)

    fitting = sum(room(node) for node in useful)
    count = count or min(fitting, most or fitting) or 1
    if fitting < count:
        each = f"{cpus:g} CPUs" + (f" and {gpus:g} GPUs" if gpus else "")
        had = "; ".join(f"{node.get('CPU', 0):g} CPUs, {node.get('GPU', 0):g} GPUs" for node in nodes)
        raise ConfigError(f"{count} actors of {each} do not fit into the cluster (its nodes: {had}): {fitting} would")
    return Placement(count, cpus, gpus)


def place_ranks(recipe: TrainConfig) -> Placement:
    """Fit the ranks of a data-parallel training into the cluster.

    One per GPU. Without GPUs up to four that share the CPUs: two processes of one thread train faster than one of two,
    but each must have images enough for its BatchNorm statistics.
    """
    return place(
        recipe.workers, recipe.cpus_per_worker, recipe.gpus_per_worker, most=most_ranks(recipe),
        wait_minutes=recipe.wait_minutes,
    )  # fmt: skip


def most_ranks(recipe: TrainConfig) -> int:
    """How many ranks train at most where there are no GPUs, unless ``train.workers`` says so."""
    assert recipe.batch_size is not None
    return max(min(4, recipe.batch_size // 16), 1)


def reserve(bundles: Sequence[Mapping[str, float]], whose: str) -> PlacementGroup:
    """Set resources aside, spread over the nodes.

    Args:
        bundles: What each of them takes.
        whose: They are, for the message.

    Raises:
        RuntimeError: They are in use by others, and were not given back for a minute.
    """
    group: PlacementGroup = placement_group([dict(bundle) for bundle in bundles], strategy="SPREAD")
    if not group.wait(ROOM_SECONDS):
        remove_placement_group(group)
        free = ray.available_resources()
        left = ", ".join(f"{free.get(kind, 0):g} {kind}s" for kind in bundles[0])
        wanted = " and ".join(f"{amount:g} {kind}s" for kind, amount in bundles[0].items())
        raise RuntimeError(
            f"no room for {len(bundles)} {whose} of {wanted} each: others use the cluster, where {left} are free now"
        )
    return group


def check_room(bundles: Sequence[Mapping[str, float]], whose: str) -> None:
    """Make sure that resources are free which Tune or Train takes by itself, and would wait for without end.

    Raises:
        RuntimeError: As :func:`reserve` does.
    """
    remove_placement_group(reserve(bundles, whose))
