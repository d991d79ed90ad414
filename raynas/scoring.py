"""What a trainable tells the search about itself. Imports no torch: thin trials read it too."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray import tune

from raynas.architecture import Architecture

__all__ = ["SLOT", "Scoring", "slots"]

SLOT = "slot"
"""The custom resource that bounds the trials in flight; see :func:`slots`."""


@dataclass(frozen=True)
class Scoring:
    """How architectures are scored in one search.

    A trainable of ours has a class method ``scoring(run) -> Scoring``, and ``check(search)``, which refuses settings
    that it cannot work with. A plain ``tune.Trainable`` of a user needs neither, as long as it reads
    ``config["architecture"]`` and reports ``score``.
    """

    trainable: type[tune.Trainable]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """Handed to ``setup`` of the trainable through the object store."""
    resources: Mapping[str, float] = field(default_factory=lambda: {"cpu": 1})
    """What Ray sets aside for each trial."""
    max_fidelity: int = 1
    """The last ``training_iteration`` of a trial that nobody stops."""
    workers: int = 1
    """How many processes compute at the same time: what the overhead is a share of."""
    concurrent: int = 1
    """How many trials are in flight at once."""
    rescore: Callable[[Sequence[Architecture]], list[float]] | None = None
    """Scores architectures once more, as exactly as possible; None where the highest fidelity is exact."""
    mode: str = "max"
    """Whether a high score is good (max) or a low one (min)."""


def slots(concurrent: int, reserved_cpus: float) -> dict[str, float]:
    """Resources for a thin trial such that ``concurrent`` of them run at once.

    A custom resource where the cluster has it (Ray started here, or a head with ``resources: {slot: N}``). Elsewhere an
    even share of the CPUs that are left. Tune re-uses processes only where resources bound the trials.
    """
    have = ray.cluster_resources()
    if have.get(SLOT):
        share = have[SLOT] / concurrent
        # Ray takes whole numbers, and below one parts down to 1/10000.
        return {"cpu": 0, SLOT: math.floor(share) if share >= 1 else math.floor(share * 10_000) / 10_000}
    free = max(have.get("CPU", 1.0) - reserved_cpus, 0.1)
    return {"cpu": math.floor(free / concurrent * 1000) / 1000}
