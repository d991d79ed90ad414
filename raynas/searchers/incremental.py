"""Searchers that learn score by score, in the order in which the scores came in."""

from __future__ import annotations

from abc import abstractmethod

from raynas.searchers.base import ArchitectureSearcher
from raynas.searchers.history import Entry

__all__ = ["IncrementalSearcher"]


class IncrementalSearcher(ArchitectureSearcher):
    """Keeps something that follows from the ended trials, in the order of the history, and from nothing else.

    It is brought up to date before each proposal, by what is new alone. It need not be saved: where a searcher was
    restored, or an old row was replayed again, it is made anew from the beginning.
    """

    _learned: list[str] | None = None
    _count, _by = 0, ""

    @abstractmethod
    def forget(self) -> None:
        """Go back to where nothing was scored."""

    @abstractmethod
    def learn(self, name: str, entry: Entry) -> None:
        """Take in the next entry: its status is "done" or "error"."""

    def follow(self) -> None:
        """Learn what has ended since the last time."""
        ended = self.history.ended
        if ended is not self._learned or self._by != self.mode:
            self._learned, self._count, self._by = ended, 0, self.mode
            self.forget()
        for name in ended[self._count :]:
            self.learn(name, self.history[name])
        self._count = len(ended)
