"""What thin trials take of a node: the resources by which Ray counts them, and memory."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from raynas.config.run import SearchConfig
from raynas.exceptions import ConfigError
from raynas.tune.trial import BatchTrial

__all__ = ["HEAD", "check_processes", "memory_here", "memory_of_head", "slots"]

_PROCESS = 2e8
"""Bytes that the process of a thin trial takes: Python, Ray and Tune."""
HEAD = "node:__internal_head__"
"""The resource, 1 in all, by which Ray marks the head of a cluster."""


def check_processes(trainable: type[Any], search: SearchConfig, memory: float, node: str) -> None:
    """Refuse more thin trials at once than the memory of their node holds: each is a process.

    Args:
        trainable: Of the search.
        search: Its settings.
        memory: Bytes of the node, in all.
        node: Which one it is, for the message.

    Raises:
        ConfigError: It says how many fit.
    """
    wanted, fit = search.max_concurrent or 1, max(int(memory / _PROCESS), 1)
    if issubclass(trainable, BatchTrial) and wanted > fit:
        raise ConfigError(
            f"search.max_concurrent = {wanted}: so many processes of about {_PROCESS / 1e9:g} GB do not fit into the "
            f"{memory / 1e9:.1f} GB of {node}; {fit} fit: lower search.max_concurrent, or raise search.cohort instead"
        )


def memory_here() -> float:
    """Bytes of memory of this machine in all, or of its container where that has fewer."""
    there = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):  # no such limit, or "max"
            there = min(there, float(int(Path(file).read_text(encoding="ascii"))))
    return there


def memory_of_head(nodes: Sequence[Mapping[str, Any]]) -> float:
    """Bytes of memory that the head node of a cluster has for processes, of ``ray.nodes()``; infinite if not told."""
    heads = [node["Resources"] for node in nodes if node["Alive"] and HEAD in node["Resources"]]
    return float(heads[0].get("memory", math.inf)) if heads else math.inf


def slots(concurrent: int) -> dict[str, float]:
    """Resources for a thin trial such that ``concurrent`` of them run at once, on the head node.

    Each takes a share of the resource by which Ray marks the head of every cluster. Tune re-uses processes only where
    resources bound the trials, and thin trials must not take processors from the actors that compute.
    """
    # Ray counts in ten-thousandths.
    return {"cpu": 0, HEAD: max(math.floor(10_000 / concurrent), 1) / 10_000}
