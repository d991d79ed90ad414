"""Search guided by a predictor of the scores: BANANAS (White et al., AAAI 2021), NPENAS (Wei et al., 2020)."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from random import Random

import numpy as np
import numpy.typing as npt

from raynas.architecture import Architecture, key, mutate, sample
from raynas.searchers.base import ArchitectureSearcher
from raynas.searchers.bayesian import SourceModel
from raynas.searchers.checks import check_counts, check_ranges
from raynas.searchers.history import Entry
from raynas.searchers.models.encoder import Encoder
from raynas.searchers.models.improvement import log_improvement
from raynas.searchers.models.standing import Rank, standing

__all__ = ["Ensemble", "Predictor", "PredictorSettings"]

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class PredictorSettings:
    """How candidates are made and chosen; the defaults are those of BANANAS, in steps of one.

    NPENAS is ``tournament=2, children=100, random=0, acquisition="mean"``: an evolution in which the winner of a
    tournament has many children, of which the one with the best prediction is scored.

    Attributes:
        startup: Random architectures before the predictor is trained.
        acquisition: What the candidates are compared by: "its" (a draw from the prediction of each, independently:
            Thompson sampling), "ei" (expected improvement), "ucb" (mean + half a deviation), "mean".
        parents: So many of the best have children.
        tournament: If not 0, so many of these are drawn for each suggestion, and only the best of them has children.
        children: Mutants of each parent. One decision is changed on average, and at least one.
        random: Random architectures among the candidates.
        retrain: The predictor is trained anew after so many scores.
        members: Networks in the ensemble.

    Raises:
        ValueError: A setting out of range.
    """

    startup: int = 10
    acquisition: str = "its"
    parents: int = 10
    tournament: int = 0
    children: int = 20
    random: int = 50
    retrain: int = 5
    members: int = 5

    def __post_init__(self) -> None:
        counts = ("parents", "children", "retrain", "members")
        check_counts(self, {"startup": 2, "tournament": 0, "random": 0, **dict.fromkeys(counts, 1)})
        check_ranges(self, {"acquisition": (self.acquisition in ACQUISITIONS, ", ".join(ACQUISITIONS))})


class Ensemble:
    """M small networks of three layers, trained side by side by Adam, each from its own start on its own batches.

    To each belongs another one that is never trained and to whose output it adds what is missing (Osband et al.,
    "Randomized Prior Functions for Deep Reinforcement Learning", 2018): the members differ where nothing was scored.

    Args:
        members: M.
        rng: Gives the starting weights and the batches: same generator, same networks.
        width: Of the two hidden layers.
    """

    def __init__(self, members: int, rng: np.random.Generator, width: int = 32) -> None:
        self._members, self._rng, self._width = members, rng, width
        self._weights: list[Array] = []
        self._fixed: list[Array] = []

    def fit(self, inputs: Array, targets: Array, steps: int = 300, batch: int = 32, rate: float = 0.03) -> None:
        """Learn N inputs [N, D] and their targets [N], of mean 0 and deviation 1, by least squares."""
        self._fixed, self._weights = self._drawn(inputs.shape[1]), self._drawn(inputs.shape[1])
        missing = targets - self._outputs(inputs, self._fixed)
        moments = [(np.zeros_like(w), np.zeros_like(w)) for w in self._weights]
        for step in range(1, steps + 1):
            rows = self._rng.integers(len(inputs), size=(self._members, min(batch, len(inputs))))
            scale = rate * (1 - step / (steps + 1)) * math.sqrt(1 - 0.999**step) / (1 - 0.9**step)
            for weight, slope, (first, second) in zip(
                self._weights, self._slopes(inputs[rows], np.take_along_axis(missing, rows, 1)), moments, strict=True
            ):
                first += 0.1 * (slope - first)
                second += 0.001 * (slope * slope - second)
                weight -= scale * first / (np.sqrt(second) + 1e-8)

    def _drawn(self, inputs: int) -> list[Array]:
        """Weights and biases of every layer, for so many inputs."""
        drawn: list[Array] = []
        for fan_in, fan_out in itertools.pairwise([inputs, self._width, self._width, 1]):
            shape = (self._members, fan_in, fan_out)
            drawn.append(self._rng.normal(0.0, math.sqrt(2 / fan_in), shape).astype(np.float32))
            drawn.append(np.zeros((self._members, 1, fan_out), np.float32))
        return drawn

    def _layers(self, inputs: Array, weights: Sequence[Array]) -> list[Array]:
        """Inputs and outputs of the layers, each [M, B, ...]."""
        values = [inputs]
        for place in range(0, len(weights), 2):
            raw = values[-1] @ weights[place] + weights[place + 1]
            values.append(raw if place + 2 == len(weights) else np.maximum(raw, 0.0))
        return values

    def _outputs(self, inputs: Array, weights: Sequence[Array]) -> Array:
        """What networks make of N inputs [N, D]: [M, N]."""
        return self._layers(np.broadcast_to(inputs, (self._members, *inputs.shape)), weights)[-1][..., 0]

    def _slopes(self, inputs: Array, targets: Array) -> list[Array]:
        """The slope of the mean squared error in every weight."""
        values = self._layers(inputs, self._weights)
        back = 2 * (values[-1] - targets[..., None]) / targets.shape[1]
        slopes: list[Array] = []
        for place in range(len(self._weights) - 2, -1, -2):
            entering = values[place // 2]
            slopes = [entering.transpose(0, 2, 1) @ back, back.sum(1, keepdims=True), *slopes]
            back = (back @ self._weights[place].transpose(0, 2, 1)) * (entering > 0)
        return slopes

    def predict(self, inputs: Array) -> tuple[Array, Array]:
        """Mean and deviation [N] of the members' predictions for N inputs [N, D]."""
        each = self._outputs(inputs, self._fixed) + self._outputs(inputs, self._weights)
        return each.mean(0), each.std(0)


