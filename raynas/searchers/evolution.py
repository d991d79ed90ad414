"""Evolution in generations, as in SPOS (Guo et al., "Single Path One-Shot Neural Architecture Search", ECCV 2020)."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from random import Random
from typing import Any

from ray.tune.search import Searcher

from raynas.architecture import Architecture, crossover, key, mutate
from raynas.search_space.space import SearchSpace
from raynas.searchers.base import ArchitectureSearcher
from raynas.searchers.checks import check_counts, check_numbers, check_ranges
from raynas.searchers.history import Entry

__all__ = ["Evolution", "EvolutionSettings"]

Child = tuple[Architecture, list[Architecture]]
"""An architecture and its parents."""


@dataclass(frozen=True)
class EvolutionSettings:
    """How the generations are made; the defaults are those of SPOS.

    Attributes:
        population: Architectures in each generation. Those that mutation and crossover leave open are random.
        parents: How many of the best of all generations have children.
        mutations: Children by mutation in each generation; by default half of the population.
        crossovers: Children by crossover in each generation; by default the other half.
        mutation_probability: Chance of each decision to change in a mutation; at least one does.
        attempts: Children tried for each one wanted; the others were known already or infeasible.
        avoided: Options to which no mutation changes a decision.
        waits: Whether a generation waits for all of the one before, as in the papers, while workers stand idle.

    Raises:
        ValueError: A count out of range; more children than the population holds.
    """

    population: int = 50
    parents: int = 10
    mutations: int | None = None
    crossovers: int | None = None
    mutation_probability: float = 0.1
    attempts: int = 10
    avoided: Sequence[str] = ()
    waits: bool = False

    def __post_init__(self) -> None:
        check_ranges(self, {
            "avoided": (not isinstance(self.avoided, str), "a list of options"),
            "waits": (isinstance(self.waits, bool), "true or false"),
        })  # fmt: skip
        object.__setattr__(self, "avoided", list(self.avoided))  # as it comes back from JSON
        given = [name for name in ("mutations", "crossovers") if getattr(self, name) is not None]
        check_counts(self, {"population": 1, "parents": 1, "attempts": 1, **dict.fromkeys(given, 0)})
        check_numbers(self, ["mutation_probability"])
        check_ranges(self, {"mutation_probability": (0.0 <= self.mutation_probability <= 1.0, "from 0 to 1")})
        if sum(self.children) > self.population:
            raise ValueError(
                f"mutations + crossovers is {sum(self.children)}; legal: up to the population, {self.population}"
            )

    @property
    def children(self) -> tuple[int, int]:
        """How many by mutation and by crossover."""
        half = self.population // 2
        mutations = (
            max(min(half, self.population - (self.crossovers or 0)), 0) if self.mutations is None else self.mutations
        )
        crossovers = max(self.population - mutations, 0) if self.crossovers is None else self.crossovers
        return mutations, crossovers


class _Taken(Collection[str]):
    """The keys that a new child must not have: of what is known, and of its generation."""

    def __init__(self, known: Mapping[str, object]) -> None:
        self.known = known
        self.children: dict[str, Architecture] = {}
        """Of the generation that is made; none of them is known."""

    def __contains__(self, name: object) -> bool:
        return name in self.known or name in self.children

    def __iter__(self) -> Iterator[str]:
        return chain(self.known, self.children)

    def __len__(self) -> int:
        return len(self.known) + len(self.children)


@dataclass
class _Seen:
    """What earlier generations have looked at, so that each of them need only look at what is new."""

    taken: _Taken
    ended: list[str]
    """See :attr:`raynas.searchers.history.SearchHistory.ended`."""
    mode: str
    count: int = 0
    """So many of those that are known were looked at."""
    waiting: list[str] = field(default_factory=list)
    """Keys of those that have no score yet, or are not to be parents yet."""
    best: list[tuple[tuple[int, float], str, Entry]] = field(default_factory=list)
    """The best so far by rank and key, best last: as many as there are parents."""


class Evolution(ArchitectureSearcher):
    """Mutates and crosses the best of all generations so far.

    A generation is made when the one before is scored; until then ``suggest`` returns None. So the children depend on
    scores alone, not on the order in which trials complete, and a replay makes the same generations again. Workers
    would stand idle while the last of a generation are scored: where :meth:`expect_in_flight` says that ``n`` trials
    are in flight, and the settings do not say to wait, the next generation is made without waiting for its last ``n``
    members, which become parents one generation later (``n`` at most half the population). Rows of the log that belong
    to none of them (another searcher's, another seed's) join as if they had been scored before the generation at which
    the replay ends.

    Args:
        space: What may be proposed.
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
        there = sorted({option for options in space.decisions.values() for option in options})
        for option in self.settings.avoided:
            if option not in there:
                raise ValueError(f"avoided: no decision has an option {option!r}; legal ones: {', '.join(there)}")
        self._number = -1  # of the current generation
        self._generation: dict[str, Architecture] = {}  # by key
        self._members: dict[str, None] = {}  # keys of this and all earlier generations
        self._seen: _Seen | None = None
        self._overlap = 0
        self._replaying = False

    def propose(self) -> Architecture | str | None:
        """The next member of the current generation; None while it is being scored."""
        while True:
            unknown = next((member for name, member in self._generation.items() if name not in self.history), None)
            if unknown is None:
                if self.history.running(self._awaited()):
                    return None
                if not self._breed(self._number + 1) and self._number > 0:
                    return Searcher.FINISHED
            elif not self._replaying or not self._adopt():
                return unknown

    def expect_in_flight(self, trials: int) -> None:
        """Begin a generation while up to so many members of the one before are still being scored."""
        self._overlap = 0 if self.settings.waits else min(trials, self.settings.population // 2)

    def _awaited(self) -> list[str]:
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
        self._seen = None

    def _adopt(self) -> bool:
        """End the replay. Where it brought strangers, make the current generation anew, knowing them."""
        self._replaying = False
        if self._members.keys() >= self.history.keys():
            return False
        self._breed(self._number)
        return True

    def _breed(self, number: int) -> bool:
        """Make a generation; whether it has members."""
        # In a replay the history already holds later generations: only the ones before may be looked at.
        known = self._members if self._replaying else self.history
        # Who is not waited for is no parent yet, even if its score is there: else the order of completion would count.
        late = set(self._generation) - set(self._awaited())
        if number == 0:
            entries = self.history.done(name for name in known if name not in late)
            # Another run's rows may break this run's limits.
            usable = sum(self.sampler.feasible(entry.architecture) for entry in entries)
            first = map(self.planned, range(max(len(self.points), self.settings.population - usable)))
            self._generation = {key(member): member for member in first if member is not None}
        else:
            seen = self._look(known, late)
            parents = [entry.architecture for *_, entry in reversed(seen.best)]
            self._generation = self._children(number, parents, seen.taken)
        self._number = number
        self._members |= dict.fromkeys(self._generation)
        return bool(self._generation)

    def _look(self, known: Mapping[str, object], late: Collection[str]) -> _Seen:
        """Rank what is new since the generation before: the best that are known become parents."""
        ended, seen = self.history.ended, self._seen
        if seen is None or seen.taken.known is not known or seen.ended is not ended or seen.mode != self.mode:
            seen = self._seen = _Seen(_Taken(known), ended, self.mode)
        if known is self.history:
            waiting = seen.waiting + ended[seen.count :]
            seen.count = len(ended)
        else:
            waiting = [*seen.waiting, *islice(known, seen.count, None)]
            seen.count = len(known)
        seen.waiting = []
        for name in waiting:
            entry = self.history.get(name)
            if name in late or entry is None or entry.status == "running":
                seen.waiting.append(name)
            elif entry.status == "done":
                place = (self.rank(entry), name, entry)
                full = len(seen.best) == self.settings.parents
                # Another run's rows may break this run's limits.
                if (not full or place > seen.best[0]) and self.sampler.feasible(entry.architecture):
                    insort(seen.best, place)
                    del seen.best[: -self.settings.parents]
        return seen

    def _children(self, number: int, parents: list[Architecture], taken: _Taken) -> dict[str, Architecture]:
        """Mutants, crossings and, for what these leave open, random architectures; none of them ``taken``."""
        settings = self.settings
        operators: tuple[tuple[str, int, Callable[[Random], Child]], ...] = (
            ("mutation", settings.children[0], lambda rng: self._mutant(parents, rng)),
            ("crossover", settings.children[1], lambda rng: self._crossing(parents, rng)),
        )
        children = taken.children = {}
        for name, wanted, operator in operators if parents else ():
            rng = self.rng("generation", number, name)
            enough = len(children) + wanted
            for _ in range(settings.attempts * wanted):
                raw, origin = operator(rng)
                child = self.space.form(raw)
                if key(child) not in taken and self.sampler.feasible(child):
                    children[key(child)] = self.record_origin(child, name, *origin)
                if len(children) == enough:
                    break
        rng = self.rng("generation", number, "random")
        while len(children) < settings.population:
            drawn = self.sampler.sample_new(rng, taken)
            if drawn is None:
                break
            children[key(drawn)] = self.record_origin(drawn, "random")
        return children

    def _mutant(self, parents: list[Architecture], rng: Random) -> Child:
        parent = rng.choice(parents)
        settings = self.settings
        return mutate(self.space.decisions, parent, rng, settings.mutation_probability, settings.avoided), [parent]

    def _crossing(self, parents: list[Architecture], rng: Random) -> Child:
        first, second = rng.sample(parents, 2) if len(parents) > 1 else parents * 2
        return crossover(self.space.decisions, first, second, rng), [first, second]

    def get_state(self) -> dict[str, Any]:
        """All that the next suggestions depend on, as plain JSON data."""
        own = {
            "number": self._number,
            "generation": list(self._generation.values()),
            "members": sorted(self._members),
            "overlap": self._overlap,
            "replaying": self._replaying,
        }
        return super().get_state() | own

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`get_state` returned; see :meth:`ArchitectureSearcher.set_state`."""
        super().set_state(state)
        self._number = state["number"]
        self._generation = {key(member): member for member in state["generation"]}
        self._members = dict.fromkeys(state["members"])
        self._seen = None
        self._overlap = state["overlap"]
        self._replaying = state["replaying"]
