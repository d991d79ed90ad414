"""Sampling architectures: legal, feasible, canonical and new ones, in bounded time."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection
from random import Random

from raynas import architecture as arch
from raynas.architecture import Architecture, key
from raynas.exceptions import UnsatisfiableError
from raynas.search_space.space import SearchSpace

__all__ = ["ArchitectureSampler"]

logger = logging.getLogger(__name__)


_SAMPLES = 500  # uniform samples before local search for a feasible one


_WALKS, _STEPS = 8, 200  # random starts of the local search, and mutations tried in each


_ENUMERABLE = 100_000  # spaces up to this size are enumerated


class ArchitectureSampler:
    """Samples feasible, new architectures. Results depend on the arguments alone, not on earlier calls.

    Args:
        space: The search space.
        seed: Of the order in which a small space is enumerated.
    """

    def __init__(self, space: SearchSpace, seed: int = 0) -> None:
        self.space = space
        self._seed = seed
        self._size = arch.size(space.decisions)
        self._counts = arch.option_counts(space.decisions)
        self._violations: dict[str, float] = {}
        self._closest: tuple[float, Architecture] | None = None
        self._costs: dict[str, tuple[float, ...]] = {}
        # A small space, shuffled; the feasible canonical forms among its first `_checked` ones.
        self._order: list[Architecture] = []
        self._checked = 0
        self._forms: dict[str, Architecture] = {}
        self._names: list[str] = []  # their keys
        self._passed: tuple[Collection[str] | None, int] = None, 0  # so many of them were taken already, for this one

    def violation(self, architecture: Architecture) -> float:
        """Constraint violation of a canonical architecture; 0 where it is feasible. Computed once for each."""
        if self.space.violation is None:
            return 0.0
        name = key(architecture)
        if name not in self._violations:
            value = float(self.space.violation(dict(architecture)))
            value = math.inf if math.isnan(value) else max(value, 0.0)
            self._violations[name] = value
            if self._closest is None or value < self._closest[0]:
                self._closest = (value, architecture)
        return self._violations[name]

    def measure_costs(self, architecture: Architecture) -> None:
        """Measures a canonical architecture where the space has a ``measure``; its costs are then exact."""
        if self.space.measure is not None:
            self.space.measure(dict(architecture))
            self._violations.pop(key(architecture), None)
            self._costs.pop(key(architecture), None)

    def feasible(self, architecture: Architecture) -> bool:
        """Whether a canonical architecture meets the constraint."""
        return self.violation(architecture) == 0.0

    def costs(self, architecture: Architecture) -> tuple[float, ...]:
        """The costs of a canonical architecture that are minimised; infinite where unknown. Computed once for each."""
        if self.space.costs is None or not self.space.objectives:
            return ()
        name = key(architecture)
        if name not in self._costs:
            known = self.space.costs(dict(architecture))
            values = (float(known.get(objective, math.nan)) for objective in self.space.objectives)
            self._costs[name] = tuple(math.inf if math.isnan(value) else value for value in values)
        return self._costs[name]

    def sample(self, rng: Random) -> Architecture:
        """Samples a canonical architecture uniformly over the decisions' architectures, feasible or not."""
        return self.space.form(arch.sample_uniform(self.space.decisions, rng, self._counts))

    def sample_new(self, rng: Random, taken: Collection[str]) -> Architecture | None:
        """Samples an architecture uniformly from those that are feasible and new.

        Rejection sampling comes first, then local search on the constraint violation from random starts; at last a
        space of up to 100,000 architectures is enumerated in a shuffled order. The last two are not uniform.

        Args:
            rng: The random generator.
            taken: The keys of the architectures that are not new. The same object may grow between two calls, and
                loses none.

        Returns:
            A canonical architecture, or None where there is no other: certain in a small space; in a large one
            given up after a bounded number of attempts, with a warning.

        Raises:
            UnsatisfiableError: No feasible architecture was found.
        """
        small = self._size <= _ENUMERABLE
        if not small or 2 * len(taken) <= self._size:
            for _ in range(_SAMPLES):
                candidate = self.sample(rng)
                if key(candidate) not in taken and self.feasible(candidate):
                    return candidate
            for _ in range(_WALKS):
                mutant = self.walk(self.sample(rng), rng, taken)
                if mutant is not None:
                    return mutant
        if small:
            first = self._first(taken)
            if first is not None:
                return first
        self._require_feasible()
        if not small:
            attempts = _SAMPLES + _WALKS * _STEPS
            logger.warning("no new feasible architecture in %d attempts: the space counts as exhausted", attempts)
        return None

    def walk(self, start: Architecture, rng: Random, taken: Collection[str]) -> Architecture | None:
        """Mutates ``start`` without increasing the violation until it is feasible and new.

        Returns:
            A canonical architecture, which may be ``start`` itself, or None after a bounded number of steps.
        """
        current, excess = start, self.violation(start)
        for _ in range(_STEPS):
            if excess == 0.0 and key(current) not in taken:
                return current
            neighbour = self.space.form(arch.mutate(self.space.decisions, current, rng, probability=0.0))
            if self.violation(neighbour) <= excess:
                current, excess = neighbour, self.violation(neighbour)
        return None

    def _first(self, taken: Collection[str]) -> Architecture | None:
        """The first feasible form of a small space, in a shuffled order, that is not taken."""
        place = self._passed[1] if self._passed[0] is taken else 0
        while (place < len(self._names) or self._enumerate_next()) and self._names[place] in taken:
            place += 1
        self._passed = taken, place
        return self._forms[self._names[place]] if place < len(self._names) else None

    def _enumerate_next(self) -> bool:
        """Finds one more feasible form of a small space; returns whether there is one."""
        if not self._order:
            self._order = list(arch.enumerate_all(self.space.decisions))
            Random(f"{self._seed}/enumeration").shuffle(self._order)
        while self._checked < len(self._order):
            candidate = self.space.form(self._order[self._checked])
            self._checked += 1
            if (name := key(candidate)) not in self._forms and self.feasible(candidate):
                self._forms[name] = candidate
                self._names.append(name)
                return True
        return False

    def _require_feasible(self) -> None:
        # Without any violation computed, all architectures were taken, and therefore feasible.
        if self._closest is None or self._closest[0] == 0.0:
            return
        tried = f"all {self._size:,}" if self._checked else f"{len(self._violations):,} tried, of {self._size:.3g}"
        raise UnsatisfiableError(
            f"no architecture meets the constraint ({tried}); the closest has a violation of {self._closest[0]:.4g} "
            f"(0 would meet it): {self._closest[1]}"
        )
