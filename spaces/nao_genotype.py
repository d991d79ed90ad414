"""The architectures of the NAO and ENAS cell space as plain data: their decisions, one form for equal ones, notation.

A cell has two inputs, the nodes 0 and 1, and five nodes of its own, 2 to 6, each of which adds up two operations on any
two of the nodes before it, which may be one and the same. What no node reads is the cell's output. Four decisions a
node, ``normal.4.input1``, ``normal.4.operation1`` and the same with 2, for two cells: 2.6e25 architectures, in the
order of the sequence of 40 numbers in which NAO writes them. In the network itself every edge is a Choice: see
:func:`choose`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from random import Random

__all__ = [
    "CELLS",
    "DECISIONS",
    "NODES",
    "OPTIONS",
    "canonical_form",
    "choose",
    "edge",
    "from_sequence",
    "from_words",
    "graph",
    "outlet",
    "respell",
    "to_sequence",
    "to_words",
    "topology",
    "unread",
]

OPTIONS = ("sep_conv_3x3", "sep_conv_5x5", "avg_pool_3x3", "max_pool_3x3", "skip_connect")
"""In the order in which NAO numbers them."""
CELLS = ("normal", "reduction")
NODES = (2, 3, 4, 5, 6)
"""The nodes of a cell; 0 and 1 are its inputs, the outputs of the cell before the last and of the last."""
_OUTPUT = 7
"""The number of a cell's output in :func:`graph`."""
Reads = tuple[tuple[int, str], tuple[int, str]]
"""What a node reads: twice a node and the operation on it."""


def edge(cell: str, node: int, place: int, source: int) -> str:
    """The name of an edge in :func:`choose`: from ``source``, as the first (1) or second (2) of what a node adds up."""
    return f"{cell}.{node}.{place}.{source}"


def outlet(cell: str, node: int) -> str:
    """The name of the edge from a node to the output of its cell in :func:`choose`."""
    return f"{cell}.output.{node}"


def _decisions() -> Iterator[tuple[str, tuple[str, ...]]]:
    for cell in CELLS:
        for node in NODES:
            for place in (1, 2):
                yield f"{cell}.{node}.input{place}", tuple(map(str, range(node)))
                yield f"{cell}.{node}.operation{place}", OPTIONS


DECISIONS: dict[str, tuple[str, ...]] = dict(_decisions())


def _read(architecture: Mapping[str, str], cell: str) -> dict[int, Reads]:
    """What each node of a cell reads."""

    def one(node: int, place: int) -> tuple[int, str]:
        return int(architecture[f"{cell}.{node}.input{place}"]), architecture[f"{cell}.{node}.operation{place}"]

    return {node: (one(node, 1), one(node, 2)) for node in NODES}


def _write(cell: str, nodes: Mapping[int, Reads]) -> dict[str, str]:
    """The inverse of :func:`_read`."""
    architecture = {}
    for node, reads in nodes.items():
        for place, (source, option) in enumerate(reads, 1):
            architecture |= {f"{cell}.{node}.input{place}": str(source), f"{cell}.{node}.operation{place}": option}
    return architecture


def unread(architecture: Mapping[str, str], cell: str) -> tuple[int, ...]:
    """The nodes of a cell, its inputs among them, that no node reads: its output. There are one to six."""
    read = {source for reads in _read(architecture, cell).values() for source, _ in reads}
    return tuple(node for node in (0, 1, *NODES) if node not in read)


def choose(architecture: Mapping[str, str], evaluation: bool = False) -> dict[str, str]:
    """The option of every Choice in the network.

    ``{"normal.2.1.0": "sep_conv_3x3", ...}`` with "none" for edges that are not taken, and ``"normal.output.3"``:
    "unread" or "read". With ``evaluation``, for networks by themselves, also how many nodes are the output of each
    cell, ``{"normal.width": "3", ...}``.
    """
    options = {}
    for cell in CELLS:
        for node, reads in _read(architecture, cell).items():
            for place, (taken, option) in enumerate(reads, 1):
                for source in range(node):
                    options[edge(cell, node, place, source)] = option if source == taken else "none"
        loose = unread(architecture, cell)
        for node in (0, 1, *NODES):
            options[outlet(cell, node)] = "unread" if node in loose else "read"
        if evaluation:
            options[f"{cell}.width"] = str(len(loose))
    return options


