"""Transfer of another search's results: a model of them whose predictions are a prior mean for this search."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from raynas.search_space.space import SearchSpace
from raynas.searchers.history import Entry
from raynas.searchers.models.encoder import Array, Encoder, Features
from raynas.searchers.models.surrogate import Surrogate

__all__ = ["SourceModel"]


class SourceModel:
    """A Gaussian process fitted to the results of the source search, weighted by how well it predicts them.

    Its predictions count as far as it predicts each score of the source from the others. A source in which
    architectures and scores are unrelated therefore has no effect.

    Args:
        space: With the decisions of both searches.
        source: Scored entries of the source search.
        goodness: Gives a score the sign such that more is better.
        seed: Of the encoder.
        order: See :class:`raynas.searchers.models.surrogate.Surrogate`.

    Attributes:
        explained_variance: From 0 to 1: the share of the variance of the source's scores that leave-one-out
            predictions explain.
    """

    def __init__(
        self,
        space: SearchSpace,
        source: Sequence[Entry],
        goodness: Callable[[float], float],
        seed: int = 0,
        order: Callable[[Sequence[Entry], Array], Array] | None = None,
    ) -> None:
        self._model, _, targets, _ = Surrogate(Encoder(space, seed), goodness, order=order).condition(source)
        error, total = ((targets - self._model.leave_one_out(targets)) ** 2).mean(), targets.var()
        self.explained_variance = max(1.0 - float(error / total), 0.0) if total > 0 else 0.0

    def prior_mean(self, features: Features) -> Array:
        """Weighted predictions for N architectures: [N, 1]."""
        predicted: Array = self.explained_variance * self._model.predict(features)[0][:, None]
        return predicted.astype(np.float32)
