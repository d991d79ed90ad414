"""What a person sees while a run is alive: progress bars, a live view of the search, tables.

On a terminal these are redrawn in place; elsewhere (a log file, a batch job) a line is printed now and then.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from raynas.metrics import Objective
from raynas.progress import SearchStatus, TrainingStatus, advice_on_waiting
from raynas.search_space.joint import network, settings
from raynas.utils.formatting import _UNITS, quantity
from raynas.utils.periods import PERIODS

__all__ = [
    "View",
]

_EVERY = PERIODS.line
"""Seconds between two lines where there is no terminal."""


class View:
    """Prints what a run does: lines, progress bars and tables. One per process."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)
        self._last = 0.0
        self.objective: Objective | None = None
        """What a score of the search is."""

    def say(self, text: str) -> None:
        """One line."""
        self.console.print(text, soft_wrap=True, markup=False)

    @contextmanager
    def training(self, what: str, examples: str = "images") -> Iterator[Any]:
        """A bar with loss, speed and time left; yields a function that takes a TrainingStatus."""
        columns = (
            SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[rates]}"),
            TimeRemainingColumn(),
        )  # fmt: skip
        with Progress(*columns, console=self.console, disable=not self.console.is_terminal) as bar:
            task = bar.add_task(what, total=None, rates="starting")
            begin: list[tuple[float, int]] = []
            waiting: list[float] = []

            def show(status: TrainingStatus) -> None:
                rates = f"loss {status.loss:.3f}, {status.images_per_second:.0f} {examples}/s"
                rates += f", {status.waiting:.0%} of the time waiting for data" if status.waiting >= 0.01 else ""
                step = f"{status.step}/{status.total}"
                bar.update(task, completed=status.step, total=status.total, rates=f"{step}, {rates}")
                waiting.append(status.waiting)
                begin[:] = begin or [(time.monotonic(), status.step)]
                if self._due(status.step == status.total):
                    made, spent = status.step - begin[0][1], time.monotonic() - begin[0][0]
                    left = spent / made * (status.total - status.step) if made else math.nan
                    remaining = "time left unknown" if math.isnan(left) else f"{left:.0f} s left"
                    self.say(f"{what}: step {step}, {rates}, {remaining}")

            yield show
        advice = advice_on_waiting(statistics.fmean(waiting or [0.0]))
        if advice is not None:
            self.say(f"{what}: {advice}")

    @contextmanager
    def search(self) -> Iterator[Any]:
        """A table of the search, redrawn in place; yields a function that takes a SearchStatus."""
        if not self.console.is_terminal:
            yield self._search_lines
            return
        with Live(console=self.console, refresh_per_second=4) as live:
            yield lambda status: live.update(self._search_table(status))

    def _due(self, at_once: bool) -> bool:
        """Whether it is time for another line, where lines are printed at all."""
        if self.console.is_terminal or not (at_once or time.monotonic() - self._last >= _EVERY):
            return False
        self._last = time.monotonic()
        return True

    def _facts(self, status: SearchStatus) -> dict[str, str]:
        left = (status.wanted - status.scored) / status.per_second if status.per_second else math.nan
        known = [f"{quantity(value)} {_UNITS.get(name, name)}" for name, value in status.best_costs.items()]
        if status.best_at[0] < status.best_at[1]:
            known.insert(0, "fidelity {} of {}".format(*status.best_at))
        return {
            "best so far": self._score(status.best) + (f" ({', '.join(known)})" if known else ""),
            "scored": f"{status.scored} of {status.wanted}",
            **({} if status.hypervolume is None else {"hypervolume": f"{status.hypervolume:.3f}"}),
            "stopped early": str(status.stopped),
            "scores per second": f"{status.per_second:.2f}",
            "time left": "unknown" if math.isnan(left) else f"{left:.0f} s",
            **_spent(status),
        }

    def _score(self, value: float) -> str:
        """A score with its unit and name."""
        of = self.objective
        return f"{value:.2f}" if of is None else " ".join(filter(None, (f"{value:.2f}", of.unit, of.name)))

    def _search_lines(self, status: SearchStatus) -> None:
        if self._due(status.scored >= status.wanted):
            self.say(self._search_line(status))

    def _search_line(self, status: SearchStatus) -> str:
        return "search: " + ", ".join(f"{name} {value}" for name, value in self._facts(status).items())

    def _search_table(self, status: SearchStatus) -> Table:
        table = Table(show_header=False, title="search", title_justify="left")
        for name, value in self._facts(status).items():
            table.add_row(name, value)
        return table

    def summary(self, status: SearchStatus) -> None:
        """What a search has done, in one line."""
        failed = f", {status.failed} failed: see the column 'error' of the log" if status.failed else ""
        spent = "".join(f"; {name} {value}" for name, value in _spent(status).items())
        self.say(
            f"scored {status.scored - status.earlier} architectures in {status.seconds:.0f} s"
            + (f", {status.scored} with those of earlier searches" if status.earlier else "")
            + f" ({status.stopped} stopped early{failed}){spent}"
        )

    def leaderboard(self, rows: Sequence[Mapping[str, Any]], rescored: bool = True, title: str | None = None) -> None:
        """The winner and the others of a list, with their scores and costs."""
        title = (title or "best architectures") + ("; final: on all validation data" if rescored else "")
        table = Table(title=title, title_justify="left")
        known = ("key", "architecture", "score", "fidelity", "final_score")
        costs = [name for name in rows[0] if name not in known]
        scores = {"score": "search", "final_score": "final"} if rescored else {"score": "score"}
        table.add_column("")
        table.add_column("key", no_wrap=True)
        for name in (*scores.values(), *costs):
            table.add_column({"macs": "MACs"}.get(name, name), justify="right", no_wrap=True)
        for number, row in enumerate(rows):
            place = "winner" if number == 0 else str(number + 1)
            cells = [f"{row[name]:.2f}" for name in scores] + [quantity(row[name]) for name in costs]
            table.add_row(place, row["key"], *cells)
        self.console.print(table)
        chosen = ", ".join(f"{name}={option}" for name, option in network(rows[0]["architecture"]).items())
        self.say(f"winner {rows[0]['key']}: {chosen}")
        trained = [f"{name} {value}" for name, value in settings(rows[0]["architecture"]).items()]
        if trained:
            self.say(f"training settings of the winner: {', '.join(trained)}")


def _spent(status: SearchStatus) -> dict[str, str]:
    """How the time was used: simulated seconds, or the share of real ones in which the workers did not score."""
    if status.simulated is not None:
        return {"simulated time": f"{status.simulated:.0f} s"}
    if status.overhead >= 1.0:  # what takes no time, like a look into a table, has no share of it
        return {}
    return {"overhead": f"{100 * status.overhead:.0f} % of the workers' time"}
