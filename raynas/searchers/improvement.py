"""Expected improvement (Mockus, 1975; Jones et al., 1998) of a normally distributed prediction."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

__all__ = ["log_improvement"]

_FAR = -8.0


def log_improvement(mean: npt.NDArray[Any], deviation: npt.NDArray[Any], best: float) -> npt.NDArray[np.float64]:
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
