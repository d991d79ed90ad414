"""Score architectures with the weights of a trained supernet, one slice of the validation data a fidelity step.

The trial is thin: it holds no weights and only asks a replica of the supernet. It takes cohorts, too: see
:mod:`raynas.tune.trial`. How far the weights have turned (:mod:`raynas.evaluation.angle`) may be one more metric, whose
rank is combined with that of accuracy:

    python -m raynas.launch "search.combine={accuracy: 1, angle: 1}"

After a long training the two together rank better than either (Hu et al., ECCV 2020); after a short one the angle alone
does, for accuracy takes longer to tell anything.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from raynas.architecture import Architecture
from raynas.config.run import Config
from raynas.evaluation.angle import Angles
from raynas.exceptions import ConfigError
from raynas.metrics import ACCURACY, METRICS, Metric
from raynas.supernet.client import ReplicaPool, Request
from raynas.tune.evaluator import EvaluationContext, EvaluatorTraits
from raynas.tune.resources import slots
from raynas.tune.spec import EvaluationSpec, check_arguments, check_grace
from raynas.tune.trial import BatchTrial, Candidate, FidelitySchedule

__all__ = ["SharedWeights"]


class SharedWeights(BatchTrial):
    """Thin trial over a pool of supernet actors.

    Give it its arguments by ``tune.with_parameters(SharedWeights, pool=[...], schedule=FidelitySchedule(8))``.
    """

    traits = EvaluatorTraits(requires=frozenset({"supernet", "replicas"}), scored_by_task_metric=True)

    @classmethod
    def combinable_metrics(cls, config: Config) -> tuple[str, ...]:
        """What a score may be made of; the angle is computed where it is."""
        return (*(metric.name for metric in METRICS), "loss", "angle")

    @classmethod
    def validate_run(cls, context: EvaluationContext) -> None:
        """Refuse to combine what will not be there, before anything is trained."""
        assert context.task is not None and context.data is not None and context.supernet is not None
        own, combine = context.task.metric.name, context.config.search.combine
        others = [m.name for m in METRICS if m.name in combine and m.name != own]
        if others:
            raise ConfigError(f"search.combine: {context.data.name} is scored by {own}, not by {others[0]}")
        if "angle" in combine:
            context.supernet.check_angles()

    @classmethod
    def validate(cls, config: Config) -> None:
        """It takes no arguments, and a grace within the slices."""
        check_arguments(config.search, legal=())
        check_grace(config.search, fidelities=config.search.slices)

    @classmethod
    def evaluation_spec(cls, context: EvaluationContext) -> EvaluationSpec:
        """Start the replicas of the trained supernet, and say how to ask them."""
        assert context.task is not None and context.supernet is not None
        pool, search = context.supernet.replicas(), context.config.search
        slices, metric = context.task.slices(search), context.task.metric
        parameters = {
            "pool": pool,
            "schedule": FidelitySchedule(
                slices, search.reduction_factor, search.grace, search.stops_early, metric.mode
            ),
            "metric": metric,
            "angles": context.supernet.angles() if "angle" in search.combine else None,
        }
        # Two trials a replica: one is scored while the other one's answer is on its way.
        concurrent = search.max_concurrent or 2 * len(pool)
        return EvaluationSpec(
            cls,
            parameters,
            slots(concurrent),
            max_fidelity=slices,
            workers=len(pool),
            gpus=context.supernet.gpus_per_replica,
            concurrent=concurrent,
            rescore=functools.partial(_rescore, pool),
        )

    def setup(  # type: ignore[override]
        self,
        config: dict[str, Any],
        pool: Sequence[Any] = (),
        schedule: FidelitySchedule | None = None,
        angles: Angles | None = None,
        known: Mapping[str, Mapping[str, Any]] | None = None,
        metric: Metric = ACCURACY,
    ) -> None:
        """Called once a process; afterwards :meth:`reset_config` brings the next trial.

        Args:
            config: Of the first trial.
            pool: Handles of the replicas.
            schedule: How many slices there are, and what a cohort does after which of them.
            angles: Of the trained supernet, where they are one of the metrics.
            known: See :meth:`raynas.tune.trial.BatchTrial.enter`.
            metric: What a score is.
        """
        self.pool, self.angles, self.metric = ReplicaPool(pool), angles, metric
        self.enter(config, schedule or FidelitySchedule(), known)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take on another trial in the same process."""
        # A trial stays with one replica, which remembers its BatchNorm statistics between two slices.
        self.place = self.pool.least_busy()
        return super().reset_config(new_config)

    def advance(self, candidates: Sequence[Candidate], fidelity: int) -> None:
        """Ask the replica about one more slice."""
        request = Request(([m.architecture for m in candidates], fidelity), self.place)
        self.pool.call("evaluate", [request])
        self.place = request.place
        for candidate, tally in zip(candidates, request.answer, strict=True):
            if "error" in tally:
                candidate.status, candidate.error = "error", tally["error"]
            else:
                _add(candidate, tally, self.metric)
        if self.angles is not None:
            for candidate, angle in zip(
                candidates, self.angles([m.architecture for m in candidates]).tolist(), strict=True
            ):
                candidate.metrics = {**candidate.metrics, "angle": angle}


def _add(candidate: Candidate, tally: Mapping[str, Any], metric: Metric) -> None:
    """Enter what one slice said: counts are summed, the loss is the mean over all that was asked so far."""
    before = candidate.metrics
    seen = before.get(metric.examples, 0.0)
    sums = {name: before.get(name, 0.0) + tally[name] for name in ("correct", metric.examples, "seconds")}
    lost = before.get("loss", 0.0) * seen + tally["loss"]
    candidate.score = metric({**sums, "loss": lost})
    candidate.seconds, candidate.worker = sums["seconds"], tally["worker"]
    candidate.metrics = {**sums, "loss": lost / max(sums[metric.examples], 1.0), metric.name: candidate.score}


def _rescore(pool: Sequence[Any], architectures: Sequence[Architecture]) -> list[float]:
    """The scores on all validation data, the replicas taking turns."""
    requests = [Request(([a],), number % len(pool)) for number, a in enumerate(architectures)]
    ReplicaPool(pool).call("rescore", requests)
    return [float(request.answer[0]) for request in requests]
