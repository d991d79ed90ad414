"""A small exact Gaussian process over architectures, with kernels that know their structure.

The covariance of two architectures is a sum of parts, each with its own learned amplitude:

- overlap: ``exp(-sum_d w_d [a_d != b_d])``, with a learned weight for every decision;
- additive: ``sum_d v_d [a_d == b_d]``, each decision's own effect, whatever the others are; all of them share a factor;
- paths and counts: ``exp(-s |u - v|^2)`` on how often each route and each operation occurs;
- trend: linear in the counts, so that "more of this is better" is carried beyond what was seen;
- prior mean: linear in the scores that a model of another search's results predicts, in a warm start.

Weights are fitted by maximum a posteriori under weak log-normal priors (Rasmussen and Williams, "Gaussian Processes for
Machine Learning", 2006, chapter 5).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.optimize import minimize

from raynas.searchers.models.encoder import Array, Features

__all__ = ["GaussianProcess"]

_JITTER = 1e-6
_ITERATIONS = 40
_NOISY = 0.5  # half of the variance of the scores


@dataclass(frozen=True)
class _Layout:
    """Where each kind of weight stands in the vector of log weights."""

    parts: tuple[str, ...]
    """Amplitudes, in this order: overlap, then paths, counts and trend where there is a graph."""
    decisions: int
    transfer: bool = False
    """Whether there is a prior mean."""

    @property
    def rates(self) -> slice:
        """How fast the parts of the distance kernels (paths, counts) fall."""
        return slice(len(self.parts), len(self.parts) + sum(part in ("paths", "counts") for part in self.parts))

    @property
    def weights(self) -> slice:
        """One for each decision, of the overlap kernel."""
        return slice(self.rates.stop, self.rates.stop + self.decisions)

    @property
    def shares(self) -> slice:
        """One for each decision, of the additive kernel: the variance of its own effect."""
        return slice(self.weights.stop, self.weights.stop + self.decisions)

    @property
    def effects(self) -> slice:
        """The factor that all shares have in common."""
        return slice(self.shares.stop, self.shares.stop + 1)

    @property
    def prior_mean(self) -> slice:
        """The amplitude of the prior mean, where there is one."""
        return slice(self.effects.stop, self.effects.stop + self.transfer)

    def priors(self) -> tuple[Array, Array]:
        """Mean and deviation of each log weight; the last one is the noise variance."""
        means = [np.log(1.0 / len(self.parts))] * len(self.parts)
        means += [0.0] * (self.rates.stop - self.rates.start)
        # Two random architectures then correlate by about exp(-1), however many decisions there are.
        means += [np.log(1.5 / self.decisions)] * self.decisions
        # Small, unless the scores say otherwise: where decisions depend on each other, their own effects mislead.
        means += [np.log(0.05 / self.decisions)] * self.decisions
        deviations = [1.0] * len(means)
        # What speaks for one decision's own effect speaks for that of the others: each alone is too weak to be heard.
        means += [0.0]
        deviations += [1.5]
        # Wide: another search may tell all or nothing.
        means += [np.log(0.3)] * self.transfer
        deviations += [1.5] * self.transfer
        # Trained twice, an architecture scores differently, and near the top, where scores are stretched, this shows.
        return np.array([*means, np.log(0.03)]), np.array([*deviations, 1.5])


class GaussianProcess:
    """Exact regression on up to some hundred architectures.

    Args:
        blocks: The columns of ``Features.options`` that belong to each decision.
        structured: Whether the features hold paths and counts.
        transfer: Whether they hold a prior mean.
    """

    def __init__(self, blocks: Sequence[npt.NDArray[np.int64]], structured: bool, transfer: bool = False) -> None:
        self.blocks = list(blocks)
        parts = ("overlap", "paths", "counts", "trend") if structured else ("overlap",)
        self.layout = _Layout(parts, len(self.blocks), transfer)
        self.theta = self.layout.priors()[0]
        self._owner = np.concatenate([np.full(len(block), index) for index, block in enumerate(self.blocks)])

    def fit(self, seen: Features, targets: Array, noise_scale: Array) -> None:
        """Find the weights; always from the same starts, so that they depend on these arguments alone.

        Rough scores are explained by noise or by an effect of every difference: often each of the two is a local
        optimum (chapter 5.4). The climb therefore starts in the middle of the priors, and once more with much noise.

        Args:
            seen: N architectures.
            targets: [N], of mean 0 and deviation 1.
            noise_scale: [N], factors of the noise variance: 1 for a full score, more for a partial one.
        """
        means, deviations = self.layout.priors()

        def objective(theta: Array) -> tuple[float, Array]:
            value, gradient = self.negative_log_likelihood(theta, seen, targets, noise_scale)
            deviation = (theta - means) / deviations
            return value + 0.5 * float(deviation @ deviation), gradient + deviation / deviations

        bounds = list(zip(means - 5 * deviations, means + 5 * deviations, strict=True))
        noisy = np.array([*means[:-1], np.log(_NOISY)])
        runs = [
            minimize(objective, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": _ITERATIONS})
            for start in (means, noisy)
        ]
        self.theta = min(runs, key=lambda run: float(run.fun)).x

    def condition(self, seen: Features, targets: Array, noise_scale: Array) -> None:
        """Take these observations as known, with the weights as they are; arguments as in :meth:`fit`."""
        self._seen = seen
        exact = seen.astype(np.float64)
        covariance = _total(self._parts(self.theta, exact, exact))
        covariance[np.diag_indices(len(seen))] += np.exp(self.theta[-1]) * noise_scale + _JITTER
        self._factor = cho_factor(covariance, lower=True)
        self._solution = cho_solve(self._factor, targets)

    def leave_one_out(self, targets: Array) -> Array:
        """What is expected of each of the N conditioned on, knowing only the others: [N]; targets as there."""
        inverse = cho_solve(self._factor, np.eye(len(targets)))
        result: Array = targets - self._solution / np.diag(inverse)
        return result

    def predict(self, candidates: Features) -> tuple[Array, Array]:
        """Mean and deviation [M] of the scores themselves, without noise.

        In single precision: there may be many candidates, and the noise keeps the covariance well conditioned.
        """
        kind = candidates.options.dtype
        cross = _total(self._parts(self.theta, candidates, self._seen))
        mean = cross @ self._solution.astype(kind)
        factor = self._factor[0].astype(kind)
        reduced = solve_triangular(factor, cross.T, lower=True, overwrite_b=True, check_finite=False)
        variance = self._prior_variance(candidates) - np.einsum("nm,nm->m", reduced, reduced)
        return mean.astype(np.float64), np.sqrt(np.maximum(variance, 1e-6)).astype(np.float64)

    def _prior_variance(self, candidates: Features) -> Array:
        """Of each of them, [M]: what the parts say of an architecture and itself."""
        scales = np.exp(self.theta)
        effects = scales[self.layout.effects] * scales[self.layout.shares]
        variance = np.full(len(candidates), effects.sum() + scales[0])
        if len(self.layout.parts) > 1:
            variance += scales[1] + scales[2] + scales[3] * (candidates.counts**2).sum(1)
        if self.layout.transfer:
            variance += scales[self.layout.prior_mean] * (candidates.prior_mean**2).sum(1)
        return variance

    def _parts(self, theta: Array, left: Features, right: Features) -> dict[str, Array]:
        """The parts of the covariance [N, M], amplitudes included."""
        layout = self.layout
        scales = np.exp(theta).astype(left.options.dtype)
        amplitudes, weights = scales[: len(layout.parts)], scales[layout.weights]
        shared = (left.options * weights[self._owner]) @ right.options.T
        shared -= weights.sum()
        parts = {"overlap": np.exp(shared, out=shared)}
        parts["overlap"] *= amplitudes[0]
        effects = scales[layout.effects] * scales[layout.shares]
        parts["additive"] = (left.options * effects[self._owner]) @ right.options.T
        if len(layout.parts) > 1:
            rates = scales[layout.rates]
            parts["paths"] = _falling(left.paths, right.paths, rates[0], amplitudes[1])
            parts["counts"] = _falling(left.counts, right.counts, rates[1], amplitudes[2])
            parts["trend"] = amplitudes[3] * (left.counts @ right.counts.T)
        if layout.transfer:
            parts["prior_mean"] = scales[layout.prior_mean] * (left.prior_mean @ right.prior_mean.T)
        return parts

    def negative_log_likelihood(
        self, theta: Array, seen: Features, targets: Array, noise_scale: Array
    ) -> tuple[float, Array]:
        """The negative log marginal likelihood and its gradient in the log weights."""
        layout, seen = self.layout, seen.astype(np.float64)
        parts = self._parts(theta, seen, seen)
        noise = np.exp(theta[-1])
        covariance = _total(parts)
        covariance[np.diag_indices(len(seen))] += noise * noise_scale + _JITTER
        factor = cho_factor(covariance, lower=True)
        solution = cho_solve(factor, targets)
        value = 0.5 * float(targets @ solution) + float(np.log(np.diag(factor[0])).sum())
        # d value / d K; a part of K that is k * exp(log weight) has itself as its derivative.
        outer = 0.5 * (cho_solve(factor, np.eye(len(seen))) - np.outer(solution, solution))
        gradient = np.zeros_like(theta)
        for index, name in enumerate(layout.parts):
            gradient[index] = (outer * parts[name]).sum()
        if len(layout.parts) > 1:
            rates = np.exp(theta[layout.rates])
            for index, (name, values) in enumerate((("paths", seen.paths), ("counts", seen.counts))):
                gradient[layout.rates.start + index] = (
                    -rates[index] * (outer * parts[name] * _distances(values, values)).sum()
                )
        overlap = outer * parts["overlap"]
        matches = np.bincount(self._owner, (seen.options * (overlap @ seen.options)).sum(0), len(self.blocks))
        gradient[layout.weights] = -np.exp(theta[layout.weights]) * (overlap.sum() - matches)
        each = np.bincount(self._owner, (seen.options * (outer @ seen.options)).sum(0), len(self.blocks))
        gradient[layout.shares] = np.exp(theta[layout.effects] + theta[layout.shares]) * each
        gradient[layout.effects] = gradient[layout.shares].sum()
        if layout.transfer:
            gradient[layout.prior_mean] = (outer * parts["prior_mean"]).sum()
        gradient[-1] = noise * float(np.diag(outer) @ noise_scale)
        return value, gradient


def _total(parts: Mapping[str, Array]) -> Array:
    first, *others = parts.values()
    total = first.copy()
    for other in others:
        total += other
    return total


def _distances(left: Array, right: Array) -> Array:
    """Squared Euclidean distances [N, M]."""
    result: Array = left @ right.T
    result *= -2
    result += (left**2).sum(1)[:, None]
    result += (right**2).sum(1)[None]
    return np.maximum(result, 0.0, out=result)


def _falling(left: Array, right: Array, rate: float, amplitude: float) -> Array:
    """``amplitude * exp(-rate * distance)``, [N, M]."""
    result = _distances(left, right)
    result *= -rate
    np.exp(result, out=result)
    result *= amplitude
    return result
