"""Architectures as plain data: pure functions on dictionaries, without torch or ray.

A space is known here by its *decisions* alone: a mapping from the name of each decision to its options,
``{"blocks.0": ("k3", "k5", "skip"), ...}``. An *architecture* is a plain dict that names one option for each
decision, ``{"blocks.0": "k5", ...}``. It can be typed by hand, stored as JSON and sent anywhere.

Decisions may be nested. ``"blocks.0.k5.width"`` stands under option ``k5`` of ``"blocks.0"``: it is part of an
architecture only where that option is chosen. Nesting is read off the names, so that the data stays plain.
"""

from __future__ import annotations

import bisect
import hashlib
import itertools
import json
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import methodcaller
from random import Random

from raynas.exceptions import ArchitectureError

__all__ = [
    "Architecture",
    "Decisions",
    "Graph",
    "Notation",
    "alternatives",
    "canonical",
    "chain",
    "complete",
    "crossover",
    "encode",
    "enumerate_all",
    "key",
    "mutate",
    "option_counts",
    "parent",
    "sample",
    "sample_uniform",
    "size",
]

_depth = methodcaller("count", ".")
"""Dots in the name of a decision; with fewer than two it stands under no other."""
_JSON = json.JSONEncoder(sort_keys=True, separators=(",", ":"))

Architecture = dict[str, str]
Decisions = Mapping[str, Sequence[str]]
Graph = Sequence[tuple[int, int, "str | None"]]
"""The operations of an architecture as edges (from node, to node, operation). None passes its input on unchanged; an
operation that carries nothing is left out. Nodes that nothing leads to are inputs, those that lead nowhere outputs."""


@dataclass(frozen=True)
class Notation:
    """Architectures as sequences of words, all of one length, for models that read and write them.

    Attributes:
        legal: The words that may stand at each place. The same word at two places means the same.
        write: The sequence of an architecture.
        read: The architecture of a sequence; every sequence of legal words is one.
        respell: Another sequence of the same network, drawn at random; None where each network has one alone.
    """

    legal: Sequence[Sequence[str]]
    write: Callable[[Architecture], Sequence[str]]
    read: Callable[[Sequence[str]], Architecture]
    respell: Callable[[Sequence[str], Random], Sequence[str]] | None = None


def parent(decisions: Decisions, name: str) -> tuple[str, str] | None:
    """The decision and the option under which ``name`` is nested, nearest first; None at the top level."""
    parts = name.split(".")
    for cut in range(len(parts) - 2, 0, -1):
        outer, option = ".".join(parts[:cut]), parts[cut]
        if outer in decisions and option in decisions[outer]:
            return outer, option
    return None


def _is_active(decisions: Decisions, architecture: Mapping[str, str], name: str) -> bool:
    """Whether every option above ``name`` is chosen in ``architecture``."""
    above = parent(decisions, name)
    while above is not None:
        outer, option = above
        if architecture.get(outer) != option:
            return False
        above = parent(decisions, outer)
    return True


def canonical(decisions: Decisions, architecture: Mapping[str, str]) -> Architecture:
    """Check an architecture and drop the decisions that stand under options it did not choose.

    Args:
        decisions: The space's decisions.
        architecture: One option per decision; decisions under unchosen options may be there or not.

    Returns:
        The same architecture with its active decisions alone, in the order of ``decisions``.

    Raises:
        ArchitectureError: An unknown or missing decision, or an option that the decision does not have.
    """
    unknown = [name for name in architecture if name not in decisions]
    if unknown:
        raise ArchitectureError(f"unknown decision {unknown[0]!r}; legal ones: {_shorten(decisions)}")
    result: Architecture = {}
    for name, options in decisions.items():
        if _depth(name) > 1 and not _is_active(decisions, architecture, name):
            continue
        if name not in architecture:
            raise ArchitectureError(f"decision {name!r} is missing; its options: {_shorten(options)}")
        if architecture[name] not in options:
            raise ArchitectureError(
                f"decision {name!r} has no option {architecture[name]!r}; legal ones: {_shorten(options)}"
            )
        result[name] = architecture[name]
    return result


def chain(architecture: Mapping[str, str]) -> Graph:
    """The graph of a space whose decisions follow one another, each of them an operation."""
    return [(place, place + 1, option) for place, option in enumerate(architecture.values())]


def _shorten(names: Sequence[str] | Mapping[str, object], most: int = 40) -> str:
    """A readable list of names, cut where it would fill the screen."""
    listed = ", ".join(map(repr, itertools.islice(names, most)))
    return listed if len(names) <= most else f"{listed}, ... ({len(names)} in all)"


def key(architecture: Mapping[str, str]) -> str:
    """A short name of an architecture: 16 hexadecimal digits, the same in every process and on every machine.

    Equal dictionaries have equal keys, whatever their order. Bring different dictionaries of the same network
    to their canonical form first.
    """
    return hashlib.blake2b(_JSON.encode(dict(architecture)).encode(), digest_size=8).hexdigest()


def sample(decisions: Decisions, rng: Random) -> Architecture:
    """Draw an architecture: every active decision independently and uniformly over its options.

    Where decisions are nested this is not uniform over the architectures; :func:`sample_uniform` is.
    """
    return _complete(decisions, {}, rng)


