"""The search: a Tune experiment between a searcher, a trainable and the log.

Tune proposes, schedules and runs the trials. What it saves of its own state is not used: the log is the truth of a
run, and a resumed or extended search rebuilds the searcher and the scheduler's rungs from it.
"""

from __future__ import annotations

import inspect
import json
import logging
import math
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray
from ray import tune
from ray.tune.error import TuneError

from raynas import results
from raynas._compat import kept_processes
from raynas.architecture import Architecture
from raynas.config.run import SearchConfig
from raynas.distributed import credentials
from raynas.distributed.placement import check_room
from raynas.exceptions import ConfigError
from raynas.progress import SearchStatus
from raynas.results.log import Log
from raynas.searchers import ArchitectureSearcher, BatchSearcher
from raynas.storage.atomic import write_with_retry
from raynas.tune import schedulers
from raynas.tune.callback import Recorder
from raynas.tune.files import scratch_folder, tune_log
from raynas.tune.resources import HEAD
from raynas.tune.spec import EvaluationSpec
from raynas.utils.periods import PERIODS

__all__ = ["LoggedHistory", "run_search"]


class LoggedHistory:
    """What the log knows about the architectures that this search may use.

    Args:
        table: The rows of the log.
        admits: Whether an architecture keeps the limits of this search.
    """

    def __init__(self, table: pa.Table, admits: Callable[[Architecture], bool]) -> None:
        self.rows: dict[str, list[dict[str, Any]]] = {}
        """By key, in the order of their last rows, which is that in which a searcher is given the final scores."""
        for row in table.to_pylist():
            row["architecture"] = json.loads(row["architecture"])
            self.rows[row["key"]] = [*self.rows.pop(row["key"], []), row]
        self.rows = {key: rows for key, rows in self.rows.items() if admits(rows[0]["architecture"])}

    @property
    def ended(self) -> dict[str, list[dict[str, Any]]]:
        """The rows of each architecture that was scored to its end, by key. What failed may be tried again.

        Those that the trainable itself refused as infeasible have ended, too.
        """
        return {
            key: rows
            for key, rows in self.rows.items()
            if rows[-1]["status"] in ("complete", "stopped") or _infeasible(rows[-1])
        }

    @property
    def in_flight(self) -> dict[str, dict[str, Any]]:
        """The last row of each architecture that was being scored when the run stopped, by key."""
        return {key: rows[-1] for key, rows in self.rows.items() if rows[-1]["status"] == "running"}

    def check(self, most: int, where: str) -> None:
        """Refuse scores of a higher fidelity than a full score of this search has.

        Raises:
            ConfigError: There are some; the first is named.
        """
        for key, rows in self.rows.items():
            for row in rows:
                if (row["fidelity"] or 0) > most:
                    raise ConfigError(
                        f"{where}: a row of {key} has fidelity {row['fidelity']}, but a full score has {most}: "
                        "it is damaged, or the log is another search's; start a new run"
                    )

    def replay(self, searcher: ArchitectureSearcher, scheduler: Any | None) -> None:
        """Report everything that the log holds to a fresh searcher and scheduler, in its order."""
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
        earlier = {
            name: {row["fidelity"]: row["score"] for row in self.rows[name] if row["score"] is not None}
            for name in self.in_flight
        }
        searcher.requeue((row["architecture"] for row in self.in_flight.values()), earlier)
        if scheduler is not None:
            everything = [row for rows in self.ended.values() for row in rows if row["score"] is not None]
            everything.sort(key=lambda row: row["time"])
            observations = [(row["key"], row["fidelity"], row["score"]) for row in everything]
            schedulers.replay(scheduler, observations, earlier)


def _infeasible(row: dict[str, Any]) -> bool:
    return row["status"] == "error" and "infeasible" in json.loads(row["metrics"] or "{}")


