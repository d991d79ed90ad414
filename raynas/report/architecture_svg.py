"""Drawing of an architecture as SVG: a chain as a row of boxes that wraps, a cell as nodes on a line joined by arcs.

Each option has the same colour as in the rest of the page; operations without effect on the output are faded.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Edge", "draw"]

Edge = tuple[int, int]
_NODE, _STEP, _LEVEL, _LETTER = 13, 118, 34, 6.6
"""Radius of a node, distance of two nodes, height of an arc for each node that it passes, width of a letter."""


@dataclass(frozen=True)
class _Part:
    """A connected component of the network: a chain of blocks, or a cell."""

    edges: list[Edge]
    """All edges that the space allows there."""
    taken: dict[Edge, list[str | None]]
    """The operations of the architecture on each edge."""
    alive: Collection[Edge]
    """The edges on a path from an input to an output."""

    @property
    def order(self) -> list[int]:
        """The nodes in topological order."""
        left, found = {node for edge in self.edges for node in edge}, list[int]()
        while left:
            free = {n for n in left if not any(s in left and t == n for s, t in self.edges)} or left
            found.append(min(free))
            left.remove(found[-1])
        return found

    @property
    def chain(self) -> bool:
        """Whether the component is a chain."""
        sources, targets = zip(*self.edges, strict=True)
        return len(set(sources)) == len(sources) and len(set(targets)) == len(targets)


def draw(edges: Iterable[Edge], taken: Sequence[tuple[int, int, str | None]], hues: Mapping[str, int]) -> str:
    """An architecture as a graph, one picture for each part.

    Args:
        edges: All that the space can have.
        taken: What the architecture has: see :data:`raynas.architecture.Graph`.
        hues: The colour of each option; an operation of another name is grey.
    """
    parts = []
    for piece in _pieces(sorted({(source, target) for source, target in edges})):
        operations: dict[Edge, list[str | None]] = {}
        for source, target, operation in taken:
            if (source, target) in piece:
                operations.setdefault((source, target), []).append(operation)
        parts.append(_Part(piece, operations, _alive(piece, operations)))
    return "".join(_chain(part, hues) if part.chain else _arcs(part, hues) for part in parts)


def _pieces(edges: Sequence[Edge]) -> list[list[Edge]]:
    """The edges, grouped into connected components."""
    groups: list[set[int]] = []
    for edge in edges:
        touched = [group for group in groups if group & set(edge)]
        groups = [group for group in groups if group not in touched] + [set(edge).union(*touched)]
    return [[edge for edge in edges if edge[0] in group] for group in sorted(groups, key=min)]


def _alive(edges: Sequence[Edge], taken: Collection[Edge]) -> set[Edge]:
    """The edges of the architecture on a path from an input of the space to an output."""
    sources, targets = {s for s, _ in edges}, {t for _, t in edges}
    reached, useful = sources - targets, targets - sources
    for _ in edges:
        reached |= {t for s, t in taken if s in reached}
        useful |= {s for s, t in taken if t in useful}
    return {(s, t) for s, t in taken if s in reached and t in useful}


def _hue(operation: str, hues: Mapping[str, int]) -> str:
    name = operation.rpartition("/")[2]
    return f"--c:var(--h{hues.get(operation, hues.get(name, 7))})"


def _chain(part: _Part, hues: Mapping[str, int]) -> str:
    """A row of boxes that wraps on a narrow page."""
    place = {node: number for number, node in enumerate(part.order)}
    boxes = ["<li class='end'>input</li>"]
    for edge in sorted(part.edges, key=lambda edge: place[edge[0]]):
        for operation in part.taken.get(edge, []):
            faded = "" if edge in part.alive else " class='dead'"
            if operation is None:
                boxes.append(f"<li class='idle' title='{edge[0]} to {edge[1]}: passed on unchanged'>unchanged</li>")
            else:
                boxes.append(f"<li{faded} style='{_hue(operation, hues)}'>{escape(operation)}</li>")
    boxes.append("<li class='end'>output</li>")
    return f"<ol class='chain'>{''.join(boxes)}</ol>"


def _arcs(part: _Part, hues: Mapping[str, int]) -> str:
    """Nodes on a line; edges to the next node are straight, longer ones arcs above and below."""
    place = {node: number for number, node in enumerate(part.order)}
    names = [operation for operations in part.taken.values() for operation in operations if operation]
    shared = {name.rpartition("/")[0] for name in names}
    title = shared.pop() if len(shared) == 1 else ""
    letters = max((len(_label(name, title)) for name in names), default=0)
    step = max(_STEP, 2 * _NODE + 14 + _LETTER * letters)
    shown = {edge: part.taken.get(edge, []) for edge in part.edges}
    sides = _sides([(place[s], place[t]) for s, t in sorted(shown, key=lambda edge: (not shown[edge], edge))])
    heights = {edge: sides[place[edge[0]], place[edge[1]]] * (place[edge[1]] - place[edge[0]]) for edge in shown}
    top, bottom = (
        max((sign * height for height in heights.values() if abs(height) > 1), default=0) * _LEVEL + 22
        for sign in (1, -1)
    )
    width, middle = step * (len(place) - 1) + 2 * _NODE + 8, top + _NODE
    parts, texts = [], []
    for edge, operations in shown.items():
        ends = [_NODE + 4 + step * place[node] for node in edge]
        height = heights[edge] * _LEVEL if abs(heights[edge]) > 1 else 0
        for operation in operations or [""]:
            kind, hue = _kind(edge, operation, part.alive), "" if not operation else f' style="{_hue(operation, hues)}"'
            tip = f"{edge[0]} to {edge[1]}: {_told(operation)}{'' if edge in part.alive else ', of no effect'}"
            parts.append(
                f'<path class="wire {kind}"{hue} d="{_curve(ends, middle, height)}"><title>{escape(tip)}</title></path>'
            )
            if operation:
                x, y = sum(ends) / 2, middle - height - (6 if height >= 0 else -16)
                texts.append(
                    f'<text class="operation {kind}"{hue} x="{x:g}" y="{y:g}" text-anchor="middle">'
                    f"{escape(_label(operation, title))}</text>"
                )
    sources, targets = {s for s, _ in part.edges}, {t for _, t in part.edges}
    for node, number in place.items():
        x, kind = _NODE + 4 + step * number, "end" if node not in targets or node not in sources else ""
        tip = "input" if node not in targets else "output" if node not in sources else f"node {node}"
        parts.append(
            f'<circle class="node {kind}" cx="{x:g}" cy="{middle:g}" r="{_NODE}"><title>{tip}</title></circle>'
        )
        name = "in" if node not in targets else "out" if node not in sources else str(number)
        texts.append(f'<text class="name" x="{x:g}" y="{middle + 4:g}" text-anchor="middle">{name}</text>')
    head = f"<h3>{escape(title)}</h3>" if title else ""
    return (
        f'{head}<div class="scroll"><svg class="wires" viewBox="0 0 {width:g} {middle + _NODE + bottom:g}" role="img" '
        f'aria-label="the winner as a graph" style="max-width:{1.15 * width:g}px;min-width:{0.72 * width:g}px">'
        f"{''.join(parts)}{''.join(texts)}</svg></div>"
    )


def _curve(ends: Sequence[float], middle: float, height: float) -> str:
    """The path of an arc between two nodes, with a flat top at the given height."""
    first, last = ends[0], ends[1]
    if not height:
        return f"M{first:g} {middle:g}H{last:g}"
    lean, top = 0.28 * (last - first), middle - 4 / 3 * height
    return f"M{first:g} {middle:g}C{first + lean:g} {top:g} {last - lean:g} {top:g} {last:g} {middle:g}"


def _kind(edge: Edge, operation: str | None, alive: Collection[Edge]) -> str:
    if operation == "":
        return "open"
    return ("idle" if operation is None else "taken") + ("" if edge in alive else " dead")


def _told(operation: str | None) -> str:
    return "not taken" if operation == "" else "passed on unchanged" if operation is None else operation


def _label(operation: str, title: str) -> str:
    return operation.removeprefix(f"{title}/") if title else operation


def _sides(edges: Sequence[Edge]) -> dict[Edge, int]:
    """Side of an arc, above (1) or below (-1) the nodes: the one where it crosses fewer earlier arcs."""
    sides: dict[Edge, int] = {}
    for one in sorted(edges, key=lambda edge: edge[1] - edge[0]):
        crossed = {
            side: sum(_cross(one, other) for other, where in sides.items() if where == side and other[1] - other[0] > 1)
            for side in (1, -1)
        }
        full = {side: sum(where == side for where in sides.values()) for side in (1, -1)}
        sides[one] = min((1, -1), key=lambda side: (crossed[side], full[side]))
    return sides


def _cross(one: Edge, other: Edge) -> bool:
    (a, b), (c, d) = sorted((one, other))
    return a < c < b < d
