"""What a searcher knows: every architecture that was proposed or replayed, and the scores heard of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from raynas.architecture import Architecture, key

__all__ = ["Entry", "SearchHistory"]


@dataclass
class Entry:
    """What is known of one architecture.

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
    """The entries by key. Those whose status changed last stand last, in a rebuilt history too."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._live: dict[str, str] = {}  # trial -> key
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
        """The keys of those that have ended, in their order here.

        Who has looked at the first n need not look again: the same list only grows, and where an earlier entry changes
        it is another list.
        """
        if self._ended is None:
            self._ended = [name for name, entry in self._entries.items() if entry.status != "running"]
        return self._ended

    @property
    def failed(self) -> int:
        """How many have failed."""
        return self._failed

    def newest(self) -> Iterator[Entry]:
        """All entries, the last one first."""
        return reversed(self._entries.values())

    def start(self, trial: str, architecture: Architecture, scores: Mapping[int, float] | None = None) -> None:
        """A trial begins to score an architecture, or goes on from scores that were reported before."""
        name = key(architecture)
        self._reopen(name)
        self._entries[name] = Entry(architecture, scores=dict(scores or {}))
        self._live[trial] = name

    def note(self, trial: str, fidelity: int, score: float) -> None:
        """A trial reports. Unknown trials and scores that are not finite are passed over."""
        if trial in self._live and math.isfinite(score):
            self._entries[self._live[trial]].scores[fidelity] = float(score)

    def finish(self, trial: str, failed: bool) -> None:
        """A trial ends: with what it reported, or failed."""
        name = self._live.pop(trial, None)
        if name is not None:
            self._close(name, self._entries[name], failed)

    def replay(self, architecture: Architecture, scores: Mapping[int, float], failed: bool) -> None:
        """Enter an architecture that was scored before; the scores are added to those that are known."""
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
        """An entry changes: what was counted of it counts no more."""
        known = self._entries.get(name)
        if known is not None and known.status != "running":
            self._ended = None
            self._failed -= known.status == "error"

    def done(self, names: Iterable[str]) -> list[Entry]:
        """Those of these that have a score."""
        return [entry for name in names if (entry := self._entries.get(name)) and entry.status == "done"]

    def running(self, names: Iterable[str]) -> bool:
        """Whether one of these is in flight."""
        return any(name in self._entries and self._entries[name].status == "running" for name in names)

    def get_state(self) -> dict[str, Any]:
        """Everything, as plain JSON data."""
        rows = [[entry.architecture, entry.status, list(entry.scores.items())] for entry in self._entries.values()]
        return {"entries": rows, "live": dict(self._live)}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`get_state` returned."""
        entries = [Entry(form, status, {int(f): s for f, s in scores}) for form, status, scores in state["entries"]]
        self._entries = {key(entry.architecture): entry for entry in entries}
        self._live = dict(state["live"])
        self._ended = None
        self._failed = sum(entry.status == "error" for entry in entries)
