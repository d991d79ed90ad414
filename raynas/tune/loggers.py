"""The loggers that people have already, fed with what a search is about: ``search.loggers``.

Tune's own callbacks for TensorBoard, MLflow and W&B make a record for every trial: of 10,000 trials 10,000 folders, and
of a trial that scores a cohort the best alone. Here the same classes get one record for the whole search, in which
every architecture is a step: its score, the best so far, its costs, how far it was scored.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ray.tune.logger import LoggerCallback, TBXLoggerCallback

from raynas.architecture import Decisions
from raynas.config.run import Config
from raynas.exceptions import ConfigError
from raynas.progress import SearchStatus
from raynas.storage.removal import own
from raynas.tune.optuna_study import ArchitectureLogger, OptunaStudy
from raynas.utils.imports import resolve

__all__ = ["LOGGERS", "Record", "check_loggers", "listening", "step_of"]

logger = logging.getLogger(__name__)

LOGGERS = {"tensorboard": "tensorboardX", "mlflow": "mlflow", "wandb": "wandb", "optuna": "optuna"}
"""Those with a short name, and the package that each of them needs."""
_TIMEOUT = 60.0
"""Seconds for what waits to be logged when the search has ended."""
Row = Mapping[str, Any]


class Record:
    """What these callbacks take for a trial of Tune: here the whole search of a run.

    Args:
        config: Of the run; shown as the settings.
        folder: For what a logger keeps in files.
        decisions: Of the search space.
        mode: ``"max"`` or ``"min"``: whether a high score is good.
    """

    def __init__(self, config: Config, folder: Path, decisions: Decisions | None = None, mode: str = "max") -> None:
        self.decisions, self.mode = dict(decisions or {}), mode
        self.objectives = tuple(config.search.objectives)
        self.trial_id = str(config.name)
        self.config = dataclasses.asdict(config)
        self.evaluated_params: dict[str, Any] = {}
        self.experiment_dir_name = "raynas"
        self.local_path = str(folder)

    def init_local_path(self) -> None:
        """Make the folder."""
        own(Path(self.local_path))

    def __str__(self) -> str:
        return self.trial_id


def step_of(row: Row, status: SearchStatus) -> dict[str, Any]:
    """What is logged of an architecture whose evaluation has ended: numbers alone, by name.

    Args:
        row: Its last row of the log.
        status: Of the search; its count is the step.
    """
    values = {name: value for name, value in row.items() if name != "max_fidelity"} | dict(row.get("costs") or {})
    values |= {f"metrics/{name}": value for name, value in (row.get("metrics") or {}).items()}
    values |= {"best_score": status.best, "stopped": row["status"] == "stopped", "failed": row["status"] == "error"}
    numbers = {name: float(value) for name, value in values.items() if isinstance(value, (bool, int, float))}
    finite = {name: value for name, value in numbers.items() if math.isfinite(value)}
    return {**finite, "training_iteration": status.scored}


def check_loggers(names: list[str]) -> None:
    """Refuse loggers that there are not, or that cannot log from here.

    Raises:
        ConfigError: It names the first of them, and what to do.
    """
    for name in names:
        if name in LOGGERS:
            spec = find_spec(LOGGERS[name])
            if spec is None or spec.origin is None:  # an empty folder of that name is no package
                raise ConfigError(
                    f"search.loggers: {name} needs a package that is missing: pip install {LOGGERS[name]}"
                )
        elif ":" not in name:
            legal = f"{', '.join(LOGGERS)}, or package.module:Class"
            raise ConfigError(f"unknown logger {name!r} in search.loggers; legal ones: {legal}")
        elif LoggerCallback not in getattr(resolve(name, "search.loggers"), "__mro__", ()):
            raise ConfigError(f"search.loggers: {name!r} is no class of ray.tune.logger.LoggerCallback")
        if name == "wandb":
            try:
                _make(name, Path()).setup()
            except ValueError:
                raise ConfigError(
                    "search.loggers: wandb has no key: run `wandb login`, set WANDB_API_KEY, or WANDB_MODE=offline"
                ) from None


def _make(name: str, folder: Path) -> LoggerCallback:
    """A logger with defaults that suit a run: what stays on this machine stays in the run's folder."""
    # Imported here: with them come MLflow and W&B, which take their time.
    if name == "tensorboard":
        return TBXLoggerCallback()
    if name == "mlflow":
        from ray.air.integrations.mlflow import MLflowLoggerCallback

        uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder.absolute() / 'mlflow.db'}"
        return MLflowLoggerCallback(uri, experiment_name=os.environ.get("MLFLOW_EXPERIMENT_NAME", "raynas"))
    if name == "wandb":
        return _WandB()
    if name == "optuna":
        return OptunaStudy(folder)
    made: LoggerCallback = resolve(name, "search.loggers")()
    return made


