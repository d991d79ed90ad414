"""Trains the paths of a pool of architectures; between stretches of the training a searcher replaces the worst of them.

The weight-sharing form of neural architecture optimization (NAO-WS, Luo et al., NeurIPS 2018): train the paths of the
pool, score the pool with the shared weights, fit a searcher to the scores, replace the worst members by its proposals,
and repeat. The actors that train also score, between two stretches, with the weights that they hold.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from random import Random
from typing import Any

from raynas.architecture import Architecture, key
from raynas.config.train import PoolConfig
from raynas.exceptions import ConfigError
from raynas.searchers import ArchitectureSearcher
from raynas.searchers.nao.diagnostics import with_pool_scores
from raynas.training.path_sampling import PathSampler
from raynas.training.rounds import RoundContext

__all__ = ["Pool", "PoolPaths"]


@dataclass(frozen=True)
class PoolPaths:
    """One path a step, drawn from a pool, each in proportion to its weight."""

    members: Sequence[Architecture]
    weights: Sequence[float]
    seed: int = 0

    def __call__(self, step: int) -> list[Architecture]:
        """The path of a step."""
        rng = Random(f"{self.seed}/pool/{step}")
        return rng.choices(self.members, cum_weights=list(accumulate(self.weights)))


class Pool:
    """The architectures whose paths are trained, and the rounds that renew them.

    Implements :class:`raynas.training.rounds.TrainingRounds`.

    Args:
        searcher: Makes a new searcher for each round, of ``seed``, ``metric`` and ``mode``. It gets only the scores of
            this round: older ones belong to other weights.
        weight: How often a path is trained, relative to others.
        settings: How large the pool is, and when how much of it is renewed.
        seed: Of the first pool and of the paths.
        mode: Whether a high score is good ("max") or a low one ("min").
    """

    def __init__(
        self,
        searcher: Callable[..., ArchitectureSearcher],
        weight: Callable[[Architecture], float],
        settings: PoolConfig,
        seed: int,
        mode: str = "max",
    ) -> None:
        assert settings.size is not None
        self.searcher, self.weight, self.settings, self.seed, self.mode = searcher, weight, settings, seed, mode
        self.members: list[Architecture] = []
        """Best first, as of the last round; the new ones last."""
        self.rounds: list[dict[str, Any]] = []
        made = searcher(seed=seed, metric="score", mode=mode)
        least = getattr(made.settings, "population", 0)  # of a start-up there is none, see round()
        if least > settings.size:
            raise ConfigError(
                f"train.pool.size = {settings.size}, but the searcher would begin with {least} random architectures in "
                "every round: enlarge the pool, or lower that number in search.method_args"
            )
        self.load_state(None)

    def state(self) -> dict[str, Any]:
        """The state, as plain JSON data."""
        return {"members": self.members, "rounds": self.rounds}

    def load_state(self, state: Mapping[str, Any] | None) -> None:
        """Continue from what :meth:`state` returned; None for the first pool."""
        if state is None:
            assert self.settings.size is not None
            made = self.searcher(seed=self.seed, metric="score", mode=self.mode)
            state = {"members": _drawn(made, self.settings.size), "rounds": []}
        self.members, self.rounds = [dict(member) for member in state["members"]], list(state["rounds"])

    def paths(self) -> PathSampler:
        """The paths of the pool."""
        return PoolPaths(self.members, [self.weight(member) for member in self.members], self.seed)

    def next_round(self, epoch_steps: int) -> float:
        """The training step before which the next round is due; infinite after the last one."""
        made = len(self.rounds)
        if self.settings.rounds is not None and made >= self.settings.rounds:
            return math.inf
        return max(round((made + 1) * self.settings.every * epoch_steps), made + 1)

    def round(self, training: RoundContext, step: int) -> None:
        """Score the pool and replace its worst members by proposals of the searcher."""
        scores = training.scores(self.members)
        seed = Random(f"{self.seed}/pool/round {len(self.rounds)}").randrange(2**31)
        searcher = self.searcher(seed=seed, metric="score", mode=self.mode)
        ranked = sorted(zip(self.members, scores, strict=True), key=lambda pair: self._goodness(pair[1]), reverse=True)
        finite = sum(map(math.isfinite, scores))
        if hasattr(searcher.settings, "startup") and finite > 1:  # all that there is to learn from is there
            searcher.settings = dataclasses.replace(searcher.settings, startup=finite)
        # The best last: a searcher may think the last ones the youngest.
        for member, score in reversed(ranked):
            searcher.add_evaluated_point({"architecture": member}, score, error=not math.isfinite(score))
        count = round(self.settings.renew * len(self.members))
        searcher.expect_in_flight(count)
        proposed = list(_proposals(searcher, count))
        newest = {key(member) for member in (self.rounds[-1]["new"] if self.rounds else ())}
        if self.rounds and self.rounds[-1].get("learned"):
            known = {key(m): score for m, score in zip(self.members, scores, strict=True) if math.isfinite(score)}
            self.rounds = [*self.rounds[:-1], with_pool_scores(self.rounds[-1], known)]
        record = {
            "step": step,
            "best": ranked[0][1],
            "mean": _mean(scores),
            "mean of the last round's": _mean(s for m, s in ranked if key(m) in newest),
            "new": proposed,
            "learned": searcher.diagnostics[-1] if searcher.diagnostics else None,
        }
        self.rounds = [*self.rounds, record]
        self.members = [*(member for member, _ in ranked[: len(ranked) - len(proposed)]), *proposed]

    def _goodness(self, score: float) -> float:
        return -math.inf if not math.isfinite(score) else -score if self.mode == "min" else score


def _drawn(searcher: ArchitectureSearcher, size: int) -> list[Architecture]:
    """The beginning of a seed's own random sequence."""
    forms = [searcher.planned(index) for index in range(size)]
    found = [form for form in forms if form is not None]
    if len(found) < size:
        raise ConfigError(f"train.pool.size = {size}, but only {len(found)} architectures keep the limits")
    return found


def _proposals(searcher: ArchitectureSearcher, count: int) -> Iterable[Architecture]:
    """So many proposals, fewer where the searcher has no more or waits for scores."""
    for number in range(count):
        proposal = searcher.suggest(f"new-{number}")
        if not isinstance(proposal, dict):
            return
        yield proposal["architecture"]


def _mean(scores: Iterable[float]) -> float | None:
    found = [score for score in scores if math.isfinite(score)]
    return statistics.fmean(found) if found else None
