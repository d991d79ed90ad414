"""The architectures of the DARTS space as plain data: their decisions, one form for equal ones, their notation.

A cell has two inputs, the nodes 0 and 1, and four nodes of its own, 2 to 5, each of which adds up two of the 14 edges
that lead to it from the nodes before, after one of seven operations on each: 1.08e18 pairs of a normal and a reduction
cell. The decisions are which two edges (``normal.4.inputs``: ``0+3``) and the operation of the lower and of the higher
(``normal.4.first``, ``normal.4.second``). So every architecture keeps the rule of two inputs a node, drawing, mutating
and crossing need no repair, and both cells take part in all of them alike. In the network itself every edge is a
Choice, of the seven operations and of ``none`` for an edge that is not taken: see :func:`choose`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, permutations

__all__ = [
    "CELLS",
    "DECISIONS",
    "NODES",
    "OPTIONS",
    "canonical_form",
    "choose",
    "edge",
    "from_genotype",
    "graph",
    "to_genotype",
    "topology",
]

OPTIONS = (
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
CELLS = ("normal", "reduction")
NODES = (2, 3, 4, 5)
"""The nodes of a cell; 0 and 1 are its inputs, the outputs of the cell before the last and of the last."""
Edges = tuple[tuple[int, str], tuple[int, str]]
"""The two nodes that a node reads, the lower one first, each with its operation."""


def edge(cell: str, source: int, node: int) -> str:
    """The name of an edge in :func:`choose`."""
    return f"{cell}.{source}-{node}"


def _pairs(node: int) -> dict[str, tuple[int, int]]:
    """The pairs of nodes that a node may read, by the names of the options."""
    return {f"{first}+{second}": (first, second) for first, second in combinations(range(node), 2)}


def _decisions() -> Iterator[tuple[str, tuple[str, ...]]]:
    for cell in CELLS:
        for node in NODES:
            if node > 2:  # node 2 has no other inputs than 0 and 1
                yield f"{cell}.{node}.inputs", tuple(_pairs(node))
            yield f"{cell}.{node}.first", OPTIONS
            yield f"{cell}.{node}.second", OPTIONS


DECISIONS: dict[str, tuple[str, ...]] = dict(_decisions())


def _read(architecture: Mapping[str, str], cell: str) -> dict[int, Edges]:
    """The two operations of each node of a cell."""
    nodes = {}
    for node in NODES:
        one, two = _pairs(node)[architecture.get(f"{cell}.{node}.inputs", "0+1")]
        nodes[node] = (one, architecture[f"{cell}.{node}.first"]), (two, architecture[f"{cell}.{node}.second"])
    return nodes


def _write(cell: str, nodes: Mapping[int, Edges]) -> dict[str, str]:
    """The inverse of :func:`_read`."""
    architecture = {}
    for node, ((one, first), (two, second)) in nodes.items():
        if node > 2:
            architecture[f"{cell}.{node}.inputs"] = f"{one}+{two}"
        architecture |= {f"{cell}.{node}.first": first, f"{cell}.{node}.second": second}
    return architecture


def choose(architecture: Mapping[str, str]) -> dict[str, str]:
    """The option of every edge, ``{"normal.0-2": "sep_conv_3x3", ...}``; "none" where it is not taken."""
    options = {edge(cell, source, node): "none" for cell in CELLS for node in NODES for source in range(node)}
    for cell in CELLS:
        for node, reads in _read(architecture, cell).items():
            options |= {edge(cell, source, node): option for source, option in reads}
    return options


def _renumbered(nodes: Mapping[int, Edges]) -> Iterator[list[Edges]]:
    """A cell in every order of its nodes in which each reads nodes before it."""
    for order in permutations(NODES):
        number = {0: 0, 1: 1, **dict(zip(order, NODES, strict=True))}
        cell = [sorted((number[source], option) for source, option in nodes[node]) for node in order]
        if all(two < node for node, (_, (two, _)) in zip(NODES, cell, strict=True)):
            yield [(one, two) for one, two in cell]


def canonical_form(architecture: Mapping[str, str]) -> dict[str, str]:
    """One form for the architectures that are the same network: the first of all orders of their nodes.

    Nodes that do not read each other may be exchanged: the cell's output is the same up to the order of its channels,
    which does not matter when the network is trained by itself. Under shared weights every network gets one set of
    weights by sampling canonical forms alone, for training as for scoring.
    """
    form: dict[str, str] = {}
    for cell in CELLS:
        form |= _write(cell, dict(zip(NODES, min(_renumbered(_read(architecture, cell))), strict=True)))
    return form


def topology() -> list[tuple[int, int, str | None]]:
    """Where all edges lie: (from node, to node, edge), None where something is passed on unchanged.

    Each cell is a graph of its own, the reduction cell from node 7 on. All four nodes of a cell lead to its output.
    """
    edges: list[tuple[int, int, str | None]] = []
    for cell, shift in zip(CELLS, (0, 7), strict=True):
        for node in NODES:
            edges += [(shift + source, shift + node, edge(cell, source, node)) for source in range(node)]
            edges.append((shift + node, shift + 6, None))
    return edges


def graph(architecture: Mapping[str, str]) -> list[tuple[int, int, str | None]]:
    """The operations of both cells as edges between their nodes; see :data:`raynas.architecture.Graph`.

    As :func:`topology`, with what an architecture takes. The operations of the reduction cell have ``reduction/``
    before their names.
    """
    options = choose(architecture)
    edges: list[tuple[int, int, str | None]] = []
    for source, node, name in topology():
        option = "skip_connect" if name is None else options[name]
        reduces = source in (7, 8)  # at stride 2 even a skip connection has weights
        if option == "skip_connect" and not reduces:
            edges.append((source, node, None))
        elif option != "none":
            edges.append((source, node, option if node < 7 else f"reduction/{option}"))
    return edges


def to_genotype(architecture: Mapping[str, str]) -> dict[str, list[tuple[str, int]]]:
    """Both cells in the notation of DARTS: ``{"normal": [("sep_conv_3x3", 0), ...], "reduce": [...]}``."""
    cells = {name: _read(architecture, cell) for name, cell in zip(("normal", "reduce"), CELLS, strict=True)}
    return {name: [(o, source) for reads in nodes.values() for source, o in reads] for name, nodes in cells.items()}


def from_genotype(normal: Sequence[tuple[str, int]], reduce: Sequence[tuple[str, int]]) -> dict[str, str]:
    """The architecture of two cells in the notation of DARTS, eight pairs of an operation and the node that it reads.

    Raises:
        ValueError: Not eight pairs, an unknown operation, or a node that does not read two of those before it.
    """
    architecture: dict[str, str] = {}
    for cell, reads in zip(CELLS, (normal, reduce), strict=True):
        if len(reads) != 2 * len(NODES):
            raise ValueError(f"the {cell} cell has {len(reads)} operations: expected 8, two for each node")
        unknown = [option for option, _ in reads if option not in OPTIONS]
        if unknown:
            raise ValueError(f"unknown operation {unknown[0]!r}; legal ones: {', '.join(OPTIONS)}")
        for node, (one, two) in zip(NODES, zip(reads[::2], reads[1::2], strict=True), strict=True):
            low, high = sorted((source, option) for option, source in (one, two))
            if (low[0], high[0]) not in _pairs(node).values():
                raise ValueError(f"node {node} reads {low[0]} and {high[0]}: expected two of the nodes before it")
            architecture |= _write(cell, {node: (low, high)})
    return architecture
