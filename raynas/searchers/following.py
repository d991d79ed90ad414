"""Searchers that learn score by score, in the order in which the scores came in."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from itertools import islice

from raynas.searchers.base import ArchitectureSearcher, Entry, SearchSpace

__all__ = ["Follower"]


class Follower(ArchitectureSearcher):
    """Keeps something that follows from the ended trials, in the order of the ledger, and from nothing else.

    It is brought up to date before each proposal, by what is new alone. It need not be saved: where a searcher was
    restored, or an old row was replayed again, it is made anew from the beginning.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int = 0,
        metric: str | None = None,
        mode: str | None = None,
        points_to_evaluate: Sequence[Mapping[str, str]] = (),
    ) -> None:
        super().__init__(space, seed=seed, metric=metric, mode=mode, points_to_evaluate=points_to_evaluate)
        self._learned: list[tuple[str, tuple[int, float]]] = []

    @abstractmethod
    def forget(self) -> None:
        """Go back to where nothing was scored."""

    @abstractmethod
    def learn(self, name: str, entry: Entry) -> None:
        """Take in the next entry: its status is "done" or "error"."""

    def follow(self) -> None:
        """Learn what has ended since the last time."""
        ended = [(name, self.rank(entry)) for name, entry in self.ledger.items() if entry.status != "running"]
        if ended[: len(self._learned)] != self._learned:
            self._learned = []
        if not self._learned:
            self.forget()
        for name, _ in islice(ended, len(self._learned), None):
            self.learn(name, self.ledger[name])
        self._learned = ended
