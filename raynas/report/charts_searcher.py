"""Report section on searchers with a generative model (NAO): a table of training rounds and a scatter plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from raynas.analysis.run_data import RunData
from raynas.report.charts import figure
from raynas.report.svg import Axis, Plot, far
from raynas.report.text import score, score_label
from raynas.searchers.nao.diagnostics import summary

__all__ = ["learned"]

HEADS = (
    "learned from",
    "steps of training",
    "decoded exactly",
    "their pairs ordered",
    "mean score to beat",
    "generated and scored",
    "mean prediction of these",
    "mean score of these",
    "pairs of these ordered",
)


def learned(run_data: RunData) -> str:
    """The section with the diagnostics of the searcher; empty if it has none."""
    trained = ("In the training of the supernet", "of what stayed in the pool, by the same weights", run_data.pooled)
    searched = (
        "In the search",
        "of all they were learned from, the first ones, drawn by chance, among them",
        run_data.learned,
    )
    parts = [_part(run_data, *part) for part in (trained, searched) if part[-1]]
    if not parts:
        return ""
    return f'<section id="learned"><h2>What the searcher has learned</h2>{"".join(parts)}</section>'


def _part(run_data: RunData, where: str, bar: str, rounds: Sequence[Mapping[str, Any]]) -> str:
    lines = summary(rounds)
    known = [line for line in lines if line["gain"] is not None]
    won = sum(line["gain"] > 0 for line in known)
    caption = f"{where} nothing that was generated has a score yet."
    if known:
        caption = (
            f"{where} {won} of {len(known)} rounds generated architectures whose mean score is better than that {bar}."
        )
    head = "".join(f'<th class="number">{text}</th>' for text in HEADS)
    rows = "".join(_row(run_data, line) for line in lines)
    return (
        f'<div class="card"><p>{caption}</p><div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div><p>A prediction is a standing among those learned in its round: 1 is the "
        "best one's, 0 that of the worst. Pairs ordered: the share of pairs with different scores which the prediction "
        "orders as the scores do; 50 % is chance. Scores are compared at the highest fidelity that most of those "
        "learned had reached. A dash: not known.</p></div>"
        f'<div class="grid">{_scatter(run_data, rounds)}</div>'
    )


def _row(run_data: RunData, line: Mapping[str, Any]) -> str:
    held_out = _share(line["pairwise"])
    cells = (
        str(line["scores"]),
        f"{line['steps']}{', cut short' if line['bound'] else ''}",
        _share(line["reconstructed"]),
        f"{held_out} ({line['held_out']} held out)" if line["held_out"] else held_out,
        score(run_data, line["pool"]),
        str(line["generated"]),
        "-" if line["predicted"] is None else f"{line['predicted']:.2f}",
        score(run_data, line["mean"]),
        _share(line["ordered"]),
    )
    return f"<tr>{''.join(f'<td class=number>{cell}</td>' for cell in cells)}</tr>"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f} %"


def _scatter(run_data: RunData, rounds: Sequence[Mapping[str, Any]]) -> str:
    """Predicted against actual score of the generated architectures that were scored."""
    by_round = [
        [(float(each["predicted"]), float(each["score"])) for each in row["generated"] if each["score"] is not None]
        for row in rounds
    ]
    pairs = [pair for each in by_round for pair in each]
    if not pairs:
        return ""
    near = far([true for _, true in pairs], rounds[0]["mode"])
    x = Axis.of("predicted standing", [predicted for predicted, _ in pairs])
    plot = Plot(x, Axis.of(score_label(run_data), [near(true) for _, true in pairs]), "score against prediction")
    *earlier, last = [[(predicted, near(true)) for predicted, true in each] for each in by_round if each]
    plot.dots([place for each in earlier for place in each], "weak")
    plot.dots(last, "full")
    away = sum(near(true) != true for _, true in pairs)
    text = f"{len(pairs)} generated architectures; in blue those of the last round."
    text += f" {away} far worse than most are drawn at the edge." if away else ""
    return figure(plot, "Score against prediction", text)
