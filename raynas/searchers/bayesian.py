"""Bayesian optimization with a Gaussian process whose kernel uses the structure of architectures."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import InitVar, fields
from random import Random
from typing import Any

import numpy as np

from raynas.architecture import Architecture, crossover, enumerate_all, key, mutate, sample, size
from raynas.config.types import Count
from raynas.searchers.base import ArchitectureSearcher
from raynas.searchers.history import Entry
from raynas.searchers.models.acquisition import (
    HypervolumeImprovement,
    front_ranks,
    log_expected_improvement,
    log_gap_expected_improvement,
)
from raynas.searchers.models.encoder import Array, Encoder, Features
from raynas.searchers.models.gp import GaussianProcess
from raynas.searchers.models.surrogate import Surrogate
from raynas.searchers.models.transfer import SourceModel
from raynas.searchers.models.transforms import log_gap
from raynas.searchers.settings import searcher_settings

__all__ = ["Bayes", "BayesSettings"]

_PARENTS = 20  # the candidates are mutants and crossovers of so many of the best
_MAX_PAIRS = 2_500_000  # of candidates and scores in the kernel of one suggestion, a tenth of a second
_MAX_CELLS = 8_000_000  # of candidates and cells of the grid of budgets, a tenth of a second


@searcher_settings
class BayesSettings:
    """Settings of :class:`Bayes`.

    Attributes:
        startup: Random architectures before the model is used. After a warm start up to half of them are left out, the
            more the better the model of the source predicts the source's own scores.
        enumerate_up_to: In spaces of at most so many architectures all of them are candidates at each suggestion, until
            there are so many scores that this would take long.
        candidates: Number of candidates in larger spaces: mutants and crossovers of the best, and random ones.
        observations: The model is conditioned on at most so many scores: the best half and the newest.
        shortlist: Removed, without effect.

    Raises:
        ConfigError: A count that is not positive.
    """

    startup: Count = 10
    enumerate_up_to: Count = 20_000
    candidates: Count = 1000
    observations: Count = 400
    shortlist: InitVar[int | None] = None

    def __post_init__(self, shortlist: int | None) -> None:
        if shortlist is not None:
            warnings.warn("BayesSettings.shortlist was removed and has no effect", FutureWarning, stacklevel=3)


class Bayes(ArchitectureSearcher):
    """Proposes the architecture with the largest expected improvement under a Gaussian process.

    The kernel (:mod:`raynas.searchers.models.gp`) compares architectures by their decisions and, where ``space.graph``
    is given, by their paths and operations. Scores are transformed by
    :func:`raynas.searchers.models.transforms.log_gap` so that differences near the top count, not failures at the
    bottom. Pending architectures enter the model with their predicted score ("kriging believer", Ginsbourger et al.,
    2010), so that parallel suggestions differ. Scores of a lower fidelity (of trials that were stopped) are shifted
    by the median gain up to the highest fidelity, and have a larger noise variance.

    Where the space has objectives beside the score, the acquisition function is the expected hypervolume improvement
    (:mod:`raynas.searchers.models.acquisition`), taken in the scale of the score itself.

    Everything is computed from the history: nothing else has to be saved.

    Args:
        space: The search space.
        settings: See :class:`BayesSettings`.
        seed: See :class:`ArchitectureSearcher`, as for the arguments that follow.
        metric: Name of the score.
        mode: "max" or "min".
        points_to_evaluate: Architectures to propose first; they count as random ones.
    """

    Settings = BayesSettings
    settings: BayesSettings
    weighs_costs = True

    @functools.cached_property
    def encoder(self) -> Encoder:
        """Encodes architectures for the model."""
        return Encoder(self.space, self.seed, None if self._source_model is None else self._source_model.prior_mean)

    @functools.cached_property
    def surrogate(self) -> Surrogate:
        """The model of the scores in the history."""
        return Surrogate(self.encoder, self.goodness, self.settings.observations, bool(self.source), self._best_first)

    @functools.cached_property
    def _source_model(self) -> SourceModel | None:
        if not self.source:
            return None
        return SourceModel(self.space, self.source, self.goodness, self.seed, self._best_first)

    @property
    def _startup(self) -> int:
        """Random architectures before the model is used: fewer, the more the source explains."""
        startup = self.settings.startup
        return (
            startup if self._source_model is None else round(startup * (1 - self._source_model.explained_variance / 2))
        )

    def propose(self) -> Architecture | str | None:
        """Proposes a random architecture at first, then the one with the largest expected improvement."""
        random_phase = self.tried < self._startup
        initial = self.opening(self._startup if random_phase else 0)
        if initial is not None:
            return initial
        rng = self.rng("bayes", len(self.history))
        scored = self.history.done(self.history)
        if len(scored) >= 2 and not random_phase:
            candidates, features, costs = self._candidates(scored, rng)
            if candidates:
                best = candidates[int(np.argmax(self._acquisition(scored, features, costs)))]
                return self.record_origin(best, "model")
        return self.sample_new(rng)

    def recommend(self, count: int = 1) -> list[Architecture]:
        """Alternates between the best predictions and the best scores.

        The model averages out noise by the scores of similar architectures, but it also averages out what is peculiar
        to a single architecture. With objectives, the best scores.
        """
        best = super().recommend(len(self.history))
        if self.space.objectives or len(best) < 2:
            return best[:count]
        fidelities = np.array([self.history[key(architecture)].fidelity for architecture in best])
        model = self.surrogate.condition(self.history.done(self.history))[0]
        predicted = model.predict(self.encoder(best))[0]
        order = np.lexsort((-predicted, -fidelities))
        merged = {key(one): one for pair in zip((best[row] for row in order), best, strict=True) for one in pair}
        return list(merged.values())[:count]

    def _acquisition(self, scored: Sequence[Entry], candidates: Features, costs: Array) -> Array:
        """The logarithm of the expected improvement of M candidates over the best prediction: [M].

        Args:
            scored: Entries with a score.
            candidates: Features of the candidates.
            costs: Of the candidates: [M, K].
        """
        model, features, targets, noise = self.surrogate.condition(scored)
        pending = [entry.architecture for entry in self.history.values() if entry.status == "running"]
        if pending:
            encoded = self.encoder(pending)
            predicted, _ = model.predict(encoded)
            features, targets = _concatenate(features, encoded), np.concatenate([targets, predicted])
            model.condition(features, targets, np.concatenate([noise, np.ones(len(pending))]))
        mean, deviation = model.predict(candidates)
        if not self.space.objectives:
            return log_expected_improvement(mean, deviation, model.predict(features)[0].max())
        evaluated = [*(entry.architecture for entry in scored), *pending]
        volume = self._hypervolume(model, evaluated, costs, float(mean.min()))
        # The model predicts, up to this factor and a constant, minus the logarithm of the gap to a ceiling.
        scale = float(log_gap(self.surrogate.observations(scored).scores).std()) or 1.0
        mean, deviation = scale * mean[:, None], scale * deviation[:, None]
        return volume.log_expected(costs, lambda levels: log_gap_expected_improvement(mean, deviation, scale * levels))

    def _hypervolume(
        self, model: GaussianProcess, evaluated: Sequence[Architecture], costs: Array, lowest: float
    ) -> HypervolumeImprovement:
        """The predicted best score within every budget.

        The reference point of the volume is the worst predicted score and, with a margin, the largest cost of any
        architecture, so that the ends of the front count too.

        Args:
            model: Conditioned on all results and pending architectures.
            evaluated: Scored or pending architectures.
            costs: Of the candidates: [M, K].
            lowest: The worst predicted score of a candidate.
        """
        feasible = [form for form in evaluated if self.sampler.feasible(form)] or list(evaluated)
        predicted, own_costs = model.predict(self.encoder(feasible))[0], self._costs(feasible)
        every = np.concatenate([own_costs, costs])
        low, high = (edge(np.where(np.isfinite(every), every, np.nan), axis=0) for edge in (np.nanmin, np.nanmax))
        worst, largest = min(lowest, float(predicted.min())), high + 0.1 * (high - low) + 1e-9
        return HypervolumeImprovement(predicted, own_costs, worst, largest, min(_MAX_CELLS // len(costs), 4096))

    def _best_first(self, entries: Sequence[Entry], scores: Array) -> Array:
        """Indices of the entries, best first: by score, or front by front where the space has objectives."""
        if not self.space.objectives:
            return np.argsort(-scores, kind="stable")
        return np.lexsort((-scores, front_ranks(scores, self._costs([entry.architecture for entry in entries]))))

    def _candidates(self, scored: Sequence[Entry], rng: Random) -> tuple[list[Architecture], Features, Array]:
        """New, feasible candidates with their features and costs."""
        pairs = size(self.space.decisions) * min(len(scored), self.settings.observations)
        if size(self.space.decisions) <= self.settings.enumerate_up_to and pairs <= _MAX_PAIRS:
            forms, names, features, costs = self._whole_space
            rows = [row for row, name in enumerate(names) if name not in self.history]
            return [forms[row] for row in rows], features[rows], costs[rows]
        parents = self._parents(scored, rng)
        new: dict[str, Architecture] = {}
        for number in range(2 * self.settings.candidates):
            if len(new) >= self.settings.candidates:
                break
            candidate = self.space.form(self._child(parents, number, rng))
            if key(candidate) not in self.history and self.sampler.feasible(candidate):
                new[key(candidate)] = candidate
        candidates = list(new.values())
        return candidates, self.encoder(candidates), self._costs(candidates)

    def _parents(self, scored: Sequence[Entry], rng: Random) -> list[Architecture]:
        """The best feasible ones, best first; with objectives the whole front in random order, then the next front."""
        best = sorted(scored, key=lambda entry: (self.rank(entry), key(entry.architecture)), reverse=True)
        best = [entry for entry in best if self.sampler.feasible(entry.architecture)]
        if not self.space.objectives or not best:
            return [entry.architecture for entry in best[:_PARENTS]]
        best = rng.sample(best, len(best))
        scores = self.surrogate.observations(best, len(best)).scores
        ranks = front_ranks(scores, self._costs([entry.architecture for entry in best]))
        order = np.argsort(ranks, kind="stable")[: max(_PARENTS, int((ranks == 0).sum()))]
        return [best[row].architecture for row in order]

    def _costs(self, architectures: Sequence[Architecture]) -> Array:
        """The costs that are minimized: [N, K]; K = 0 without objectives."""
        costs = [self.sampler.costs(architecture) for architecture in architectures]
        return np.array(costs, float).reshape(len(costs), len(self.space.objectives))

    def _child(self, parents: Sequence[Architecture], number: int, rng: Random) -> Architecture:
        """A mutant with few changes (three of five), a crossover or a random architecture."""
        decisions = self.space.decisions
        if not parents or number % 5 == 4:
            return sample(decisions, rng)
        # Squared, so that the better ones have more children.
        first = parents[int(rng.random() ** 2 * len(parents))]
        if number % 5 == 3:
            return crossover(decisions, first, rng.choice(parents), rng)
        return mutate(decisions, first, rng, probability=rng.choice((0.0, 1.0, 2.0)) / len(decisions))

    @functools.cached_property
    def _whole_space(self) -> tuple[list[Architecture], list[str], Features, Array]:
        """All feasible canonical architectures of a small space, shuffled by the seed so that ties are broken by it."""
        forms = {key(form): form for form in map(self.space.form, enumerate_all(self.space.decisions))}
        feasible = [form for form in forms.values() if self.sampler.feasible(form)]
        self.rng("bayes", "order").shuffle(feasible)
        return feasible, list(map(key, feasible)), self.encoder(feasible), self._costs(feasible)

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Restores what :meth:`get_state` returned; see :meth:`ArchitectureSearcher.set_state`."""
        settings = {name: value for name, value in (state.get("settings") or {}).items() if name != "shortlist"}
        super().set_state({**state, "settings": settings})
        for name in ("encoder", "surrogate", "_source_model", "_whole_space"):  # they depend on the seed
            self.__dict__.pop(name, None)


def _concatenate(one: Features, other: Features) -> Features:
    return Features(*(np.concatenate([getattr(one, f.name), getattr(other, f.name)]) for f in fields(one)))
