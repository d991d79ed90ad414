"""A Tune trial that evaluates one architecture, or a batch of several: the base class of evaluators with cheap scores.

Trial configs:

    {"architecture": {...}}                    one architecture; Tune's scheduler decides whether it continues
    {"architectures": [{...}, ...]}            a batch (cohort); the weak are dropped inside the trial, by halving
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from raynas import architecture as arch
from raynas.evaluation.rank_aggregation import Reference
from raynas.tune.evaluator import Evaluator
from raynas.tune.schedulers import survivors

__all__ = ["BatchTrial", "Candidate", "FidelitySchedule"]


@dataclass
class Candidate:
    """An architecture of the trial, and its results so far."""

    architecture: dict[str, str]
    fidelity: int = 0
    status: str = "running"
    score: float = math.nan
    seconds: float = 0.0
    """Computing time of all steps so far."""
    worker: str = ""
    metrics: dict[str, Any] = field(default_factory=dict)
    error: str | None = None

    def refuse(self, why: str) -> None:
        """Mark it as infeasible, because it can never be scored; the trial continues without it."""
        self.status, self.error, self.metrics = "error", why, {"infeasible": True}

    def outcome(self) -> dict[str, Any]:
        """One row for the searcher and the log."""
        return {
            "architecture": self.architecture,
            "score": self.score,
            "fidelity": self.fidelity,
            "status": self.status,
            "seconds": self.seconds,
            "worker": self.worker,
            "metrics": self.metrics,
            "error": self.error,
        }


@dataclass(frozen=True)
class FidelitySchedule:
    """How many fidelities there are, after which of them a cohort drops its weak candidates, and what a score is."""

    fidelities: int = 1
    reduction_factor: float = 2.0
    grace: int = 1
    halving: bool = True
    mode: str = "max"
    combined: Mapping[int, Reference] | None = None
    """Makes the score at each fidelity of the candidate's metrics, instead of the one that :meth:`advance` sets."""


class BatchTrial(Evaluator):
    """A trial over the candidates of one trial config, one fidelity a step.

    A subclass implements :meth:`advance` and ``evaluation_spec``, and calls :meth:`enter` in its ``setup``.
    """

    schedule: FidelitySchedule
    candidates: list[Candidate]

    def advance(self, candidates: Sequence[Candidate], fidelity: int) -> None:
        """Score candidates at their next fidelity: set ``score``, ``seconds``, ``metrics`` and ``worker`` of each.

        Args:
            candidates: All of the same fidelity.
            fidelity: How many steps they have made before.
        """
        raise NotImplementedError

    def enter(
        self,
        config: Mapping[str, Any],
        schedule: FidelitySchedule,
        known: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        """Called in ``setup``; afterwards :meth:`reset_config` brings the next trial.

        Args:
            config: Of the first trial.
            schedule: How many fidelities there are, and what a cohort does after which of them.
            known: Results of an interrupted run, by the key of the architecture: ``fidelity``, ``score``,
                ``seconds`` and ``metrics``.
        """
        self.schedule, self._known = schedule, dict(known or {})
        self.reset_config(dict(config))

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take on another trial in the same process."""
        listed = new_config.get("architectures") or [new_config["architecture"]]
        self.candidates = [self._candidate(dict(architecture)) for architecture in listed]
        self._single = "architectures" not in new_config
        return True

    def _candidate(self, architecture: dict[str, str]) -> Candidate:
        known = self._known.get(arch.key(architecture)) if self._known else None
        if known is None:
            return Candidate(architecture)
        return Candidate(
            architecture,
            fidelity=int(known["fidelity"]),
            score=float(known["score"]),
            seconds=float(known["seconds"] or 0.0),
            # The log has null for what was not finite.
            metrics={name: math.nan if value is None else value for name, value in known["metrics"].items()},
        )

    def step(self) -> dict[str, Any]:
        """Evaluate all running candidates of the lowest fidelity at their next one."""
        fidelity = min(m.fidelity for m in self.candidates if m.status == "running")
        advancing = [m for m in self.candidates if m.status == "running" and m.fidelity == fidelity]
        self.advance(advancing, fidelity)
        for candidate in advancing:
            if candidate.status == "running":
                candidate.fidelity += 1
                if self.schedule.combined is not None:
                    candidate.score = self.schedule.combined[candidate.fidelity](candidate.metrics)
                candidate.status = "complete" if candidate.fidelity == self.schedule.fidelities else "running"
        running = [m for m in self.candidates if m.status == "running"]
        if not self._single and self.schedule.halving and running and len({m.fidelity for m in running}) == 1:
            self._halve(running)
        done = all(m.status != "running" for m in self.candidates)
        sign = -1.0 if self.schedule.mode == "min" else 1.0
        best = max(self.candidates, key=lambda m: (m.fidelity, sign * m.score))
        return {
            "score": best.score,
            "fidelity": best.fidelity,
            "training_iteration": best.fidelity,
            "outcomes": [m.outcome() for m in (self.candidates if done else advancing)],
            "done": done,
        }

    def _halve(self, running: Sequence[Candidate]) -> None:
        """At a rung keep only the best of the batch running."""
        rung = float(self.schedule.grace)
        while rung < running[0].fidelity:
            rung *= self.schedule.reduction_factor
        if round(rung) == running[0].fidelity:
            kept = survivors([m.score for m in running], self.schedule.reduction_factor, self.schedule.mode)
            for number, candidate in enumerate(running):
                if number not in kept:
                    candidate.status = "stopped"

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        """Nothing to save: the log has the result of every step."""
        return {}

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        """Nothing to restore."""
