"""``Evaluator``: the base class of everything that scores architectures, and what it is given.

The modules of ``trainables/`` hold one evaluator each. Imports no torch: thin trials read it too.
"""

from __future__ import annotations

import abc
import difflib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from ray import tune

from raynas.architecture import Decisions
from raynas.config.run import Config
from raynas.exceptions import ConfigError
from raynas.metrics import Metric
from raynas.search_space.constraints import Profile
from raynas.search_space.space import SearchSpace
from raynas.tune.spec import EvaluationSpec, Objective

if TYPE_CHECKING:  # a thin trial must not import torch
    from torch import nn

    from raynas.data.dataset import Data
    from raynas.evaluation.angle import Angles
    from raynas.storage.sync import StoreSync
    from raynas.tasks.base import Task

__all__ = ["CostModel", "EvaluationContext", "Evaluator", "EvaluatorTraits", "SupernetHandle"]

_REQUIREMENTS = ("supernet", "replicas")
_RENAMED = {
    "check": "validate(config)",
    "check_run": "validate_run(context)",
    "score_mode": "objective(config, metric)",
    "reports": "combinable_metrics(config)",
    "scoring": "evaluation_spec(context)",
    "spec": "evaluation_spec(context)",
    "measured": "traits = EvaluatorTraits(scored_by_task_metric=True)",
    "trains_supernet": 'traits = EvaluatorTraits(requires=frozenset({"supernet"}))',
    "uses_settings": "traits = EvaluatorTraits(searches_hyperparameters=True)",
    "best_method": 'traits = EvaluatorTraits(default_searcher="bayes")',
}
"""What an evaluator was made of in earlier versions, and what to write instead."""
_CONTRACT = ("traits", "validate", "validate_run", "objective", "costs", "combinable_metrics", "evaluation_spec")
_TRAITS = ("requires", "needs_network", "scored_by_task_metric", "searches_hyperparameters", "default_searcher")
_CUTOFF = 0.75
"""Similarity by difflib (0 to 1) from which on an attribute is taken for a misspelt name of the contract."""


class CostModel(Protocol):
    """What architectures cost."""

    def __call__(self, architecture: Mapping[str, str], /) -> Mapping[str, float]:
        """The costs of one by name."""

    def profile(self) -> Mapping[str, Profile]:
        """The range of each cost over the space."""


class SupernetHandle(Protocol):
    """The supernet of a run, for an evaluator. It is trained before ``evaluation_spec`` is called."""

    def replicas(self) -> list[Any]:
        """Start actors that score with the trained weights: see :class:`raynas.supernet.client.ReplicaPool`."""

    @property
    def gpus_per_replica(self) -> float:
        """How many GPUs each of the replicas holds."""

    def angles(self) -> Angles:
        """Weight angles of all architectures: see :mod:`raynas.evaluation.angle`.

        Raises:
            CheckpointError: The supernet has no weights, or not those with which it began.
        """

    def check_angles(self) -> None:
        """Refuse a space or a training that will have no angles; called before anything is trained.

        Raises:
            AngleError: The space has no rule for something in it.
            CheckpointError: A training has begun without keeping its initial weights.
        """


@dataclass(frozen=True)
class EvaluatorTraits:
    """Properties of an evaluator that a run reads before it calls it."""

    requires: frozenset[Literal["supernet", "replicas"]] = frozenset()
    """Phases that the run carries out first. supernet: train the shared weights; replicas: see, before that training,
    that the cluster can hold the actors that score."""
    needs_network: bool = True
    """False: a space of bare decisions will do, and then there are no data either."""
    scored_by_task_metric: bool = False
    """The score is the metric of the task (:mod:`raynas.metrics`): its name, unit and mode are the objective."""
    searches_hyperparameters: bool = False
    """Every architecture is trained by itself, so that training settings can be searched with it: ``search.joint``."""
    repeats_reports: bool = False
    """A trial that continues after an interruption first reports once more what its checkpoint says it has reported,
    without computing anything: the log may lack it. What the log has is not entered again."""
    default_searcher: str = "evolution"
    """What ``search.method: auto`` takes."""

    def __post_init__(self) -> None:
        unknown = sorted(set(self.requires) - set(_REQUIREMENTS))
        if unknown:
            raise ConfigError(
                f"EvaluatorTraits.requires: unknown {unknown[0]!r}; legal ones: {', '.join(_REQUIREMENTS)}"
            )


