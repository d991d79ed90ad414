"""Shrinks a space while its supernet is trained: each round drops the options with the smallest weight angles.

Angle-based search space shrinking (ABS, Hu et al., ECCV 2020). The score of an option is the mean angle of random
architectures that contain it. What is left is an ordinary space, the same module with fewer options in its decisions;
it is saved in the checkpoints of the supernet.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from random import Random
from typing import Any

import numpy as np
from torch import Tensor

from raynas import architecture as arch
from raynas.architecture import Architecture
from raynas.config.train import ShrinkConfig
from raynas.costs.counter import Costs
from raynas.evaluation.angle_statistics import AngleStatistics
from raynas.training.path_sampling import PathSampler
from raynas.training.rounds import RoundContext

__all__ = ["Dropped", "Shrinking"]

log = logging.getLogger(__name__)
_TRIES = 20  # draws for each random architecture that keeps the limits


@dataclass(frozen=True)
class Dropped:
    """An option that was dropped."""

    decision: str
    option: str
    angle: float | None
    """Its score in degrees; None where no random architecture with it kept the limits."""


class Shrinking:
    """What is left of a space, and the rounds that shrink it.

    Args:
        angle_statistics: From which the angles are computed.
        costs: Of the same space; narrowed to what is left.
        violation: 0 for architectures that keep the limits. Others do not count.
        paths: Makes the sampler of the paths to train, over the decisions that ``costs`` has left.
        settings: When a round is due, and how many options it drops.
        seed: Of the random architectures.
    """

    def __init__(
        self,
        angle_statistics: AngleStatistics,
        costs: Costs,
        violation: Callable[[Architecture], float],
        paths: Callable[[], PathSampler],
        settings: ShrinkConfig,
        seed: int,
    ) -> None:
        self.angle_statistics, self.costs, self.violation, self._paths = angle_statistics, costs, violation, paths
        self.settings, self.seed = settings, seed
        self.load_state(None)

    def state(self) -> dict[str, Any]:
        """The state, as plain JSON data."""
        return {"decisions": self.decisions, "rounds": self.rounds, "anchored": self.anchored}

    def load_state(self, state: Mapping[str, Any] | None) -> None:
        """Continue from what :meth:`state` returned; None for the whole space."""
        known = state or {"decisions": self.angle_statistics.decisions, "rounds": [], "anchored": False}
        self.decisions = {name: tuple(options) for name, options in known["decisions"].items()}
        self.rounds: list[dict[str, Any]] = list(known["rounds"])
        self.anchored = bool(known["anchored"])
        self.costs.narrow(self.decisions)

    @property
    def dropped(self) -> int:
        """How many options are gone."""
        before, left = (sum(map(len, d.values())) for d in (self.angle_statistics.decisions, self.decisions))
        return before - left

    def paths(self) -> PathSampler:
        """The paths of what is left."""
        return self._paths()

    def next_round(self, epoch_steps: int) -> float:
        """The training step before which the next round is due; infinite after the last one."""
        assert self.settings.every is not None
        if arch.size(self.decisions) <= self.settings.until:
            return math.inf
        made = len(self.rounds)
        return max(
            round(((self.settings.first or self.settings.every) + made * self.settings.every) * epoch_steps), made
        )

    def round(self, training: RoundContext, step: int) -> None:
        """Drop the options of the smallest angles since the training began, or since the anchor was set."""
        now = training.weights()
        self.drop(training.kept("anchor" if self.anchored else "initial"), now, step)
        if not self.anchored and self.dropped > self.settings.anchor:
            training.keep("anchor", now)
            self.anchored = True

    def drop(self, begin: Mapping[str, Tensor], now: Mapping[str, Tensor], step: int) -> list[Dropped]:
        """Drop the options of the smallest angles. Each decision keeps one, and some architecture keeps the limits.

        Args:
            begin: The weights from which angles are measured.
            now: The current weights.
            step: Of the training.

        Returns:
            What was dropped, smallest angle first.
        """
        angles = self.angle_statistics.angles(begin, now)
        children = self._children()
        scores = angles(children)
        having = {
            (name, option): np.array([child.get(name) == option for child in children])
            for name, options in self.decisions.items()
            for option in options
        }
        means = {option: float(scores[rows].mean()) if rows.any() else None for option, rows in having.items()}
        # Taken over at the end: an interrupt must not leave half a round.
        decisions, within, gone = self.decisions, scores >= 0, list[Dropped]()
        for (name, option), mean in sorted(means.items(), key=lambda item: -1.0 if item[1] is None else item[1]):
            without = within & ~having[name, option]
            if len(gone) < self.settings.drop and len(decisions.get(name, ())) > 1 and without.any():
                within, decisions = without, _without(decisions, name, option)
                gone.append(Dropped(name, option, mean))
        if not gone:
            log.warning("no option can be dropped: too few architectures keep the limits")
        record = {"step": step, "architectures": arch.size(decisions), "dropped": [asdict(each) for each in gone]}
        self.decisions, self.rounds = decisions, [*self.rounds, record]
        self.costs.narrow(self.decisions)
        return gone

    def _children(self) -> list[Architecture]:
        """Random architectures that keep the limits, so many that each option is in about ``samples`` of them."""
        rng = Random(f"{self.seed}/shrink/{len(self.rounds)}")
        count = self.settings.samples * max(map(len, self.decisions.values()))
        found: list[Architecture] = []
        for _ in range(_TRIES * count):
            # Not in canonical form, in which some options are rare: each shall be in as many of them.
            child = arch.sample(self.decisions, rng)
            if self.violation(self.costs.canonical(child)) == 0:
                found.append(child)
            if len(found) == count:
                break
        return found


def _without(decisions: Mapping[str, tuple[str, ...]], name: str, option: str) -> dict[str, tuple[str, ...]]:
    """Decisions without an option, and without those nested in it."""
    rest = {n: options for n, options in decisions.items() if not n.startswith(f"{name}.{option}.")}
    return {**rest, name: tuple(each for each in rest[name] if each != option)}
