"""Search guided by a predictor of the scores: BANANAS (White et al., AAAI 2021), NPENAS (Wei et al., 2020)."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import fields
from random import Random
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from raynas.architecture import Architecture, key, mutate, sample
from raynas.config.types import Count
from raynas.searchers.base import ArchitectureSearcher
from raynas.searchers.history import Entry
from raynas.searchers.models.acquisition import log_expected_improvement
from raynas.searchers.models.encoder import Encoder
from raynas.searchers.models.mlp_ensemble import MLPEnsemble
from raynas.searchers.models.transfer import SourceModel
from raynas.searchers.models.transforms import Rank, normal_score
from raynas.searchers.settings import Natural, searcher_settings

__all__ = ["ACQUISITIONS", "Predictor", "PredictorSettings"]

Array = npt.NDArray[np.float32]


@searcher_settings
class PredictorSettings:
    """Settings of :class:`Predictor`; the defaults are those of BANANAS, in steps of one.

    NPENAS is ``tournament=2, children=100, random=0, acquisition="mean"``: evolution in which the winner of a
    tournament has many children, of which the one with the best prediction is scored.

    Attributes:
        startup: Random architectures before the predictor is trained.
        acquisition: Acquisition function: "its" (independent Thompson sampling from the prediction of each), "ei"
            (expected improvement), "ucb" (mean + half a deviation), "mean".
        parents: Number of the best that have children.
        tournament: If not 0, only the best of so many sampled parents has children, at each suggestion.
        children: Mutants of each parent. One decision is changed on average, and at least one.
        random: Random architectures among the candidates.
        retrain: The ensemble is trained again after so many scores.
        members: Networks in the ensemble.

    Raises:
        ConfigError: A setting out of range.
    """

    startup: Annotated[int, Field(ge=2)] = 10
    acquisition: Literal["its", "ei", "ucb", "mean"] = "its"
    parents: Count = 10
    tournament: Natural = 0
    children: Count = 20
    random: Natural = 50
    retrain: Count = 5
    members: Count = 5


def _thompson(mean: Array, deviation: Array, best: float, rng: Random) -> Array:
    return mean + deviation * np.array([rng.gauss(0.0, 1.0) for _ in mean], np.float32)


def _improvement(mean: Array, deviation: Array, best: float, rng: Random) -> Array:
    return np.exp(log_expected_improvement(mean, np.maximum(deviation, 1e-6), best)).astype(np.float32)


ACQUISITIONS: dict[str, Callable[[Array, Array, float, Random], Array]] = {
    "its": _thompson,
    "ei": _improvement,
    "ucb": lambda mean, deviation, best, rng: mean + 0.5 * deviation,
    "mean": lambda mean, deviation, best, rng: mean,
}


class Predictor(ArchitectureSearcher):
    """Proposes the mutant of good architectures that an ensemble of small networks predicts to be best.

    The inputs of the networks are the features of :mod:`raynas.searchers.models.encoder`: the options of every decision
    and, where ``space.graph`` is given, the paths from input to output, the encoding of BANANAS. Their targets are
    normal scores (:mod:`raynas.searchers.models.transforms`). They follow from the history and the seed and are not
    saved.

    Args:
        space: The search space.
        settings: How candidates are made and chosen.
        seed: See :class:`ArchitectureSearcher`, as for the arguments that follow.
        metric: Name of the score.
        mode: "max" or "min".
        points_to_evaluate: Architectures to propose first; they count as random ones.
    """

    Settings = PredictorSettings
    settings: PredictorSettings
    trained: tuple[list[tuple[str, Rank]], MLPEnsemble] | None = None

    def propose(self) -> Architecture | str | None:
        """Proposes a random architecture at first, then the best candidate."""
        rng = self.rng("predictor", len(self.history))
        initial = self.begin(self.settings.startup, rng)
        if initial is not None:
            return initial
        best = self._best_candidate(rng)
        return self.record_origin(best, "model") if best else self.sample_new(rng)

    def _best_candidate(self, rng: Random) -> Architecture | None:
        """The best candidate; None where there are too few scores or no new candidates."""
        done = [entry for entry in self.history.values() if entry.status == "done"]
        last = len(done) - (len(done) - self.settings.startup) % self.settings.retrain
        parents = self._parents(done, rng)
        if last < 2 or not parents:
            return None
        candidates = self._candidates(parents, rng)
        if not candidates:
            return self.sampler.walk(parents[0], rng, self.history)
        mean, deviation = self._ensemble(done[:last]).predict(self.encode(candidates))
        ranks = sorted(map(self.rank, done))
        worth = ACQUISITIONS[self.settings.acquisition](mean, deviation, normal_score(ranks[-1], ranks), rng)
        return candidates[int(np.argmax(worth))]

    def _ensemble(self, done: Sequence[Entry]) -> MLPEnsemble:
        """The networks, trained on these scores."""
        results = [(key(entry.architecture), self.rank(entry)) for entry in done]
        if self.trained is None or self.trained[0] != results:
            ordered = sorted(rank for _, rank in results)
            targets = np.array([normal_score(rank, ordered) for _, rank in results], np.float32)
            seed = self.rng("predictor", "ensemble", len(done)).getrandbits(64)
            ensemble = MLPEnsemble(self.settings.members, np.random.default_rng(seed))
            ensemble.fit(self.encode([entry.architecture for entry in done]), targets)
            self.trained = results, ensemble
        return self.trained[1]

    def encode(self, architectures: Sequence[Architecture]) -> Array:
        """All features, concatenated: [N, D]."""
        features = self._encoder(architectures)
        return np.concatenate([getattr(features, field.name) for field in fields(features)], axis=1)

    @functools.cached_property
    def _source_model(self) -> SourceModel | None:
        return SourceModel(self.space, self.source, self.goodness, self.seed) if self.source else None

    @functools.cached_property
    def _encoder(self) -> Encoder:
        return Encoder(self.space, self.seed, self._source_model.prior_mean if self._source_model else None)

    def _parents(self, done: Sequence[Entry], rng: Random) -> list[Architecture]:
        """The feasible architectures that have children, best first."""
        ordered = sorted(done, key=lambda entry: (self.rank(entry), key(entry.architecture)), reverse=True)
        usable = (entry.architecture for entry in ordered if self.sampler.feasible(entry.architecture))
        best = list(itertools.islice(usable, self.settings.parents))
        if not self.settings.tournament or not best:
            return best
        return [best[min(rng.randrange(len(best)) for _ in range(self.settings.tournament))]]

    def _candidates(self, parents: Sequence[Architecture], rng: Random) -> list[Architecture]:
        """Children and random architectures that are new and feasible."""
        decisions = self.space.decisions
        sampled = [mutate(decisions, p, rng, 1 / len(p)) for p in parents for _ in range(self.settings.children)]
        sampled += [sample(decisions, rng) for _ in range(self.settings.random)]
        forms = {key(form): form for form in map(self.space.form, sampled)}
        return [form for name, form in forms.items() if name not in self.history and self.sampler.feasible(form)]

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores what :meth:`get_state` returned; see :meth:`ArchitectureSearcher.set_state`."""
        super().set_state(state)
        for name in ("_encoder", "_source_model"):  # they depend on the seed
            self.__dict__.pop(name, None)
