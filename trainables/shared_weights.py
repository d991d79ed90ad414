"""Score architectures with the weights of a trained supernet, one slice of the validation images a fidelity step.

The trial is thin: it holds no weights and only asks a replica of the supernet. Trial configs:

    {"architecture": {...}}                    one architecture; Tune's scheduler decides whether it goes on
    {"architectures": [{...}, ...]}            a cohort; the weak are dropped inside the trial, by halving
"""

from __future__ import annotations

import functools
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import ray
from ray import tune

from raynas import architecture as arch
from raynas.architecture import Architecture
from raynas.config import ConfigError, SearchConfig
from raynas.schedulers import survivors
from raynas.scoring import Scoring, slots

if TYPE_CHECKING:  # a thin trial must not import torch
    from raynas.run import Run

__all__ = ["Rungs", "SharedWeights"]

_SUMS = ("correct", "images", "loss", "seconds")


@dataclass
class _Member:
    """An architecture of the trial and what is known of it so far."""

    architecture: dict[str, str]
    fidelity: int = 0
    status: str = "running"
    worker: str = ""
    sums: dict[str, float] = field(default_factory=lambda: dict.fromkeys(_SUMS, 0.0))

    @property
    def score(self) -> float:
        """Accuracy in percent over all slices so far."""
        return 100.0 * self.sums["correct"] / self.sums["images"] if self.sums["images"] else float("nan")

    def outcome(self) -> dict[str, Any]:
        """One row for the searcher and the log."""
        metrics = {**self.sums, "accuracy": self.score}
        metrics["loss"] = self.sums["loss"] / max(self.sums["images"], 1.0)
        return {
            "architecture": self.architecture,
            "score": self.score,
            "fidelity": self.fidelity,
            "status": self.status,
            "seconds": self.sums["seconds"],
            "worker": self.worker,
            "metrics": metrics,
        }


@dataclass(frozen=True)
class Rungs:
    """After which slices a cohort drops its weak members."""

    slices: int = 1
    """Of the validation images; the highest fidelity."""
    reduction_factor: float = 2.0
    grace: int = 1
    halving: bool = True


class SharedWeights(tune.Trainable):
    """Thin trial over a pool of supernet actors.

    Give it its arguments by ``tune.with_parameters(SharedWeights, pool=[...], rungs=Rungs(8))``.
    """

    @staticmethod
    def check(search: SearchConfig) -> None:
        """Refuse settings that cannot be: called before anything is started."""
        if search.grace > search.slices:
            raise ConfigError(
                f"search.grace = {search.grace} is more than there are slices; legal: 1 to {search.slices}"
            )

    @classmethod
    def scoring(cls, run: Run) -> Scoring:
        """Train the supernet if that is not done, start its replicas, and say how to ask them."""
        run.train_supernet()
        pool = run.supernet.replicas()
        search = run.config.search
        images = min(search.validation_images or len(run.data.validation), len(run.data.validation))
        slices = max(min(search.slices, images), 1)
        parameters = {
            "pool": pool,
            "rungs": Rungs(slices, search.reduction_factor, search.grace, halving=search.scheduler == "asha"),
        }
        # Two trials a replica: one is scored while the other one's answer is on its way.
        concurrent = search.max_concurrent or 2 * len(pool)
        return Scoring(
            cls,
            parameters,
            slots(concurrent),
            max_fidelity=slices,
            workers=len(pool),
            concurrent=concurrent,
            rescore=functools.partial(_rescore, pool),
        )

    def setup(  # type: ignore[override]
        self,
        config: dict[str, Any],
        pool: Sequence[Any] = (),
        rungs: Rungs | None = None,
        known: Mapping[str, Mapping[str, float]] | None = None,
    ) -> None:
        """Called once a process; afterwards :meth:`reset_config` brings the next trial.

        Args:
            config: Of the first trial.
            pool: Handles of the replicas.
            rungs: How many slices there are, and what a cohort does after which of them.
            known: What an interrupted run already found out, by the key of the architecture: ``fidelity`` and sums.
        """
        self.pool = list(pool)
        self.rungs, self.known = rungs or Rungs(), dict(known or {})
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take on another trial in the same process."""
        listed = new_config.get("architectures") or [new_config["architecture"]]
        self.members = [_Member(dict(architecture)) for architecture in listed]
        for member in self.members:
            known = self.known.get(arch.key(member.architecture))
            if known is not None:
                member.fidelity = int(known["fidelity"])
                member.sums = {name: float(known[name]) for name in _SUMS}
                member.sums["loss"] *= member.sums["images"]
        self.alone = "architectures" not in new_config
        # A trial stays with one replica, which remembers its BatchNorm statistics between two slices.
        self.replica = self._least_busy()
        return True

    def _least_busy(self) -> Any:
        """Of two replicas drawn by chance the one with fewer requests waiting: balanced, without a master."""
        if len(self.pool) == 1:
            return self.pool[0]
        pair = random.sample(self.pool, 2)
        try:
            waiting = ray.get([replica.waiting.remote() for replica in pair], timeout=2)
        except ray.exceptions.RayError:
            return random.choice(pair)  # one of them is being restarted: it answers when it is back
        return pair[0] if waiting[0] <= waiting[1] else pair[1]

    def step(self) -> dict[str, Any]:
        """One slice for every architecture that is still in."""
        fidelity = min(m.fidelity for m in self.members if m.status == "running")
        alive = [m for m in self.members if m.status == "running" and m.fidelity == fidelity]
        tallies = ray.get(self.replica.evaluate.remote([m.architecture for m in alive], fidelity))
        for member, tally in zip(alive, tallies, strict=True):
            member.fidelity += 1
            member.worker = tally["worker"]
            for name in _SUMS:
                member.sums[name] += tally[name]
            if member.fidelity == self.rungs.slices:
                member.status = "complete"
        running = [m for m in self.members if m.status == "running"]
        if not self.alone and self.rungs.halving and running and len({m.fidelity for m in running}) == 1:
            self._halve(running)
        done = all(m.status != "running" for m in self.members)
        best = max(self.members, key=lambda m: (m.fidelity, m.score))
        return {
            "score": best.score,
            "fidelity": best.fidelity,
            "training_iteration": best.fidelity,
            "outcomes": [m.outcome() for m in (self.members if done else alive)],
            "done": done,
        }

    def _halve(self, running: list[_Member]) -> None:
        """At a rung only the best of a cohort go on."""
        rung = float(self.rungs.grace)
        while rung < running[0].fidelity:
            rung *= self.rungs.reduction_factor
        if round(rung) == running[0].fidelity:
            kept = survivors([m.score for m in running], self.rungs.reduction_factor)
            for number, member in enumerate(running):
                if number not in kept:
                    member.status = "stopped"

    def save_checkpoint(self, checkpoint_dir: str) -> Mapping[str, Any]:
        """Nothing to keep: the log knows every slice that was scored."""
        return {}

    def load_checkpoint(self, checkpoint: Mapping[str, Any] | None) -> None:
        """Nothing to restore."""


def _rescore(pool: Sequence[Any], architectures: Sequence[Architecture]) -> list[float]:
    """Accuracy on all validation images, the replicas taking turns."""
    asked = [pool[number % len(pool)].rescore.remote([a]) for number, a in enumerate(architectures)]
    return [answer[0] for answer in ray.get(asked)]
