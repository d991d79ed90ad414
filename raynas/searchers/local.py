"""Local search, first improvement (White et al., "Local Search is State of the Art for NAS Benchmarks", 2020)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from raynas.architecture import Architecture, complete, key
from raynas.config.types import Count
from raynas.exceptions import ConfigError
from raynas.search_space.space import SearchSpace
from raynas.searchers.history import Entry
from raynas.searchers.incremental import IncrementalSearcher
from raynas.searchers.settings import validated

__all__ = ["LocalSearch"]


class LocalSearch(IncrementalSearcher):
    """Climbs from the best of a few random architectures, one decision at a time; restarts at every local optimum.

    The neighbours of an architecture differ by the option of one decision; decisions that become active by this are
    sampled. They are scored in a random order, and the first better one is the next step. An architecture without a
    better neighbour ends the climb. Known scores are used without scoring the architecture again, and a climb that
    meets an earlier one ends with it.

    Parallel trials are neighbours of the same architecture, then new starts. Any result better than the current
    architecture is the next step, including replayed results of another searcher.

    Args:
        space: The search space.
        draws: Each climb starts from the best of so many random architectures.
        seed: See :class:`ArchitectureSearcher`, as for the arguments that follow.
        metric: Name of the score.
        mode: "max" or "min".
        points_to_evaluate: Architectures to propose first; they count as random ones.

    Raises:
        ConfigError: ``draws`` is not positive.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        draws: int = 10,
        seed: int = 0,
        metric: str | None = None,
        mode: str | None = None,
        points_to_evaluate: Sequence[Mapping[str, str]] = (),
    ) -> None:
        super().__init__(space, seed=seed, metric=metric, mode=mode, points_to_evaluate=points_to_evaluate)
        self.draws: int = validated("draws", draws, Count)
        self._neighbourhoods: dict[str, dict[str, Architecture]] = {}
        self.reset()

    def propose(self) -> Architecture | str | None:
        """Proposes a neighbour of the current architecture, or a random one for a new start."""
        initial = self.begin(self.draws, self.rng("local", len(self.history)))
        if initial is not None:
            return initial
        self.catch_up()
        if self._current is not None:
            for name, neighbour in self._neighbours(self._current.architecture).items():
                if name not in self.history and self.sampler.feasible(neighbour):
                    return self.record_origin(neighbour, "neighbour", self._current.architecture)
        # At a local optimum; or all neighbours are pending, and no worker should wait for them.
        return self.sample_new(self.rng("local", len(self.history)))

    def reset(self) -> None:
        """Forgets the climb."""
        self._current: Entry | None = None
        self._starts: list[Entry] = []
        self._results: dict[str, Entry] = {}

    def update(self, name: str, entry: Entry) -> None:
        """Moves to the new result if it is better; ends the climb at a local optimum."""
        self._results[name] = entry
        moved = False
        if entry.status == "done" and self.sampler.feasible(entry.architecture):
            if self._current is not None:
                moved = self.rank(entry) > self.rank(self._current)
                self._current = entry if moved else self._current
            else:
                self._starts.append(entry)
                moved = len(self._starts) == self.draws
                self._current = max(self._starts, key=self.rank) if moved else None
        while moved and self._current is not None:
            better = self._better(self._current)
            moved = better is not None
            self._current = better or self._current
        if self._current is not None and self._is_local_optimum(self._current):
            self._current, self._starts = None, []

    def _better(self, current: Entry) -> Entry | None:
        """The first neighbour with a better score."""
        known = (self._results.get(name) for name in self._neighbours(current.architecture))
        usable = (entry for entry in known if entry is not None and self.sampler.feasible(entry.architecture))
        return next((entry for entry in usable if self.rank(entry) > self.rank(current)), None)

    def _is_local_optimum(self, current: Entry) -> bool:
        """Whether all feasible neighbours have ended."""
        around = self._neighbours(current.architecture).items()
        return all(name in self._results or not self.sampler.feasible(neighbour) for name, neighbour in around)

    def _neighbours(self, current: Architecture) -> dict[str, Architecture]:
        """The neighbours by key, in a random order, infeasible ones included."""
        name = key(current)
        if name not in self._neighbourhoods:
            rng = self.rng("neighbours", name)
            decisions = self.space.decisions
            changes = [(d, option) for d, chosen in current.items() for option in decisions[d] if option != chosen]
            rng.shuffle(changes)
            changed = (
                complete(decisions, {**current, d: option}, lambda _, options: rng.choice(options))
                for d, option in changes
            )
            forms = {key(form): form for form in map(self.space.form, changed)}
            forms.pop(name, None)
            self._neighbourhoods[name] = forms
        return self._neighbourhoods[name]

    def get_state(self) -> dict[str, Any]:
        """Everything that the next suggestions depend on, as JSON data."""
        return super().get_state() | {"draws": self.draws}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores what :meth:`get_state` returned; raises ConfigError where it comes from other ``draws``."""
        super().set_state(state)
        self._neighbourhoods.clear()
        if state["draws"] != self.draws:
            raise ConfigError(f"the saved searcher has other draws: {state['draws']} instead of {self.draws}")
