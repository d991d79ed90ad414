"""The search: a Tune experiment between a searcher, a trainable and the log.

Tune proposes, schedules and runs the trials. What it saves of its own state is not used: the log is the truth of a
run, and a resumed or extended search rebuilds the searcher and the scheduler's rungs from it.
"""

from __future__ import annotations

import json
import logging
import math
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from ray import tune
from ray.tune.search import Searcher

from raynas import results, schedulers
from raynas import architecture as arch
from raynas.architecture import Architecture
from raynas.config import SearchConfig
from raynas.results import Log
from raynas.scoring import Scoring
from raynas.searchers import ArchitectureSearcher, Cohort

__all__ = ["History", "Recorder", "SearchStatus", "run_search"]

@dataclass(frozen=True)
class SearchStatus:
    """What a live view shows of a search."""

    scored: int
    """Architectures whose scoring has ended, those of earlier searches of the run included."""
    wanted: int
    stopped: int
    """How many of them were stopped early."""
    failed: int
    """How many could not be scored in this search; the log says why."""
    best: float
    best_costs: Mapping[str, float]
    per_second: float
    """Architectures scored a second, in this search."""
    seconds: float
    overhead: float
    """Share of the workers' time in which they did not score."""


class History:
    """What the log knows about the architectures that this search may use.

    Args:
        table: The rows of the log.
        admits: Whether an architecture keeps the limits of this search.
    """

    def __init__(self, table: pa.Table, admits: Callable[[Architecture], bool]) -> None:
        self.rows: dict[str, list[dict[str, Any]]] = {}
        for row in table.to_pylist():
            row["architecture"] = json.loads(row["architecture"])
            self.rows.setdefault(row["key"], []).append(row)
        self.rows = {key: rows for key, rows in self.rows.items() if admits(rows[0]["architecture"])}

    @property
    def ended(self) -> dict[str, list[dict[str, Any]]]:
        """The rows of each architecture whose scoring came to an end, by key."""
        return {key: rows for key, rows in self.rows.items() if rows[-1]["status"] != "running"}

    @property
    def in_flight(self) -> dict[str, dict[str, Any]]:
        """The last row of each architecture that was being scored when the run stopped, by key."""
        return {key: rows[-1] for key, rows in self.rows.items() if rows[-1]["status"] == "running"}

    def replay(self, searcher: ArchitectureSearcher, scheduler: Any | None) -> None:
        """Tell a fresh searcher and scheduler everything that happened, in the order in which it happened."""
        for rows in self.ended.values():
            scores = {row["fidelity"]: row["score"] for row in rows if row["score"] is not None}
            last = rows[-1]
            values = [scores.get(fidelity, math.nan) for fidelity in range(1, max(scores, default=0) + 1)]
            searcher.add_evaluated_point(
                {"architecture": last["architecture"]},
                values[-1] if values else None,
                error=last["status"] == "error",
                pruned=last["status"] == "stopped",
                intermediate_values=values,
            )
        searcher.requeue(row["architecture"] for row in self.in_flight.values())
        if scheduler is not None:
            everything = [row for rows in self.rows.values() for row in rows if row["score"] is not None]
            everything.sort(key=lambda row: row["time"])
            schedulers.replay(scheduler, [(row["key"], row["fidelity"], row["score"]) for row in everything])