def sample_uniform(decisions: Decisions, rng: Random, counts: Mapping[tuple[str, str], int]) -> Architecture:
    """Draw an architecture such that each one has the same probability.

    Args:
        decisions: The space's decisions.
        rng: The generator to draw from. Where no decisions are nested the draw is that of :func:`sample`.
        counts: What :func:`option_counts` returns for these decisions.
    """

    def pick(name: str, options: tuple[str, ...]) -> str:
        weights = [counts[name, option] for option in options]
        if len(set(weights)) == 1:
            return rng.choice(options)
        place = rng.randrange(sum(weights))  # exact, also where the counts are too large for a float
        return options[bisect.bisect_right(list(itertools.accumulate(weights)), place)]

    return complete(decisions, {}, pick)


def _complete(decisions: Decisions, partial: Mapping[str, str], rng: Random) -> Architecture:
    return complete(decisions, partial, lambda _, options: rng.choice(options))


def complete(
    decisions: Decisions, partial: Mapping[str, str], pick: Callable[[str, tuple[str, ...]], str]
) -> Architecture:
    """Keep what ``partial`` says, decide the active decisions it leaves open, drop the inactive ones.

    Args:
        decisions: The space's decisions.
        partial: The decisions already taken; may be empty.
        pick: Called as ``pick(name, options)`` for every open decision, outer ones before those nested in them.

    Returns:
        An architecture with one option for every active decision.
    """
    if partial.keys() == decisions.keys() and max(map(_depth, decisions), default=0) < 2:
        return {name: partial[name] for name in decisions}  # nothing is open, nothing nested
    result = dict(partial)
    # An outer decision may be listed after the ones nested in it: decide from the outside to the inside.
    for name in sorted(decisions, key=_depth):
        if _depth(name) > 1 and not _is_active(decisions, result, name):
            result.pop(name, None)
        elif name not in result:
            result[name] = pick(name, tuple(decisions[name]))
    return {name: result[name] for name in decisions if name in result}


def alternatives(
    decisions: Decisions, architecture: Mapping[str, str], avoided: Collection[str] = ()
) -> dict[str, list[str]]:
    """The options to which a mutation may change each decision of an architecture: all others that are not avoided."""
    return {name: [o for o in decisions[name] if o != own and o not in avoided] for name, own in architecture.items()}


def mutate(
    decisions: Decisions,
    architecture: Mapping[str, str],
    rng: Random,
    probability: float = 0.1,
    others: Mapping[str, Sequence[str]] | None = None,
) -> Architecture:
    """Change each decision with the given probability to another of its options, and at least one of them.

    The mutation of SPOS (Guo et al., ECCV 2020) and of regularized evolution (Real et al., AAAI 2019), without
    redrawing the same option. Decisions that become active by a change are drawn uniformly.

    Args:
        decisions: The space's decisions.
        architecture: The parent; not changed.
        rng: The generator to draw from.
        probability: Chance of each decision to change, in [0, 1].
        others: What :func:`alternatives` returns for the parent, of which many children are made.

    Returns:
        The child. It equals the parent only where no decision has another option to change to.
    """
    others = alternatives(decisions, architecture) if others is None else others
    changeable = [name for name in architecture if others[name]]
    if not changeable:
        return dict(architecture)
    chosen = [name for name in changeable if rng.random() < probability] or [rng.choice(changeable)]
    child = dict(architecture)
    for name in chosen:
        child[name] = rng.choice(others[name])
    return _complete(decisions, child, rng)


def crossover(decisions: Decisions, first: Mapping[str, str], second: Mapping[str, str], rng: Random) -> Architecture:
    """A child that takes every decision from either parent with equal chance (uniform crossover, as in SPOS)."""
    if len(first) == len(second) == len(decisions):  # all decisions are active in both, so they are in the child
        return {name: rng.choice((first[name], second[name])) for name in decisions}
    child: Architecture = {}
    for name in decisions:
        genes = [either[name] for either in (first, second) if name in either]
        if genes:
            child[name] = rng.choice(genes)
    return _complete(decisions, child, rng)


def encode(decisions: Decisions, architecture: Mapping[str, str]) -> list[float]:
    """One-hot code of an architecture, decision after decision; zeros where a decision is not active.

    Returns:
        A list of length ``sum(len(options) for options in decisions.values())``.
    """
    return [float(architecture.get(name) == option) for name, options in decisions.items() for option in options]


def option_counts(decisions: Decisions) -> dict[tuple[str, str], int]:
    """How many combinations of the decisions nested under each option there are, by (decision, option); 1 without any.

    Args:
        decisions: The space's decisions.
    """
    counts = {(name, option): 1 for name, options in decisions.items() for option in options}
    for name in sorted(decisions, key=_depth, reverse=True):  # a decision has more dots than the one above it
        above = parent(decisions, name)
        if above is not None:
            counts[above] *= sum(counts[name, option] for option in decisions[name])
    return counts


def size(decisions: Decisions) -> int:
    """How many different architectures the decisions describe (nested ones counted only where they are active)."""
    counts = option_counts(decisions)
    top = (name for name in decisions if parent(decisions, name) is None)
    return math.prod(sum(counts[name, option] for option in decisions[name]) for name in top)


def enumerate_all(decisions: Decisions) -> Iterator[Architecture]:
    """Every architecture once, in a fixed order. Look at :func:`size` before you start."""
    order = sorted(decisions, key=lambda n: n.count("."))

    def extend(partial: Architecture, rest: Sequence[str]) -> Iterator[Architecture]:
        if not rest:
            yield {name: partial[name] for name in decisions if name in partial}
        elif not _is_active(decisions, partial, rest[0]):
            yield from extend(partial, rest[1:])
        else:
            for option in decisions[rest[0]]:
                yield from extend({**partial, rest[0]: option}, rest[1:])

    yield from extend({}, order)