def _renumbered(nodes: Mapping[int, Reads]) -> Iterator[list[Reads]]:
    """A cell in every order of its nodes in which each reads nodes before it, with what a node reads in order."""

    def extend(number: dict[int, int], cell: list[Reads]) -> Iterator[list[Reads]]:
        if len(cell) == len(NODES):
            yield cell
        for node, reads in nodes.items():
            if node not in number and all(source in number for source, _ in reads):
                one, two = sorted((number[source], option) for source, option in reads)
                yield from extend(number | {node: len(number)}, [*cell, (one, two)])

    return extend({0: 0, 1: 1}, [])


def canonical_form(architecture: Mapping[str, str]) -> dict[str, str]:
    """One form for the architectures that are the same network: the first of all ways to write it.

    The two operations of a node may be exchanged, and nodes that do not read each other: the cell's output is the same
    up to the order of its channels, which does not matter when the network is trained by itself. Under shared weights
    every network gets one set of weights by sampling canonical forms alone, for training as for scoring.
    """
    form: dict[str, str] = {}
    for cell in CELLS:
        form |= _write(cell, dict(zip(NODES, min(_renumbered(_read(architecture, cell))), strict=True)))
    return form


def to_words(architecture: Mapping[str, str]) -> list[str]:
    """The options of all decisions in their order."""
    return [architecture[name] for name in DECISIONS]


def from_words(words: Sequence[str]) -> dict[str, str]:
    """The inverse of :func:`to_words`."""
    return dict(zip(DECISIONS, words, strict=True))


def respell(words: Sequence[str], rng: Random) -> list[str]:
    """Another way to write the same network: of one node of each cell, drawn at random, the operations are exchanged.

    Args:
        words: As of :func:`to_words`.
        rng: The generator to draw from.
    """
    architecture = from_words(words)
    for cell in CELLS:
        node = rng.choice(NODES)
        one, two = _read(architecture, cell)[node]
        architecture |= _write(cell, {node: (two, one)})
    return to_words(architecture)


def topology() -> list[tuple[int, int, str | None]]:
    """Where all edges lie: (from node, to node, name in :func:`choose`). The reduction cell begins with node 8."""
    edges: list[tuple[int, int, str | None]] = []
    for cell, shift in zip(CELLS, (0, _OUTPUT + 1), strict=True):
        for node in NODES:
            for place in (1, 2):
                edges += [(shift + s, shift + node, edge(cell, node, place, s)) for s in range(node)]
        edges += [(shift + node, shift + _OUTPUT, outlet(cell, node)) for node in (0, 1, *NODES)]
    return edges


def graph(architecture: Mapping[str, str]) -> list[tuple[int, int, str | None]]:
    """The operations of both cells as edges between their nodes; see :data:`raynas.architecture.Graph`.

    The operations of the reduction cell have ``reduction/`` before their names: on its inputs they have stride 2, where
    even a skip connection has weights.
    """
    edges: list[tuple[int, int, str | None]] = []
    for cell, shift, prefix in zip(CELLS, (0, _OUTPUT + 1), ("", "reduction/"), strict=True):
        for node, reads in _read(architecture, cell).items():
            for source, option in reads:
                passes = option == "skip_connect" and not (prefix and source < 2)
                edges.append((shift + source, shift + node, None if passes else prefix + option))
        edges += [(shift + node, shift + _OUTPUT, None) for node in unread(architecture, cell)]
    return edges


def to_sequence(architecture: Mapping[str, str]) -> list[int]:
    """Both cells in the notation of NAO and ENAS: for each node an input, an operation, an input, an operation."""
    return [options.index(architecture[name]) for name, options in DECISIONS.items()]


def from_sequence(sequence: Sequence[int] | str) -> dict[str, str]:
    """The architecture of 40 numbers, as a list or as text; the inverse of :func:`to_sequence`.

    Raises:
        ValueError: Not 40 numbers, or one that is too large for its place.
    """
    numbers = [int(word) for word in sequence.split()] if isinstance(sequence, str) else list(sequence)
    if len(numbers) != len(DECISIONS):
        raise ValueError(f"the sequence has {len(numbers)} numbers: expected {len(DECISIONS)}")
    for place, (number, (name, options)) in enumerate(zip(numbers, DECISIONS.items(), strict=True)):
        if not 0 <= number < len(options):
            raise ValueError(f"number {place} ({name}) is {number}; legal: 0 to {len(options) - 1}")
    return {name: options[number] for number, (name, options) in zip(numbers, DECISIONS.items(), strict=True)}