def _thompson(mean: Array, deviation: Array, best: float, rng: Random) -> Array:
    return mean + deviation * np.array([rng.gauss(0.0, 1.0) for _ in mean], np.float32)


def _improvement(mean: Array, deviation: Array, best: float, rng: Random) -> Array:
    return np.exp(log_improvement(mean, np.maximum(deviation, 1e-6), best)).astype(np.float32)


ACQUISITIONS: dict[str, Callable[[Array, Array, float, Random], Array]] = {
    "its": _thompson,
    "ei": _improvement,
    "ucb": lambda mean, deviation, best, rng: mean + 0.5 * deviation,
    "mean": lambda mean, deviation, best, rng: mean,
}


class Predictor(ArchitectureSearcher):
    """Proposes the mutant of good architectures of which an ensemble of small networks expects most.

    The networks see what ``bayes`` compares (:mod:`raynas.searchers.models.encoder`): the options of every decision
    and, where ``space.graph`` is given, the routes from input to output, which are the encoding of BANANAS. They learn
    where a score stands among all (:mod:`raynas.searchers.models.standing`). They follow from the history and the seed:
    nothing of them has to be saved.

    Args:
        space: What may be proposed.
        settings: How candidates are made and chosen.
        seed: See :class:`ArchitectureSearcher`, as for the arguments that follow.
        metric: Name of the score.
        mode: "max" or "min".
        points_to_evaluate: Architectures to propose first; they count as random ones.
    """

    Settings = PredictorSettings
    settings: PredictorSettings
    _trained: tuple[list[tuple[str, Rank]], Ensemble] | None = None  # on which scores

    def propose(self) -> Architecture | str | None:
        """A random architecture at first, then the most promising candidate."""
        rng = self.rng("predictor", len(self.history))
        waiting = self.begin(self.settings.startup, rng)
        if waiting is not None:
            return waiting
        promising = self._promising(rng)
        return self.record_origin(promising, "model") if promising else self.drawn(rng)

    def _promising(self, rng: Random) -> Architecture | None:
        """The best candidate; None where too little is known, or nothing new is near."""
        done = [entry for entry in self.history.values() if entry.status == "done"]
        last = len(done) - (len(done) - self.settings.startup) % self.settings.retrain
        parents = self._parents(done, rng)
        if last < 2 or not parents:
            return None
        candidates = self._candidates(parents, rng)
        if not candidates:
            return self.sampler.walk(parents[0], rng, self.history)
        mean, deviation = self._ensemble(done[:last]).predict(self._encode(candidates))
        ranks = sorted(map(self.rank, done))
        worth = ACQUISITIONS[self.settings.acquisition](mean, deviation, standing(ranks[-1], ranks), rng)
        return candidates[int(np.argmax(worth))]

    def _ensemble(self, done: Sequence[Entry]) -> Ensemble:
        """Networks that learned these scores."""
        seen = [(key(entry.architecture), self.rank(entry)) for entry in done]
        if self._trained is None or self._trained[0] != seen:
            ordered = sorted(rank for _, rank in seen)
            targets = np.array([standing(rank, ordered) for _, rank in seen], np.float32)
            seed = self.rng("predictor", "ensemble", len(done)).getrandbits(64)
            ensemble = Ensemble(self.settings.members, np.random.default_rng(seed))
            ensemble.fit(self._encode([entry.architecture for entry in done]), targets)
            self._trained = seen, ensemble
        return self._trained[1]

    def _encode(self, architectures: Sequence[Architecture]) -> Array:
        """All features side by side, and what a warm start's source makes expect: [N, D]."""
        features = self._encoder(architectures)
        return np.concatenate([getattr(features, field.name) for field in fields(features)], axis=1)

    @functools.cached_property
    def _encoder(self) -> Encoder:
        return Encoder(self.space, self.seed, SourceModel(self).hints if self.source else None)

    def _parents(self, done: Sequence[Entry], rng: Random) -> list[Architecture]:
        """Those that have children: feasible ones, a better one before a worse one."""
        ordered = sorted(done, key=lambda entry: (self.rank(entry), key(entry.architecture)), reverse=True)
        usable = (entry.architecture for entry in ordered if self.sampler.feasible(entry.architecture))
        best = list(itertools.islice(usable, self.settings.parents))
        if not self.settings.tournament or not best:
            return best
        return [best[min(rng.randrange(len(best)) for _ in range(self.settings.tournament))]]

    def _candidates(self, parents: Sequence[Architecture], rng: Random) -> list[Architecture]:
        """Children and random architectures, as far as they are new and feasible."""
        decisions = self.space.decisions
        drawn = [mutate(decisions, p, rng, 1 / len(p)) for p in parents for _ in range(self.settings.children)]
        drawn += [sample(decisions, rng) for _ in range(self.settings.random)]
        forms = {key(form): form for form in map(self.space.form, drawn)}
        return [form for name, form in forms.items() if name not in self.history and self.sampler.feasible(form)]
