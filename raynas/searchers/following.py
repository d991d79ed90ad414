"""Searchers that learn score by score, in the order in which the scores came in."""

from __future__ import annotations

from abc import abstractmethod
from itertools import islice

from raynas.searchers.base import ArchitectureSearcher, Entry
from raynas.searchers.standing import Rank

__all__ = ["Follower"]


class Follower(ArchitectureSearcher):
    """Keeps something that follows from the ended trials, in the order of the ledger, and from nothing else.

    It is brought up to date before each proposal, by what is new alone. It need not be saved: where a searcher was
    restored, or an old row was replayed again, it is made anew from the beginning.
    """

    _learned: tuple[tuple[str, Rank], ...] = ()

    @abstractmethod
    def forget(self) -> None:
        """Go back to where nothing was scored."""

    @abstractmethod
    def learn(self, name: str, entry: Entry) -> None:
        """Take in the next entry: its status is "done" or "error"."""

    def follow(self) -> None:
        """Learn what has ended since the last time."""
        items = self.ledger.items()
        ended = tuple((name, self.rank(entry)) for name, entry in items if entry.status != "running")
        if ended[: len(self._learned)] != self._learned:
            self._learned = ()
        if not self._learned:
            self.forget()
        for name, _ in islice(ended, len(self._learned), None):
            self.learn(name, self.ledger[name])
        self._learned = ended
