"""What a searcher that generates architectures has learned, round by round; what speaks against it, too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from raynas.report.account import Account
from raynas.report.figures import figure
from raynas.report.plots import Axis, Plot, far
from raynas.report.words import score, score_label
from raynas.searchers.rounds import summary

__all__ = ["learned"]

HEADS = (
    "learned from",
    "decoded exactly",
    "pairs ordered, held out",
    "their mean score",
    "generated and scored",
    "mean score of these",
    "pairs of these ordered",
)


def learned(account: Account) -> str:
    """The section about it; empty where the searcher keeps no such account."""
    parts = [
        _part(account, title, rounds)
        for title, rounds in (("In the training of the supernet", account.pooled), ("In the search", account.learned))
        if rounds
    ]
    if not parts:
        return ""
    return f'<section id="learned"><h2>What the searcher has learned</h2>{"".join(parts)}</section>'


def _part(account: Account, title: str, rounds: Sequence[Mapping[str, Any]]) -> str:
    lines = summary(rounds, account.mode)
    known = [line for line in lines if line["gain"] is not None]
    won = sum(line["gain"] > 0 for line in known)
    told = (
        f"{title} {won} of {len(known)} rounds generated architectures whose mean score is better than that of all "
        "they were learned from." if known else f"{title} nothing that was generated has a score yet."
    )  # fmt: skip
    head = "".join(f'<th class="number">{text}</th>' for text in HEADS)
    rows = "".join(_row(account, line) for line in lines)
    pairs = [
        (float(each["predicted"]), float(each["score"]))
        for row in rounds
        for each in row["generated"]
        if each["score"] is not None
    ]
    return (
        f'<div class="card"><p>{told}</p><div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div><p>Pairs ordered: the share of pairs with different scores which the "
        "prediction orders as the scores do; 50 % is chance. A dash: not known.</p></div>"
        f'<div class="grid">{_scatter(account, pairs)}</div>'
    )


def _row(account: Account, line: Mapping[str, Any]) -> str:
    held_out = _share(line["pairwise"])
    cells = (
        str(line["scores"]),
        _share(line["reconstructed"]),
        f"{held_out} of {line['held_out']}" if line["held_out"] else held_out,
        score(account, line["pool"]),
        str(line["generated"]),
        score(account, line["mean"]),
        _share(line["ordered"]),
    )
    return f"<tr>{''.join(f'<td class=number>{cell}</td>' for cell in cells)}</tr>"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f} %"


def _scatter(account: Account, pairs: Sequence[tuple[float, float]]) -> str:
    """Every scored one of those generated: what was predicted, and what came true."""
    if not pairs:
        return ""
    near = far([true for _, true in pairs], account.mode)
    places = [(predicted, near(true)) for predicted, true in pairs]
    x = Axis.of("predicted standing among those learned, 1 is best", [place for place, _ in places])
    plot = Plot(x, Axis.of(score_label(account), [height for _, height in places]), "score against prediction")
    plot.dots(places, "full")
    away = sum(near(true) != true for _, true in pairs)
    told = f"{len(pairs)} generated architectures of all rounds."
    told += f" {away} far worse than most are drawn at the edge." if away else ""
    return figure(plot, "Score against prediction", told)
