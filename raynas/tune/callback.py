"""What Tune's trials report: one row each in the log, and the figures of the live view."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.result import AUTO_RESULT_KEYS

from raynas import architecture as arch
from raynas.architecture import Architecture
from raynas.progress import SearchStatus
from raynas.results.log import SIMULATED, Log, Meter
from raynas.results.pareto_front import Hypervolume
from raynas.search_space.constraints import COSTS, LATENCY
from raynas.searchers.history import Origin
from raynas.tune.spec import EvaluationSpec
from raynas.utils.periods import PERIODS

__all__ = [
    "Recorder",
]

GIVE_UP = 10
"""So many trials that fail one after the other end a search: something else is wrong than their architectures. Trials
that report an architecture as one that cannot be scored have not failed."""
_COLUMNS = (*COSTS, LATENCY)
"""Costs that have a column of the log; others are among the metrics."""
_TUNES = {*AUTO_RESULT_KEYS, "score", "done", "trial_id", "experiment_tag", "should_checkpoint"}
"""What Tune adds to the report of a trainable, and what has a column of its own."""
_REPORTED = ("architecture", "fidelity", "status", "seconds", "worker", "metrics", "error")


class Recorder(tune.Callback):
    """Writes every report of every trial into the log and counts for the live view."""

    def __init__(
        self,
        log: Log,
        spec: EvaluationSpec,
        stamp: Mapping[str, Any],
        costs: Callable[[Architecture], Mapping[str, float]],
        tell: Callable[[SearchStatus], None],
        hypervolume: Hypervolume | None = None,
    ) -> None:
        self.log, self.spec, self.stamp, self.costs, self.tell = log, spec, dict(stamp), costs, tell
        self.hypervolume = hypervolume
        self.scored = self.failed = self.earlier = 0
        self.stopped_at: Counter[int] = Counter()
        self.wanted = 0
        self.best: tuple[int, float] = (-1, -math.inf)
        self.best_row: dict[str, Any] = {}
        self.busy = 0.0
        self.begin = time.monotonic()
        self._open: dict[str, dict[str, dict[str, Any]]] = {}
        self._in_flight: dict[str, dict[str, Any]] = {}
        """The last row of each architecture that was being scored when the run stopped, by key."""
        self._meter = Meter()
        self._told = 0.0
        self._in_a_row = 0
        self._started = False
        self.origin: Callable[[str], Origin | None] = lambda name: None
        """How the architecture of a key came about."""
        self.hear: Callable[[Mapping[str, Any], SearchStatus], None] | None = None
        """Told of each architecture whose evaluation ends: its last row, and where the search stands."""

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its callbacks; the live view belongs to this process and stays here.
        return {**self.__dict__, "tell": None, "costs": None, "spec": None, "origin": None, "hear": None}

    def remember(
        self, ended: Iterable[list[dict[str, Any]]], wanted: int, in_flight: Iterable[Mapping[str, Any]] = ()
    ) -> None:
        """Count what earlier searches of the run scored.

        Args:
            ended: The rows of each architecture whose evaluation ended.
            wanted: How many are to be scored in all.
            in_flight: The last row of each other one: what was spent on these is not spent again.
        """
        self.wanted = wanted
        for row in in_flight:
            self._meter.took(row)
            if row.get("score") is not None:
                self._in_flight[row["key"]] = {n: v for n, v in row.items() if n != "time" and v is not None}
        for rows in ended:
            self.scored += 1
            self._count(rows[-1])
            self._compare(rows[-1])
            self._measure(rows[-1])
        self.earlier = self.scored

    def start(self) -> None:
        """The search begins now."""
        self.begin = time.monotonic()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Time counts from the first trial on: what Ray and Tune take to start is not the price of a score."""
        if not self._started:
            self._started = True
            self.begin = time.monotonic()

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """One report: a row for each architecture of the trial that was scored in this step."""
        self._in_a_row = 0
        open_rows = self._open.setdefault(trial.trial_id, {})
        for outcome in result.get("outcomes") or [_plain_outcome(trial.config, result, self.spec.max_fidelity)]:
            name = arch.key(outcome["architecture"])
            if name in self._in_flight:
                open_rows[name] = self._in_flight.pop(name)
            seen = open_rows.get(name)
            if seen is not None and _place(outcome) <= _place(seen):
                # A trial that lost its process has begun again, or one that stood in the log when the run stopped; or a
                # cohort repeats what it said.
                continue
            row = {"key": name, **self._row(outcome, trial.trial_id), **self._lineage(name)}
            self.busy += self._meter.took(row)
            self.failed += row["status"] == "error"
            self._measure(row)
            self.log.append(row)
            open_rows[name] = row
            self._compare(row)
        self._show()

    def _row(self, outcome: Mapping[str, Any], trial: str) -> dict[str, Any]:
        """One row of the log, without what is not known."""
        architecture, failed = outcome["architecture"], outcome["status"] == "error"
        costs = self.costs(architecture)
        row = {
            **self.stamp,
            **{name: outcome.get(name) for name in _REPORTED},
            "trial": trial,
            "score": None if failed else float(outcome["score"]),
            "max_fidelity": self.spec.max_fidelity,
            **{name: costs[name] for name in _COLUMNS if math.isfinite(costs.get(name, math.nan))},
        }
        if self.spec.simulated:
            row["worker"] = SIMULATED
        elif self.spec.gpus and row["seconds"] is not None:
            row["gpu_seconds"] = row["seconds"] * self.spec.gpus
        return {name: value for name, value in row.items() if value is not None}

    def _lineage(self, name: str) -> dict[str, str]:
        origin = self.origin(name)
        if origin is None:
            return {}
        return {"origin": origin.how} | ({"parents": " ".join(origin.parents)} if origin.parents else {})

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """The trial ended: architectures that did not reach the end were stopped by the scheduler."""
        for row in self._open.pop(trial.trial_id, {}).values():
            if row["status"] == "running":
                row = {**row, "status": "stopped"}
                self.log.append(row)
            self.scored += 1
            self._count(row)
            self._heard(row)
        self._show()

    def _heard(self, last: Mapping[str, Any]) -> None:
        if self.hear is not None:
            self.hear(last, self.status())

    def _count(self, last: Mapping[str, Any]) -> None:
        if last["status"] == "stopped":
            self.stopped_at[int(last["fidelity"])] += 1

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """The trial failed for good."""
        why = _last_error(trial)
        known = self._open.pop(trial.trial_id, {})
        for architecture in trial.config.get("architectures") or [trial.config["architecture"]]:
            row = known.get(arch.key(architecture), {**self.stamp, "architecture": architecture, "fidelity": 0})
            self.scored += 1
            if row.get("status", "running") == "running":
                row = {**row, "trial": trial.trial_id, "status": "error", "error": why}
                self.log.append(row)
                self.failed += 1
            self._heard(row)
        self._in_a_row += 1
        if self._in_a_row == GIVE_UP:
            raise RuntimeError(f"the last {GIVE_UP} trials failed, the search stops; the last one: {why}")
        self._show()

    def _compare(self, row: Mapping[str, Any]) -> None:
        score = row.get("score")
        if score is None or not math.isfinite(score):
            return
        rank = (int(row["fidelity"]), score if self.spec.mode == "max" else -score)
        if rank > self.best:
            self.best, self.best_row = rank, dict(row)

    def _measure(self, row: dict[str, Any]) -> None:
        """Note how large the hypervolume is with a full score."""
        score = row.get("score")
        full = row["status"] == "complete" and row["fidelity"] >= self.spec.max_fidelity
        if self.hypervolume is not None and full and score is not None and math.isfinite(score):
            row["hypervolume"] = self.hypervolume.add(score, self.costs(row["architecture"]))

    def _show(self) -> None:
        now = time.monotonic()
        if now - self._told < PERIODS.view and self.scored < self.wanted:
            return
        self._told = now
        self.tell(self.status())

    def status(self) -> SearchStatus:
        """Where the search stands."""
        seconds = max(time.monotonic() - self.begin, 1e-6)
        return SearchStatus(
            scored=self.scored,
            earlier=self.earlier,
            wanted=self.wanted,
            stopped_at=dict(sorted(self.stopped_at.items())),
            failed=self.failed,
            best=self.best_row.get("score", math.nan),
            best_at=(max(self.best[0], 0), self.spec.max_fidelity),
            best_costs=self.costs(self.best_row["architecture"]) if self.best_row else {},
            per_second=(self.scored - self.earlier) / seconds,
            seconds=seconds,
            overhead=max(1.0 - self.busy / (seconds * self.spec.workers), 0.0),
            hypervolume=None if self.hypervolume is None else self.hypervolume.value,
            simulated=self.busy if self.spec.simulated else None,
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
