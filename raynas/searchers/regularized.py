"""Regularized evolution (Real et al., "Regularized Evolution for Image Classifier Architecture Search", AAAI 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from random import Random

from raynas.architecture import Architecture, key, mutate
from raynas.searchers.base import ArchitectureSearcher
from raynas.searchers.checks import check_counts
from raynas.searchers.history import Entry

__all__ = ["RegularizedEvolution", "RegularizedSettings"]


@dataclass(frozen=True)
class RegularizedSettings:
    """How parents are chosen.

    The defaults are meant for hundreds of evaluations. The population of the paper (100, of which 25 compete) is for
    tens of thousands: of 200 evaluations half would be random.

    Attributes:
        population: So many live at a time: at first random ones, later the youngest.
        sample_size: How many of them compete to be a parent.
        attempts: Mutants tried of one parent; those before were known already or infeasible.

    Raises:
        ValueError: A count that is not positive; more competitors than the population holds.
    """

    population: int = 20
    sample_size: int = 10
    attempts: int = 20

    def __post_init__(self) -> None:
        check_counts(self, {field.name: 1 for field in fields(self)})
        if self.sample_size > self.population:
            raise ValueError(f"sample_size is {self.sample_size}; legal: up to the population, {self.population}")


class RegularizedEvolution(ArchitectureSearcher):
    """Mutates the winner of a small tournament; whoever is born makes the oldest die, however good it is.

    Age is the order in which scores came in, and so the population is simply the end of the history: nothing else has
    to be kept, and any number of children may be in flight. Failed trials never enter the population, nor do another
    run's architectures that break this run's limits.

    Args:
        space: What may be proposed.
        settings: How parents are chosen.
        seed: See :class:`ArchitectureSearcher`, as for the arguments that follow.
        metric: Name of the score.
        mode: "max" or "min".
        points_to_evaluate: The first members of the population.
    """

    Settings = RegularizedSettings
    settings: RegularizedSettings

    def propose(self) -> Architecture | str | None:
        """A random architecture until the population is full, then a child."""
        rng = self.rng("regularized", len(self.history))
        waiting = self.begin(self.settings.population, rng)
        if waiting is not None:
            return waiting
        population = self._population()
        child = self._child(population, rng) if population else None
        return child or self.drawn(rng)

    def _population(self) -> list[Entry]:
        """The youngest that may have children, oldest first."""
        living: list[Entry] = []
        for entry in self.history.newest():
            if entry.status == "done" and self.sampler.feasible(entry.architecture):
                living.append(entry)
                if len(living) == self.settings.population:
                    break
        return living[::-1]

    def _child(self, population: Sequence[Entry], rng: Random) -> Architecture | None:
        """A new, feasible architecture: the winner with one decision changed, or with as few more as it takes."""
        rivals = rng.sample(population, min(self.settings.sample_size, len(population)))
        winner = max(rivals, key=self.rank).architecture
        for _ in range(self.settings.attempts):
            child = self.space.form(mutate(self.space.decisions, winner, rng, probability=0.0))
            if key(child) not in self.history and self.sampler.feasible(child):
                return self.record_origin(child, "mutation", winner)
        walked = self.sampler.walk(winner, rng, self.history)
        return walked and self.record_origin(walked, "mutation", winner)
