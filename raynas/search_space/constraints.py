"""Hard limits on what an architecture may cost. Imports no torch: costs may come from anywhere."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from raynas.architecture import Architecture
from raynas.exceptions import ConfigError

__all__ = ["COSTS", "LATENCY", "Limits", "Profile", "check_objectives", "violation"]

COSTS = ("macs", "parameters")
"""What is counted of every space that is a network."""
LATENCY = "latency_ms"
"""What is measured of it besides, if that is wanted."""


def check_objectives(names: Sequence[str], legal: Iterable[str] = COSTS) -> tuple[str, ...]:
    """The names of costs that are minimised beside the score.

    Raises:
        ConfigError: One of them is not known, or named twice.
    """
    legal = tuple(legal)
    for place, name in enumerate(names):
        if name not in legal:
            raise ConfigError(f"unknown objective {name!r}; legal ones: {', '.join(legal) or 'none'}")
        if name in names[:place]:
            raise ConfigError(f"search.objectives names {name!r} twice")
    return tuple(names)


@dataclass(frozen=True)
class Limits:
    """Hard limits on named costs.

    Args:
        bounds: Lowest and highest allowed value of each limited cost; None where that side is open.
    """

    bounds: Mapping[str, tuple[float | None, float | None]] = field(default_factory=dict)

    @classmethod
    def parse(cls, values: Mapping[str, Any], names: Iterable[str] = COSTS) -> Limits:
        """Read limits as a person writes them: a number is an upper limit, a pair is a lower and an upper one.

        Args:
            values: For example ``{"macs": 330e6, "parameters": [1e6, None]}``.
            names: The costs that can be limited.

        Raises:
            ConfigError: An unknown cost, or something that is no limit.
        """
        legal = tuple(names)
        bounds: dict[str, tuple[float | None, float | None]] = {}
        for name, value in values.items():
            if name not in legal:
                raise ConfigError(f"unknown limit {name!r}; legal ones: {', '.join(legal) or 'none'}")
            pair = tuple(value) if isinstance(value, (list, tuple)) else (None, value)
            try:
                low, high = (None if side is None else float(side) for side in pair)
            except (TypeError, ValueError):
                raise ConfigError(f"limit {name!r} is {value!r}: expected a number or a pair [low, high]") from None
            lowest, highest = low or 0.0, math.inf if high is None else high
            if not (0 <= lowest <= highest and highest > 0 and lowest < math.inf):
                raise ConfigError(f"limit {name!r} is {value!r}: expected 0 <= low <= high and high > 0")
            bounds[name] = (low, high)
        return cls(bounds)

    def violation(self, costs: Mapping[str, float]) -> float:
        """How far costs are outside: the sum of the relative excesses, 0.0 where every limit is kept.

        A cost that is not known, NaN, keeps no limit.
        """
        total = 0.0
        for name, (low, high) in self.bounds.items():
            if name not in costs:
                raise ConfigError(f"the limited cost {name!r} is not known; known ones: {', '.join(costs)}")
            if math.isnan(costs[name]):
                return math.inf
            if low is not None and costs[name] < low:
                total += (low - costs[name]) / (low or 1.0)
            if high is not None and costs[name] > high:
                total += (costs[name] - high) / high
        return total

    def __str__(self) -> str:
        sides = [
            (name, sign, bound)
            for name, pair in self.bounds.items()
            for sign, bound in zip((">=", "<="), pair, strict=True)
        ]
        return " and ".join(f"{name} {sign} {_number(bound)}" for name, sign, bound in sides if bound is not None)


def violation(
    costs: Callable[[Mapping[str, str]], Mapping[str, float]], limits: Limits
) -> Callable[[Architecture], float]:
    """The function that searchers take: how far an architecture is outside the limits, 0.0 where it keeps them all.

    Args:
        costs: The costs of an architecture, for example a :class:`raynas.costs.counter.Costs`.
        limits: The limits on them.
    """
    return functools.partial(_violation, costs, limits)


def _violation(
    costs: Callable[[Mapping[str, str]], Mapping[str, float]], limits: Limits, architecture: Architecture
) -> float:
    return limits.violation(costs(architecture))


@dataclass(frozen=True)
class Profile:
    """The range of one cost over a space."""

    minimum: float
    median: float
    maximum: float

    def __str__(self) -> str:
        least, median, most = map(_number, (self.minimum, self.median, self.maximum))
        return f"{least} at least, {median} in the median, {most} at most"


def _number(value: float) -> str:
    """Counts in full, other numbers as short as they can be told apart."""
    return f"{value:,.0f}" if float(value).is_integer() or abs(value) >= 1000 else f"{value:.4g}"
