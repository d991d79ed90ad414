"""Hard limits on what an architecture may cost, and whether a space can keep them at all."""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from raynas import architecture as arch
from raynas.architecture import Architecture
from raynas.costs import COSTS, Costs, Profile

__all__ = ["COSTS", "Costs", "InfeasibleError", "Limits", "Profile", "check_satisfiable", "violation"]


class InfeasibleError(ValueError):
    """No architecture of the space keeps the limits; the message says which limit, and what the space offers."""


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
            ValueError: An unknown cost, or something that is no limit.
        """
        legal = tuple(names)
        bounds: dict[str, tuple[float | None, float | None]] = {}
        for name, value in values.items():
            if name not in legal:
                raise ValueError(f"unknown limit {name!r}; legal ones: {', '.join(legal)}")
            pair = tuple(value) if isinstance(value, (list, tuple)) else (None, value)
            try:
                low, high = (None if side is None else float(side) for side in pair)
            except (TypeError, ValueError):
                raise ValueError(f"limit {name!r} is {value!r}: expected a number or a pair [low, high]") from None
            lowest, highest = low or 0.0, math.inf if high is None else high
            if not (0 <= lowest <= highest and highest > 0 and lowest < math.inf):
                raise ValueError(f"limit {name!r} is {value!r}: expected 0 <= low <= high and high > 0")
            bounds[name] = (low, high)
        return cls(bounds)

    def violation(self, costs: Mapping[str, float]) -> float:
        """How far costs are outside: the sum of the relative excesses, 0.0 where every limit is kept."""
        total = 0.0
        for name, (low, high) in self.bounds.items():
            if name not in costs:
                raise ValueError(f"the limited cost {name!r} is not known; known ones: {', '.join(costs)}")
            if low is not None and costs[name] < low:
                total += (low - costs[name]) / low
            if high is not None and costs[name] > high:
                total += (costs[name] - high) / high
        return total

    def __str__(self) -> str:
        sides = [
            (name, sign, bound)
            for name, pair in self.bounds.items()
            for sign, bound in zip((">=", "<="), pair, strict=True)
        ]
        return " and ".join(f"{name} {sign} {bound:,.0f}" for name, sign, bound in sides if bound is not None)


def violation(
    costs: Callable[[Mapping[str, str]], Mapping[str, float]], limits: Limits
) -> Callable[[Architecture], float]:
    """The function that searchers take: how far an architecture is outside the limits, 0.0 where it keeps them all.

    Args:
        costs: The costs of an architecture, for example a :class:`Costs`.
        limits: The limits on them.
    """
    return functools.partial(_violation, costs, limits)


def _violation(
    costs: Callable[[Mapping[str, str]], Mapping[str, float]], limits: Limits, architecture: Architecture
) -> float:
    return limits.violation(costs(architecture))


def check_satisfiable(costs: Costs, limits: Limits, samples: int | None = None, seed: int = 0) -> Architecture:
    """Make sure that some architecture keeps all limits, before anything is started.

    A limit beyond the exact minimum or maximum of an additive space is refused by proof. Otherwise an architecture is
    looked for: by random draws, then by changing one decision at a time from the nearest one found.

    Args:
        costs: The costs of the space.
        limits: The limits.
        samples: How many draws, and then how many changes, to try; by default as in :meth:`Costs.profile`.
        seed: Seed of the draws.

    Returns:
        An architecture that keeps the limits.

    Raises:
        InfeasibleError: None was found; the message names the limits and the space's own range.
    """
    profile = costs.profile(samples, seed)
    for name, (low, high) in limits.bounds.items():
        own = profile[name]
        reachable = (low is None or low <= own.maximum) and (high is None or own.minimum <= high)
        if costs.additive and not reachable:
            alone = Limits({name: (low, high)})
            raise InfeasibleError(f"no architecture of this space has {alone}: {name} are {own}")

    rng = random.Random(seed)
    excess = violation(costs, limits)
    tries = samples or costs.default_samples
    nearest = min((costs.sample(rng) for _ in range(tries)), key=excess)
    for _ in range(tries):
        if excess(nearest) == 0.0:
            return nearest
        # With probability 0 exactly one decision changes.
        nearest = min(nearest, costs.canonical(arch.mutate(costs.decisions, nearest, rng, probability=0.0)), key=excess)
    if excess(nearest) == 0.0:
        return nearest
    found = costs(nearest)
    closest = ", ".join(f"{name} {found[name]:,}" for name in limits.bounds)
    ranges = "; ".join(f"{name} are {profile[name]}" for name in limits.bounds)
    raise InfeasibleError(
        f"no architecture found with {limits} in {2 * tries} tries; the nearest has {closest}; {ranges}"
    )
