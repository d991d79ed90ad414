"""What Tune's trials report: one row each in the log, and the figures of the live view."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.result import AUTO_RESULT_KEYS

from raynas import architecture as arch
from raynas.architecture import Architecture
from raynas.progress import SearchStatus
from raynas.results.log import RESERVED, SIMULATED, Log, Meter
from raynas.results.pareto_front import Hypervolume
from raynas.searchers.history import Origin
from raynas.tune.spec import EvaluationSpec
from raynas.utils.periods import PERIODS

__all__ = ["Observers", "Recorder", "RowDetails", "SearchCounts"]

GIVE_UP = 10
"""So many trials that fail one after the other end a search: something else is wrong than their architectures. Trials
that report an architecture as one that cannot be scored have not failed."""
_TUNES = {*AUTO_RESULT_KEYS, "score", "done", "trial_id", "experiment_tag", "should_checkpoint"}
"""What Tune adds to the report of a trainable, and what has a column of its own."""
_REPORTED = ("architecture", "fidelity", "status", "seconds", "worker", "metrics", "error")


@dataclass
class SearchCounts:
    """How far a search is: plain numbers."""

    scored: int = 0
    """Architectures whose evaluation has ended, those of earlier searches of the run included."""
    earlier: int = 0
    """How many of them are of earlier searches."""
    failed: int = 0
    stopped_at: Counter[int] = field(default_factory=Counter)
    """How many were stopped early, by fidelity."""
    wanted: int = 0
    best: tuple[int, float] = (-1, -math.inf)
    """The highest fidelity so far, and the best score at it, which is negative where a low one is good."""
    busy: float = 0.0
    """Computing seconds of this search."""


@dataclass(frozen=True)
class RowDetails:
    """What a row of the log holds beside the report of a trial."""

    stamp: Mapping[str, Any]
    """The same in every row: run and searcher."""
    costs: Callable[[Architecture], Mapping[str, float]]
    """The costs of an architecture by name."""
    origin: Callable[[str], Origin | None] = lambda key: None
    """How the architecture of a key came about."""


@dataclass(frozen=True)
class Observers:
    """Who is informed while a search runs."""

    status: Callable[[SearchStatus], None] = lambda status: None
    """Given the status a few times a second."""
    ended: Callable[[Mapping[str, Any], SearchStatus], None] | None = None
    """Given the last row of each architecture whose evaluation ends, and the status."""


class _SavedRecorder(tune.Callback):
    """What is left of a :class:`Recorder` in a saved experiment: its counts. The log is what a run continues from."""

    def __init__(self, counts: SearchCounts) -> None:
        self.counts = counts


class Recorder(tune.Callback):
    """Writes every report of every trial into the log and counts for the live view.

    Args:
        log: Where the rows go.
        spec: How the search scores.
        details: What rows hold beside the reports.
        observers: Who is informed.
        hypervolume: Of the front, for a search with objectives.
    """

    def __init__(
        self,
        log: Log,
        spec: EvaluationSpec,
        details: RowDetails,
        observers: Observers | None = None,
        hypervolume: Hypervolume | None = None,
    ) -> None:
        self.log, self.spec, self.details = log, spec, details
        self.observers, self.hypervolume = observers or Observers(), hypervolume
        self.counts = SearchCounts()
        self._best_row: dict[str, Any] = {}
        self._begin = time.monotonic()
        self._open: dict[str, dict[str, dict[str, Any]]] = {}
        """The last row of each architecture of the trials that run, by the trial's id and the key."""
        self._in_flight: dict[str, dict[str, Any]] = {}
        """The last row of each architecture that was being scored when the run stopped, by key."""
        self._meter = Meter()
        self._shown = 0.0
        self._failed_in_a_row = 0
        self._started = False

    def __reduce__(self) -> tuple[type[_SavedRecorder], tuple[SearchCounts]]:
        """Tune saves its callbacks with the experiment, which is never restored from that: the counts are kept."""
        return _SavedRecorder, (self.counts,)

    def remember(
        self, ended: Iterable[list[dict[str, Any]]], wanted: int, in_flight: Iterable[Mapping[str, Any]] = ()
    ) -> None:
        """Count what earlier searches of the run scored.

        Args:
            ended: The rows of each architecture whose evaluation ended.
            wanted: How many are to be scored in all.
            in_flight: The last row of each other one: what was spent on these is not spent again.
        """
        self.counts.wanted = wanted
        for row in in_flight:
            self._meter.took(row)
            if row.get("score") is not None:
                self._in_flight[row["key"]] = {n: v for n, v in row.items() if n != "time" and v is not None}
        for rows in ended:
            self.counts.scored += 1
            self._count(rows[-1])
            self._compare(rows[-1])
            self._measure(rows[-1])
        self.counts.earlier = self.counts.scored

    def start(self) -> None:
        """The search begins now."""
        self._begin = time.monotonic()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Time counts from the first trial on: what Ray and Tune take to start is not the price of a score."""
        if not self._started:
            self._started = True
            self._begin = time.monotonic()

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """One report: a row for each architecture of the trial that was scored in this step."""
        self._failed_in_a_row = 0
        open_rows = self._open.setdefault(trial.trial_id, {})
        for outcome in result.get("outcomes") or [_plain_outcome(trial.config, result, self.spec.max_fidelity)]:
            name = arch.key(outcome["architecture"])
            if name in self._in_flight:
                open_rows[name] = self._in_flight.pop(name)
            seen = open_rows.get(name)
            if seen is not None and _place(outcome) <= _place(seen):
                # A trial that lost its process has begun again, or one that was in the log when the run stopped; or a
                # cohort repeats its report.
                continue
            row = {"key": name, **self._row(outcome, trial.trial_id), **self._lineage(name)}
            self.counts.busy += self._meter.took(row)
            self.counts.failed += row["status"] == "error"
            self._measure(row)
            self.log.append(row)
            open_rows[name] = row
            self._compare(row)
        self._show()

    def _row(self, outcome: Mapping[str, Any], trial: str) -> dict[str, Any]:
        """One row of the log, without what is not known."""
        architecture, failed = outcome["architecture"], outcome["status"] == "error"
        costs = self.details.costs(architecture).items()
        row = {
            **self.details.stamp,
            **{name: outcome.get(name) for name in _REPORTED},
            "trial": trial,
            "score": None if failed else float(outcome["score"]),
            "max_fidelity": self.spec.max_fidelity,
            # Of a table any column may be a cost: one with the name of another column of the log is among the metrics.
            "costs": {name: cost for name, cost in costs if math.isfinite(cost) and name not in RESERVED},
        }
        if self.spec.simulated:
            row["worker"] = SIMULATED
        elif self.spec.gpus and row["seconds"] is not None:
            row["gpu_seconds"] = row["seconds"] * self.spec.gpus
        return {name: value for name, value in row.items() if value is not None}

    def _lineage(self, name: str) -> dict[str, str]:
        origin = self.details.origin(name)
        if origin is None:
            return {}
        return {"origin": origin.how} | ({"parents": " ".join(origin.parents)} if origin.parents else {})

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """The trial ended: architectures that did not reach the end were stopped by the scheduler."""
        for row in self._open.pop(trial.trial_id, {}).values():
            if row["status"] == "running":
                row = {**row, "status": "stopped"}
                self.log.append(row)
            self.counts.scored += 1
            self._count(row)
            self._inform(row)
        self._show()

    def _inform(self, last: Mapping[str, Any]) -> None:
        if self.observers.ended is not None:
            self.observers.ended(last, self.status())

    def _count(self, last: Mapping[str, Any]) -> None:
        if last["status"] == "stopped":
            self.counts.stopped_at[int(last["fidelity"])] += 1

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """The trial failed for good."""
        why = _last_error(trial)
        known = self._open.pop(trial.trial_id, {})
        for architecture in trial.config.get("architectures") or [trial.config["architecture"]]:
            row = known.get(arch.key(architecture), {**self.details.stamp, "architecture": architecture, "fidelity": 0})
            self.counts.scored += 1
            if row.get("status", "running") == "running":
                row = {**row, "trial": trial.trial_id, "status": "error", "error": why}
                self.log.append(row)
                self.counts.failed += 1
            self._inform(row)
        self._failed_in_a_row += 1
        if self._failed_in_a_row == GIVE_UP:
            raise RuntimeError(f"the last {GIVE_UP} trials failed, the search stops; the last one: {why}")
        self._show()

    def _compare(self, row: Mapping[str, Any]) -> None:
        score = row.get("score")
        if score is None or not math.isfinite(score):
            return
        rank = (int(row["fidelity"]), score if self.spec.mode == "max" else -score)
        if rank > self.counts.best:
            self.counts.best, self._best_row = rank, dict(row)

    def _measure(self, row: dict[str, Any]) -> None:
        """Note how large the hypervolume is with a full score."""
        score = row.get("score")
        full = row["status"] == "complete" and row["fidelity"] >= self.spec.max_fidelity
        if self.hypervolume is not None and full and score is not None and math.isfinite(score):
            row["hypervolume"] = self.hypervolume.add(score, self.details.costs(row["architecture"]))

    def _show(self) -> None:
        now = time.monotonic()
        if now - self._shown < PERIODS.view and self.counts.scored < self.counts.wanted:
            return
        self._shown = now
        self.observers.status(self.status())

    def status(self) -> SearchStatus:
        """Where the search stands."""
        seconds = max(time.monotonic() - self._begin, 1e-6)
        return SearchStatus(
            scored=self.counts.scored,
            earlier=self.counts.earlier,
            wanted=self.counts.wanted,
            stopped_at=dict(sorted(self.counts.stopped_at.items())),
            failed=self.counts.failed,
            best=self._best_row.get("score", math.nan),
            best_at=(max(self.counts.best[0], 0), self.spec.max_fidelity),
            best_costs=self.details.costs(self._best_row["architecture"]) if self._best_row else {},
            per_second=(self.counts.scored - self.counts.earlier) / seconds,
            seconds=seconds,
            overhead=max(1.0 - self.counts.busy / (seconds * self.spec.workers), 0.0),
            hypervolume=None if self.hypervolume is None else self.hypervolume.value,
            simulated=self.counts.busy if self.spec.simulated else None,
        )


def _place(row: Mapping[str, Any]) -> tuple[int, bool]:
    """How far an architecture is: its fidelity, and whether that was the last."""
    return int(row["fidelity"]), row["status"] != "running"


def _last_error(trial: Any) -> str:
    """What went wrong in a trial, in one line: the end of the file that Tune writes about it."""
    try:
        lines = Path(trial.error_file).read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except (OSError, TypeError):
        lines = []
    return lines[-1].strip()[:500] if lines else "the trial failed"


def _plain_outcome(config: Mapping[str, Any], result: Mapping[str, Any], last: int) -> dict[str, Any]:
    """The report of a trainable that knows nothing of RayNAS; its other numbers are kept as metrics."""
    fidelity = int(result["training_iteration"])
    done = result.get("done") or fidelity >= last
    metrics = {name: value for name, value in result.items() if name not in _TUNES and isinstance(value, (int, float))}
    return {
        "architecture": config["architecture"],
        "score": result["score"],
        "fidelity": fidelity,
        "status": "complete" if done else "running",
        "seconds": result.get("time_total_s"),
        "worker": result.get("hostname", ""),
        "metrics": metrics,
    }
