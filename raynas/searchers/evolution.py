"""Evolution in generations, as in SPOS (Guo et al., "Single Path One-Shot Neural Architecture Search", ECCV 2020)."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from random import Random
from typing import Any

from pydantic import StrictBool
from ray.tune.search import Searcher

from raynas.architecture import Architecture, alternatives, crossover, key, mutate
from raynas.config.types import Count
from raynas.exceptions import ConfigError
from raynas.search_space.space import SearchSpace
from raynas.searchers.base import ArchitectureSearcher
from raynas.searchers.history import Entry, Origin
from raynas.searchers.settings import Natural, Probability, searcher_settings

__all__ = ["Evolution", "EvolutionSettings"]

Child = tuple[Architecture, tuple[str, ...]]
"""An architecture and the keys of its parents."""
_SPELLINGS = 100_000
"""How many raw children are remembered: some 20 MB."""


@searcher_settings
class EvolutionSettings:
    """Settings of :class:`Evolution`; the defaults are those of SPOS.

    Attributes:
        population: Architectures in each generation. Those beyond mutations and crossovers are random.
        parents: Number of the best of all generations that have children.
        mutations: Children by mutation in each generation; by default half of the population.
        crossovers: Children by crossover in each generation; by default the other half.
        mutation_probability: Probability of each decision to change in a mutation; at least one does.
        attempts: Children generated at most for each one needed; duplicates and infeasible ones are discarded.
        avoided: Options to which no mutation changes a decision.
        waits: Whether a generation starts after all results of the one before, as in the papers, while workers idle.

    Raises:
        ConfigError: A setting out of range; more children than the population holds.
    """

    population: Count = 50
    parents: Count = 10
    mutations: Natural | None = None
    crossovers: Natural | None = None
    mutation_probability: Probability = 0.1
    attempts: Count = 10
    avoided: list[str] = field(default_factory=list)
    waits: StrictBool = False

    def __post_init__(self) -> None:
        if sum(self.children) > self.population:
            raise ValueError(
                f"mutations + crossovers is {sum(self.children)}; legal: up to the population, {self.population}"
            )

    @property
    def children(self) -> tuple[int, int]:
        """Number of children by mutation and by crossover."""
        half = self.population // 2
        mutations = (
            max(min(half, self.population - (self.crossovers or 0)), 0) if self.mutations is None else self.mutations
        )
        crossovers = max(self.population - mutations, 0) if self.crossovers is None else self.crossovers
        return mutations, crossovers


class _Taken(Collection[str]):
    """The keys that a new child must not have: those of the history and those of its own generation."""

    def __init__(self, known: Mapping[str, object]) -> None:
        self.known = known
        self.children: dict[str, Architecture] = {}
        """Of the generation that is being made."""
        self.spellings: set[tuple[str, ...]] = set()
        """Of raw children that were found to be taken, as they will always be: most attempts in a space that is nearly
        exhausted make one of these again, and the name of a network costs more than to make its raw form."""

    def __contains__(self, name: object) -> bool:
        return name in self.known or name in self.children

    def __iter__(self) -> Iterator[str]:
        return chain(self.known, self.children)

    def __len__(self) -> int:
        return len(self.known) + len(self.children)


@dataclass
class _Ranking:
    """The best of all ended trials, updated by each generation with the new results alone."""

    taken: _Taken
    ended: list[str]
    """See :attr:`raynas.searchers.history.SearchHistory.ended`."""
    mode: str
    count: int = 0
    """Number of keys that were processed."""
    pending: list[str] = field(default_factory=list)
    """Keys of those without a score, or that must not be parents yet."""
    best: list[tuple[tuple[int, float], str, Entry]] = field(default_factory=list)
    """The best by rank and key, best last: as many as there are parents."""


class Evolution(ArchitectureSearcher):
    """Mutates and crosses over the best of all generations so far.

    A generation is made when the one before is scored; until then ``suggest`` returns None. The children therefore
    depend on scores alone, not on the order in which trials complete, and a replay makes the same generations again. To
    keep workers busy, the next generation does not wait for the last ``n`` members of the one before if
    :meth:`expect_in_flight` says that ``n`` trials run at once (at most half the population), unless
    ``settings.waits``; these become parents one generation later. Replayed architectures that belong to no generation
    (of another searcher or seed) count as scored before the generation at which the replay ends.

    Args:
        space: The search space.
        settings: How the generations are made.
        seed: See :class:`ArchitectureSearcher`, as for the arguments that follow.
        metric: Name of the score.
        mode: "max" or "min".
        points_to_evaluate: The first members of the first generation.
    """

    Settings = EvolutionSettings
    settings: EvolutionSettings

    def __init__(self, space: SearchSpace, **common: Any) -> None:
        super().__init__(space, **common)
        legal = sorted({option for options in space.decisions.values() for option in options})
        for option in self.settings.avoided:
            if option not in legal:
                raise ConfigError(f"avoided: no decision has an option {option!r}; legal ones: {', '.join(legal)}")
        self._number = -1  # of the current generation
        self._generation: dict[str, Architecture] = {}  # by key
        self._members: dict[str, None] = {}  # keys of this and all earlier generations
        self._ranking: _Ranking | None = None
        self._overlap = 0
        self._replaying = False

    def propose(self) -> Architecture | str | None:
        """Proposes the next member of the current generation; None while it is being scored."""
        while True:
            member = next((form for name, form in self._generation.items() if name not in self.history), None)
            if member is None:
                if self.history.running(self._required()):
                    return None
                if not self._next_generation(self._number + 1) and self._number > 0:
                    return Searcher.FINISHED
            elif not self._replaying or not self._end_replay():
                return member

    def expect_in_flight(self, trials: int) -> None:
        """Allows a generation to start while up to so many members of the one before are pending."""
        self._overlap = 0 if self.settings.waits else min(trials, self.settings.population // 2)

    def _required(self) -> list[str]:
        """The members of the current generation whose scores the next one needs."""
        names = list(self._generation)
        return names[: max(len(names) - self._overlap, 0)]

    def add_evaluated_point(
        self,
        parameters: Mapping[str, Any],
        value: float | None,
        error: bool = False,
        pruned: bool = False,
        intermediate_values: Sequence[float] | None = None,
    ) -> None:
        """Replay one architecture; see :meth:`ArchitectureSearcher.add_evaluated_point`."""
        super().add_evaluated_point(parameters, value, error, pruned, intermediate_values)
        self._replaying = True
        self._ranking = None

    def _end_replay(self) -> bool:
        """Ends the replay. If it added architectures of no generation, makes the current generation again with them."""
        self._replaying = False
        if self._members.keys() >= self.history.keys():
            return False
        self._next_generation(self._number)
        return True

    def _next_generation(self, number: int) -> bool:
        """Makes a generation; returns whether it has members."""
        # In a replay the history already holds later generations: only the ones before may be looked at.
        known = self._members if self._replaying else self.history
        # Members that are not required are no parents yet, else the order of completion would matter.
        late = set(self._generation) - set(self._required())
        if number == 0:
            entries = self.history.done(name for name in known if name not in late)
            # Another run's rows may break this run's limits.
            usable = sum(self.sampler.feasible(entry.architecture) for entry in entries)
            first = map(self.planned, range(max(len(self.points), self.settings.population - usable)))
            self._generation = {key(member): member for member in first if member is not None}
        else:
            ranking = self._update_ranking(known, late)
            parents = {name: entry.architecture for _, name, entry in reversed(ranking.best)}
            self._generation = self._children(number, parents, ranking.taken)
        self._number = number
        self._members |= dict.fromkeys(self._generation)
        return bool(self._generation)

    def _update_ranking(self, known: Mapping[str, object], late: Collection[str]) -> _Ranking:
        """Updates the ranking by the results since the generation before."""
        ended, ranking = self.history.ended, self._ranking
        if (
            ranking is None
            or ranking.taken.known is not known
            or ranking.ended is not ended
            or ranking.mode != self.mode
        ):
            ranking = self._ranking = _Ranking(_Taken(known), ended, self.mode)
        if known is self.history:
            names = ranking.pending + ended[ranking.count :]
            ranking.count = len(ended)
        else:
            names = [*ranking.pending, *islice(known, ranking.count, None)]
            ranking.count = len(known)
        ranking.pending = []
        for name in names:
            entry = self.history.get(name)
            if name in late or entry is None or entry.status == "running":
                ranking.pending.append(name)
            elif entry.status == "done":
                place = (self.rank(entry), name, entry)
                full = len(ranking.best) == self.settings.parents
                # Another run's rows may break this run's limits.
                if (not full or place > ranking.best[0]) and self.sampler.feasible(entry.architecture):
                    insort(ranking.best, place)
                    del ranking.best[: -self.settings.parents]
        return ranking

    def _children(self, number: int, parents: dict[str, Architecture], taken: _Taken) -> dict[str, Architecture]:
        """Children by mutation, by crossover and, for the rest, at random; none of them ``taken``."""
        settings, names = self.settings, list(parents)
        decisions, probability = self.space.decisions, settings.mutation_probability
        others = {name: alternatives(decisions, parent, settings.avoided) for name, parent in parents.items()}

        def mutation(rng: Random) -> Child:
            one = rng.choice(names)
            return mutate(decisions, parents[one], rng, probability, others[one]), (one,)

        def cross(rng: Random) -> Child:
            first, second = rng.sample(names, 2) if len(names) > 1 else names * 2
            return crossover(decisions, parents[first], parents[second], rng), (first, second)

        operators: tuple[tuple[str, int, Callable[[Random], Child]], ...] = (
            ("mutation", settings.children[0], mutation),
            ("crossover", settings.children[1], cross),
        )
        children = taken.children = {}
        for name, needed, operator in operators if parents else ():
            rng = self.rng("generation", number, name)
            enough = len(children) + needed
            for _ in range(settings.attempts * needed):
                raw, origin = operator(rng)
                spelling = (*raw, *raw.values())
                if spelling in taken.spellings:
                    continue
                child = self.space.form(raw)
                child_key = key(child)
                known = child_key in taken
                if not known and self.sampler.feasible(child):
                    children[child_key], self.origins[child_key] = child, Origin(name, origin)
                    known = True
                if known and len(taken.spellings) < _SPELLINGS:
                    taken.spellings.add(spelling)
                if len(children) == enough:
                    break
        rng = self.rng("generation", number, "random")
        while len(children) < settings.population:
            sampled = self.sampler.sample_new(rng, taken)
            if sampled is None:
                break
            children[key(sampled)] = self.record_origin(sampled, "random")
        return children

    def get_state(self) -> dict[str, Any]:
        """Everything that the next suggestions depend on, as JSON data."""
        own = {
            "number": self._number,
            "generation": list(self._generation.values()),
            "members": sorted(self._members),
            "overlap": self._overlap,
            "replaying": self._replaying,
        }
        return super().get_state() | own

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores what :meth:`get_state` returned; see :meth:`ArchitectureSearcher.set_state`."""
        super().set_state(state)
        self._number = state["number"]
        self._generation = {key(member): member for member in state["generation"]}
        self._members = dict.fromkeys(state["members"])
        self._ranking = None
        self._overlap = state["overlap"]
        self._replaying = state["replaying"]
