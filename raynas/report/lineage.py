"""Lineage of the winner: its ancestors, from the first one, with the change and the score at each step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from html import escape

from raynas.analysis.run_data import RunData, Scored
from raynas.architecture import Architecture
from raynas.report.text import absent, score
from raynas.searchers.history import ORIGINS

__all__ = ["lineage"]

_SHOWN = 12
"""Longest lineage that is shown in full; of a longer one the middle steps are folded."""


def lineage(run_data: RunData, picture: Callable[[RunData, Architecture], str]) -> str:
    """The line of the winner as a list, the first ancestor on top.

    Args:
        run_data: Of the run.
        picture: Draws an architecture in little.
    """
    if not run_data.best:
        return absent("There is no winner yet.")
    known = {one.key: one for one in run_data.scored}
    winner = known.get(run_data.best[0]["key"])
    if winner is None or not winner.origin:
        return absent("How the winner came about is not noted: the log of this run, or its searcher, does not say.")
    line = _line(known, winner, run_data.mode)
    number = {one.key: place for place, one in enumerate(run_data.scored, 1)}
    steps = [
        f"<li>{picture(run_data, one.architecture)}<b>{score(run_data, one.score)}</b>"
        f"<span>{_words(run_data, known, one, before)}</span><em>no. {number[one.key]} of {len(known)}, "
        f"<code>{escape(one.key)}</code>{_early(one)}</em></li>"
        for before, one in zip([None, *line], line, strict=False)
    ]
    if len(steps) > _SHOWN:
        middle = steps[2 : 4 - _SHOWN]
        fold = f"<li class='fold'><details><summary>{len(middle)} more</summary><ol class='line'>"
        steps[2 : 4 - _SHOWN] = [f"{fold}{''.join(middle)}</ol></details></li>"]
    return f"<ol class='line'>{''.join(steps)}</ol><p>{_told(run_data, line)}</p>"


def _line(known: Mapping[str, Scored], winner: Scored, mode: str) -> list[Scored]:
    """The lineage from the first known ancestor to the winner; of two parents the better one is followed."""
    sign, line = (1.0 if mode == "max" else -1.0), [winner]
    while parents := [known[name] for name in line[-1].parents if name in known and known[name] not in line]:
        line.append(max(parents, key=lambda one: (one.fidelity, sign * one.score)))
    return line[::-1]


def _words(run_data: RunData, known: Mapping[str, Scored], one: Scored, before: Scored | None) -> str:
    """The origin of an architecture, and its differences from the previous one."""
    how = ORIGINS.get(one.origin, one.origin)
    if not one.origin:
        return "of origin unknown"
    if before is None:
        missing = [name for name in one.parents if name not in known]
        return escape(how) + (f" of {escape(' and '.join(missing))}, which this log does not have" if missing else "")
    others = [name for name in one.parents if name != before.key]
    scores = {name: score(run_data, known[name].score) if name in known else "not in this log" for name in others}
    mates = "".join(f" with <code>{escape(name)}</code> ({scores[name]})" for name in others)
    return f"{escape(how)}{mates}: {_changes(before.architecture, one.architecture)}"


def _changes(before: Architecture, after: Architecture) -> str:
    changed = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    lines = [f"{name} {before.get(name, 'none')} → {after.get(name, 'none')}" for name in changed[:3]]
    more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
    return escape(", ".join(lines)) + more if lines else "nothing changed"


def _early(one: Scored) -> str:
    return "" if one.full else f", at fidelity {one.fidelity} of {one.max_fidelity}"


def _told(run_data: RunData, line: list[Scored]) -> str:
    """A sentence about the lineage."""
    if len(line) > 1:
        crossed = any(len(one.parents) > 1 for one in line)
        caption = f"{len(line) - 1} step{'s' * (len(line) > 2)} from the first ancestor to the winner."
        return caption + (" Of two parents the better one is followed." if crossed else "")
    origin = line[0].origin
    if origin in ("model", "child"):
        return f"{run_data.config.search.method} looks at all scores at once: its proposals have no single parent."
    return "It has no ancestors."
