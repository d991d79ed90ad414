"""Gaussian process regression on the scores of a search history."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from raynas.searchers.history import Entry
from raynas.searchers.models.encoder import Array, Encoder, Features
from raynas.searchers.models.gp import GaussianProcess
from raynas.searchers.models.transforms import standardized_log_gap

__all__ = ["Observations", "Surrogate", "refit_count"]

_FIT_LIMIT = 200  # scores on which the hyperparameters are fitted: a quarter of a second


@dataclass(frozen=True)
class Observations:
    """N scored architectures.

    Attributes:
        entries: Their entries in the history.
        scores: [N], more is better; scores of a lower fidelity are shifted by the median gain up to the highest one.
        noise_scale: [N], factors of the noise variance: 1 at the highest fidelity, more below.
    """

    entries: Sequence[Entry]
    scores: Array
    noise_scale: Array


class Surrogate:
    """A Gaussian process whose hyperparameters are refitted ever more rarely as scores come in.

    Args:
        encoder: Encodes the architectures.
        goodness: Gives a score the sign such that more is better.
        limit: The model is conditioned on at most so many scores: the best half and the newest.
        transfer: Whether the encoder computes a prior mean from another search's results.
        order: Sorts entries with their scores [N] and returns their indices, best first. Default: by score.
    """

    def __init__(
        self,
        encoder: Encoder,
        goodness: Callable[[float], float],
        limit: int = 400,
        transfer: bool = False,
        order: Callable[[Sequence[Entry], Array], Array] | None = None,
    ) -> None:
        self.encoder = encoder
        self.limit = limit
        self._goodness = goodness
        self._transfer = transfer
        self._order = order or (lambda entries, scores: np.argsort(-scores, kind="stable"))
        self._model: tuple[int, GaussianProcess] | None = None  # with the number of scores it was fitted on

    def condition(self, entries: Sequence[Entry]) -> tuple[GaussianProcess, Features, Array, Array]:
        """Conditions the model on scored entries, in the order of the history.

        Returns:
            The model, and what it was conditioned on: features, targets [N] and noise scales [N].
        """
        count = refit_count(len(entries))
        if self._model is None or self._model[0] != count:
            model = GaussianProcess(self.encoder.blocks, self.encoder.space.graph is not None, self._transfer)
            model.fit(*self._encoded(self.observations(entries[:count], _FIT_LIMIT)))
            self._model = count, model
        model = self._model[1]
        observed = self._encoded(self.observations(entries))
        model.condition(*observed)
        return model, *observed

    def observations(self, entries: Sequence[Entry], limit: int | None = None) -> Observations:
        """The best half and the newest of N entries, at most ``limit``."""
        limit = self.limit if limit is None else limit
        highest = max(entry.fidelity for entry in entries)
        gains = {fidelity: self.median_gain(entries, fidelity) for fidelity in {entry.fidelity for entry in entries}}
        scores = np.array([self._goodness(entry.score) + gains[entry.fidelity] for entry in entries])
        noise = np.array([max(highest, 1) / max(entry.fidelity, 1) for entry in entries])
        if len(entries) > limit:
            best = self._order(entries, scores)[: limit // 2]
            rows = sorted({*best.tolist(), *range(len(entries) - (limit - limit // 2), len(entries))})
            entries, scores, noise = [entries[row] for row in rows], scores[rows], noise[rows]
        return Observations(entries, scores, noise)

    def median_gain(self, entries: Sequence[Entry], fidelity: int) -> float:
        """Median gain from a fidelity to the highest one, over the entries that have a score at both."""
        highest = max(entry.fidelity for entry in entries)
        if fidelity == highest:
            return 0.0
        both = [entry.scores for entry in entries if fidelity in entry.scores and highest in entry.scores]
        gains = [self._goodness(scores[highest]) - self._goodness(scores[fidelity]) for scores in both]
        return float(np.median(gains)) if gains else 0.0

    def _encoded(self, observed: Observations) -> tuple[Features, Array, Array]:
        features = self.encoder([entry.architecture for entry in observed.entries])
        return features, standardized_log_gap(observed.scores), observed.noise_scale


def refit_count(count: int) -> int:
    """The number of scores at the last refit, with ``count`` of them known: 5, 10, ... ever more rarely."""
    last = 2
    while True:
        step = 3 if last == 2 else 5 if last < 50 else 10 if last < 100 else 25 if last < 300 else 50
        if last + step > count:
            return last
        last += step
