"""Keeps the processes of Tune's trials as long as the search goes on, and lets those that start come up.

Tune ends a process as soon as no trial is staged for it: where a searcher waits for scores, all but one. A trial for
which a process starts is given the next one that is free instead, and what was started is ended before it is up. Where
a score takes less than such a start, one process then does all the work, and others are started and ended without end.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from ray.tune import tune
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.tune.utils.object_cache import _ObjectCache

__all__ = ["kept_processes"]


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

    def _maybe_reuse_cached_actor(self, trial: Trial) -> bool:
        starting = self._trial_to_actor.get(trial) in self._actor_manager.live_actors
        return False if starting and trial not in self._resetting_trials else super()._maybe_reuse_cached_actor(trial)


@contextmanager
def kept_processes() -> Iterator[None]:
    """What Tune runs in here keeps its processes to its end."""
    with mock.patch.object(tune, "TuneController", _Controller):
        yield
