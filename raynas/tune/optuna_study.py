"""The search as a study of Optuna, so that optuna-dashboard and Optuna's plots show it: ``search.loggers=[optuna]``.

The study lies in ``$OPTUNA_STORAGE``, any storage URL of Optuna, or else in ``optuna.db`` in the folder of the run:

    optuna-dashboard sqlite:///RUN/optuna.db

Each architecture whose evaluation has ended is one trial: its decisions are the parameters, its score is the value
(with ``search.objectives`` the costs are further values), costs and metrics are user attributes. One that was stopped
early is a pruned trial, one that failed a failed trial.
"""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from ray.tune.logger import LoggerCallback

from raynas import results

__all__ = ["ArchitectureLogger", "OptunaStudy", "storage_url"]

_STATES = {"complete": "COMPLETE", "stopped": "PRUNED", "error": "FAIL"}
"""The name of Optuna's state for each status of an architecture whose evaluation has ended."""


def storage_url(folder: Path) -> str:
    """The URL of the storage in which the study of a run lies."""
    return os.environ.get("OPTUNA_STORAGE") or f"sqlite:///{folder.absolute() / 'optuna.db'}"


class ArchitectureLogger(LoggerCallback):
    """Base class of loggers that take the rows of the log instead of numbers by name."""

    def log_architecture(self, row: Mapping[str, Any]) -> None:
        """Log an architecture whose evaluation has ended.

        Args:
            row: Its last row of the log.
        """
        raise NotImplementedError


class OptunaStudy(ArchitectureLogger):
    """Writes architectures into an Optuna study that has the name of the run.

    A study that is there is continued. Architectures in the log of the run that it lacks, for a run was killed or had
    no such logger before, are added when the search begins.

    Args:
        folder: The folder of the run.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known = set[str]()

    def log_trial_start(self, trial: Any) -> None:
        """Open the study.

        Args:
            trial: A :class:`raynas.tune.loggers.Record`.

        Raises:
            Exception: What Optuna raises where the storage cannot be used.
            ValueError: The study that is there has other directions.
        """
        import optuna  # here: programs without this logger need not load it
        from optuna.distributions import CategoricalDistribution
        from optuna.study import StudyDirection

        self._objectives: tuple[str, ...] = trial.objectives
        self._distributions = {
            name: CategoricalDistribution(tuple(options)) for name, options in trial.decisions.items()
        }
        low, high = StudyDirection.MINIMIZE, StudyDirection.MAXIMIZE
        directions = [high if trial.mode == "max" else low, *(low for _ in self._objectives)]
        self._study = optuna.create_study(
            storage=storage_url(self._folder), study_name=str(trial), directions=directions, load_if_exists=True
        )
        if self._study.directions != directions:
            found, wanted = (", ".join(e.name.lower() for e in each) for each in (self._study.directions, directions))
            raise ValueError(
                f"the study {str(trial)!r} in {storage_url(self._folder)} has the directions {found}, not {wanted}: "
                "give the run another name, or delete the study"
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # names alone, shown by dashboards
            self._study.set_metric_names(["score", *self._objectives])
        self._known = {each.user_attrs.get("key", "") for each in self._study.get_trials(deepcopy=False)}
        log = self._folder / "scored.parquet"
        if log.exists():
            table = results.read(log)
            names = results.cost_names(table)
            last = {row["key"]: row for row in table.to_pylist()}
            for row in last.values():
                self.log_architecture({**row, "costs": {name: row[name] for name in names if row[name] is not None}})

    def log_architecture(self, row: Mapping[str, Any]) -> None:
        """Add an architecture whose evaluation has ended, unless the study has it.

        Args:
            row: Its last row of the log; of one that is still running nothing is added.
        """
        from optuna.trial import TrialState, create_trial

        if row["status"] not in _STATES or row["key"] in self._known:
            return
        state = TrialState[_STATES[row["status"]]]
        form, score = row["architecture"], row.get("score")
        params = json.loads(form) if isinstance(form, str) else dict(form)
        costs = row.get("costs") or {}
        values = [
            math.nan if score is None else float(score),
            *(costs.get(name, math.nan) for name in self._objectives),
        ]
        if state is TrialState.COMPLETE and not all(map(math.isfinite, values)):
            state = TrialState.FAIL
        metrics = row.get("metrics") or {}
        attributes = {**costs, **{f"metrics/{name}": value for name, value in _loaded(metrics).items()}}
        if row.get("error"):
            attributes["error"] = row["error"]
        ended = row.get("time") or datetime.now(timezone.utc)
        frozen = create_trial(
            state=state,
            values=values if state is TrialState.COMPLETE else None,
            params=params,
            distributions={name: self._distributions[name] for name in params},
            user_attrs={"key": row["key"], "fidelity": row.get("fidelity"), **attributes},
            intermediate_values={} if len(values) > 1 or score is None else {int(row["fidelity"]): float(score)},
        )
        # Optuna's times are naive and local.
        frozen.datetime_complete = ended.astimezone().replace(tzinfo=None)
        frozen.datetime_start = frozen.datetime_complete - timedelta(seconds=row.get("seconds") or 0.0)
        self._study.add_trial(frozen)
        self._known.add(row["key"])


def _loaded(metrics: Any) -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads(metrics) if isinstance(metrics, str) else metrics
    return found
