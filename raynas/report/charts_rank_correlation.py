"""Rank correlation of the score with ground truth, from ``ranking.json``: a scatter plot and a table with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from raynas.analysis.rank_correlation_report import interval, remarks
from raynas.analysis.run_data import RunData
from raynas.report.charts import figure
from raynas.report.svg import Axis, Plot, far
from raynas.report.text import absent

__all__ = ["rank_correlation"]


def rank_correlation(run_data: RunData) -> str:
    """The result of the command ``rank``: a sentence, a table, and a scatter plot of score against ground truth."""
    found = run_data.ranking
    if found is None:
        text = (
            "Not measured yet: python -m raynas.launch rank compares the scores with a table, or with trained networks."
        )
        return f'<div class="card">{absent(text)}</div>'
    notes = "".join(f"<p>{escape(text)}</p>" for text in remarks(found))
    sentence = f"<p class='lead'>{escape(found['sentence'])}</p>"
    picture = _scatter(found["points"], found["truth"], run_data.mode)
    return f'<div class="card">{sentence}{_table(found)}{notes}</div><div class="grid">{picture}</div>'


def _scatter(points: Sequence[Sequence[float]], truth: str, mode: str) -> str:
    near = far([score for _, score in points], mode)
    away = sum(near(score) != score for _, score in points)
    places = [(x, near(score)) for x, score in points]
    plot = Plot(
        Axis.of("truth", [x for x, _ in places]), Axis.of("score", [y for _, y in places]), "score against truth"
    )
    plot.dots(places, "full")
    caption = f"{len(points)} architectures; truth: {truth}."
    caption += f" {away} with a score far worse than most are drawn at the edge." if away else ""
    return figure(plot, "Score against truth", caption)


def _table(found: Mapping[str, Any]) -> str:
    rows = [("the score", found["score"])]
    rows += [(row["name"], row) for row in (*found["others"], *found["baselines"])]
    last = found["architectures"]
    lines = [
        _line(name, interval(row["tau"]), interval(row["spearman"]), f"{row['favourite']:.0f} of {last}",
              f"{100 * row['overlap']:.0f} %")
        for name, row in rows
    ]  # fmt: skip
    lines += [
        _line(f"the score at fidelity {row['fidelity']} of {row['of']}", interval(row["tau"]),
              interval(row["spearman"]), f"{row['favourite']:.0f} of {row['architectures']}",
              f"{100 * row['overlap']:.0f} %")
        for row in found["fidelities"]
    ]  # fmt: skip
    heads = ("Kendall tau", "Spearman", "its favourite is truly", f"of its top {found['top']} truly there")
    head = "".join(f'<th class="number">{text}</th>' for text in heads)
    return (
        f'<div class="scroll"><table><thead><tr><th>ranked by</th>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div><p>In brackets: 95 % intervals.</p>"
    )


def _line(name: str, *cells: str) -> str:
    return f"<tr><td>{escape(name)}</td>{''.join(f'<td class=number>{cell}</td>' for cell in cells)}</tr>"
