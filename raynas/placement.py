"""Fitting actors into the nodes of a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import ray

from raynas.config import TrainConfig

__all__ = ["Placement", "place", "place_ranks"]


@dataclass(frozen=True)
class Placement:
    """How many actors, and what each of them takes."""

    count: int
    cpus: float
    gpus: float


def place(
    count: int | None, cpus: float | None = None, gpus: float | None = None, *, most: int | None = None
) -> Placement:
    """Fit actors into the nodes of the cluster: one per GPU, or without GPUs one per CPU, at most ``most`` of them.

    Raises:
        ValueError: The cluster cannot hold them; the message says what is missing.
    """
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
        raise ValueError(f"{count} actors of {each} do not fit into the cluster (its nodes: {had}): {fitting} would")
    return Placement(count, cpus, gpus)


def place_ranks(recipe: TrainConfig) -> Placement:
    """Fit the ranks of a data-parallel training into the cluster.

    One per GPU. Without GPUs up to four that share the CPUs: two processes of one thread train faster than one of two,
    but each must have images enough for its BatchNorm statistics.
    """
    assert recipe.batch_size is not None
    most = max(min(4, recipe.batch_size // 16), 1)
    return place(recipe.workers, recipe.cpus_per_worker, recipe.gpus_per_worker, most=most)
