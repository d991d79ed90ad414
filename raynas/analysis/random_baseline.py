"""Estimate of what random search would have found at the same cost, by resampling random architectures of the run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev

from raynas.analysis.run_data import RunData, Scored

__all__ = ["LEAST", "Baseline", "baseline", "expected_best", "quantile_of_best"]

LEAST = 8
"""The estimate needs at least so many random architectures."""
_BAND, _DRAWN = (0.1, 0.9), 50


@dataclass(frozen=True)
class Baseline:
    """The best of the first n of a random search, for n up to half as many as there are random architectures."""

    counts: list[int]
    costs: list[float]
    """In computing seconds; where the log has none, in steps of fidelity."""
    expected: list[float]
    low: list[float]
    high: list[float]
    """Between ``low`` and ``high`` lie 80 % of such searches."""
    note: str
    """How it was estimated, in a sentence."""


def baseline(run_data: RunData) -> Baseline | str:
    """The expected best score of random search, or a sentence that says why it cannot be estimated.

    A random search evaluates every architecture in full. The random architectures are those of the sample beside the
    search if it was scored in the same way; otherwise those that the searcher itself sampled at random.
    """
    full = max((one.max_fidelity for one in run_data.scored), default=0)
    drawn, note = _sampled(run_data, full), "the {} random architectures that were scored beside the search"
    if len(drawn) < LEAST:
        drawn = [one for one in run_data.scored if one.origin == "random" and _ended(one)]
        note = "the {} architectures that the search itself drew by chance"
    if len(drawn) < LEAST:
        if not any(one.origin for one in run_data.scored):
            return "No random baseline: the log does not say which architectures were drawn by chance."
        return (
            f"No random baseline: it takes {LEAST} architectures that were drawn by chance and scored, this run has "
            f"{len(drawn)}."
        )
    stopped = sum(one.status == "stopped" for one in drawn)
    sign = 1.0 if run_data.mode == "max" else -1.0
    values = sorted(sign * one.score for one in drawn)
    took = [one.took * full / max(one.fidelity, 1) for one in drawn if math.isfinite(one.took)]
    if run_data.clock.busy and not took:
        return "No random baseline: the log does not say what the random architectures cost."
    cost = fmean(took) if run_data.clock.busy else float(full)
    counts = _counts(len(values) // 2)  # the best of nearly all of them is no estimate any more
    edges = [[sign * quantile_of_best(values, count, share) for count in counts] for share in _BAND]
    note = f"Estimated from {note.format(len(drawn))}, by resampling, for random searches that stop nobody early"
    note += f"; {stopped} of them were stopped and count with the score they had then." if stopped else "."
    return Baseline(
        counts=counts,
        costs=[cost * count for count in counts],
        expected=[sign * expected_best(values, count) for count in counts],
        low=min(edges),
        high=max(edges),
        note=note,
    )


def _counts(last: int) -> list[int]:
    """From 1 to the last: all of the small ones, of the others as many as one sees in a plot."""
    apart = (min(round(last ** (step / _DRAWN)), last) for step in range(_DRAWN + 1))
    return sorted({*range(1, min(last, _DRAWN) + 1), *apart})


def _ended(one: Scored) -> bool:
    return one.status in ("complete", "stopped") and one.allowed and math.isfinite(one.score)


def _sampled(run_data: RunData, full: int) -> list[Scored]:
    """The sample, if its scores are those of the search: what both have scored must agree."""
    drawn = [one for one in run_data.sample if _ended(one) and one.fidelity >= full]
    known = {one.key: one.score for one in run_data.scored if one.full}
    both = [(one.score, known[one.key]) for one in drawn if one.key in known]
    spread = pstdev([one.score for one in drawn]) if len(drawn) > 1 else 0.0
    if not both or any(abs(a - b) > 0.1 * spread for a, b in both):
        return []
    return drawn


def expected_best(values: Sequence[float], count: int) -> float:
    """The mean of the largest of ``count`` out of ``values``, over all ways to take them; values ascending."""
    total, weight = 0.0, count / len(values)  # the share of those ways of which the last value is the largest
    for place in range(len(values) - 1, count - 2, -1):
        total += weight * values[place]
        weight *= (place - count + 1) / max(place, 1)
        if weight < 1e-20:  # the rest of the weights is below the precision of the sum
            break
    return total


def quantile_of_best(values: Sequence[float], count: int, share: float) -> float:
    """Below which that share of the largest of ``count`` draws with replacement lie; values ascending."""
    return values[max(math.ceil(len(values) * math.pow(share, 1 / count)), 1) - 1]
