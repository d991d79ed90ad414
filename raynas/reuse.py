"""Keeps the processes of Tune's trials as long as the search goes on, and lets those that start come up.

Tune ends a process as soon as no trial is staged for it: where a searcher waits for scores, all but one. A trial for
which a process starts is given the next one that is free instead, and what was started is ended before it is up. Where
a score takes less than such a start, one process then does all the work, and others are started and ended without end.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from ray.exceptions import RayActorError
from ray.tune import tune
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.tune.utils.object_cache import _ObjectCache

__all__ = ["kept_processes"]

_PATIENCE = 60.0
"""Seconds that a process may take to start before its trial takes another one."""


class _Kept(_ObjectCache):
    """Gives nothing up before the end. All trials of a search take the same resources: whoever waits blocks nobody."""

    def cache_object(self, key: Any, obj: Any) -> bool:
        """Keep another one."""
        self._cached_objects[key].append(obj)
        self._num_cached_objects += 1
        return True

    def flush_cached_objects(self, force_all: bool = False) -> Generator[Any, None, None]:
        """Those that are given up."""
        if force_all:
            yield from super().flush_cached_objects(force_all)


class _Controller(TuneController):
    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._actor_cache = _Kept()
        self._begun: dict[Any, float] = {}
        """When a process was first seen starting."""
        self._losses: dict[Trial, int] = {}
        """How many more processes a trial may find dead: those that waited when it found the first."""

    def _maybe_reuse_cached_actor(self, trial: Trial) -> bool:
        actor, now = self._trial_to_actor.get(trial), time.monotonic()
        starts = actor in self._actor_manager.live_actors and trial not in self._resetting_trials
        if starts and now - self._begun.setdefault(actor, now) < _PATIENCE:
            return False
        return super()._maybe_reuse_cached_actor(trial)

    def _trial_task_failure(self, trial: Trial, exception: Exception) -> None:
        if isinstance(exception, RayActorError) and trial in self._resetting_trials:
            # A process that was lost while it waited, perhaps with the others of its machine. Tune tells it twice: of
            # the process, which puts the trial back, and then of the call, which must not end it.
            if trial.status == Trial.PENDING:
                self._resetting_trials.discard(trial)
                return
            left = self._losses.setdefault(trial, 1 + self._actor_cache.num_cached_objects)
            if left and not exception.preempted:
                self._losses[trial] = left - 1
                trial.run_metadata.num_failures -= 1
        super()._trial_task_failure(trial, exception)


@contextmanager
def kept_processes() -> Iterator[None]:
    """What Tune runs in here keeps its processes to its end."""
    with mock.patch.object(tune, "TuneController", _Controller):
        yield
