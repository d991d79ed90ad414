"""Small plots as inline SVG. Colours and fonts come from the style sheet of the page, so they follow light and dark."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from raynas.architecture import Architecture
from raynas.utils.formatting import quantity

__all__ = ["HUES", "Axis", "Plot", "common_prefix", "far", "lattice"]

HUES = 8
"""How many colours the style sheet has for options: classes h0, h1, ..."""
WIDTH, HEIGHT = 480, 300
LEFT, RIGHT, TOP, BOTTOM = 62, 14, 20, 44
Point = tuple[float, float]


@dataclass(frozen=True)
class Axis:
    """A linear axis from ``low`` to ``high``."""

    label: str
    low: float
    high: float

    @classmethod
    def of(cls, label: str, values: Iterable[float], *, start: float | None = None) -> Axis:
        """An axis that holds all finite values, with some room around them.

        Args:
            label: What is shown on it, with its unit.
            values: What will be drawn.
            start: Where it begins, instead of just below the least value.
        """
        finite = [value for value in values if math.isfinite(value)] or [0.0]
        low, high = min(finite) if start is None else start, max(finite)
        room = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
        return cls(label, low - room if start is None else low, high + room)

    def share(self, value: float) -> float:
        """The position of a value: 0 at the low end, 1 at the high end."""
        return (value - self.low) / (self.high - self.low)

    def ticks(self, about: int = 5) -> list[float]:
        """Round tick values along the axis."""
        raw = (self.high - self.low) / about
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]


def far(values: Iterable[float], mode: str = "max", keep: Iterable[float] = ()) -> Callable[[float], float]:
    """Brings what is far worse than most of the values to an edge: it would press all others together.

    Args:
        values: What will be drawn.
        mode: Whether low values are the bad ones (max) or high ones (min).
        keep: What stays where it is, however bad.
    """
    sign = 1.0 if mode == "max" else -1.0
    finite = sorted(sign * value for value in values if math.isfinite(value)) or [0.0]
    low, high = finite[len(finite) // 4], finite[3 * len(finite) // 4]
    edge = min(low - 4 * (high - low) if high > low else finite[0], *(sign * value for value in keep), math.inf)
    return lambda value: sign * max(sign * value, edge)


DOTS = 4000
"""A plot shows at most so many dots of one kind."""


class Plot:
    """Points and lines over two axes. Kinds are classes of the style sheet.

    Args:
        x: Horizontal axis.
        y: Vertical axis.
        title: What it shows, for those who do not see it.
    """

    def __init__(self, x: Axis, y: Axis, title: str) -> None:
        self.x, self.y, self.title = x, y, title
        self._parts: list[str] = []
        self.note = ""
        """An extra sentence for the caption."""

    def _place(self, point: Point) -> tuple[float, float]:
        return (
            round(LEFT + self.x.share(point[0]) * (WIDTH - LEFT - RIGHT), 1),
            round(HEIGHT - BOTTOM - self.y.share(point[1]) * (HEIGHT - TOP - BOTTOM), 1),
        )

    def dots(self, points: Iterable[Point], kind: str) -> None:
        """Many small points as one path, evenly thinned beyond ``DOTS``; coinciding points are drawn once."""
        points = list(points)
        step = math.ceil(len(points) / DOTS)
        if step > 1:
            self.note = f" Of every {step} dots of the same colour one is drawn."
        places = dict.fromkeys(self._place(point) for point in points[:: max(step, 1)])
        if places:
            path = "".join(f"M{x:g} {y:g}h0" for x, y in places)
            self._parts.append(f'<path class="dots {kind}" d="{path}"/>')

    def marks(self, points: Mapping[Point, str], kind: str, radius: float = 4.5) -> None:
        """A few points, each with a text that appears under the mouse."""
        self._parts += [_circle(*self._place(point), radius, kind, text) for point, text in points.items()]

    def line(self, points: Sequence[Point], kind: str, *, stairs: bool = False) -> None:
        """A line through the points in their order; with ``stairs`` it is a step line."""
        places = [self._place(point) for point in points]
        if places:
            steps = (f"H{x:g}V{y:g}" if stairs else f"L{x:g} {y:g}" for x, y in places[1:])
            self._parts.append(f'<path class="line {kind}" d="M{places[0][0]:g} {places[0][1]:g}{"".join(steps)}"/>')

    def band(self, low: Sequence[Point], high: Sequence[Point], kind: str) -> None:
        """The area between two lines."""
        places = [self._place(point) for point in (*low, *reversed(high))]
        if places:
            path = "L".join(f"{x:g} {y:g}" for x, y in places)
            self._parts.append(f'<path class="band {kind}" d="M{path}Z"/>')

    def limit(self, value: float, text: str) -> None:
        """A vertical line at a value of the horizontal axis."""
        x = self._place((value, self.y.low))[0]
        anchor, shift = ("end", -5) if x > WIDTH / 2 else ("start", 5)
        self._parts.append(
            f'<path class="line limit" d="M{x:g} {TOP}V{HEIGHT - BOTTOM}"/>'
            f'<text class="limit" x="{x + shift:g}" y="{TOP - 7}" text-anchor="{anchor}">{escape(text)}</text>'
        )

    def svg(self) -> str:
        """The plot, with axes."""
        right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
        frame = []
        for value in self.y.ticks():
            y = self._place((self.x.low, value))[1]
            frame.append(f'<path class="grid" d="M{LEFT} {y:g}H{right}"/>')
            frame.append(f'<text x="{LEFT - 7}" y="{y + 4:g}" text-anchor="end">{quantity(value)}</text>')
        for value in self.x.ticks():
            x = self._place((value, self.y.low))[0]
            frame.append(f'<path class="tick" d="M{x:g} {bottom}v4"/>')
            frame.append(f'<text x="{x:g}" y="{bottom + 17}" text-anchor="middle">{quantity(value)}</text>')
        frame.append(f'<path class="tick" d="M{LEFT} {bottom}H{right}"/>')
        middle = (LEFT + right) / 2
        height = (TOP + bottom) / 2
        for place, label in (
            (f"translate({middle:g} {HEIGHT - 7})", self.x.label),
            (f"translate(12 {height:g}) rotate(-90)", self.y.label),
        ):
            frame.append(f'<text class="label" transform="{place}" text-anchor="middle">{escape(label)}</text>')
        return (
            f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(self.title)}">'
            f"{''.join(frame)}{''.join(self._parts)}</svg>"
        )


def lattice(chosen: Architecture, seen: Mapping[str, Counter[str]], options: Sequence[str]) -> str:
    """An architecture as a path through all options: a column for each decision, a row for each option.

    Args:
        chosen: The architecture.
        seen: How often each option of each decision was scored; the area of its dot.
        options: The rows.
    """
    names = list(dict.fromkeys([*chosen, *seen]))
    prefix = common_prefix(names)
    labels = [name[len(prefix) :] for name in names]
    longest = max(map(len, labels))
    tilted = longest > 5
    top, left = 26 + (4 * longest if tilted else -2), 14 + 7 * max(map(len, options))
    wide, high = min(max(640 / len(names), 30.0), 56.0), 28
    width, height = left + wide * len(names) + (5 * longest if tilted else 0), top + high * len(options) + 4
    xs = [left + (column + 0.5) * wide for column in range(len(names))]
    ys = [top + (row + 0.5) * high for row in range(len(options))]
    parts, path = [], []
    for x, name, label in zip(xs, names, labels, strict=True):
        place = f"translate({x:g} {top - 12}) rotate(-35)" if tilted else f"translate({x:g} {top - 8})"
        anchor = "start" if tilted else "middle"
        parts.append(f'<text transform="{place}" text-anchor="{anchor}">{escape(label)}</text>')
        counts = seen.get(name, Counter())
        for y, option in zip(ys, options, strict=True):
            share = counts[option] / max(counts.total(), 1)
            tip = f"{name} = {option}: {100 * share:.0f} % of the architectures"
            parts.append(_circle(x, y, 2 + 8 * math.sqrt(share), "seen", tip) if share else "")
        if name in chosen:
            path.append((x, options.index(chosen[name]), f"{name} = {chosen[name]}"))
    line = "L".join(f"{x:g} {ys[row]:g}" for x, row, _ in path)
    parts.append(f'<path class="line winner" d="M{line}"/>' if path else "")
    parts += [_circle(x, ys[row], 8, f"chosen h{row % HUES}", tip) for x, row, tip in path]
    for y, option in zip(ys, options, strict=True):
        parts.append(f'<text class="option" x="{left - 8}" y="{y + 4:g}" text-anchor="end">{escape(option)}</text>')
    return (
        f'<svg class="lattice" viewBox="0 0 {width:g} {height:g}" role="img" aria-label="the options of the winner" '
        f'style="max-width:{1.25 * width:g}px;min-width:{0.8 * width:g}px">{"".join(parts)}</svg>'
    )


def _circle(x: float, y: float, radius: float, kind: str, tip: str) -> str:
    """A circle with a text that appears under the mouse."""
    return f'<circle class="{kind}" cx="{x:g}" cy="{y:g}" r="{radius:.3g}"><title>{escape(tip)}</title></circle>'


def common_prefix(names: Sequence[str]) -> str:
    """The common prefix of the names up to a dot, which is not repeated over every column."""
    first, last = min(names), max(names)
    same = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), 0)
    return first[: first.rfind(".", 0, same) + 1] if len(names) > 1 else ""
