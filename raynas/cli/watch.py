"""``raynas watch``: the state of a run, from another terminal or machine, until the run ends."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from raynas import results
from raynas.analysis.results import RunResults, load_run
from raynas.exceptions import ConfigError
from raynas.metrics import retrained_by
from raynas.results.curves import Curve, read_curve
from raynas.storage.locks import is_unlocked
from raynas.storage.object_store import open_sync
from raynas.storage.sync import StoreSync
from raynas.utils.formatting import counted, quantity

__all__ = ["facts", "watch_run"]

_PERIOD = 2.0
"""Seconds between two looks."""
_SILENT = 600.0
"""A run in an object store counts as ended after so many seconds without a change: its lock is on another machine."""

Facts = dict[str, str]


def watch_run(storage_path: str, name: str, console: Console | None = None, period: float = _PERIOD) -> None:
    """Print the state of a run again and again, until no process works on it any longer. Nothing is written.

    Args:
        storage_path: Where runs are kept: a folder, or the URI of an object store.
        name: Of the run.
        console: Where to print.
        period: Seconds between two looks.

    Raises:
        ConfigError: There is no such run, or a file of it is damaged.
    """
    console = console or Console(highlight=False)
    sync = open_sync(storage_path, name)
    folder = Path(storage_path).expanduser() / name if sync is None else sync.folder
    console.print(f"{name}: kept in {folder if sync is None else sync.uri}", soft_wrap=True, markup=False)
    states = _states(folder, sync, period)
    if console.is_terminal:
        with Live(console=console, refresh_per_second=4) as live:
            for state in states:
                live.update(_table(name, state))
        return
    before: Facts = {}
    for state in states:
        for what, text in state.items():
            if before.get(what) != text:
                console.print(f"{what}: {text}", soft_wrap=True, markup=False)
        before = state


def _states(folder: Path, sync: StoreSync | None, period: float) -> Iterator[Facts]:
    """What is known of the run, at each look; the last one says that it has ended."""
    state: Facts = {}
    changed = time.monotonic()
    while True:
        # Looked at first: what is read afterwards is all that an ended run has left.
        if sync is None:
            ended = is_unlocked(folder)
        else:
            sync.pull()
            ended = time.monotonic() - changed > _SILENT
        found = facts(folder)
        if found != state:
            state, changed = found, time.monotonic()
        if ended:
            yield {**state, "state": "no process works on it"}
            return
        yield {**state, "state": "running"}
        time.sleep(period)


def facts(folder: Path) -> Facts:
    """What the files of a run say, by what it is about.

    Raises:
        ConfigError: It is no run, or a file of it is damaged.
    """
    run = load_run(folder)
    notes: list[str] = []
    found: Facts = {}
    supernet = read_curve(folder / "supernet" / "training.jsonl", "supernet", notes)
    if supernet is not None:
        found["supernet"] = _training(supernet)
    if len(run.table):
        found["search"] = _search(run)
    if run.leaderboard:
        winner = run.leaderboard[0]
        options = ", ".join(f"{name}={option}" for name, option in winner["architecture"].items())
        found["winner"] = f"{winner['key']}, {_score(run, winner['final_score'])} on all validation data: {options}"
    for place in sorted((folder / "retrain").glob("*")):
        retraining = _retraining(place, notes)
        if retraining:
            found[f"retraining {place.name}"] = retraining
    exported = ", ".join(sorted(path.name for path in (folder / "export").glob("*")))
    if exported:
        found["exported"] = exported
    if (folder / "report.html").exists():
        found["report"] = str(folder / "report.html")
    return found


def _training(curve: Curve) -> str:
    done = "finished" if curve.finished else f"{100 * curve.steps[-1] / curve.total:.0f} %"
    return f"step {curve.steps[-1]} of {curve.total} ({done}), loss {curve.losses[-1]:.3f}"


def _search(run: RunResults) -> str:
    rows = run.latest().to_pylist()
    counts = {status: sum(row["status"] == status for row in rows) for status in ("running", "stopped", "error")}
    ended = len(rows) - counts["running"]
    wanted = run.config.search.num_samples  # of those within the limits of now
    parts = [f"{ended} of {counted(wanted, 'architecture')} scored" if ended <= wanted else f"{ended} scored"]
    names = {"running": "being scored", "stopped": "stopped early", "error": "failed"}
    parts += [f"{counts[status]} {text}" for status, text in names.items() if counts[status]]
    best = results.leaderboard(run.table, 1, run.objective.mode).to_pylist()
    if best:
        costs = ", ".join(f"{quantity(best[0][name])} {name}" for name in run.costs if best[0][name] is not None)
        parts.append(f"best so far {_score(run, best[0]['score'])}" + (f" ({costs})" if costs else ""))
    return ", ".join(parts)


def _score(run: RunResults, value: float) -> str:
    return " ".join(filter(None, (f"{value:.2f}", run.objective.unit, run.objective.name)))


def _retraining(folder: Path, notes: list[str]) -> str:
    result = folder / "result.json"
    if result.exists():
        try:
            values: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ConfigError(f"{result} is damaged: {error}") from None
        metric = retrained_by(values)
        return "finished" if metric is None else f"{metric.formatted(values[f'test_{metric.name}'])} on the test data"
    curve = read_curve(folder / "training.jsonl", "winner", notes)
    return "" if curve is None else _training(curve)


def _table(name: str, state: Facts) -> Table:
    table = Table(show_header=False, title=name, title_justify="left")
    for what, text in state.items():
        table.add_row(what, text)
    return table
