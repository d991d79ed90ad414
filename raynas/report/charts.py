"""Charts of the report: score against cost, how far trials were evaluated, training curves, the winner."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from html import escape

from raynas.analysis.run_data import RunData, Scored
from raynas.architecture import Architecture
from raynas.report.architecture_svg import draw as wires
from raynas.report.svg import HUES, Axis, Plot, common_prefix, far, lattice
from raynas.report.text import NAMES, absent, bounds, score_label, tip
from raynas.results.curves import Curve
from raynas.results.pareto_front import front_of

__all__ = ["barcode", "figure", "front", "outcomes", "training", "winner"]

POINTS = 400
"""Most points of a training curve; longer curves are averaged over neighbours."""


def figure(plot: Plot, title: str, text: str) -> str:
    """A plot with a caption."""
    return f"<figure>{plot.svg()}<figcaption><b>{escape(title)}.</b> {escape(text + plot.note)}</figcaption></figure>"


def front(run_data: RunData) -> str:
    """Score against each cost: everything scored, the Pareto front, the limits, the winner."""
    return "".join(_front(run_data, cost) for cost in run_data.costs)


def _front(run_data: RunData, cost: str) -> str:
    known = [one for one in run_data.scored if cost in one.costs and math.isfinite(one.score)]
    name = NAMES.get(cost, cost)
    if not known:
        return f"<figure>{absent(f'No architecture has a score and a number of {name} yet.')}</figure>"
    near_all = far([one.score for one in known], run_data.mode)
    places = {one.key: (float(one.costs[cost]), near_all(one.score)) for one in known}
    values = [value for value, _ in places.values()]
    least, most = min(values), max(values)
    limits = bounds(run_data, cost)
    # A limit far from all that was scored would press the points into a corner: it is only told.
    near = [(text, value) for text, value in limits if 2 * least - most <= value <= 2 * most - least]
    x = Axis.of(name, [*values, *(value for _, value in near)])
    plot = Plot(x, Axis.of(score_label(run_data), [height for _, height in places.values()]), f"score against {name}")
    for text, value in near:
        plot.limit(value, text)
    full = [one for one in known if one.full and one.allowed]
    best = _pareto(full, cost, run_data.mode)
    plot.dots([places[one.key] for one in known if not (one.full and one.allowed)], "weak")
    plot.dots([places[one.key] for one in full], "full")
    plot.line([places[one.key] for one in best], "front", stairs=True)
    plot.marks({places[one.key]: tip(run_data, one) for one in best}, "front")
    first = [one for one in known if one.key == run_data.best[0]["key"]] if run_data.best else []
    plot.marks({places[one.key]: f"the winner, {tip(run_data, one)}" for one in first}, "winner", 6)
    caption = (
        f"{len(full)} architectures scored in full within the limits (blue), {len(best)} of them on the Pareto front "
        f"(line). {len(known) - len(full)} others (pale), at the last score they reached."
    )
    caption += "".join(f" The limit, {text}, is far outside." for text, value in limits if (text, value) not in near)
    away = sum(near_all(one.score) != one.score for one in known)
    caption += f" {away} far worse than most are drawn at the edge." if away else ""
    return figure(plot, f"Score against {name}", caption + ("" if limits else " No limit was set."))


def _pareto(full: Sequence[Scored], cost: str, mode: str) -> list[Scored]:
    """The Pareto-optimal architectures, cheapest first."""
    rows = [{"score": one.score, cost: one.costs[cost]} for one in full]
    return sorted((full[place] for place in sorted(front_of(rows, [cost], mode))), key=lambda one: one.costs[cost])


def outcomes(run_data: RunData) -> str:
    """How many architectures were evaluated in full, stopped at which fidelity, or failed."""
    if not run_data.scored:
        return absent("No architecture was scored yet.")
    highest = max(one.max_fidelity for one in run_data.scored)
    stopped = Counter(one.fidelity for one in run_data.scored if one.status == "stopped")
    others = Counter(one.status for one in run_data.scored)
    rows = [(f"stopped at {fidelity} of {highest}", stopped[fidelity], "stopped") for fidelity in sorted(stopped)]
    rows.append(("complete", others["complete"], "complete"))
    rows += [(text, others[s], s) for s, text in (("error", "failed"), ("running", "not ended")) if others[s]]
    most, total = max(number for _, number, _ in rows), len(run_data.scored)
    bars = [
        f'<div class="bar"><span>{text}</span><i class="{kind}" style="--share:{number / max(most, 1):.4f}"></i>'
        f"<b>{number}</b><em>{100 * number / total:.0f} %</em></div>"
        for text, number, kind in rows
    ]
    ended = [one for one in run_data.scored if one.status in ("stopped", "complete")]
    spent, whole = sum(one.fidelity for one in ended), sum(one.max_fidelity for one in ended)
    if whole and highest > 1:
        share = 100 * (1 - spent / whole)
        bars.append(f"<p>Stopping early saved {share:.0f} % of the scoring: {spent} of {whole} steps were made.</p>")
    reasons = Counter(one.error or "the log has no reason" for one in run_data.scored if one.status == "error")
    listed = "".join(f"<li>{number} failed: {escape(error)}</li>" for error, number in reasons.most_common(3))
    return "".join(bars) + (f'<ul class="why">{listed}</ul>' if listed else "")


def training(run_data: RunData) -> str:
    """The training loss of the supernet, and that of the retrained winner."""
    figures = []
    if run_data.training is None:
        figures.append(f"<figure>{absent('This run has no training curve of a supernet.')}</figure>")
    for curve, what in ((run_data.training, "the supernet"), (run_data.retraining, "the winner from scratch")):
        if curve is not None:
            points = _thinned(curve)
            y = Axis.of("training loss", [loss for _, loss in points])
            plot = Plot(Axis.of("step", [curve.steps[-1]], start=0.0), y, f"training loss of {what}")
            plot.line(points, "loss")
            caption = f"{curve.steps[-1]} of {curve.total} steps; loss {curve.losses[-1]:.3f} at the end."
            figures.append(figure(plot, f"Training of {what}", caption))
    return "".join(figures)


def _thinned(curve: Curve) -> list[tuple[float, float]]:
    size = math.ceil(len(curve.steps) / POINTS)
    pairs = [(step, loss) for step, loss in zip(curve.steps, curve.losses, strict=True) if math.isfinite(loss)]
    bins = [pairs[start : start + size] for start in range(0, len(pairs), size)]
    return [(sum(step for step, _ in few) / len(few), sum(loss for _, loss in few) / len(few)) for few in bins]


def _options(run_data: RunData) -> list[str]:
    """All options of the search space in use, each with its row and colour."""
    return sorted(run_data.options, key=lambda option: re.sub(r"\d+", lambda digits: digits[0].zfill(9), option))


def winner(run_data: RunData) -> str:
    """The winner as a graph, if the space describes its topology, and as one option for each decision."""
    if not run_data.best:
        return absent("There is no winner yet.")
    best = run_data.best[0]
    path, settings = run_data.parts(best["architecture"])
    seen: dict[str, Counter[str]] = {}
    taken = Counter(pair for one in run_data.scored for pair in run_data.parts(one.architecture)[0].items())
    for (name, option), times in taken.items():
        seen.setdefault(name, Counter())[option] = times
    listed = "".join(f"<li><b>{escape(n)}</b> {escape(o)}</li>" for n, o in best["architecture"].items())
    prefix = common_prefix([*path, *seen])
    found = ", ".join(f"{name} <b>{escape(str(value))}</b>" for name, value in settings.items())
    trained = f"<p>Found together with its training settings: {found}.</p>" if found else ""
    below = f" below <code>{escape(prefix[:-1])}</code>" if prefix else ""
    drawn = _wires(run_data, best["key"])
    options = (
        f'<div class="scroll">{lattice(path, seen, _options(run_data))}</div><p>One column for each decision{below}, '
        "the chosen option in colour. The larger a grey dot, the more of the scored architectures took that option.</p>"
    )
    if "<svg" in drawn:  # a cell is read as a graph, its list of decisions only looked up
        options = f"<details><summary>All options, and how often each was scored</summary>{options}</details>"
    return (
        f"{drawn}{options}{trained}<p>Architecture <code>{escape(best['key'])}</code></p>"
        f'<details><summary>As a list</summary><ul class="options">{listed}</ul></details>'
    )


def _wires(run_data: RunData, name: str) -> str:
    taken = run_data.graphs.get("architectures", {}).get(name)
    if not taken:
        return ""
    edges = [(source, target) for source, target in run_data.graphs["edges"]]
    picture = wires([*edges, *((s, t) for s, t, _ in taken)], [tuple(edge) for edge in taken], _hues(run_data))
    caption = "A line's colour is its operation; dashed: passed on unchanged; faded: not taken, or of no effect."
    return picture + (f"<p>{caption}</p>" if "<svg" in picture else "")


def _hues(run_data: RunData) -> dict[str, int]:
    return {option: number % HUES for number, option in enumerate(_options(run_data))}


def barcode(run_data: RunData, architecture: Architecture) -> str:
    """An architecture as a row of cells, in the colours of the winner's options."""
    hues = _hues(run_data)
    path, _ = run_data.parts(architecture)
    cells = (f'<i class="h{hues[o]}" title="{escape(f"{n} = {o}")}"></i>' for n, o in path.items())
    return f'<span class="code">{"".join(cells)}</span>'
