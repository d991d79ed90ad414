"""Whether a space can keep hard limits at all, before anything is started."""

from __future__ import annotations

import random

from raynas import architecture as arch
from raynas.architecture import Architecture
from raynas.costs.counter import Costs
from raynas.exceptions import InfeasibleError
from raynas.search_space.constraints import Limits, violation

__all__ = ["check_satisfiable"]


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