class _WandB(LoggerCallback):
    """Logs from this process. Ray's own callback does so from an actor.

    There ``WANDB_MODE`` and all else that is set here would be unknown, and its failures would be seen by nobody.
    """

    def setup(self, *arguments: Any, **keywords: Any) -> None:
        """Look for a key where Ray's callback looks; ValueError where there is none."""
        from ray.air.integrations.wandb import WandbLoggerCallback

        WandbLoggerCallback(project="raynas").setup()

    def log_trial_start(self, trial: Any) -> None:
        import wandb

        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "raynas"),
            id=trial.trial_id,
            name=str(trial),
            resume="allow",
            config=trial.config,
            dir=trial.local_path,
            settings=wandb.Settings(console="off"),
        )

    def log_trial_result(self, iteration: int, trial: Any, result: dict[str, Any]) -> None:
        self._run.log(result, step=iteration)

    def log_trial_end(self, trial: Any, failed: bool = False) -> None:
        self._run.finish()


class _Feed:
    """Tells the loggers in a thread of its own: a slow tracking server does not hold up the search.

    One that fails is left out from then on, with a warning.
    """

    def __init__(self, loggers: Mapping[str, LoggerCallback], record: Any) -> None:
        self._live, self._record = dict(loggers), record
        self._steps: queue.SimpleQueue[tuple[Row, dict[str, Any]] | None] = queue.SimpleQueue()
        self._until = math.inf
        self._thread = threading.Thread(target=self._work, name="raynas-loggers", daemon=True)
        self._thread.start()

    def __call__(self, row: Row, status: SearchStatus) -> None:
        """An architecture was scored."""
        self._steps.put((dict(row), step_of(row, status)))

    def _work(self) -> None:
        missed = 0

        def log(callback: LoggerCallback) -> None:
            if isinstance(callback, ArchitectureLogger):
                callback.log_architecture(row)
            else:
                callback.log_trial_result(step["training_iteration"], self._record, step)

        while (arrived := self._steps.get()) is not None:
            row, step = arrived
            if time.monotonic() > self._until:
                missed += 1
                continue
            self._each("is left out from now on", log)
        if missed:
            logger.warning("search.loggers: the last %d architectures are missing, the loggers were too slow", missed)
        self._each("did not end well", lambda callback: callback.log_trial_end(self._record))
        self._each("did not end well", lambda callback: callback.on_experiment_end([self._record]))

    def close(self) -> None:
        """End the records."""
        self._until = time.monotonic() + _TIMEOUT
        self._steps.put(None)
        self._thread.join(_TIMEOUT + 5)
        if self._thread.is_alive():
            logger.warning("search.loggers: no answer for %g seconds, the records are left open", _TIMEOUT)

    def _each(self, fault: str, call: Callable[[LoggerCallback], None]) -> None:
        for name, callback in list(self._live.items()):
            try:
                call(callback)
            except Exception as error:
                del self._live[name]
                logger.warning("search.loggers: %s %s: %s", name, fault, _line(error))


@contextmanager
def listening(
    config: Config, folder: Path, decisions: Decisions | None = None, mode: str = "max"
) -> Iterator[Callable[[Row, SearchStatus], None] | None]:
    """Start the loggers of a run; yields the function to call with every architecture, None without loggers.

    Args:
        config: Of the run.
        folder: Of the run.
        decisions: Of the search space.
        mode: ``"max"`` or ``"min"``: whether a high score is good.

    Raises:
        ConfigError: One of them cannot start.
    """
    if not config.search.loggers:
        yield None
        return
    record: Any = Record(config, folder / "loggers", decisions, mode)
    live: dict[str, LoggerCallback] = {}
    for name in config.search.loggers:
        try:
            record.init_local_path()
            live[name] = _make(name, folder)
            live[name].setup()
            live[name].log_trial_start(record)
        except Exception as error:
            raise ConfigError(f"search.loggers: {name} cannot start: {_line(error)}") from error
    feed = _Feed(live, record)
    try:
        yield feed
    finally:
        feed.close()


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:500]
