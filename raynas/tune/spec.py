"""What an evaluator tells the search: its objective, and how its trials are run.

Imports no torch: thin trials read it too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ray import tune

from raynas.architecture import Architecture
from raynas.config.run import SearchConfig
from raynas.exceptions import ConfigError
from raynas.metrics import Objective

__all__ = ["EvaluationSpec", "Objective", "check_arguments", "check_grace"]


@dataclass(frozen=True)
class EvaluationSpec:
    """How architectures are scored in one search: see :meth:`raynas.tune.evaluator.Evaluator.evaluation_spec`."""

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
    mode: Literal["max", "min"] = "max"
    """Whether a high score is good (max) or a low one (min). The run sets it to that of the evaluator's objective."""
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


def check_grace(search: SearchConfig, fidelities: int) -> None:
    """Refuse a ``search.grace`` beyond the last fidelity of an evaluator.

    Raises:
        ConfigError: It names the value and the legal ones.
    """
    if search.grace > fidelities:
        there = "is one fidelity" if fidelities == 1 else f"are {fidelities} fidelities"
        legal = "1" if fidelities == 1 else f"1 to {fidelities}"
        raise ConfigError(f"search.grace = {search.grace}, but there {there}; legal: {legal}")