def run_search(
    searcher: ArchitectureSearcher,
    spec: EvaluationSpec,
    config: SearchConfig,
    log: Log,
    recorder: Recorder,
    seconds: float | None = None,
) -> SearchStatus:
    """Score architectures until ``config.num_samples`` of them are in the log, or the time is over.

    Args:
        searcher: Fresh; the log is replayed into it.
        spec: How trials score.
        config: Number of samples, scheduler, cohorts.
        log: Read at the start, appended by ``recorder``.
        recorder: Writes the log.
        seconds: How long it may take; simulated seconds if ``spec.simulated``.

    Returns:
        The status at the end.
    """
    scheduler = None
    if config.stops_early and config.cohort == 1 and spec.max_fidelity > 1:
        scheduler = schedulers.asha(
            spec.max_fidelity, grace=config.grace, reduction_factor=config.reduction_factor,
            metric="score", mode=spec.mode,
        )  # fmt: skip
    searcher.expect_in_flight(spec.concurrent * config.cohort)
    log.flush()
    history = LoggedHistory(results.read(log.folder), lambda architecture: searcher.sampler.feasible(architecture))
    history.check(spec.max_fidelity, log.folder)
    history.replay(searcher, scheduler)
    recorder.remember(history.ended.values(), config.num_samples, history.in_flight.values())
    left = config.num_samples - recorder.counts.scored
    if left <= 0 or seconds == 0:
        return recorder.status()
    tune_config = tune.TuneConfig(
        search_alg=searcher if config.cohort == 1 else BatchSearcher(searcher, config.cohort, left),
        scheduler=scheduler,
        # Cohorts may go out smaller than they could be; they end by themselves when all is scored.
        num_samples=left,
        max_concurrent_trials=None if spec.bounded else spec.concurrent,
        reuse_actors=True,
        time_budget_s=None if spec.simulated else seconds,
        trial_name_creator=lambda trial: f"architecture-{trial.trial_id}",
        trial_dirname_creator=lambda trial: str(trial.trial_id),
    )
    _wait_for_slot(spec)
    recorder.start()
    try:
        stop: Any = None if spec.ends_itself else {"training_iteration": spec.max_fidelity}
        if spec.simulated and seconds is not None:
            stop = _Simulated(recorder, seconds)
        with tune_log(Path(log.folder).parent):
            _fit(_with_parameters(spec, history), tune_config, recorder, stop)
    finally:
        write_with_retry(log.flush, f"the last rows of {log.folder}")
    return recorder.status()


def _wait_for_slot(spec: EvaluationSpec, seconds: float = 60.0) -> None:
    """Thin trials run on the head node, those of one search at a time; others need what they take to be free.

    Raises:
        RuntimeError: Another search did not end within a minute, or nothing else gave way.
    """
    needed, deadline = spec.resources.get(HEAD, 0.0), time.monotonic() + seconds
    if not needed:
        bundle = {name.upper() if name in ("cpu", "gpu") else name: n for name, n in spec.resources.items() if n}
        check_room([bundle], "trials")
    while needed and ray.available_resources().get(HEAD, 0.0) < needed:
        if time.monotonic() > deadline:
            raise RuntimeError("another search runs on this cluster: wait for its end, or start a cluster of its own")
        time.sleep(0.2)


class _Simulated(tune.Stopper):
    """Ends a search when its simulated time is over."""

    def __init__(self, recorder: Recorder, seconds: float) -> None:
        self.recorder, self.seconds = recorder, seconds

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """No single trial is ended."""
        return False

    def stop_all(self) -> bool:
        """Whether the time is over."""
        return self.recorder.counts.busy >= self.seconds


def _fit(trainable: Any, tune_config: tune.TuneConfig, recorder: Recorder, stop: Any) -> None:
    """Run Tune. It keeps a folder for every trial; these do not outlive the search, the log holds all that matters."""
    _quiet_tune()
    with scratch_folder() as scratch:
        run_config = tune.RunConfig(
            name="search",
            storage_path=str(scratch),
            callbacks=[recorder],
            stop=stop,
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            failure_config=tune.FailureConfig(max_failures=1),
            verbose=0,
        )
        try:
            with kept_processes(), credentials.kept_out():
                tune.Tuner(trainable, tune_config=tune_config, run_config=run_config).fit()
        except TuneError as error:
            # Tune wraps what its callbacks raise into the text of a whole traceback.
            last = str(error).strip().splitlines()[-1]
            raise RuntimeError(re.sub(r"^[\w.]*Error: ", "", last)) from error


def _with_parameters(spec: EvaluationSpec, history: LoggedHistory) -> Any:
    """The trainable with what it needs, and with what an interrupted run already knows of trials in flight."""
    known = {
        key: {"metrics": json.loads(row["metrics"] or "{}"), **{n: row[n] for n in ("fidelity", "score", "seconds")}}
        for key, row in history.in_flight.items()
        if row["score"] is not None
    }
    wanted = "known" in inspect.signature(spec.trainable.setup).parameters
    parameters = {**spec.parameters, **({"known": known} if wanted else {})}
    trainable: Any = tune.with_parameters(spec.trainable, **parameters) if parameters else spec.trainable
    trainable = tune.with_resources(trainable, dict(spec.resources))
    # Ray's dashboard and `ps` show this name; Tune's own is ResourceTrainable for all.
    trainable.__name__ = trainable.__qualname__ = spec.trainable.__name__
    return trainable


def _quiet_tune() -> None:
    """The log replaces Tune's own files and tables; more than one trial is staged, so that no worker waits."""
    for name, value in {
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "TUNE_GLOBAL_CHECKPOINT_S": str(PERIODS.snapshot),
        "TUNE_MAX_PENDING_TRIALS_PG": "4",
        "RAY_AIR_NEW_OUTPUT": "0",
        "TUNE_DISABLE_SIGINT_HANDLER": "1",
        "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    }.items():
        os.environ.setdefault(name, value)
    logging.getLogger("ray.tune.analysis.experiment_analysis").setLevel(logging.ERROR)
