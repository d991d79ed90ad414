"""The HTML report of a run: ``write_report(folder)`` makes the single file ``report.html`` from the files of the run.

The page needs no network and no script. It can be made at any time, also of an interrupted run: for what is not there
yet the page says so. :mod:`raynas.analysis.run_data` reads the folder, the modules ``charts*``, ``lineage`` and
``cells`` draw, ``page.html`` is the layout.
"""

from __future__ import annotations

import json
import shlex
from datetime import datetime, timezone
from html import escape
from importlib import resources
from pathlib import Path
from string import Template

from raynas.analysis.run_data import RunData, read_run_data
from raynas.config.trust import foreign
from raynas.progress import advice_on_waiting
from raynas.report import charts as figures
from raynas.report.charts_progress import progress
from raynas.report.charts_rank_correlation import rank_correlation
from raynas.report.charts_searcher import learned
from raynas.report.lineage import lineage
from raynas.report.svg import Axis
from raynas.report.text import NAMES, absent, bounds, count, duration, score, tested
from raynas.storage.atomic import replace_text
from raynas.storage.object_store import remote
from raynas.utils.collection import without_collection
from raynas.utils.formatting import counted

__all__ = ["DESCRIPTION", "write_report"]

DESCRIPTION = "data.json"
"""In the folder of a run: what is done to the data, in lines."""


@without_collection()
def write_report(folder: Path) -> Path:
    """Write ``report.html`` into the folder of a run.

    Returns:
        The path of the page.

    Raises:
        ValueError: The folder is no run, or its settings cannot be read.
        OSError: The page cannot be written.
    """
    run_data = read_run_data(Path(folder))
    template = Template(resources.files("raynas.report").joinpath("page.html").read_text(encoding="utf-8"))
    page = template.substitute(
        name=escape(run_data.config.name or run_data.folder.name),
        headline=_headline(run_data),
        facts=_facts(run_data),
        notes="".join(f"<li>{escape(note)}</li>" for note in _notes(run_data)),
        front=figures.front(run_data),
        progress=progress(run_data),
        winner=figures.winner(run_data),
        lineage=lineage(run_data, figures.barcode),
        learned=learned(run_data),
        best=_best(run_data),
        outcomes=figures.outcomes(run_data),
        training=figures.training(run_data),
        rank_correlation=rank_correlation(run_data),
        time=_time(run_data),
        repeat=_repeat(run_data),
        written=f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC",
    )
    target = run_data.folder / "report.html"
    replace_text(target, page, timeout=0)
    return target


def _notes(run_data: RunData) -> list[str]:
    """Warnings about the run that apply to the whole page."""
    notes = [*run_data.notes, *_described(run_data.folder)]
    for curve, what in ((run_data.training, "supernet"), (run_data.retraining, "winner")):
        if curve is not None and not curve.finished:
            notes.append(f"The training of the {what} stands at step {curve.steps[-1]} of {curve.total}.")
        advice = None if curve is None else advice_on_waiting(curve.waiting)
        if advice is not None:
            notes.append(f"The training of the {what} {advice}.")
    running = sum(one.status == "running" for one in run_data.scored)
    if running:
        notes.append(f"Architectures whose scoring was begun and has not ended: {running}.")
    return notes


def _described(folder: Path) -> list[str]:
    """What was done to the data, where the run has kept it."""
    try:
        lines = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return [f"{line[0].upper()}{line[1:]}." for line in lines if isinstance(line, str) and line]


def _headline(run_data: RunData) -> str:
    """The result in one sentence."""
    if not run_data.best:
        why = "has a score within the limits" if run_data.scored else "was scored yet: the log of this run is empty"
        return f"<h1>Nothing found yet</h1>{absent(f'No architecture {why}.')}"
    winner = run_data.best[0]
    metric, retrained = run_data.tested(winner["key"])
    if retrained:
        big = tested(run_data, winner["key"])
        what = f"{'' if metric.unit else metric.name + ' '}on the test {metric.examples}, trained from scratch"
    elif "final_score" in winner:
        known = run_data.metric is not None
        images = f"{metric.name} on all validation {metric.examples}" if known else "is the score of the winner"
        big, what = score(run_data, winner["final_score"]), f"{images}; not retrained yet"
    else:
        big = score(run_data, winner["score"])
        what = f"so far, at fidelity {winner['fidelity']}; the search has not ended"
    ended = [one for one in run_data.scored if one.status != "running"]
    stopped = sum(one.status == "stopped" for one in ended)
    config = run_data.config
    # A trainable with settings of its own, a table, need not have seen the data.
    data = f"on {config.data.name}" if not config.search.trainable_args else f"scored by {config.search.trainable}"
    line = (
        f"The best of {len(ended)} architectures ({stopped} stopped early) of {config.space} {data}, "
        f"proposed by {config.search.method} in {duration(run_data.clock.wall)} of search."
    )
    return f'<h1>{big} <small>{what}</small></h1><p class="lead">{escape(line)}</p>'


def _facts(run_data: RunData) -> str:
    """Score and costs of the winner, with the limits."""
    if not run_data.best:
        return ""
    winner = run_data.best[0]
    result = run_data.retrained.get(winner["key"])
    metric = run_data.tested(winner["key"])[0]
    tiles = [_tile(f"test {metric.name}", "not retrained yet", "")]
    if result is not None:
        below = f"validation {tested(run_data, winner['key'], 'validation')}"
        below += f", {counted(result['epochs'], 'epoch')} from scratch" if "epochs" in result else ""
        tiles = [_tile(f"test {metric.name}", tested(run_data, winner["key"]), below)]
    below = f"in the search {score(run_data, winner['score'])}"
    final = score(run_data, winner["final_score"]) if "final_score" in winner else "not scored again yet"
    name = "score of the winner" if run_data.metric is None else f"all validation {metric.examples}"
    tiles.append(_tile(name, final, below))
    tiles += [
        _tile(escape(NAMES.get(cost, cost)), count(winner.get(cost)), _meter(run_data, cost)) for cost in run_data.costs
    ]
    return "".join(tiles)


