"""Score architectures by how far the shared weights have turned since the training began: no images, no labels.

    python -m raynas.launch --config rlnas --space spaces.darts:darts --data cifar10 data.folder=DATA

That is RLNAS (Zhang et al., CVPR 2021) with its evolution; ``rlnas_nasbench201`` is the one for that space, see
:mod:`raynas.config.presets`. What a space has to say for it stands in
:class:`raynas.evaluation.angle_statistics.AngleStatistics`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import ray

from raynas.config.run import Config
from raynas.evaluation.angle import Angles
from raynas.metrics import Metric
from raynas.tune.evaluator import EvaluationContext, EvaluatorTraits
from raynas.tune.resources import slots
from raynas.tune.spec import EvaluationSpec, Objective, check_arguments, check_grace
from raynas.tune.trial import BatchTrial, Candidate, FidelitySchedule

__all__ = ["Angle"]


class Angle(BatchTrial):
    """A trial that computes angles, in degrees, from a table of the space's options.

    The table is read off the weights once, before the search; trials see it through the object store.
    """

    traits = EvaluatorTraits(requires=frozenset({"supernet"}))

    @classmethod
    def validate(cls, config: Config) -> None:
        """It takes no arguments, and has one fidelity."""
        check_arguments(config.search, legal=())
        check_grace(config.search, fidelities=1)

    @classmethod
    def validate_run(cls, context: EvaluationContext) -> None:
        """Refuse a space without rules for its angles, before anything is started."""
        assert context.supernet is not None
        context.supernet.check_angles()

    @classmethod
    def objective(cls, config: Config, metric: Metric | None) -> Objective:
        """The angle, in degrees; a large one is good."""
        return Objective("angle", "max", "degrees")

    @classmethod
    def combinable_metrics(cls, config: Config) -> tuple[str, ...]:
        """The angle alone. Together with accuracy: see :mod:`raynas.trainables.shared_weights`."""
        return ("angle",)

    @classmethod
    def evaluation_spec(cls, context: EvaluationContext) -> EvaluationSpec:
        """One trial after the other: the same seed gives the same search."""
        assert context.supernet is not None
        concurrent = context.config.search.max_concurrent or 1
        return EvaluationSpec(
            cls,
            {"angles": context.supernet.angles(), "schedule": FidelitySchedule()},
            slots(concurrent),
            workers=concurrent,
            concurrent=concurrent,
            bounded=False,
        )

    def setup(  # type: ignore[override]
        self,
        config: dict[str, Any],
        angles: Angles,
        schedule: FidelitySchedule,
        known: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        """Called once a process; afterwards ``reset_config`` brings the next trial.

        Args:
            config: Of the first trial.
            angles: Of the trained supernet.
            schedule: One fidelity, and what a score is.
            known: See :meth:`raynas.tune.trial.BatchTrial.enter`.
        """
        self.angles = angles
        self.worker = f"{ray.util.get_node_ip_address()}:{os.getpid()}"
        self.enter(config, schedule, known)

    def advance(self, candidates: Sequence[Candidate], fidelity: int) -> None:
        """Compute the angles of all candidates at once."""
        begin = time.perf_counter()
        scores = self.angles([candidate.architecture for candidate in candidates]).tolist()
        seconds = (time.perf_counter() - begin) / len(candidates)
        for candidate, score in zip(candidates, scores, strict=True):
            candidate.score, candidate.seconds, candidate.worker = score, candidate.seconds + seconds, self.worker
            candidate.metrics = {"angle": score}
