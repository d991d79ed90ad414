"""Rank correlation of a cheap score with the true one: Kendall's tau and Spearman's rho with bootstrap intervals.

A search sees only the cheap score (shared weights, few epochs, weight angle); what counts is the true one (stand-alone
training, a table). On a sample of architectures that have both, :func:`compare` measures how well the two orders
agree and whether the top is right, beside baselines that cost nothing: MACs, parameters and chance.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

__all__ = ["Agreement", "Estimate", "Ranking", "compare"]

_TOP = 0.1  # the share of architectures that counts as the top
_BEST = 0.01  # the share in which the favourite of a good score lies
_STRONG = 0.6  # Kendall's tau from which four of five pairs are in the right order
_WIDE = 0.5  # an interval from which nothing follows

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """Such as ``0.55 [0.49, 0.60]``."""
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


@dataclass(frozen=True)
class Agreement:
    """How well one way of scoring agrees with the true score.

    Attributes:
        name: Of the score or the baseline.
        tau: Kendall's tau-b: 1 is the same order, 0 none, -1 the reverse.
        spearman: Spearman's rank correlation.
        favourite: True rank of the architecture with the best score; 1 is the best of all.
        overlap: Which share of the top by score is in the true top.
        lead: By how much the tau of the score under test exceeds this one's, on the same resamples.
    """

    name: str
    tau: Estimate
    spearman: Estimate
    favourite: float
    overlap: float
    lead: Estimate


@dataclass(frozen=True)
class Ranking:
    """The result of :func:`compare`.

    Attributes:
        score: The cheap score.
        baselines: The scores that it must beat, in the given order; chance is the last.
        architectures: How many were compared.
        top: How many of them count as the top.
        best: How many of them count as best of all.
    """

    score: Agreement
    baselines: tuple[Agreement, ...]
    architectures: int
    top: int
    best: int

    @property
    def finds_the_best(self) -> bool:
        """Whether the favourite of the score is truly among the best 1 %."""
        return self.score.favourite <= self.best

    @property
    def unbeaten(self) -> tuple[Agreement, ...]:
        """The baselines that the score is not clearly better than, best first."""
        close = [baseline for baseline in self.baselines if baseline.lead.low <= 0]
        return tuple(sorted(close, key=lambda baseline: -baseline.tau.value))

    @property
    def trustworthy(self) -> bool:
        """Whether the score ranks well, and clearly better than every baseline."""
        return not self.unbeaten and self.score.tau.low >= _STRONG

    def sentence(self) -> str:
        """The result in one sentence, with the figures that it is based on."""
        tau, rivals = self.score.tau, self.unbeaten
        if any(rival.name == "chance" for rival in rivals) and tau.high - tau.low > _WIDE:
            result = "is not to be trusted yet: so few architectures do not tell it from chance"
        elif any(rival.name == "chance" for rival in rivals):
            result = "cannot be trusted: it orders architectures no better than chance"
        elif rivals:
            result = f"adds nothing certain to {rivals[0].name} alone (Kendall tau {rivals[0].tau})"
        elif self.trustworthy:
            result = "can be trusted to order architectures"
        else:
            result = "is a rough guide: score the best candidates again before you choose"
        return (
            f"{self.score.name} {result}. It is right in about {50 * (1 + tau.value):.0f} % of all pairs "
            f"(Kendall tau {tau}, 95 % interval, {self.architectures} architectures). Its favourite is truly number "
            f"{self.score.favourite:.0f}, and {100 * self.score.overlap:.0f} % of its top {self.top} are in the true "
            f"top {self.top} ({100 * self.baselines[-1].overlap:.0f} % by chance)."
        )


def compare(
    score: Sequence[float] | Array,
    truth: Sequence[float] | Array,
    baselines: Mapping[str, Sequence[float] | Array] | None = None,
    *,
    name: str = "The score",
    resamples: int = 1000,
    seed: int = 0,
) -> Ranking:
    """Compare the order of a cheap score with the true one. High is good in both: negate a loss.

    Intervals hold 95 % and come from the percentile bootstrap over architectures (Efron, 1979). The same resamples
    serve the score and its baselines, so that ``lead`` is a paired comparison. Chance is a random order drawn anew for
    each resample. Where scores are equal, the top is judged as if the score had preferred the worse ones.

    Args:
        score: One value for each architecture, n of them.
        truth: The true quality of the same architectures, n.
        baselines: Other ways to score them by name, n each: ``{"MACs": ..., "parameters": ...}``.
        name: What to call the score in :meth:`Ranking.sentence`.
        resamples: Number of bootstrap resamples.
        seed: Of the resampling.

    Returns:
        The figures, and the sentence that sums them up.

    Raises:
        ValueError: Fewer than three architectures, other lengths, values that are not finite, or a truth in which
            all architectures are equal, or a baseline's name that is taken.
    """
    taken = [n for n in (baselines or {}) if n in (name, "chance")]
    if taken:
        raise ValueError(f"a baseline cannot be called {taken[0]!r}: that is the name of the score or of chance")
    target = _column("truth", truth, len(truth))
    columns = {n: _column(n, values, len(target)) for n, values in {name: score, **(baselines or {})}.items()}
    if np.ptp(target) == 0:
        raise ValueError(
            f"all {len(target)} architectures are equally good ({target[0]:g}): there is no order to compare"
        )
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(target), size=(resamples, len(target)))
    figures = {n: np.array([_correlations(x[i], target[i]) for i in drawn]) for n, x in columns.items()}
    figures["chance"] = np.array([_correlations(rng.permutation(target), target[i]) for i in drawn])
    top, best = (max(1, math.ceil(share * len(target))) for share in (_TOP, _BEST))
    own, _ = _correlations(columns[name], target)

    def agreement(of: str) -> Agreement:
        column, (taus, spearmans) = columns.get(of), figures[of].T
        tau, spearman = (0.0, 0.0) if column is None else _correlations(column, target)
        lead = _estimate(own - tau, figures[name][:, 0] - taus)
        return Agreement(of, _estimate(tau, taus), _estimate(spearman, spearmans), *_at_top(column, target, top), lead)

    rivals = tuple(agreement(other) for other in figures if other != name)
    return Ranking(agreement(name), rivals, len(target), top, best)


def _at_top(column: Array | None, target: Array, top: int) -> tuple[float, float]:
    """The true rank of the best by ``column``, and the share of its top in the true top; by chance where it is None."""
    in_top = target >= np.partition(target, -top)[-top]
    if column is None:
        return (len(target) + 1) / 2, float(in_top.mean())
    order = np.lexsort((target, -column))  # of equals the truly worse one first
    return 1.0 + float((target > target[order[0]]).sum()), float(in_top[order[:top]].mean())


def _column(name: str, values: Sequence[float] | Array, length: int) -> Array:
    column = np.asarray(values, np.float64)
    if column.shape != (length,):
        raise ValueError(f"{name!r} has shape {column.shape}, but the truth has {length} values")
    if length < 3:
        raise ValueError(f"{length} architectures cannot be ranked: give at least 3")
    if not np.isfinite(column).all():
        where = int(np.flatnonzero(~np.isfinite(column))[0])
        raise ValueError(f"{name!r} is {column[where]} at place {where}: leave out what was not scored")
    return column


def _correlations(x: Array, y: Array) -> tuple[float, float]:
    """Kendall's tau-b and Spearman's rho; 0 where all values of one side are equal, as they then say nothing."""
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0, 0.0
    ranks = np.corrcoef(stats.rankdata(x), stats.rankdata(y))
    return float(stats.kendalltau(x, y).statistic), float(ranks[0, 1])


def _estimate(value: float, resampled: Array) -> Estimate:
    low, high = np.percentile(resampled, [2.5, 97.5])
    return Estimate(float(value), float(low), float(high))
