"""How a proposed architecture came about."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ORIGINS", "Origin"]

ORIGINS = {
    "given": "given beforehand",
    "random": "drawn by chance",
    "mutation": "a mutation",
    "crossover": "a crossing",
    "neighbour": "a neighbour",
    "child": "a child of the population",
    "model": "what the model of the scores expected most of",
}
"""What :attr:`Origin.how` may be, with the words for it."""


@dataclass(frozen=True)
class Origin:
    """Where an architecture comes from.

    Attributes:
        how: One of :data:`ORIGINS`.
        parents: The keys of those that it was made from, as far as they are known.
    """

    how: str
    parents: tuple[str, ...] = ()
