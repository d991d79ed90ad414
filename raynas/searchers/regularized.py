"""Regularized evolution (Real et al., "Regularized Evolution for Image Classifier Architecture Search", AAAI 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from raynas.architecture import Architecture, key, mutate
from raynas.config.types import Count
from raynas.searchers.base import ArchitectureSearcher
from raynas.searchers.history import Entry
from raynas.searchers.settings import searcher_settings

__all__ = ["RegularizedEvolution", "RegularizedSettings"]


@searcher_settings
class RegularizedSettings:
    """Settings of :class:`RegularizedEvolution`.

    The defaults are meant for hundreds of evaluations. The population of the paper (100, of which 25 compete) is for
    tens of thousands: of 200 evaluations half would be random.

    Attributes:
        population: Size of the population: at first random architectures, later the newest.
        sample_size: Size of the tournament that chooses a parent.
        attempts: Mutants generated at most of one parent; duplicates and infeasible ones are discarded.

    Raises:
        ConfigError: A count that is not positive; a tournament larger than the population.
    """

    population: Count = 20
    sample_size: Count = 10
    attempts: Count = 20

    def __post_init__(self) -> None:
        if self.sample_size > self.population:
            raise ValueError(f"sample_size is {self.sample_size}; legal: up to the population, {self.population}")


class RegularizedEvolution(ArchitectureSearcher):
    """Mutates the winner of a tournament; each new member replaces the oldest one of the population.

    Age is the order in which scores arrive. The population is therefore the end of the history: no other state is
    needed, and any number of children may run at once. Failed trials never enter the population, nor do infeasible
    architectures of another run.

    Args:
        space: The search space.
        settings: How parents are chosen.
        seed: See :class:`ArchitectureSearcher`, as for the arguments that follow.
        metric: Name of the score.
        mode: "max" or "min".
        points_to_evaluate: The first members of the population.
    """

    Settings = RegularizedSettings
    settings: RegularizedSettings

    def propose(self) -> Architecture | str | None:
        """Proposes a random architecture until the population is full, then a child."""
        rng = self.rng("regularized", len(self.history))
        initial = self.begin(self.settings.population, rng)
        if initial is not None:
            return initial
        population = self._population()
        child = self._child(population, rng) if population else None
        return child or self.sample_new(rng)

    def _population(self) -> list[Entry]:
        """The newest feasible entries with a score, oldest first."""
        members: list[Entry] = []
        for entry in self.history.newest():
            if entry.status == "done" and self.sampler.feasible(entry.architecture):
                members.append(entry)
                if len(members) == self.settings.population:
                    break
        return members[::-1]

    def _child(self, population: Sequence[Entry], rng: Random) -> Architecture | None:
        """A new, feasible architecture: the winner with one decision changed, or with as few more as it takes."""
        tournament = rng.sample(population, min(self.settings.sample_size, len(population)))
        winner = max(tournament, key=self.rank).architecture
        for _ in range(self.settings.attempts):
            child = self.space.form(mutate(self.space.decisions, winner, rng, probability=0.0))
            if key(child) not in self.history and self.sampler.feasible(child):
                return self.record_origin(child, "mutation", winner)
        walked = self.sampler.walk(winner, rng, self.history)
        return walked and self.record_origin(walked, "mutation", winner)
