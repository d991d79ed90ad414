"""A policy trained by REINFORCE (Zoph and Le, ICLR 2017; Bello et al., ICML 2017)."""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence
from random import Random
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field

from raynas.architecture import Architecture, complete, key
from raynas.config.types import Count, Share
from raynas.search_space.space import SearchSpace
from raynas.searchers.history import Entry
from raynas.searchers.incremental import IncrementalSearcher
from raynas.searchers.models.transforms import Rank, normal_score
from raynas.searchers.settings import FinitePositive, searcher_settings

__all__ = ["Reinforce", "ReinforceSettings"]

Array = npt.NDArray[np.float64]


@searcher_settings
class ReinforceSettings:
    """Settings of :class:`Reinforce`.

    Attributes:
        learning_rate: Of Adam, for one step after each score.
        entropy: Weight of the policy's entropy beside the reward, whose deviation is 1.
        baseline: Share of the old value in the moving average of the rewards.
        attempts: Architectures sampled at most for each proposal; duplicates and infeasible ones are discarded.

    Raises:
        ConfigError: A setting out of range.
    """

    learning_rate: FinitePositive = 0.1
    entropy: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.1
    baseline: Share = 0.9
    attempts: Count = 100


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

    def gradient(self, architecture: Architecture, advantage: float) -> tuple[npt.NDArray[np.intp], Array]:
        """Rows of the active decisions [A]; there, the gradient of advantage * log-probability + entropy [A, O]."""
        rows = np.array([self._rows[name] for name in architecture])
        chances = self.probabilities()[rows]
        chosen = np.zeros_like(chances)
        chosen[np.arange(len(rows)), [self._places[name][option] for name, option in architecture.items()]] = 1.0
        logs = np.log(np.maximum(chances, 1e-300))
        entropy = -(chances * logs).sum(1, keepdims=True)
        return rows, advantage * (chosen - chances) - self.settings.entropy * chances * (logs + entropy)

    def update(self, architecture: Architecture, advantage: float) -> None:
        """Makes one step of Adam."""
        rows, gradient = self.gradient(architecture, advantage)
        self._steps[rows] += 1
        self._first[rows] += 0.1 * (gradient - self._first[rows])
        self._second[rows] += 0.001 * (gradient**2 - self._second[rows])
        mean = self._first[rows] / (1 - 0.9 ** self._steps[rows])
        square = self._second[rows] / (1 - 0.999 ** self._steps[rows])
        self.logits[rows] += self.settings.learning_rate * mean / (np.sqrt(square) + 1e-8)

    def sample(self, chances: Array, rng: Random) -> Architecture:
        """An architecture with the given chances; nested decisions are taken where they are active."""

        def pick(name: str, options: Sequence[str]) -> str:
            return rng.choices(options, chances[self._rows[name], : len(options)].tolist())[0]

        return complete(self._decisions, {}, pick)


class Reinforce(IncrementalSearcher):
    """Samples architectures from a policy that is trained by policy gradient.

    The reward is the normal score among all results so far (:mod:`raynas.searchers.models.transforms`), so that the
    scale of the metric does not matter; its moving average is the baseline. Each result makes one step, in the order of
    the history, including replayed results of another searcher.

    Args:
        space: The search space.
        settings: How the policy learns.
        seed: See :class:`ArchitectureSearcher`, as for the arguments that follow.
        metric: Name of the score.
        mode: "max" or "min".
        points_to_evaluate: Architectures to propose first.
    """

    Settings = ReinforceSettings
    settings: ReinforceSettings

    def propose(self) -> Architecture | str | None:
        """Samples from the policy; where it yields nothing new, mutates the last sample until it is new."""
        initial = self.opening(0)
        if initial is not None:
            return initial
        self.catch_up()
        rng = self.rng("reinforce", len(self.history))
        chances = self.policy.probabilities()
        for _ in range(self.settings.attempts):
            sampled = self.space.form(self.policy.sample(chances, rng))
            if key(sampled) not in self.history and self.sampler.feasible(sampled):
                return self.record_origin(sampled, "model")
        mutated = self.sampler.walk(sampled, rng, self.history)
        return self.record_origin(mutated, "model") if mutated else self.sample_new(rng)

    def reset(self) -> None:
        """Sets the policy to the uniform one."""
        self.policy = Policy(self.space, self.settings)
        self._baseline = 0.0
        self._ranks: list[Rank] = []

    def update(self, name: str, entry: Entry) -> None:
        """Updates the policy by one score; failed trials are ignored."""
        if entry.status == "error":
            return
        insort(self._ranks, self.rank(entry))
        reward = normal_score(self.rank(entry), self._ranks)
        self.policy.update(entry.architecture, reward - self._baseline)
        self._baseline += (1 - self.settings.baseline) * (reward - self._baseline)
