"""Trials of an evaluator in the process of a test, for :mod:`raynas.testing.evaluator`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ray import cloudpickle as _cloudpickle
from ray import tune

from raynas.architecture import Architecture
from raynas.runs.run import Run
from raynas.storage.removal import remove_tree
from raynas.tune.evaluator import EvaluationContext, Evaluator
from raynas.tune.spec import EvaluationSpec

cloudpickle: Any = _cloudpickle  # has no types

__all__ = ["Outcome", "Prepared", "Trials"]

Outcome = dict[str, Any]
"""What a trial reports of one architecture at one fidelity."""


@dataclass(frozen=True)
class Prepared:
    """What all tests of a class share."""

    run: Run
    evaluator: type[Evaluator]
    context: EvaluationContext
    spec: EvaluationSpec
    architectures: tuple[Architecture, ...]
    """Different feasible architectures of the space."""


@dataclass
class Trials:
    """Makes trials in this process, each with its own copy of the parameters, as a process of Tune would have it."""

    prepared: Prepared
    storage: Any
    """Stands for Tune's storage of a trial."""
    open: list[tune.Trainable] = field(default_factory=list)

    def new(self, config: Mapping[str, Any], **further: Any) -> tune.Trainable:
        """A trial that finds nothing of earlier trials."""
        self.forget()
        return self.resumed(config, **further)

    def resumed(self, config: Mapping[str, Any], **further: Any) -> tune.Trainable:
        """A trial that finds what earlier ones have left in the storage of the evaluator."""
        spec = self.prepared.spec
        parameters = {**cloudpickle.loads(cloudpickle.dumps(dict(spec.parameters))), **further}
        base: Any = spec.trainable

        class Here(base):  # type: ignore[misc]
            def setup(self, config: dict[str, Any]) -> None:
                super().setup(config, **parameters)

        trial: tune.Trainable = Here(dict(config), storage=self.storage)
        self.open.append(trial)
        return trial

    def forget(self) -> None:
        """Remove what earlier trials have left for an interrupted run to continue with."""
        if isinstance(self.prepared.context.storage, Path):
            remove_tree(self.prepared.context.storage)

    def outcomes(self, trial: tune.Trainable, steps: int | None = None) -> list[list[Outcome]]:
        """Step a trial to its end, or so often; returns the outcomes of each step."""
        reports: list[list[Outcome]] = []
        while len(reports) < (self.prepared.spec.max_fidelity if steps is None else steps):
            result = trial.train()
            own = {"architecture": trial.config.get("architecture"), "fidelity": result["training_iteration"]}
            plain = [{**own, "score": result["score"], "status": "running", "metrics": {}}]
            reports.append(result.get("outcomes", plain))
            if result["done"]:
                break
        return reports

    def scores(self, architecture: Architecture) -> list[list[Outcome]]:
        """The outcomes of a new trial of one architecture."""
        return self.outcomes(self.new({"architecture": architecture}))

    def close(self) -> None:
        """End all trials that were made."""
        for trial in self.open:
            trial.stop()
        self.open.clear()