class Recorder(tune.Callback):  # type: ignore[misc]
    """Writes every report of every trial into the log and counts for the live view."""

    def __init__(
        self,
        log: Log,
        scoring: Scoring,
        stamp: Mapping[str, Any],
        costs: Callable[[Architecture], Mapping[str, float]],
        tell: Callable[[SearchStatus], None],
    ) -> None:
        self.log, self.scoring, self.stamp, self.costs, self.tell = log, scoring, dict(stamp), costs, tell
        self.scored = self.stopped = self.failed = self.earlier = 0
        self.wanted = 0
        self.best: tuple[int, float] = (-1, -math.inf)
        self.best_row: dict[str, Any] = {}
        self.busy = 0.0
        self.begin = time.monotonic()
        self._open: dict[str, dict[str, dict[str, Any]]] = {}
        self._told = 0.0

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its callbacks; the live view belongs to this process and stays here.
        return {**self.__dict__, "tell": None, "costs": None}

    def remember(self, history: History) -> None:
        """Count what earlier searches of the run scored."""
        ended = history.ended
        self.scored = self.earlier = len(ended)
        self.stopped = sum(rows[-1]["status"] == "stopped" for rows in ended.values())
        for rows in ended.values():
            self._compare(rows[-1])

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """One report: a row for each architecture of the trial that was scored in this step."""
        open_rows = self._open.setdefault(trial.trial_id, {})
        for outcome in result.get("outcomes") or [_plain_outcome(trial.config, result, self.scoring.max_fidelity)]:
            name = arch.key(outcome["architecture"])
            seen = open_rows.get(name)
            if seen is not None and (seen["fidelity"], seen["status"]) == (outcome["fidelity"], outcome["status"]):
                continue
            row = {
                **self.stamp,
                **{k: outcome.get(k) for k in ("architecture", "fidelity", "status", "seconds", "worker", "metrics")},
                "trial": trial.trial_id,
                "score": float(outcome["score"]),
                "max_fidelity": self.scoring.max_fidelity,
                **self.costs(outcome["architecture"]),
            }
            row = {k: v for k, v in row.items() if v is not None}
            self.busy += (row.get("seconds") or 0.0) - ((seen or {}).get("seconds") or 0.0)
            self.log.append(row)
            open_rows[name] = row
            self._compare(row)
        self._show()

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """The trial ended: architectures that did not reach the end were stopped by the scheduler."""
        for row in self._open.pop(trial.trial_id, {}).values():
            if row["status"] == "running":
                row = {**row, "status": "stopped"}
                self.log.append(row)
            self.scored += 1
            self.stopped += row["status"] == "stopped"
        self._show()

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """The trial failed for good."""
        why = _last_error(trial)
        known = self._open.pop(trial.trial_id, {})
        for architecture in trial.config.get("architectures") or [trial.config["architecture"]]:
            row = known.get(arch.key(architecture), {**self.stamp, "architecture": architecture, "fidelity": 0})
            self.log.append({**row, "trial": trial.trial_id, "status": "error", "error": why})
            self.scored += 1
            self.failed += 1
        self._show()

    def _compare(self, row: Mapping[str, Any]) -> None:
        score = row.get("score")
        if score is None or not math.isfinite(score):
            return
        rank = (int(row["fidelity"]), score if self.scoring.mode == "max" else -score)
        if rank > self.best:
            self.best, self.best_row = rank, dict(row)

    def _show(self) -> None:
        now = time.monotonic()
        if now - self._told < 0.2 and self.scored < self.wanted:
            return
        self._told = now
        self.tell(self.status())

    def status(self) -> SearchStatus:
        """Where the search stands."""
        seconds = max(time.monotonic() - self.begin, 1e-6)
        return SearchStatus(
            scored=self.scored,
            wanted=self.wanted,
            stopped=self.stopped,
            failed=self.failed,
            best=self.best_row.get("score", math.nan),
            best_costs={k: self.best_row[k] for k in ("macs", "parameters") if self.best_row.get(k) is not None},
            per_second=(self.scored - self.earlier) / seconds,
            seconds=seconds,
            overhead=max(1.0 - self.busy / (seconds * self.scoring.workers), 0.0),
        )


def _last_error(trial: Any) -> str:
    """What went wrong in a trial, in one line: the end of the file that Tune writes about it."""
    try:
        lines = Path(trial.error_file).read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except (OSError, TypeError):
        lines = []
    return lines[-1].strip()[:500] if lines else "the trial failed"


