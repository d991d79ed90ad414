"""What a trainable tells the search about itself. Imports no torch: thin trials read it too."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ray import tune

from raynas.architecture import Architecture
from raynas.config.run import SearchConfig
from raynas.exceptions import ConfigError
from raynas.tune.trial import BatchTrial

__all__ = ["HEAD", "EvaluationSpec", "check_arguments", "check_processes", "memory_here", "memory_of_head", "slots"]

_PROCESS = 2e8
"""Bytes that the process of a thin trial takes: Python, Ray and Tune."""
HEAD = "node:__internal_head__"
"""The resource, 1 in all, by which Ray marks the head of a cluster."""


@dataclass(frozen=True)
class EvaluationSpec:
    """How architectures are scored in one search.

    A trainable of ours has a class method ``spec(run) -> Scoring``, and ``check(search)``, which refuses settings
    that it cannot work with; ``score_mode(search)``, where low scores may be good; ``reports(search)``, the metrics of
    which a score may be made; ``measured = True``, where the score is the measure of the data; ``trains_supernet =
    True``, without which ``train.pool`` and ``train.shrink`` would do nothing and are refused. One that needs no
    network may have ``costs(decisions, config)``, too: it then scores spaces that are bare data, of which it knows the
    costs. One that says ``uses_settings = True`` trains architectures that hold training settings of their own: see
    :mod:`raynas.search_space.joint`. A plain ``tune.Trainable`` of a user needs none of these, as long as it reads
    ``config["architecture"]`` and reports ``score``; ``search.trainable_args`` go to its ``setup``, and settings that
    are searched stand in its config, ``config["train.lr"]``.
    """

    trainable: type[tune.Trainable]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """Handed to ``setup`` of the trainable through the object store."""
    resources: Mapping[str, float] = field(default_factory=lambda: {"cpu": 1})
    """What Ray sets aside for each trial."""
    max_fidelity: int = 1
    """The last ``training_iteration`` of a trial that nobody stops."""
    ends_itself: bool = True
    """Whether such a trial ends by itself; otherwise Tune ends it at ``max_fidelity``."""
    workers: int = 1
    """How many processes compute at the same time: what the overhead is a share of."""
    gpus: float = 0.0
    """How many GPUs each of them holds."""
    concurrent: int = 1
    """How many trials are in flight at once."""
    bounded: bool = True
    """Whether ``resources`` see to that; otherwise Tune has to."""
    rescore: Callable[[Sequence[Architecture]], list[float]] | None = None
    """Scores architectures once more, as exactly as possible; None where the highest fidelity is exact."""
    mode: str = "max"
    """Whether a high score is good (max) or a low one (min)."""
    combine: Mapping[str, float] = field(default_factory=dict)
    """The metrics of which the score is made, with weights, unless ``search.combine`` says otherwise; needs a
    :class:`raynas.tune.trial.BatchTrial`. Empty: the trial's own score."""
    simulated: bool = False
    """Whether the seconds that trials report are told, not spent: they then count as the time of the search."""


def check_arguments(search: SearchConfig, legal: Iterable[str]) -> None:
    """Refuse ``search.trainable_args`` that the trainable does not know.

    Raises:
        ConfigError: It names the first of them, and the legal ones.
    """
    legal = tuple(legal)
    unknown = [name for name in search.trainable_args if name not in legal]
    if unknown:
        raise ConfigError(
            f"search.trainable_args: {search.trainable} has no {unknown[0]!r}; legal ones: {', '.join(legal) or 'none'}"
        )


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
