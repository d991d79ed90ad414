"""Score architectures without any training: by the initial weights and a batch of images, in about a second.

    python -m raynas.launch search.trainable=trainables.zero_cost:ZeroCost search.trainable_args.score=naswot

``score`` is one of ``raynas.evaluation.proxies.scores.PROXIES``; ``az_nas``, which is made of four; ``macs`` or
``parameters``, to compare with; or a function of yours, ``my_pkg.net:score``, of a network, images and labels. Of a
list all are computed, and their ranks in a random sample of the space are combined: see
:mod:`raynas.evaluation.rank_aggregation`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import ray
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from raynas.config.run import Config
from raynas.costs.counter import Costs
from raynas.distributed.placement import place
from raynas.evaluation.proxies.evaluator import ZeroCostProxies, check_scores, parts
from raynas.exceptions import ConfigError
from raynas.training.trainer import best_device, use_assigned_cpus
from raynas.tune.evaluator import EvaluationContext
from raynas.tune.spec import EvaluationSpec, check_grace
from raynas.tune.trial import BatchTrial, Candidate, FidelitySchedule

__all__ = ["Arguments", "ZeroCost"]


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Arguments:
    """The settings in ``search.trainable_args``."""

    score: str | list[str] = Field(default_factory=lambda: ["az_nas", "naswot", "zico"])
    """One, or several that are combined. The default: see benchmarks/zero_cost.py."""
    images: int = Field(default=64, ge=4)
    """Training images that the networks see."""

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Arguments:
        """Read and check them.

        Raises:
            ConfigError: A setting or score is unknown, or of the wrong type.
        """
        try:
            found = TypeAdapter(cls).validate_python(dict(values))
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(map(str, first["loc"][:1]))
            raise ConfigError(
                f"search.trainable_args.{name} = {first['input']!r}: {first['msg'][0].lower()}{first['msg'][1:]}; "
                "legal settings: score, images"
            ) from None
        check_scores(found.score, "search.trainable_args.score")
        return found

    @property
    def names(self) -> list[str]:
        """The scores that are asked for."""
        return [self.score] if isinstance(self.score, str) else list(self.score)


class ZeroCost(BatchTrial):
    """A trial that holds the untrained space and scores the networks in it."""

    @classmethod
    def combinable_metrics(cls, config: Config) -> tuple[str, ...]:
        """What a score may be made of."""
        return tuple(parts(Arguments.parse(config.search.trainable_args).names))

    @classmethod
    def validate(cls, config: Config) -> None:
        """Known scores, and one fidelity."""
        Arguments.parse(config.search.trainable_args)
        check_grace(config.search, fidelities=1)

    @classmethod
    def evaluation_spec(cls, context: EvaluationContext) -> EvaluationSpec:
        """One trial per worker, one worker per GPU, or per CPU where there is none."""
        assert context.space is not None and context.data is not None and isinstance(context.costs, Costs)
        search, train = context.config.search, context.config.train
        arguments = Arguments.parse(search.trainable_args)
        where = place(
            search.max_concurrent or search.replicas,
            train.cpus_per_worker,
            train.gpus_per_worker,
            wait_minutes=train.wait_minutes,
        )
        proxies = ZeroCostProxies.of(
            context.space, context.costs, context.data, arguments.names, arguments.images, context.seed
        )
        figures = parts(arguments.names)
        return EvaluationSpec(
            cls,
            {"proxies": proxies, "schedule": FidelitySchedule()},
            {"cpu": where.cpus, "gpu": where.gpus},
            workers=where.count,
            concurrent=where.count,
            bounded=search.max_concurrent is None and search.replicas is None,
            gpus=where.gpus,
            combine=dict.fromkeys(figures, 1.0) if len(figures) > 1 else {},
        )

    def setup(  # type: ignore[override]
        self,
        config: dict[str, Any],
        proxies: ZeroCostProxies,
        schedule: FidelitySchedule,
        known: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        """Called once a process; afterwards ``reset_config`` brings the next trial.

        Args:
            config: Of the first trial.
            proxies: Takes the scores.
            schedule: One fidelity, and what a score is.
            known: See :meth:`raynas.tune.trial.BatchTrial.enter`.
        """
        use_assigned_cpus()
        self.proxies = proxies.to(best_device())
        self.worker = f"{ray.util.get_node_ip_address()}:{os.getpid()}"
        self.enter(config, schedule, known)

    def advance(self, candidates: Sequence[Candidate], fidelity: int) -> None:
        """Score them one by one."""
        for candidate in candidates:
            begin = time.perf_counter()
            candidate.worker = self.worker
            try:
                candidate.metrics = self.proxies.measure(candidate.architecture)
                candidate.score = next(iter(candidate.metrics.values()))
            except Exception as error:  # whatever goes wrong in one network must not end the others of its cohort
                if len(candidates) == 1:
                    raise
                candidate.status, candidate.error = "error", f"{type(error).__name__}: {error}"
            candidate.seconds = time.perf_counter() - begin
