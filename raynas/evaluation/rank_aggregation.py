"""One score of several, by ranks, so that their units and scales do not matter.

    aggregate({"angle": angles, "accuracy": accuracies})        of a whole population
    Reference({"angle": ..., "accuracy": ...})(metrics)         of one architecture, against a fixed sample, in percent

A rank is a share: 0.9 where nine of ten are worse. Ranks are combined by their geometric mean, as in Lee and Ham,
"AZ-NAS: Assembling Zero-Cost Proxies for Network Architecture Search" (CVPR 2024): who is among the worst by one score
is not redeemed by the others. Ranks depend on who else is ranked. So that a score is a fixed function of the
architecture, which a scheduler can compare and a resumed search finds again, a search ranks against a fixed random
sample of its space.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from raynas.exceptions import ConfigError

__all__ = ["Reference", "aggregate"]

Array = npt.NDArray[np.float64]
_NORMAL = NormalDist()


def aggregate(scores: Mapping[str, Sequence[float] | Array], weights: Mapping[str, float] | None = None) -> Array:
    """Combine scores of a population.

    Args:
        scores: By name; one value for each of N architectures. High is good, unless its weight is negative.
        weights: How much each counts; default: all the same.

    Returns:
        The weighted geometric mean of the ranks, between 0 and 1: [N].

    Raises:
        ValueError: No score, different lengths, or values that are not finite.
        ConfigError: Weights of unknown scores, or all of them zero.
    """
    weights = _weights(scores, weights)
    columns = {name: np.asarray(scores[name], np.float64) for name in weights}
    if len({column.shape for column in columns.values()}) > 1:
        raise ValueError(f"scores have different lengths: {', '.join(f'{n} {len(c)}' for n, c in columns.items())}")
    for name, column in columns.items():
        if not np.isfinite(column).all():
            raise ValueError(f"{name!r} has values that are not finite: leave out what was not scored")
    logs = sum(abs(w) * np.log(_shares(math.copysign(1.0, w) * columns[name])) for name, w in weights.items())
    return np.asarray(np.exp(logs / sum(map(abs, weights.values()))))


class Reference:
    """Ranks single architectures among a fixed sample, such that for the sample itself it is :func:`aggregate`.

    Between two members of the sample, ranks are interpolated. Beyond the best and the worst they are extrapolated, as
    if the score were normally distributed: a search finds architectures that are better than all of a small random
    sample, and must still distinguish them.

    Args:
        sample: The scores of the sample by name: [N] each, N at least 2.
        weights: See :func:`aggregate`.

    Raises:
        ValueError: As :func:`aggregate`.
    """

    def __init__(
        self, sample: Mapping[str, Sequence[float] | Array], weights: Mapping[str, float] | None = None
    ) -> None:
        self.weights = _weights(sample, weights)
        aggregate(sample, weights)  # says what is wrong with them
        self._knots: dict[str, tuple[Array, Array]] = {}
        for name, weight in self.weights.items():
            column = math.copysign(1.0, weight) * np.asarray(sample[name], np.float64)
            values, first = np.unique(column, return_index=True)
            self._knots[name] = values, np.array([_NORMAL.inv_cdf(share) for share in _shares(column)[first]])

    def __call__(self, values: Mapping[str, float]) -> float:
        """The score of one architecture in percent, NaN where one of its values is missing or not finite."""
        logs = 0.0
        for name, weight in self.weights.items():
            value = values.get(name)
            if value is None or not math.isfinite(value):
                return math.nan
            # The logarithm of a share that rounds to 0 has no value of its own any more.
            share = max(_NORMAL.cdf(self.place(name, value)), 5e-324)
            logs += abs(weight) * math.log(share)
        return 100 * math.exp(logs / sum(map(abs, self.weights.values())))

    def place(self, name: str, value: float) -> float:
        """Where a score stands in the sample, in standard deviations of a normal distribution; high is good."""
        values, places = self._knots[name]
        value = math.copysign(1.0, self.weights[name]) * value
        if len(values) == 1:
            return 0.0  # all of the sample are equal: nothing is known
        if values[0] <= value <= values[-1]:
            return float(np.interp(value, values, places))
        # The outer tenth gives the slope beyond.
        far = max(len(values) // 10, 1)
        end, inner = (0, far) if value < values[0] else (-1, -1 - far)
        slope = (places[end] - places[inner]) / (values[end] - values[inner])
        return float(places[end] + slope * (value - values[end]))


def _weights(scores: Mapping[str, object], weights: Mapping[str, float] | None) -> dict[str, float]:
    chosen = dict.fromkeys(scores, 1.0) if weights is None else dict(weights)
    unknown = [name for name in chosen if name not in scores]
    if unknown:
        raise ConfigError(f"there is no score {unknown[0]!r} to combine; there are: {', '.join(scores) or 'none'}")
    kept = {name: weight for name, weight in chosen.items() if weight}
    if not kept or not all(map(math.isfinite, kept.values())):
        raise ConfigError(f"the weights {chosen} combine nothing: give at least one score a weight other than 0")
    return kept


def _shares(column: Array) -> Array:
    """The share of the population that is worse, equals counted half: in (0, 1)."""
    _, place, count = np.unique(column, return_inverse=True, return_counts=True)
    return np.asarray(((np.cumsum(count) - count / 2) / len(column))[place])