def _plain_outcome(config: Mapping[str, Any], result: Mapping[str, Any], last: int) -> dict[str, Any]:
    """The report of a trainable that knows nothing of RayNAS."""
    fidelity = int(result["training_iteration"])
    done = result.get("done") or fidelity >= last
    return {
        "architecture": config["architecture"],
        "score": result["score"],
        "fidelity": fidelity,
        "status": "complete" if done else "running",
        "seconds": result.get("time_total_s"),
        "worker": result.get("hostname", ""),
    }


def run_search(
    searcher: ArchitectureSearcher,
    scoring: Scoring,
    config: SearchConfig,
    log: Log,
    recorder: Recorder,
) -> SearchStatus:
    """Score architectures until ``config.num_samples`` of them are in the log.

    Args:
        searcher: Fresh; the log is replayed into it.
        scoring: How trials score.
        config: Number of samples, scheduler, cohorts, time budget.
        log: Read at the start, appended by ``recorder``.
        recorder: Writes the log.

    Returns:
        The status at the end.
    """
    scheduler = None
    if config.scheduler == "asha" and config.cohort == 1 and scoring.max_fidelity > 1:
        scheduler = schedulers.asha(
            scoring.max_fidelity, grace=config.grace, reduction_factor=config.reduction_factor,
            metric="score", mode=scoring.mode,
        )  # fmt: skip
    searcher.set_max_concurrency(scoring.concurrent)
    log.flush()
    history = History(results.read(log.folder), lambda architecture: searcher.drawer.feasible(architecture))
    history.replay(searcher, scheduler)
    recorder.remember(history)
    recorder.wanted = config.num_samples
    left = config.num_samples - recorder.scored
    if left <= 0:
        return recorder.status()
    known = {
        key: {"fidelity": row["fidelity"], **json.loads(row["metrics"])} for key, row in history.in_flight.items()
        if row["metrics"]
    }  # fmt: skip
    parameters = {**scoring.parameters, **({"known": known} if known else {})}
    trainable: Any = scoring.trainable
    if parameters:
        trainable = tune.with_parameters(trainable, **parameters)
    search_alg: Searcher = searcher if config.cohort == 1 else Cohort(searcher, config.cohort, left)
    _quiet_tune()
    # Tune keeps a folder for every trial. The log holds all that matters, so they need not outlive the search.
    scratch = tempfile.TemporaryDirectory(prefix="raynas-tune-", ignore_cleanup_errors=True)
    tuner = tune.Tuner(
        tune.with_resources(trainable, dict(scoring.resources)),
        tune_config=tune.TuneConfig(
            search_alg=search_alg,
            scheduler=scheduler,
            num_samples=math.ceil(left / config.cohort),
            reuse_actors=True,
            time_budget_s=config.time_budget_seconds,
            trial_name_creator=lambda trial: f"architecture-{trial.trial_id}",
            trial_dirname_creator=lambda trial: str(trial.trial_id),
        ),
        run_config=tune.RunConfig(
            name="search",
            storage_path=scratch.name,
            callbacks=[recorder],
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            failure_config=tune.FailureConfig(max_failures=1),
            verbose=0,
        ),
    )
    recorder.begin = time.monotonic()
    try:
        tuner.fit()
    finally:
        log.flush()
        scratch.cleanup()
    return recorder.status()


def _quiet_tune() -> None:
    """The log replaces Tune's own files and tables; more than one trial is staged, so that no worker waits."""
    for name, value in {
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "TUNE_GLOBAL_CHECKPOINT_S": "600",
        "TUNE_MAX_PENDING_TRIALS_PG": "4",
        "RAY_AIR_NEW_OUTPUT": "0",
        "TUNE_DISABLE_SIGINT_HANDLER": "1",
        "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    }.items():
        os.environ.setdefault(name, value)
    logging.getLogger("ray.tune.analysis.experiment_analysis").setLevel(logging.ERROR)
    # The log keeps what went wrong in a trial; a page of traceback each would push everything else off the screen.
    logging.getLogger("ray.tune.execution.tune_controller").setLevel(logging.CRITICAL)
    logging.getLogger("ray.tune.tune").setLevel(logging.CRITICAL)