def _tile(name: str, value: str, below: str) -> str:
    words = "" if any(character.isdigit() for character in value) else ' class="words"'
    return f"<div class='tile'><dt>{name}</dt><dd{words}>{value}</dd><dd class='below'>{below}</dd></div>"


def _meter(run_data: RunData, cost: str) -> str:
    """A bar for the cost of the winner among all scored architectures, with marks for the limits."""
    limits, own = bounds(run_data, cost), run_data.best[0].get(cost)
    words = " and ".join(text for text, _ in limits) or "no limit"
    values = [one.costs[cost] for one in run_data.scored if cost in one.costs]
    if own is None or not values:
        return words
    axis = Axis.of(cost, [*values, own, *(value for _, value in limits)])
    low, high, here = (100 * axis.share(value) for value in (min(values), max(values), own))
    marks = "".join(f'<i class="mark" style="left:{100 * axis.share(value):.1f}%"></i>' for _, value in limits)
    return (
        f'<span class="meter"><i class="range" style="left:{low:.1f}%;right:{100 - high:.1f}%"></i>{marks}'
        f'<i class="own" style="left:{here:.1f}%"></i></span>{words}'
    )


def _best(run_data: RunData) -> str:
    """The table of the best architectures."""
    if not run_data.best:
        return absent("Nothing to list yet.")
    rows = []
    for number, row in enumerate(run_data.best, 1):
        cells = (
            score(run_data, row["score"]),
            score(run_data, row.get("final_score")),
            *(count(row.get(cost)) for cost in run_data.costs),
            *(escape(str(value)) for value in run_data.parts(row["architecture"])[1].values()),
            tested(run_data, row["key"]),
        )
        numbers = "".join(f'<td class="number">{cell}</td>' for cell in cells)
        picture = figures.barcode(run_data, row["architecture"])
        rows.append(f"<tr><td>{number}</td><td><code>{escape(row['key'])}</code></td><td>{picture}</td>{numbers}</tr>")
    heads = ("in the search", "scored again", *(escape(NAMES.get(cost, cost)) for cost in run_data.costs))
    heads += (*run_data.parts(run_data.best[0]["architecture"])[1], "test")
    head = "".join(f'<th class="number">{text}</th>' for text in heads)
    again = "" if run_data.metric is None else f" on all validation {run_data.metric.examples},"
    return (
        '<div class="scroll"><table><thead><tr><th></th><th>key</th><th>architecture</th>'
        f"{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
        f"<p>Scored again:{again} after the search. Test: trained from scratch. A dash: not done. "
        "Architectures in the colours of the winner's options.</p>"
    )


def _time(run_data: RunData) -> str:
    """How the time was spent, as a strip with a legend."""
    clock = run_data.clock
    scoring = min(clock.busy / clock.workers, clock.wall) if clock.workers else 0.0
    retraining = sum(float(result.get("seconds", 0.0)) for result in run_data.retrained.values())
    phases = [
        ("training the supernet", run_data.training.seconds if run_data.training else 0.0, "h0"),
        ("search, scoring", scoring, "h1"),
        ("search, all else", clock.wall - scoring, "h7"),
        ("retraining", retraining, "h2"),
    ]
    total = sum(seconds for _, seconds, _ in phases)
    if not total:
        return absent("No times are noted yet.")
    kept = [(name, seconds, f"{100 * seconds / total:.1f} %", hue) for name, seconds, hue in phases if seconds > 0]
    strip = "".join(f'<i class="{hue}" style="flex-grow:{seconds / total:.4f}"></i>' for _, seconds, _, hue in kept)
    legend = "".join(
        f'<li><i class="{hue}"></i>{name} <b>{duration(seconds)}</b> <em>{share}</em></li>'
        for name, seconds, share, hue in kept
    )
    workers = f"{clock.workers} worker{'s' * (clock.workers != 1)}"
    caption = f"Evaluation took {duration(clock.busy)} of computing on {workers}. " if clock.workers else ""
    caption = "The times of the search are simulated: they come from the table. " if clock.simulated else caption
    return (
        f'<div class="strip">{strip}</div><ul class="legend">{legend}</ul><p>{caption}Wall time without pauses. '
        "Starting up, scoring the best once more and export are not noted by a run and not counted.</p>"
    )


def _repeat(run_data: RunData) -> str:
    """All settings, and the commands that use them."""
    name = run_data.config.name or run_data.folder.name
    vouched = " --trust" if foreign(run_data.config) else ""
    again = f"python -m raynas.launch --config config.yaml{vouched} --name {shlex.quote(f'{name}-again')}"
    kept_in = run_data.config.storage_path
    place = f"{kept_in.rstrip('/')}/{name}" if remote(kept_in) else str(run_data.folder)
    onward = f"python -m raynas.launch --resume {shlex.quote(place)}{vouched} search.num_samples=N"
    kept = []
    for file, text in run_data.settings.items():
        newest = file == "config.yaml"
        title = file if newest else f"{file}, the settings of an earlier part of this run"
        kept.append(f"<details{' open' * newest}><summary>{escape(title)}</summary><pre>{escape(text)}</pre></details>")
    return (
        f"<p>The same run once more, from the settings below:</p><pre>{escape(again)}</pre>"
        f"<p>Go on with this run until N architectures are scored:</p><pre>{escape(onward)}</pre>{''.join(kept)}"
    )
