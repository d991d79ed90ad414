"""Architectures as numbers for models of their scores: options, paths through the network, counts of operations."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from itertools import accumulate
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt

from raynas import architecture as arch
from raynas.architecture import Architecture, Graph, key
from raynas.search_space.space import SearchSpace

__all__ = ["Encoder", "Features", "routes"]

Array = npt.NDArray[Any]

_BINS = 64  # path features are hashed into so many columns
_ROUTES = 500  # a graph with more routes is described by the first ones
_SHORT = 4  # operations of a route that counts as one word
_REFERENCE = 200  # random architectures that give the features their scale


@dataclass(frozen=True)
class Features:
    """N architectures, row by row, in single precision."""

    options: Array
    """[N, O]: 1 where the option of a decision is chosen; one more column each for decisions that are inactive. The
    levels of an ordered decision lie on a half circle instead: neighbours are alike, the two ends opposite."""
    paths: Array
    """[N, P]: how often each sequence of operations occurs between input and output; P = 0 without a graph."""
    counts: Array
    """[N, C]: how often each operation occurs, the depth, and the number of routes; C = 0 without a graph."""
    prior_mean: Array
    """[N, H]: the scores that a model of another search's results predicts; H = 1 in a warm start, else 0."""

    def __len__(self) -> int:
        return len(self.options)

    def astype(self, kind: npt.DTypeLike) -> Features:
        """The same in another precision."""
        return Features(*(getattr(self, field.name).astype(kind, copy=False) for field in fields(self)))

    def __getitem__(self, rows: Any) -> Features:
        """Some of the rows."""
        return Features(*(getattr(self, field.name)[rows] for field in fields(self)))


def routes(graph: Graph) -> list[tuple[str, ...]]:
    """The sequences of operations from an input to an output, one for each way through the graph."""
    leaving: dict[int, list[tuple[int, str | None]]] = {}
    for source, target, operation in graph:
        leaving.setdefault(source, []).append((target, operation))
    found: list[tuple[str, ...]] = []
    open_ends: list[tuple[int, tuple[str, ...]]] = [(node, ()) for node in leaving.keys() - {edge[1] for edge in graph}]
    while open_ends and len(found) < _ROUTES:
        node, route = open_ends.pop()
        for target, operation in leaving[node]:
            longer = route if operation is None else (*route, operation)
            if target in leaving:
                open_ends.append((target, longer))
            else:
                found.append(longer)
    return found


class Encoder:
    """Turns architectures into :class:`Features`, each of them once.

    Paths and counts are scaled such that two random architectures are about 1 apart (squared distance), whatever the
    space.

    Args:
        space: Without ``space.graph`` there are no paths and counts.
        seed: Of the random architectures that give the scale.
        prior_mean: Computes ``Features.prior_mean`` from the other features; None without a warm start.
    """

    def __init__(
        self, space: SearchSpace, seed: int = 0, prior_mean: Callable[[Features], Array] | None = None
    ) -> None:
        self.space = space
        self._prior_mean = prior_mean
        self._offsets = dict(
            zip(space.decisions, accumulate((len(o) + 1 for o in space.decisions.values()), initial=0), strict=False)
        )
        self._width = sum(len(options) + 1 for options in space.decisions.values())
        self.blocks = [
            np.arange(start, start + len(space.decisions[name]) + 1) for name, start in self._offsets.items()
        ]
        """The columns of ``Features.options`` that belong to each decision."""
        self._known: dict[str, tuple[Array, Array, Array]] = {}
        self._operations: list[str] = []
        self._scale: tuple[Array, Array, float] | None = None
        if space.graph is not None:
            rng = Random(f"{seed}/reference")
            drawn = [self._compared(space.form(arch.sample(space.decisions, rng))) for _ in range(_REFERENCE)]
            graphs = [space.graph(architecture) for architecture in drawn]
            self._operations = sorted({operation for graph in graphs for *_, operation in graph if operation})
            counts = np.array([self._count(graph, routes(graph)) for graph in graphs])
            paths = np.array([self._hash(routes(graph)) for graph in graphs])
            deviation, far = counts.std(0), float(np.sqrt(2 * paths.var(0).sum()))
            varies = deviation > 1e-9
            # The squared distance of two random rows is twice the summed variance.
            scale = np.where(varies, deviation, 1.0) * np.sqrt(2 * max(varies.sum(), 1))
            self._scale = (counts.mean(0), scale, far or 1.0)

    def __call__(self, architectures: Sequence[Architecture]) -> Features:
        """Encodes N architectures in their canonical form."""
        rows = [self._row(architecture) for architecture in architectures]
        empty = np.zeros((len(rows), 0), np.float32)
        if not rows:
            return Features(empty, empty, empty, empty)
        options, paths, counts = (np.stack(column) for column in zip(*rows, strict=True))
        encoded = Features(options, paths, counts, empty)
        return encoded if self._prior_mean is None else replace(encoded, prior_mean=self._prior_mean(encoded))

    def _compared(self, architecture: Architecture) -> Architecture:
        return architecture if self.space.alike is None else self.space.alike(architecture)

    def _row(self, architecture: Architecture) -> tuple[Array, Array, Array]:
        compared = self._compared(architecture)
        name = key(compared)
        if name not in self._known:
            options = np.zeros(self._width)
            for decision, legal in self.space.decisions.items():
                chosen = compared.get(decision)
                place = len(legal) if chosen is None else list(legal).index(chosen)
                start = self._offsets[decision]
                if chosen is not None and decision in self.space.ordered and len(legal) > 1:
                    angle = np.pi * place / (len(legal) - 1)
                    options[start : start + 2] = np.cos(angle), np.sin(angle)
                else:
                    options[start + place] = 1.0
            paths = counts = np.zeros(0)
            if self.space.graph is not None and self._scale is not None:
                graph = self.space.graph(compared)
                ways = routes(graph)
                mean, scale, far = self._scale
                counts, paths = (self._count(graph, ways) - mean) / scale, self._hash(ways) / far
            single = (values.astype(np.float32) for values in (options, paths, counts))
            self._known[name] = tuple(single)  # type: ignore[assignment]
        return self._known[name]

    def _count(self, graph: Graph, ways: Sequence[tuple[str, ...]]) -> Array:
        seen = Counter(operation for *_, operation in graph)
        depth = max(map(len, ways), default=0)
        return np.array([*(seen[operation] for operation in self._operations), depth, np.log1p(len(ways))], float)

    def _hash(self, ways: Sequence[tuple[str, ...]]) -> Array:
        """Short routes as they are; of long ones, no two of which are equal, the pairs and triples of operations."""
        words: list[tuple[str, ...]] = [way for way in ways if len(way) <= _SHORT]
        words += [w[i : i + n] for w in ways if len(w) > _SHORT for n in (2, 3) for i in range(len(w) - n + 1)]
        bins = np.zeros(_BINS)
        for word, times in Counter(words).items():
            # Python's own hash differs from process to process.
            bins[zlib.crc32("/".join(word).encode()) % _BINS] += times
        return bins
