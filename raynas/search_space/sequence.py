"""Architectures as sequences of words: what a sequence model reads and writes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from random import Random

from raynas import architecture as arch
from raynas.architecture import Architecture, Notation, key
from raynas.exceptions import ArchitectureError
from raynas.search_space.space import SearchSpace

__all__ = ["SequenceEncoder"]

_ABSENT = ""  # stands for a decision that is not active
_TRIES = 60  # changes of an architecture tried in search of equivalent ones


class SequenceEncoder:
    """Writes the architectures of a space as sequences of T word numbers, and reads them.

    The words are those of ``space.notation``; without one, the options, a place for every decision, the outer ones
    before those nested in them.

    Args:
        space: The search space.

    Attributes:
        words: Every word; its number is its place here. Number 0 begins a sequence and stands nowhere in it.
        legal: The numbers of the words that may stand at each place, where the decision is active.
        under: For each place the earlier place and the word there that make it active; None where it always is.
    """

    def __init__(self, space: SearchSpace) -> None:
        self.space = space
        decisions = space.decisions
        self._order = sorted(decisions, key=lambda name: name.count("."))
        parents = [arch.parent(decisions, name) for name in self._order]
        self.notation = space.notation or Notation([decisions[n] for n in self._order], self._options, self._chosen)
        self.words = list(dict.fromkeys(["<start>", _ABSENT, *(w for words in self.notation.legal for w in words)]))
        self._numbers = {word: number for number, word in enumerate(self.words)}
        self.legal = [[self._numbers[word] for word in words] for words in self.notation.legal]
        self.under: list[tuple[int, int] | None] = [None] * len(self.legal)
        if space.notation is None:
            self.under = [p and (self._order.index(p[0]), self._numbers[p[1]]) for p in parents]
        self.absent = self._numbers[_ABSENT]

    def _options(self, architecture: Architecture) -> list[str]:
        return [architecture.get(name, _ABSENT) for name in self._order]

    def _chosen(self, words: Sequence[str]) -> Architecture:
        return {name: word for name, word in zip(self._order, words, strict=True) if word != _ABSENT}

    def write(self, architecture: Architecture) -> list[int]:
        """The word numbers [T] of an architecture."""
        return [self._numbers[word] for word in self.notation.write(architecture)]

    def read(self, numbers: Sequence[int]) -> Architecture | None:
        """The canonical form of a sequence; None where the space does not contain it."""
        try:
            return self.space.form(self.notation.read([self.words[number] for number in numbers]))
        except ArchitectureError:
            return None

    def equivalent_sequences(self, architecture: Architecture, rng: Random, count: int) -> list[list[int]]:
        """Up to ``count`` sequences of equivalent architectures; its own comes first."""
        sequences = [tuple(self.write(architecture))]
        if self.notation.respell is not None:
            words = list(self.notation.write(architecture))
            for _ in range(count - 1):
                words = list(self.notation.respell(words, rng))
                sequences.append(tuple(self._numbers[word] for word in words))
        elif self.space.notation is None and (self.space.canonical or self.space.alike):
            sequences += [tuple(self.write(other)) for other in self._same(architecture, rng)]
        return [list(numbers) for numbers in list(dict.fromkeys(sequences))[:count]]

    def _same(self, architecture: Architecture, rng: Random) -> list[Architecture]:
        """Architectures with the same form that differ by one option or by two exchanged options."""
        decisions, known = self.space.decisions, self._compared(architecture)
        changes = [{name: option} for name in architecture for option in decisions[name]]
        changes += [{one: architecture[two], two: architecture[one]} for one, two in combinations(architecture, 2)]
        changes = [change for change in changes if not change.items() <= architecture.items()]
        sequences: list[Architecture] = []
        for change in rng.sample(changes, min(_TRIES, len(changes))):
            try:
                other = arch.canonical(decisions, architecture | change)
                if self._compared(other) == known:
                    sequences.append(other)
            except ArchitectureError:  # exchanged between decisions with other options
                continue
        return sequences

    def _compared(self, architecture: Architecture) -> str:
        form = self.space.form(architecture)
        return key(form if self.space.alike is None else self.space.alike(form))
