"""The history of a search: architectures with their scores, their origins, and the results of a source search."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from raynas.architecture import Architecture, key
from raynas.exceptions import ConfigError
from raynas.search_space.space import SearchSpace

__all__ = ["ORIGINS", "Entry", "Origin", "Scores", "SearchHistory", "digest", "read_source"]

Scores = float | Mapping[int, float]
"""One score, or the scores by fidelity."""

ORIGINS = {
    "given": "given beforehand",
    "random": "sampled at random",
    "mutation": "a mutation",
    "crossover": "a crossover",
    "neighbour": "a neighbour",
    "child": "a child of the population",
    "model": "proposed by the model of the scores",
}
"""The values of :attr:`Origin.how` with a description."""


@dataclass(frozen=True)
class Origin:
    """How a proposed architecture was made.

    Attributes:
        how: One of :data:`ORIGINS`.
        parents: The keys of the architectures that it was made from, where known.
    """

    how: str
    parents: tuple[str, ...] = ()


@dataclass
class Entry:
    """One architecture and its scores.

    Attributes:
        architecture: In its canonical form.
        status: "running", "done" or "error" (failed, or without a finite score).
        scores: The finite scores by fidelity, as reported.
    """

    architecture: Architecture
    status: str = "running"
    scores: dict[int, float] = field(default_factory=dict)

    @property
    def fidelity(self) -> int:
        """The highest fidelity with a score; -1 without any."""
        return max(self.scores, default=-1)

    @property
    def score(self) -> float:
        """The score at the highest fidelity; NaN without any."""
        return self.scores.get(self.fidelity, math.nan)


class SearchHistory(Mapping[str, Entry]):
    """The entries by key, in the order in which their status last changed; the same after a replay."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._running: dict[str, str] = {}  # trial -> key
        self._ended: list[str] | None = []
        self._failed = 0

    def __getitem__(self, name: str) -> Entry:
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    @property
    def ended(self) -> list[str]:
        """The keys of the entries that have ended, in the order of the history.

        The same list object only grows. Where an earlier entry changes, another list is returned.
        """
        if self._ended is None:
            self._ended = [name for name, entry in self._entries.items() if entry.status != "running"]
        return self._ended

    @property
    def failed(self) -> int:
        """Number of entries with the status "error"."""
        return self._failed

    def newest(self) -> Iterator[Entry]:
        """All entries, newest first."""
        return reversed(self._entries.values())

    def start(self, trial: str, architecture: Architecture, scores: Mapping[int, float] | None = None) -> None:
        """Starts a trial of an architecture, or continues one from the scores that it had reported."""
        name = key(architecture)
        self._reopen(name)
        self._entries[name] = Entry(architecture, scores=dict(scores or {}))
        self._running[trial] = name

    def note(self, trial: str, fidelity: int, score: float) -> None:
        """Records a report of a trial. Unknown trials and scores that are not finite are ignored."""
        if trial in self._running and math.isfinite(score):
            self._entries[self._running[trial]].scores[fidelity] = float(score)

    def finish(self, trial: str, failed: bool) -> None:
        """Ends a trial: failed, or with the scores that it reported."""
        name = self._running.pop(trial, None)
        if name is not None:
            self._close(name, self._entries[name], failed)

    def replay(self, architecture: Architecture, scores: Mapping[int, float], failed: bool) -> None:
        """Adds an architecture that was scored before; its scores are merged with the existing ones."""
        name = key(architecture)
        entry = self._entries.get(name, Entry(architecture))
        entry.scores |= {int(f): float(score) for f, score in scores.items() if math.isfinite(score)}
        self._close(name, entry, failed)

    def _close(self, name: str, entry: Entry, failed: bool) -> None:
        self._reopen(name)
        entry.status = "error" if failed or not entry.scores else "done"
        self._entries.pop(name, None)
        self._entries[name] = entry
        self._failed += entry.status == "error"
        if self._ended is not None:
            self._ended.append(name)

    def _reopen(self, name: str) -> None:
        """Takes an entry that has ended out of the counts."""
        entry = self._entries.get(name)
        if entry is not None and entry.status != "running":
            self._ended = None
            self._failed -= entry.status == "error"

    def done(self, names: Iterable[str]) -> list[Entry]:
        """The entries with these keys that have a score."""
        return [entry for name in names if (entry := self._entries.get(name)) and entry.status == "done"]

    def running(self, names: Iterable[str]) -> bool:
        """Whether one of the entries with these keys is pending."""
        return any(name in self._entries and self._entries[name].status == "running" for name in names)

    def get_state(self) -> dict[str, Any]:
        """The whole history as JSON data."""
        rows = [[entry.architecture, entry.status, list(entry.scores.items())] for entry in self._entries.values()]
        return {"entries": rows, "live": dict(self._running)}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Restores what :meth:`get_state` returned."""
        entries = [Entry(form, status, {int(f): s for f, s in scores}) for form, status, scores in state["entries"]]
        self._entries = {key(entry.architecture): entry for entry in entries}
        self._running = dict(state["live"])
        self._ended = None
        self._failed = sum(entry.status == "error" for entry in entries)


def read_source(space: SearchSpace, pairs: Iterable[tuple[Mapping[str, str], Scores]]) -> tuple[Entry, ...]:
    """Reads architectures and scores of a source search; those without a finite score are left out.

    Raises:
        ArchitectureError: The space does not contain one of them.
        ConfigError: There is no finite score.
    """
    history = SearchHistory()
    for architecture, scores in pairs:
        by_fidelity = scores if isinstance(scores, Mapping) else {1: scores}
        history.replay(space.form(architecture), by_fidelity, failed=False)
    entries = tuple(entry for entry in history.values() if entry.status == "done")
    if not entries:
        raise ConfigError("the source of a warm start holds no finite score")
    return entries


def digest(entries: Sequence[Entry]) -> str:
    """A hash of a source: equal for equal architectures and scores in the same order."""
    rows = [[key(entry.architecture), sorted(entry.scores.items())] for entry in entries]
    return hashlib.blake2b(json.dumps(rows).encode(), digest_size=8).hexdigest()
