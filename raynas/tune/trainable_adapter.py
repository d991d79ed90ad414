"""Adapter that makes an evaluator of a plain ``tune.Trainable``.

The class reads ``config["architecture"]`` and reports ``score``. ``search.mode`` is the direction of the score;
``search.trainable_args`` go to its ``setup``; training settings that are searched stand in its config as numbers,
``config["train.lr"]``.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, ClassVar

import ray
from ray import tune

from raynas.config.run import Config
from raynas.exceptions import ConfigError
from raynas.metrics import Metric
from raynas.search_space.joint import network, settings
from raynas.tune.evaluator import EvaluationContext, Evaluator, EvaluatorTraits, check_complete
from raynas.tune.spec import EvaluationSpec, Objective, check_arguments, check_grace

__all__ = ["PlainTrainable", "evaluator_of"]


class PlainTrainable(Evaluator):
    """Runs trials of a trainable that does not depend on RayNAS; made by :func:`evaluator_of`."""

    traits = EvaluatorTraits(needs_network=False, searches_hyperparameters=True)
    wrapped: ClassVar[type[tune.Trainable]]
    """The trainable that runs in the trials."""

    @classmethod
    def validate(cls, config: Config) -> None:
        """One architecture a trial; arguments must be those of ``setup``."""
        search = config.search
        if search.cohort != 1:
            raise ConfigError(
                f"search.cohort = {search.cohort} needs a raynas.tune.trial.BatchTrial; {search.trainable} is a plain "
                "tune.Trainable; legal: 1"
            )
        check_grace(search, fidelities=search.slices)
        check_arguments(search, legal=list(inspect.signature(cls.wrapped.setup).parameters)[2:])

    @classmethod
    def objective(cls, config: Config, metric: Metric | None) -> Objective:
        """The score, in the direction of ``search.mode``; default: max."""
        return Objective("score", config.search.mode or "max")

    @classmethod
    def evaluation_spec(cls, context: EvaluationContext) -> EvaluationSpec:
        """One trial per processor, or ``search.max_concurrent``; each reports ``search.slices`` times."""
        search = context.config.search
        concurrent = search.max_concurrent or int(ray.cluster_resources().get("CPU", 1))
        return EvaluationSpec(
            with_plain_settings(cls.wrapped) if search.joint else cls.wrapped,
            search.trainable_args,
            max_fidelity=search.slices,
            ends_itself=False,
            workers=concurrent,
            concurrent=concurrent,
            bounded=search.max_concurrent is None,
        )


def evaluator_of(trainable: type[Any], config: Config) -> type[Evaluator]:
    """The class itself, if it is an evaluator; a plain ``tune.Trainable`` wrapped.

    Args:
        trainable: What ``search.trainable`` names.
        config: Of the run.

    Raises:
        ConfigError: It is no trainable, leaves methods open, or knows its objective although ``search.mode`` is given.
    """
    if not (isinstance(trainable, type) and issubclass(trainable, tune.Trainable)):
        raise ConfigError(f"search.trainable {config.search.trainable!r} is no class of ray.tune.Trainable")
    if not issubclass(trainable, Evaluator):
        return _wrapped(trainable)
    check_complete(trainable)
    if config.search.mode is not None and not issubclass(trainable, PlainTrainable):
        raise ConfigError(
            f"search.mode = {config.search.mode}: {config.search.trainable} knows itself whether high scores are good; "
            "leave it out (it is for a plain tune.Trainable of your own)"
        )
    return trainable


def _wrapped(trainable: type[tune.Trainable]) -> type[PlainTrainable]:
    """An evaluator under the name of the trainable, so that messages and the nodes of a cluster find that."""

    class Wrapped(PlainTrainable):
        wrapped = trainable

    for name in ("__module__", "__name__", "__qualname__", "__doc__"):
        setattr(Wrapped, name, getattr(trainable, name))
    return Wrapped


def with_plain_settings(trainable: type[Any]) -> type[Any]:
    """The trainable with trial configs as Tune's users know them.

    ``{"architecture": {"blocks.0": "k3"}, "train.lr": 0.025}``: the part of the network, and each setting as a number
    under its name.
    """

    class WithPlainSettings(trainable):  # type: ignore[misc]
        def __init__(self, config: dict[str, Any] | None = None, *arguments: Any, **options: Any) -> None:
            super().__init__(config and _plain(config), *arguments, **options)

        def reset(self, new_config: dict[str, Any], *arguments: Any, **options: Any) -> Any:
            return super().reset(_plain(new_config), *arguments, **options)

    WithPlainSettings.__name__ = trainable.__name__
    return WithPlainSettings


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    whole = config["architecture"]
    numbers = {f"train.{name}": value for name, value in settings(whole).items()}
    return {**config, **numbers, "architecture": network(whole)}
