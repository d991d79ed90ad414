"""A controller that learns by REINFORCE what to propose (Zoph and Le, ICLR 2017; Bello et al., ICML 2017)."""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import numpy as np
import numpy.typing as npt

from raynas.architecture import Architecture, complete, key
from raynas.search_space.space import SearchSpace
from raynas.searchers.checks import check_counts, check_numbers, check_ranges
from raynas.searchers.history import Entry
from raynas.searchers.incremental import IncrementalSearcher
from raynas.searchers.models.standing import Rank, standing

__all__ = ["Reinforce", "ReinforceSettings"]

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ReinforceSettings:
    """How the policy learns.

    Attributes:
        learning_rate: Of Adam, for one step after each score.
        entropy: Weight of the policy's entropy beside the reward, whose deviation is 1.
        baseline: Share of the old value in the moving average of the rewards.
        attempts: Architectures drawn for each proposal; those before were known already or infeasible.

    Raises:
        ValueError: A setting out of range.
    """

    learning_rate: float = 0.1
    entropy: float = 0.1
    baseline: float = 0.9
    attempts: int = 100

    def __post_init__(self) -> None:
        check_counts(self, {"attempts": 1})
        check_numbers(self, ("learning_rate", "entropy", "baseline"))
        legal = {
            "learning_rate": (0.0 < self.learning_rate < math.inf, "more than 0"),
            "entropy": (0.0 <= self.entropy < math.inf, "0 or more"),
            "baseline": (0.0 <= self.baseline < 1.0, "from 0 to below 1"),
        }
        check_ranges(self, legal)


class Policy:
    """A softmax for every decision: logits [D, O], moved by Adam (Kingma and Ba, ICLR 2015).

    The probability of an architecture is the product over its active decisions. For tables of this size a policy
    without memory does as well as a recurrent one (Ying et al., "NAS-Bench-101", ICML 2019).

    Args:
        space: Whose decisions are taken.
        settings: How it learns.
    """

    def __init__(self, space: SearchSpace, settings: ReinforceSettings) -> None:
        self.settings = settings
        self._decisions = space.decisions
        self._rows = {name: row for row, name in enumerate(space.decisions)}
        self._places = {name: {o: place for place, o in enumerate(opts)} for name, opts in space.decisions.items()}
        widths = np.array([len(options) for options in space.decisions.values()])
        self._legal = np.arange(widths.max()) < widths[:, None]
        self.logits = np.zeros(self._legal.shape)
        self._first, self._second = np.zeros_like(self.logits), np.zeros_like(self.logits)
        self._steps = np.zeros((len(widths), 1))  # of each decision: one that is rarely active is corrected for longer

    def probabilities(self) -> Array:
        """The chance of every option [D, O]; 0 behind the last option of a decision."""
        weights = np.where(self._legal, np.exp(self.logits - self.logits.max(1, keepdims=True)), 0.0)
        result: Array = weights / weights.sum(1, keepdims=True)
        return result

    def slope(self, architecture: Architecture, advantage: float) -> tuple[npt.NDArray[np.intp], Array]:
        """Rows of the active decisions [A]; there, the slope of advantage * log-probability + entropy [A, O]."""
        rows = np.array([self._rows[name] for name in architecture])
        chances = self.probabilities()[rows]
        chosen = np.zeros_like(chances)
        chosen[np.arange(len(rows)), [self._places[name][option] for name, option in architecture.items()]] = 1.0
        logs = np.log(np.maximum(chances, 1e-300))
        spread = -(chances * logs).sum(1, keepdims=True)
        return rows, advantage * (chosen - chances) - self.settings.entropy * chances * (logs + spread)

    def update(self, architecture: Architecture, advantage: float) -> None:
        """One step uphill."""
        rows, slope = self.slope(architecture, advantage)
        self._steps[rows] += 1
        self._first[rows] += 0.1 * (slope - self._first[rows])
        self._second[rows] += 0.001 * (slope**2 - self._second[rows])
        mean = self._first[rows] / (1 - 0.9 ** self._steps[rows])
        square = self._second[rows] / (1 - 0.999 ** self._steps[rows])
        self.logits[rows] += self.settings.learning_rate * mean / (np.sqrt(square) + 1e-8)

    def draw(self, chances: Array, rng: Random) -> Architecture:
        """An architecture with the given chances; nested decisions are taken where they are active."""

        def pick(name: str, options: Sequence[str]) -> str:
            return rng.choices(options, chances[self._rows[name], : len(options)].tolist())[0]

        return complete(self._decisions, {}, pick)


class Reinforce(IncrementalSearcher):
    """Draws architectures from a policy that makes those likelier which scored better than usual.

    The reward is where a score stands among all so far (:mod:`raynas.searchers.models.standing`), so that the scale of
    the metric does not matter; a moving average of it is the baseline. Each score that comes in moves the policy once,
    in the order of the history. Rows of another searcher's log move it, too.

    Args:
        space: What may be proposed.
        settings: How the policy learns.
        seed: See :class:`ArchitectureSearcher`, as for the arguments that follow.
        metric: Name of the score.
        mode: "max" or "min".
        points_to_evaluate: Architectures to propose first.
    """

    Settings = ReinforceSettings
    settings: ReinforceSettings

    def propose(self) -> Architecture | str | None:
        """What the policy draws. Where it has nothing new to say: what lies nearest to that."""
        waiting = self.opening(0)
        if waiting is not None:
            return waiting
        self.follow()
        rng = self.rng("reinforce", len(self.history))
        chances = self.policy.probabilities()
        for _ in range(self.settings.attempts):
            drawn = self.space.form(self.policy.draw(chances, rng))
            if key(drawn) not in self.history and self.sampler.feasible(drawn):
                return self.record_origin(drawn, "model")
        near = self.sampler.walk(drawn, rng, self.history)
        return self.record_origin(near, "model") if near else self.drawn(rng)

    def forget(self) -> None:
        """Begin with a uniform policy."""
        self.policy = Policy(self.space, self.settings)
        self._usual = 0.0
        self._ranks: list[Rank] = []

    def learn(self, name: str, entry: Entry) -> None:
        """Move the policy by one score; that a trial failed teaches nothing."""
        if entry.status == "error":
            return
        insort(self._ranks, self.rank(entry))
        reward = standing(self.rank(entry), self._ranks)
        self.policy.update(entry.architecture, reward - self._usual)
        self._usual += (1 - self.settings.baseline) * (reward - self._usual)