@dataclass(frozen=True)
class EvaluationContext:
    """What an evaluator is given of a run."""

    config: Config
    search_space: SearchSpace
    """What may be proposed, within the limits."""
    costs: CostModel
    say: Callable[[str], None]
    """Shows one line to the person at the terminal."""
    check_nodes: Callable[[], None]
    """Sees that all nodes have the code and the storage; to be called after waiting for nodes."""
    storage: Path | StoreSync
    """Where the evaluator may write what an interrupted run continues with: a folder, or a part of an object store.
    The run removes below it what belongs to architectures whose evaluation ended."""
    space: nn.Module | None = None
    """The network with its choices and initial weights; None for bare decisions."""
    data: Data | None = None
    """All data; None for bare decisions."""
    search_data: Data | None = None
    """The data without the test split, at the resolution of the search: what may leave this process."""
    task: Task | None = None
    supernet: SupernetHandle | None = None

    @property
    def seed(self) -> int:
        """Decides everything that is drawn."""
        return self.config.seed


class Evaluator(tune.Trainable, abc.ABC):
    """A ``tune.Trainable`` that scores architectures, and what a run has to know about it.

    A subclass implements :meth:`evaluation_spec` and the methods of a trainable (``setup``, ``step``,
    ``reset_config``); :class:`raynas.tune.trial.BatchTrial` has these for cheap scores. Everything else has a default.
    The methods of this class are class methods: they are called in the driver, before there are trials.

    A public attribute that looks like a misspelt name of this class is refused when the subclass is defined, and so are
    the names of earlier versions.

    Raises:
        ConfigError: At the definition of a subclass with such an attribute, or with ``traits`` of another type.
    """

    traits: ClassVar[EvaluatorTraits] = EvaluatorTraits()

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if not isinstance(cls.traits, EvaluatorTraits):
            raise ConfigError(f"{cls.__qualname__}.traits must be an EvaluatorTraits, not {type(cls.traits).__name__}")
        for name in vars(cls):
            _refuse_near_miss(cls, name)

    @classmethod
    def validate(cls, config: Config) -> None:
        """Refuse settings that this evaluator cannot work with. Called before anything is started.

        Raises:
            ConfigError: One line that names the setting, its value and the legal ones.
        """

    @classmethod
    def validate_run(cls, context: EvaluationContext) -> None:
        """Refuse a space, data or task that this evaluator cannot work with. Called before anything is started.

        Raises:
            RayNASError: One line that names what is missing.
        """

    @classmethod
    def objective(cls, config: Config, metric: Metric | None) -> Objective:
        """What a score is, where ``search.combine`` does not make one of several metrics.

        Args:
            config: Of the run.
            metric: Of the task; None for bare decisions, or where it is not known.
        """
        if cls.traits.scored_by_task_metric and metric is not None:
            return Objective(metric.name, "min" if metric.mode == "min" else "max", metric.unit)
        return Objective("score")

    @classmethod
    def costs(cls, decisions: Decisions, config: Config) -> CostModel | None:
        """What architectures of bare decisions cost; None: not known.

        Raises:
            RayNASError: The costs cannot be read, or no architecture keeps the limits.
        """
        return None

    @classmethod
    def combinable_metrics(cls, config: Config) -> tuple[str, ...] | None:
        """The metrics that ``search.combine`` may name; None: known as soon as some architecture was scored."""
        return None

    @classmethod
    @abc.abstractmethod
    def evaluation_spec(cls, context: EvaluationContext) -> EvaluationSpec:
        """How the trials of this search are run. What ``traits.requires`` names is done before."""


def _refuse_near_miss(cls: type[Evaluator], name: str) -> None:
    """Refuse a public attribute that RayNAS never reads: a misspelt or an outdated name of the contract."""
    if name.startswith("_") or name in _CONTRACT or hasattr(tune.Trainable, name):
        return
    if name in _RENAMED:
        raise ConfigError(f"{cls.__qualname__}.{name} is not read any more: write {_RENAMED[name]}")
    if name in _TRAITS:
        raise ConfigError(f"{cls.__qualname__}.{name} is a trait: write traits = EvaluatorTraits({name}=...)")
    near = difflib.get_close_matches(name, [*_CONTRACT, "reset_config", *_RENAMED], n=1, cutoff=_CUTOFF)
    if near:
        known = _RENAMED.get(near[0], near[0])
        raise ConfigError(
            f"{cls.__qualname__}.{name} is no name of the evaluator's contract: did you mean {known}? "
            "Begin the name with an underscore if it is your own"
        )


def check_complete(evaluator: type[Evaluator]) -> None:
    """Refuse a class that leaves abstract methods open.

    Raises:
        ConfigError: It names the class and the methods.
    """
    if inspect.isabstract(evaluator):
        missing = ", ".join(sorted(evaluator.__abstractmethods__))
        raise ConfigError(f"{evaluator.__module__}:{evaluator.__qualname__} does not implement {missing}")
