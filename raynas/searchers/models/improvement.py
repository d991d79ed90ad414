"""Expected improvement (Mockus, 1975; Jones et al., 1998) of a normally distributed prediction."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import erfcx, ndtr

__all__ = ["log_gap_improvement", "log_improvement"]

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


def log_gap_improvement(
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
