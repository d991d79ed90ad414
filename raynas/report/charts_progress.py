"""Charts of the best score so far: against evaluations, time, and cost (beside an estimate of random search)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from raynas.analysis.random_baseline import Baseline, baseline
from raynas.analysis.run_data import RunData, Scored
from raynas.report.charts import figure
from raynas.report.svg import Axis, Plot, far
from raynas.report.text import NAMES, absent, duration, score, score_label, tip

__all__ = ["progress"]

Points = list[tuple[float, Scored]]


def progress(run_data: RunData) -> str:
    """The best score so far against evaluations, time and cost; the hypervolume if the search had objectives."""
    ended = [one for one in run_data.scored if one.status != "running"]
    full = [(number, one) for number, one in enumerate(ended, 1) if one.full and one.allowed]
    if not full:
        return f"<figure>{absent('No architecture has been scored in full within the limits yet.')}</figure>"
    sign = 1 if run_data.mode == "max" else -1
    best = full[:1]
    for number, one in full:
        if sign * one.score > sign * best[-1][1].score:
            best.append((number, one))
    times = len(best) - 1
    caption = f"Only full scores within the limits count. The best was improved {times} time{'s' * (times != 1)}."
    near = far([one.score for _, one in full], run_data.mode)
    away = sum(near(one.score) != one.score for _, one in full)
    caption += f" {away} far worse than most are drawn at the edge." if away else ""
    end = ("architectures scored", float(len(ended)))
    plot = _plot(run_data, [(float(n), one) for n, one in full], [(float(n), one) for n, one in best], end)
    figures = [figure(plot, "Best so far against evaluations", caption)]
    wall = run_data.clock.wall
    scale, unit = _scale(wall)
    plot = _plot(run_data, [(one.seconds / scale, one) for _, one in full],
                 [(one.seconds / scale, one) for _, one in best],
                 (f"time of the search, {unit}", wall / scale))  # fmt: skip
    caption = f"The best was found after {duration(best[-1][1].seconds)} of {duration(wall)}; pauses are left out."
    figures.append(figure(plot, "Best so far against time", caption))
    figures.append(_cost(run_data, ended, [one for _, one in full], [one for _, one in best]))
    return "".join([*figures, _hypervolume(run_data)])


def _scale(seconds: float) -> tuple[int, str]:
    return next((s, u) for s, u in ((3600, "h"), (60, "min"), (1, "s")) if seconds >= 3 * s or s == 1)


def _cost(run_data: RunData, ended: Sequence[Scored], full: Sequence[Scored], best: Sequence[Scored]) -> str:
    """The best score so far against the cost of evaluation, beside the estimate for random search."""
    highest = max(one.max_fidelity for one in ended)
    steps = dict(zip([one.key for one in ended], itertools.accumulate(one.fidelity for one in ended), strict=True))
    scale, unit = _scale(run_data.clock.busy) if run_data.clock.busy else (highest, "")
    label = f"computing time of all workers, {unit}" if unit else "cost, in full scores"
    spent = {one.key: (one.spent if unit else float(steps[one.key])) / scale for one in ended}
    chance = baseline(run_data)
    end = (label, max(spent.values()))
    if isinstance(chance, str):
        plot = _plot(run_data, [(spent[one.key], one) for one in full], [(spent[one.key], one) for one in best], end)
        return figure(plot, "Best so far against cost", chance)
    plot = _plot(run_data, [(spent[one.key], one) for one in full], [(spent[one.key], one) for one in best], end,
                 (chance, scale))  # fmt: skip
    return figure(plot, "Best so far against cost", f"{_compared(run_data, chance, best, spent, scale)} {chance.note}")


def _compared(
    run_data: RunData, chance: Baseline, best: Sequence[Scored], spent: dict[str, float], scale: float
) -> str:
    """A sentence that compares the search with random search at the largest cost that both reach."""
    within = [place for place, cost in enumerate(chance.costs) if cost / scale <= max(spent.values())]
    if not within:
        return "The search cost less than one full score of a random architecture."
    last = within[-1]
    found = [one for one in best if spent[one.key] <= chance.costs[last] / scale]
    own = score(run_data, found[-1].score) if found else "no full score"
    count = chance.counts[last]
    amount = f"full scores of {count} random architectures" if count > 1 else "a full score of one random architecture"
    span = f"{score(run_data, chance.low[last])} to {score(run_data, chance.high[last])}"
    return (
        f"For the cost of {amount} the search had {own}; random search (grey) may expect "
        f"{score(run_data, chance.expected[last])}, in 80 % of the cases {span}."
    )


def _hypervolume(run_data: RunData) -> str:
    """The hypervolume against evaluations, where the search had objectives."""
    points = [(float(count), value) for count, value in run_data.hypervolumes]
    if not points:
        return ""
    x = Axis.of("architectures scored", [count for count, _ in points], start=0.0)
    plot = Plot(x, Axis.of("hypervolume, in the unit of the score", [value for _, value in points]), "hypervolume")
    plot.line(points, "front", stairs=True)
    costs = " and ".join(NAMES.get(cost, cost) for cost in run_data.config.search.objectives)
    caption = (
        f"How much, in the mean over all budgets of {costs}, the best score within a budget is better than the worst "
        "of the first ten."
    )
    return figure(plot, "Hypervolume against evaluations", caption)


def _plot(
    run_data: RunData, full: Points, best: Points, end: tuple[str, float], chance: tuple[Baseline, float] | None = None
) -> Plot:
    """A plot of full scores, the best so far as a step line, and the estimate for random search if there is one."""
    label, last = end
    within: list[tuple[float, float, float, float]] = []
    if chance is not None:
        found, scale = chance
        rows = zip(found.costs, found.expected, found.low, found.high, strict=True)
        within = [(cost / scale, mean, low, high) for cost, mean, low, high in rows if cost / scale <= last]
    near = far([one.score for _, one in full], run_data.mode, within[-1][1:] if within else ())
    heights = [near(one.score) for _, one in full] + [near(value) for row in within for value in row[1:]]
    x = Axis.of(label, [last, *(x for x, _ in full)], start=0.0)
    plot = Plot(x, Axis.of(score_label(run_data), heights), f"best so far against {label}")
    plot.band([(x, near(low)) for x, _, low, _ in within], [(x, near(high)) for x, _, _, high in within], "chance")
    plot.dots([(x, near(one.score)) for x, one in full], "full")
    plot.line([(x, near(expected)) for x, expected, *_ in within], "chance")
    corners = [(x, near(one.score)) for x, one in best]
    plot.line([*corners, (max(last, corners[-1][0]), corners[-1][1])], "winner", stairs=True)
    plot.marks({(x, near(one.score)): tip(run_data, one) for x, one in best}, "winner", 4)
    return plot
