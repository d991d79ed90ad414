"""Bayesian optimisation by a Gaussian process whose kernel knows the structure of architectures."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from random import Random
from typing import Any

import numpy as np

from raynas.architecture import Architecture, crossover, enumerate_all, key, mutate, sample, size
from raynas.searchers.base import ArchitectureSearcher
from raynas.searchers.checks import check_counts
from raynas.searchers.history import Entry
from raynas.searchers.models.encoder import Array, Encoder, Features
from raynas.searchers.models.gp import GaussianProcess
from raynas.searchers.models.hypervolume import Steps, front_ranks
from raynas.searchers.models.improvement import log_gap_improvement, log_improvement
from raynas.searchers.models.stretching import stretched, transformed

__all__ = ["Bayes", "BayesSettings", "SourceModel"]

_PARENTS = 20  # so many of the best have mutants and crossings among the candidates
_PAIRS = 2_500_000  # of candidates and known scores that are compared for one suggestion, a tenth of a second
_FITTED = 200  # scores on which the weights of the model are fitted: a quarter of a second
_CELLS = 8_000_000  # of candidates and cells of the grid of budgets, a tenth of a second


@dataclass(frozen=True)
class BayesSettings:
    """How the model is used.

    Attributes:
        startup: Random architectures before the model takes over; down to half of them after a warm start, the better
            its source foretells itself. Where the space has features, half are the best of some by these.
        enumerate_up_to: Spaces of at most so many architectures are looked at as a whole at each suggestion, until
            there are so many scores that this would take long.
        candidates: In larger ones so many are looked at: mutants and crossings of the best, and random ones.
        observations: The model learns from at most so many scores: the best half and the newest.
        shortlist: Where the space has features, so many candidates are asked for theirs at each suggestion: random ones
            at first, then those that promise most with average features.

    Raises:
        ValueError: A count that is not positive.
    """

    startup: int = 10
    enumerate_up_to: int = 20_000
    candidates: int = 1000
    observations: int = 400
    shortlist: int = 50

    def __post_init__(self) -> None:
        check_counts(self, {field.name: 1 for field in fields(self)})


class Bayes(ArchitectureSearcher):
    """Proposes the architecture from which a Gaussian process expects the largest improvement.

    The covariance (:mod:`raynas.searchers.models.gp`) compares architectures by their decisions and, where
    ``space.graph`` is given, by their routes and operations. Scores are transformed so that differences near the top
    count, not the failures at the bottom. Architectures in flight enter the model with the score that it expects of
    them, so that parallel suggestions keep their distance. Scores of a lower fidelity (of trials that were stopped)
    are shifted by what others gained on the way to the top, and doubted accordingly.

    Where the space has objectives beside the score, what counts is the expected improvement of the hypervolume
    (:mod:`raynas.searchers.models.hypervolume`). It is taken in the score's own scale, in which a point is worth the
    same along the whole front; the model predicts the score's transform, of which that expectation is known in closed
    form.

    Everything is computed anew from the history: nothing else has to be saved.

    Args:
        space: What may be proposed.
        settings: See :class:`BayesSettings`.
        seed: See :class:`ArchitectureSearcher`, as for the arguments that follow.
        metric: Name of the score.
        mode: "max" or "min".
        points_to_evaluate: Architectures to propose first; they count as random ones.
    """

    Settings = BayesSettings
    settings: BayesSettings
    weighs_costs = True
    reads_features = True
    _model: tuple[int, GaussianProcess] | None = None  # with the number of scores it was fitted on

    @functools.cached_property
    def encoder(self) -> Encoder:
        """Turns architectures into what the model compares."""
        return Encoder(self.space, self.seed, None if self._told is None else self._told.hints)

    @functools.cached_property
    def _told(self) -> SourceModel | None:
        return SourceModel(self) if self.source else None

    @property
    def _startup(self) -> int:
        """How many architectures are proposed before the model takes over: fewer, the more is known from a source."""
        usual = self.settings.startup
        return usual if self._told is None else round(usual * (1 - self._told.trust / 2))

    def propose(self) -> Architecture | str | None:
        """A random architecture at first, then the one with the largest expected improvement."""
        startup = self._startup
        beginning = self.tried < startup
        waiting = self.opening(0)
        if waiting is None and beginning:
            waiting = self._foretold() or self.opening(startup)
        if waiting is not None:
            return waiting
        rng = self.rng("bayes", len(self.history))
        known = self.history.done(self.history)
        if len(known) >= 2 and not beginning:
            candidates, features, costs = self._candidates(known, rng)
            if candidates:
                best = candidates[int(np.argmax(self._acquisition(known, candidates, features, costs)))]
                return self.record_origin(best, "model")
        return self.drawn(rng)

    def _foretold(self) -> Architecture | None:
        """Where the space has features, half of the first are the best of a random sample by their mean."""
        if self.space.features is None:
            return None
        drawn = [form for form in map(self.planned, range(self.settings.shortlist)) if form is not None]
        order = np.argsort(-self.encoder.told(drawn).mean(1), kind="stable")[: self._startup // 2]
        return next((drawn[place] for place in order if key(drawn[place]) not in self.history), None)

    def recommend(self, count: int = 1) -> list[Architecture]:
        """In turns those of which the model expects most, and those that scored best.

        The model makes up for luck by the scores of similar architectures, but it takes for luck, too, what is peculiar
        to a single one. With objectives, the best scores.
        """
        best = super().recommend(len(self.history))
        if self.space.objectives or len(best) < 2:
            return best[:count]
        fidelities = np.array([self.history[key(architecture)].fidelity for architecture in best])
        model = self._fitted(self.history.done(self.history))[0]
        expected = model.predict(self.encoder(best))[0]
        order = np.lexsort((-expected, -fidelities))
        turns = {key(one): one for pair in zip((best[place] for place in order), best, strict=True) for one in pair}
        return list(turns.values())[:count]

    def _acquisition(
        self, known: Sequence[Entry], candidates: Sequence[Architecture], asked: Features, costs: Array
    ) -> Array:
        """The logarithm of the expected improvement of each candidate, over the best that the model believes in."""
        model, seen, targets, doubt = self._fitted(known)
        running = [entry.architecture for entry in self.history.values() if entry.status == "running"]
        if running:
            flying = self.encoder(running)
            expected, _ = model.predict(flying)
            seen, targets = _joined(seen, flying), np.concatenate([targets, expected])
            doubt = np.concatenate([doubt, np.ones(len(running))])
            model.condition(seen, targets, doubt)

        # Features are dear: who promises most with average ones is asked for theirs.
        asked = replace(asked, told=np.zeros((len(asked), seen.told.shape[1]), np.float32))
        values = self._improvement(model, asked, seen, known, costs)
        if self.space.features is None:
            return values
        promising = np.argsort(values)[::-1][: self.settings.shortlist]
        told = self.encoder.told([candidates[place] for place in promising])
        chosen = self._improvement(model, replace(asked[promising], told=told), seen, known, costs[promising])
        values = np.full(len(candidates), -np.inf)
        values[promising] = chosen
        return values

    def _improvement(
        self, model: GaussianProcess, asked: Features, seen: Features, known: Sequence[Entry], costs: Array
    ) -> Array:
        """The same, of some candidates.

        Args:
            model: Conditioned on what was scored or is in flight.
            asked: The candidates.
            seen: What the model is conditioned on.
            known: What was scored.
            costs: Of the candidates.
        """
        mean, deviation = model.predict(asked)
        if not self.space.objectives:
            return log_improvement(mean, deviation, model.predict(seen)[0].max())
        running = [entry.architecture for entry in self.history.values() if entry.status == "running"]
        steps = self._steps(model, [*(entry.architecture for entry in known), *running], costs, float(mean.min()))
        # What the model predicts is, times this, minus the logarithm of the gap to a ceiling (and a constant).
        spread = float(stretched(self._kept(known, self.settings.observations)[1]).std()) or 1.0
        mean, deviation = spread * mean[:, None], spread * deviation[:, None]
        return steps.log_improvement(costs, lambda levels: log_gap_improvement(mean, deviation, spread * levels))

    def _steps(self, model: GaussianProcess, known: Sequence[Architecture], costs: Array, least: float) -> Steps:
        """What the model believes to be the best score within every budget.

        The volume counts from the worst score that it expects of any architecture and, with some room, from the largest
        cost of any: so the ends of the front are of use, too.

        Args:
            model: Conditioned on what is known.
            known: What was scored or is in flight.
            costs: Of the candidates: [M, K].
            least: The worst score that the model expects of a candidate.
        """
        feasible = [form for form in known if self.sampler.feasible(form)] or list(known)
        believed, paid = model.predict(self.encoder(feasible))[0], self._costs(feasible)
        every = np.concatenate([paid, costs])
        low, high = (edge(np.where(np.isfinite(every), every, np.nan), axis=0) for edge in (np.nanmin, np.nanmax))
        worst, most = min(least, float(believed.min())), high + 0.1 * (high - low) + 1e-9
        return Steps(believed, paid, worst, most, min(_CELLS // len(costs), 4096))

    def _fitted(self, known: Sequence[Entry]) -> tuple[GaussianProcess, Features, Array, Array]:
        """The model, conditioned on the scores; its weights are fitted again more and more rarely."""
        moment = _last_fit(len(known))
        if self._model is None or self._model[0] != moment:
            observed = self._observations(known[:moment], limit=_FITTED)
            structured, told = self.space.graph is not None, observed[0].told.shape[1]
            model = GaussianProcess(self.encoder.blocks, structured, bool(self.source), told)
            model.fit(*observed)
            self._model = moment, model
        model = self._model[1]
        observations = self._observations(known, self.settings.observations)
        model.condition(*observations)
        return model, *observations

    def _observations(self, known: Sequence[Entry], limit: int) -> tuple[Features, Array, Array]:
        """Features, transformed scores, and how much each of them is doubted."""
        known, values, doubt = self._kept(known, limit)
        return self.encoder([entry.architecture for entry in known]), transformed(values), doubt

    def _kept(self, known: Sequence[Entry], limit: int) -> tuple[Sequence[Entry], Array, Array]:
        """The best half and the newest, their scores at the highest fidelity, and how much each of them is doubted."""
        full = max(entry.fidelity for entry in known)
        gains = {fidelity: self._gain(known, fidelity, full) for fidelity in {entry.fidelity for entry in known}}
        values = np.array([self.goodness(entry.score) + gains[entry.fidelity] for entry in known])
        doubt = np.array([max(full, 1) / max(entry.fidelity, 1) for entry in known])
        if len(known) > limit:
            order = self._best_first(known, values)[: limit // 2]
            kept = sorted({*order.tolist(), *range(len(known) - (limit - limit // 2), len(known))})
            known, values, doubt = [known[i] for i in kept], values[kept], doubt[kept]
        return known, values, doubt

    def _best_first(self, known: Sequence[Entry], values: Array) -> Array:
        """Places of the best first: by score, or front by front where costs count too."""
        if not self.space.objectives:
            return np.argsort(-values, kind="stable")
        return np.lexsort((-values, front_ranks(values, self._costs([entry.architecture for entry in known]))))

    def _gain(self, known: Sequence[Entry], low: int, full: int) -> float:
        """How much architectures gain from fidelity ``low`` to ``full``, in the median of those that have both."""
        if low == full:
            return 0.0
        both = [entry.scores for entry in known if low in entry.scores and full in entry.scores]
        gains = [self.goodness(scores[full]) - self.goodness(scores[low]) for scores in both]
        return float(np.median(gains)) if gains else 0.0

    def _candidates(self, known: Sequence[Entry], rng: Random) -> tuple[list[Architecture], Features, Array]:
        """New, feasible architectures to choose from, and what they cost."""
        pairs = size(self.space.decisions) * min(len(known), self.settings.observations)
        if size(self.space.decisions) <= self.settings.enumerate_up_to and pairs <= _PAIRS:
            everything, names, features, costs = self._everything
            rows = [row for row, name in enumerate(names) if name not in self.history]
            return [everything[row] for row in rows], features[rows], costs[rows]
        parents = self._parents(known, rng)
        found: dict[str, Architecture] = {}
        for number in range(2 * self.settings.candidates):
            if len(found) >= self.settings.candidates:
                break
            candidate = self.space.form(self._child(parents, number, rng))
            if key(candidate) not in self.history and self.sampler.feasible(candidate):
                found[key(candidate)] = candidate
        return list(found.values()), self.encoder(list(found.values()), ask=False), self._costs(list(found.values()))

    def _parents(self, known: Sequence[Entry], rng: Random) -> list[Architecture]:
        """The best feasible ones, best first; with objectives the whole front in random order, then the next one."""
        best = sorted(known, key=lambda entry: (self.rank(entry), key(entry.architecture)), reverse=True)
        best = [entry for entry in best if self.sampler.feasible(entry.architecture)]
        if not self.space.objectives or not best:
            return [entry.architecture for entry in best[:_PARENTS]]
        best = rng.sample(best, len(best))
        ranks = front_ranks(self._kept(best, len(best))[1], self._costs([entry.architecture for entry in best]))
        order = np.argsort(ranks, kind="stable")[: max(_PARENTS, int((ranks == 0).sum()))]
        return [best[place].architecture for place in order]

    def _costs(self, architectures: Sequence[Architecture]) -> Array:
        """The costs that are minimised: [N, K], K = 0 where the score alone counts."""
        costs = [self.sampler.costs(architecture) for architecture in architectures]
        return np.array(costs, float).reshape(len(costs), len(self.space.objectives))

    def _child(self, parents: Sequence[Architecture], number: int, rng: Random) -> Architecture:
        """In turns a mutant of few changes, a crossing, and, less often, a random architecture."""
        decisions = self.space.decisions
        if not parents or number % 5 == 4:
            return sample(decisions, rng)
        # Squared, so that the better ones have more children.
        first = parents[int(rng.random() ** 2 * len(parents))]
        if number % 5 == 3:
            return crossover(decisions, first, rng.choice(parents), rng)
        return mutate(decisions, first, rng, probability=rng.choice((0.0, 1.0, 2.0)) / len(decisions))

    @functools.cached_property
    def _everything(self) -> tuple[list[Architecture], list[str], Features, Array]:
        """All feasible canonical architectures of a small space, in the seed's own order: ties fall differently."""
        forms = {key(form): form for form in map(self.space.form, enumerate_all(self.space.decisions))}
        feasible = [form for form in forms.values() if self.sampler.feasible(form)]
        self.rng("bayes", "order").shuffle(feasible)
        return feasible, list(map(key, feasible)), self.encoder(feasible, ask=False), self._costs(feasible)

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`get_state` returned; see :meth:`ArchitectureSearcher.set_state`."""
        super().set_state(state)
        self._model = None


class SourceModel:
    """What the source of a warm start makes expect of architectures.

    The model is that of a searcher which has scored the source itself. It is trusted as far as it foretells each score
    of the source from the others: a source in which architectures and scores have nothing to do with each other is
    silent.

    Args:
        searcher: Has a source.

    Attributes:
        trust: From 0 to 1: the share of the variance of the source's scores that is foretold.
    """

    def __init__(self, searcher: ArchitectureSearcher) -> None:
        # Without features: they would have to be known of everything that a hint is asked for.
        own = Bayes(replace(searcher.space, features=None), seed=searcher.seed, mode=searcher.mode)
        self._model, _, targets, _ = own._fitted(searcher.source)
        missed, all_ = ((targets - self._model.left_out(targets)) ** 2).mean(), targets.var()
        self.trust = max(1.0 - float(missed / all_), 0.0) if all_ > 0 else 0.0

    def hints(self, asked: Features) -> Array:
        """Of N architectures: [N, 1]. About 0 in the middle of the source, and everywhere if it is not trusted."""
        expected: Array = self.trust * self._model.predict(asked)[0][:, None]
        return expected.astype(np.float32)


def _last_fit(count: int) -> int:
    """After how many scores the weights were fitted last, with ``count`` of them known: 5, 10, ... ever more rarely."""
    moment = 2
    while True:
        step = 3 if moment == 2 else 5 if moment < 50 else 10 if moment < 100 else 25 if moment < 300 else 50
        if moment + step > count:
            return moment
        moment += step


def _joined(one: Features, other: Features) -> Features:
    return Features(*(np.concatenate([getattr(one, f.name), getattr(other, f.name)]) for f in fields(one)))
