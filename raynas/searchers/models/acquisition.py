"""Acquisition functions: expected improvement, and expected hypervolume improvement of a score and its costs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import moocore
import numpy as np
import numpy.typing as npt
from scipy.special import erfcx, logsumexp, ndtr

__all__ = ["HypervolumeImprovement", "front_ranks", "log_expected_improvement", "log_gap_expected_improvement"]

Array = npt.NDArray[Any]

_FAR = -8.0  # standard deviations below the best from which an asymptotic formula is used
_CHUNK = 500_000  # numbers that are held at once


def front_ranks(scores: Array, costs: Array) -> npt.NDArray[np.int64]:
    """0 for those on the front, 1 for the front of the others, and so on (non-dominated sorting): [N].

    Args:
        scores: [N], more is better.
        costs: [N, K], less is better; may be infinite.
    """
    ranks: npt.NDArray[np.int64] = np.asarray(moocore.pareto_rank(np.column_stack([-scores, costs])), np.int64)
    return ranks


class HypervolumeImprovement:
    """Expected hypervolume improvement where the score is predicted and the costs are known.

    The front gives the best known score within every budget: a step function over the box of budgets, and the
    hypervolume is the volume below it. An architecture of costs ``c`` and score ``y`` lifts it to ``y`` wherever the
    budget is at least ``c`` and the step is lower. The expected gain (Emmerich et al., "Single- and Multiobjective
    Evolutionary Optimization Assisted by Gaussian Random Field Metamodels", 2006) is therefore a sum over the steps:
    the volume of the budgets on a step that can afford the architecture, times its expected improvement over that step.

    Args:
        scores: [N], more is better, on any scale.
        costs: [N, K].
        worst: The score from which the volume counts.
        most: [K], the largest budget of each cost; what costs more is of no use.
        cells: The grid has at most about so many; a larger one is thinned out.
    """

    def __init__(self, scores: Array, costs: Array, worst: float, most: Array, cells: int = 4096) -> None:
        front = front_ranks(scores, costs) == 0
        usable = front & (costs < most).all(axis=1)
        self._most = most
        self._cuts = [_cuts(column, max(int(cells ** (1 / len(most))), 2)) for column in costs[usable].T]
        """For each cost, the budgets from which on another score may be known."""
        # The first cell of each axis holds the budgets below the first cut: nothing known is that cheap.
        steps = np.full([len(cuts) + 1 for cuts in self._cuts], worst)
        places = [np.searchsorted(cuts, column) + 1 for cuts, column in zip(self._cuts, costs[usable].T, strict=True)]
        inside = np.all([place < size for place, size in zip(places, steps.shape, strict=True)], axis=0)
        np.maximum.at(steps, tuple(place[inside] for place in places), scores[usable][inside])
        for axis in range(steps.ndim):
            np.maximum.accumulate(steps, axis=axis, out=steps)
        self.levels, owners = np.unique(steps.ravel(), return_inverse=True)
        """[L]: the different scores, ascending; at first the worst, below which nothing counts."""
        self._order = np.argsort(owners, kind="stable")
        self._starts = np.searchsorted(owners[self._order], np.arange(len(self.levels)))

    def shares(self, costs: Array) -> Array:
        """How much of the box of budgets can afford an architecture, by what is known there: [M, L].

        Args:
            costs: [M, K].
        """
        rows = max(_CHUNK // len(self._order), 1)
        return np.concatenate([self._shares(costs[i : i + rows]) for i in range(0, len(costs), rows)])

    def _shares(self, costs: Array) -> Array:
        volumes = np.ones((len(costs), 1))
        for cuts, column, most in zip(self._cuts, costs.T, self._most, strict=True):
            uppers = np.append(cuts, most)
            lowers = np.maximum(np.concatenate([[-np.inf], cuts]), column[:, None])
            widths = np.maximum(uppers - lowers, 0.0)
            volumes = (volumes[:, :, None] * widths[:, None, :]).reshape(len(costs), -1)
        summed: Array = np.add.reduceat(volumes[:, self._order], self._starts, axis=1)
        return summed

    def log_expected(self, costs: Array, log_gain: Callable[[Array], Array]) -> npt.NDArray[np.float64]:
        """The logarithm of the expected improvement of the hypervolume by each of M architectures: [M].

        Args:
            costs: [M, K].
            log_gain: Of scores [L]: the logarithm of each architecture's expected improvement over them, [M, L].
        """
        with np.errstate(divide="ignore"):
            shares = np.log(self.shares(costs))
        result: npt.NDArray[np.float64] = logsumexp(shares + log_gain(self.levels), axis=1)
        return result


def _cuts(values: Array, limit: int) -> Array:
    """The different values, ascending; evenly thinned out where there are too many, so that a step begins late."""
    distinct = np.unique(values)
    if len(distinct) < limit:
        return distinct
    thinned: Array = distinct[np.linspace(0, len(distinct) - 1, limit - 1).round().astype(int)]
    return thinned


def log_expected_improvement(
    mean: npt.NDArray[Any], deviation: npt.NDArray[Any], best: float
) -> npt.NDArray[np.float64]:
    """The logarithm of the improvement over ``best`` that is expected of N predictions: [N].

    Stable far below the best, where ``pdf(u) + u cdf(u)`` is about ``pdf(u) / u**2``.

    Args:
        mean: [N].
        deviation: [N], above 0.
        best: What is to be surpassed.
    """
    u = (mean - best) / deviation
    near = np.maximum(u, _FAR)
    density = np.exp(-0.5 * near**2) / np.sqrt(2 * np.pi)
    far = -0.5 * u**2 - 0.5 * np.log(2 * np.pi) - 2 * np.log(np.maximum(-u, 1.0))
    standard = np.where(u > _FAR, np.log(np.maximum(density + near * ndtr(near), 1e-300)), far)
    result: npt.NDArray[np.float64] = np.log(deviation) + standard
    return result


def log_gap_expected_improvement(
    mean: npt.NDArray[Any], deviation: npt.NDArray[Any], best: npt.NDArray[Any]
) -> npt.NDArray[np.float64]:
    """The same where minus the logarithm of the gap to a ceiling is predicted, and the gap is to be closed.

    The gap is then log-normal, and how far it is expected to fall below another one has the form of the price of a
    put option (Black and Scholes, 1973): with ``u`` the standardised distance of the two and ``d`` the deviation,
    ``exp(-best) (cdf(u) - exp(d**2 / 2 - u d) cdf(u - d))``. Arguments broadcast against each other.

    Args:
        mean: Of minus the logarithm of the gap.
        deviation: Above 0.
        best: Minus the logarithm of the gap that is to be surpassed.
    """
    u = (mean - best) / deviation
    up = np.maximum(u, 0.0)
    near = np.log(np.maximum(ndtr(up) - np.exp(deviation * (deviation / 2 - up)) * ndtr(up - deviation), 1e-300))
    down = np.minimum(u, 0.0)
    # cdf / pdf of both: what they differ by is small far below, but it does not vanish.
    ratios = np.sqrt(np.pi / 2) * (erfcx(-down / np.sqrt(2)) - erfcx((deviation - down) / np.sqrt(2)))
    far = -0.5 * down**2 - 0.5 * np.log(2 * np.pi) + np.log(np.maximum(ratios, 1e-300))
    result: npt.NDArray[np.float64] = np.where(u > 0, near, far) - best
    return result
