"""Local search, first improvement (White et al., "Local Search is State of the Art for NAS Benchmarks", 2020)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from raynas.architecture import Architecture, complete, key
from raynas.search_space.space import SearchSpace
from raynas.searchers.checks import check_counts
from raynas.searchers.history import Entry
from raynas.searchers.incremental import IncrementalSearcher

__all__ = ["LocalSearch"]


class LocalSearch(IncrementalSearcher):
    """Climbs from the best of a few random architectures, one decision at a time; starts anew on every summit.

    The neighbours of an architecture are what it becomes by another option of one decision; decisions that become
    active by this are drawn. They are scored in a random order, and the first one that is better is the next step. An
    architecture without a better neighbour ends the climb. Scores that are known count wherever the climb meets them:
    it steps on without scoring them again, and a climb that joins an earlier one ends with it.

    With several trials in flight they are neighbours of the same architecture, then new starts. Whatever turns out
    better than where the climb stands is the next step, also the rows of another searcher's log: the climb goes on
    from the best of them.

    Args:
        space: What may be proposed.
        draws: How many random architectures each climb starts from the best of.
        seed: See :class:`ArchitectureSearcher`, as for the arguments that follow.
        metric: Name of the score.
        mode: "max" or "min".
        points_to_evaluate: Architectures to propose first; they count as random ones.

    Raises:
        ValueError: ``draws`` is not positive.
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
        self.draws = draws
        check_counts(self, {"draws": 1})
        self._around: dict[str, dict[str, Architecture]] = {}
        self.forget()

    def propose(self) -> Architecture | str | None:
        """A neighbour of where the climb stands, or a draw for a new start."""
        waiting = self.begin(self.draws, self.rng("local", len(self.history)))
        if waiting is not None:
            return waiting
        self.follow()
        if self._place is not None:
            for name, neighbour in self._neighbours(self._place.architecture).items():
                if name not in self.history and self.sampler.feasible(neighbour):
                    return self.record_origin(neighbour, "neighbour", self._place.architecture)
        # On a summit; or all neighbours are in flight, and no worker shall wait for them.
        return self.drawn(self.rng("local", len(self.history)))

    def forget(self) -> None:
        """Stand nowhere."""
        self._place: Entry | None = None
        self._starts: list[Entry] = []
        self._ended: dict[str, Entry] = {}

    def learn(self, name: str, entry: Entry) -> None:
        """Step to what has just been scored, if it is better; leave a summit."""
        self._ended[name] = entry
        moved = False
        if entry.status == "done" and self.sampler.feasible(entry.architecture):
            if self._place is not None:
                moved = self.rank(entry) > self.rank(self._place)
                self._place = entry if moved else self._place
            else:
                self._starts.append(entry)
                moved = len(self._starts) == self.draws
                self._place = max(self._starts, key=self.rank) if moved else None
        while moved and self._place is not None:
            better = self._better(self._place)
            moved = better is not None
            self._place = better or self._place
        if self._place is not None and self._is_summit(self._place):
            self._place, self._starts = None, []

    def _better(self, place: Entry) -> Entry | None:
        """The first neighbour known to be better."""
        known = (self._ended.get(name) for name in self._neighbours(place.architecture))
        usable = (entry for entry in known if entry is not None and self.sampler.feasible(entry.architecture))
        return next((entry for entry in usable if self.rank(entry) > self.rank(place)), None)

    def _is_summit(self, place: Entry) -> bool:
        """Whether no neighbour is left to be scored."""
        around = self._neighbours(place.architecture).items()
        return all(name in self._ended or not self.sampler.feasible(neighbour) for name, neighbour in around)

    def _neighbours(self, place: Architecture) -> dict[str, Architecture]:
        """What differs from an architecture by one decision, by key, in a random order; infeasible ones too."""
        name = key(place)
        if name not in self._around:
            rng = self.rng("neighbours", name)
            decisions = self.space.decisions
            changes = [(d, option) for d, chosen in place.items() for option in decisions[d] if option != chosen]
            rng.shuffle(changes)
            found = (
                complete(decisions, {**place, d: option}, lambda _, options: rng.choice(options))
                for d, option in changes
            )
            forms = {key(form): form for form in map(self.space.form, found)}
            forms.pop(name, None)
            self._around[name] = forms
        return self._around[name]

    def get_state(self) -> dict[str, Any]:
        """All that the next suggestions depend on, as plain JSON data."""
        return super().get_state() | {"draws": self.draws}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`get_state` returned; raises ValueError where it comes from other ``draws``."""
        super().set_state(state)
        if state["draws"] != self.draws:
            raise ValueError(f"the saved searcher has other draws: {state['draws']} instead of {self.draws}")
