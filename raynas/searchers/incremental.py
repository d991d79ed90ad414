"""Base class of searchers whose state is updated by one result at a time, in the order of the history."""

from __future__ import annotations

from abc import abstractmethod

from raynas.searchers.base import ArchitectureSearcher
from raynas.searchers.history import Entry

__all__ = ["IncrementalSearcher"]


class IncrementalSearcher(ArchitectureSearcher):
    """Has a state that follows from the ended trials, in the order of the history, and from nothing else.

    The state is updated before each proposal by the new results alone. It is not saved: after a restore, or where an
    earlier entry was replayed again, it is computed again from the beginning.
    """

    _processed: list[str] | None = None
    _count, _used_mode = 0, ""

    @abstractmethod
    def reset(self) -> None:
        """Sets the state to that of an empty history."""

    @abstractmethod
    def update(self, name: str, entry: Entry) -> None:
        """Updates the state by the next entry, whose status is "done" or "error"."""

    def catch_up(self) -> None:
        """Updates the state by all new results."""
        ended = self.history.ended
        if ended is not self._processed or self._used_mode != self.mode:
            self._processed, self._count, self._used_mode = ended, 0, self.mode
            self.reset()
        for name in ended[self._count :]:
            self.update(name, self.history[name])
        self._count = len(ended)
