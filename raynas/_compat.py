"""What RayNAS changes in Ray Tune, and asks of Ray, by names that Ray does not promise to keep.

Each of them is looked up before it is used. Where one is gone, Ray does what it does by itself, and one warning says
what that costs. Tried with the versions of Ray in ``TRIED``; tests/test_compat.py does the same without each name.

Processes of trials. Tune ends a process as soon as no trial is staged for it: where a searcher waits for scores, all
but one. A trial for which a process starts is given the next one that is free instead, and what was started is ended
before it is up. Where a score takes less than such a start, one process then does all the work, and others are started
and ended without end. :func:`kept_processes` keeps them as long as the search goes on, and lets those that start come
up.

Snapshots. Tune writes its whole state, with the searcher and all trials, every few minutes and at the end. The log is
the truth of a run, and nobody reads them: in :func:`kept_processes` they are empty.
"""

from __future__ import annotations

import importlib
import json
import logging
import sys
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, reduce, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayActorError

if TYPE_CHECKING:  # actors load this, too
    from ray.tune.experiment import Trial

__all__ = ["TRIED", "draining_nodes", "kept_processes", "missing", "mute_raylet", "replaced", "tune_objective"]

log = logging.getLogger(__name__)
TRIED = ("2.59.0", "2.60.0")
"""Versions of Ray whose private names are those used here."""
START_SECONDS = 60.0
"""Seconds that a process may take to start before its trial takes another one."""
CONTROLLER = "ray.tune.execution.tune_controller:TuneController"
CACHE = "ray.tune.utils.object_cache:_ObjectCache"
CLASSES = (
    "ray.tune.tune:TuneController",
    *(
        f"{CONTROLLER}.{name}"
        for name in ("_maybe_reuse_cached_actor", "_trial_task_failure", "save_to_dir", "experiment_state_path")
    ),
    *(f"{CACHE}.{name}" for name in ("cache_object", "flush_cached_objects", "num_cached_objects")),
)
"""What :func:`kept_processes` needs."""
ATTRIBUTES = ("_actor_cache", "_actor_manager", "_trial_to_actor", "_resetting_trials")
"""What it needs of a controller that was made."""
CACHED = ("_cached_objects", "_num_cached_objects")
"""What it needs of a cache that was made."""
DRAINING = "ray._private.state:state.get_draining_nodes"
PRINTS = "ray._private.worker:print_to_stdstream"
_PAGES = "Raylet is terminated"
"""How two pages begin that Ray prints when its raylet has died; :mod:`raynas.distributed.health` says it in a line."""


def missing(names: Sequence[str]) -> list[str]:
    """Those of some names, ``module:attribute.attribute``, that this Ray does not have."""
    return [name for name in names if not _there(name)]


def _there(name: str) -> bool:
    module, _, path = name.partition(":")
    try:
        reduce(getattr, path.split("."), importlib.import_module(module))
    except (ImportError, AttributeError):
        return False
    return True


@cache
def _warn(gone: tuple[str, ...], cost: str) -> None:
    """Say once what is gone."""
    log.warning("Ray %s has no %s (RayNAS was tried with %s): %s", ray.__version__, gone[0], ", ".join(TRIED), cost)


def draining_nodes() -> set[str]:
    """The ids of the nodes that have been told to leave; empty where Ray does not tell."""
    # No public interface tells it; Ray Train asks the same.
    gone = missing([DRAINING])
    if gone:
        _warn(tuple(gone), "a node that must leave is noticed only when it has gone")
        return set()
    return set(importlib.import_module("ray._private.state").state.get_draining_nodes())


def mute_raylet() -> None:
    """From now on Ray does not print the last pages of a raylet's own log when that has died."""
    gone = missing([PRINTS])
    if gone:
        _warn(tuple(gone), "when Ray's own processes die, it prints pages")
        return
    worker: Any = importlib.import_module("ray._private.worker")
    stock = worker.print_to_stdstream
    if getattr(stock, "muted", False):
        return

    @wraps(stock)
    def prints(data: Any, *arguments: Any, **keywords: Any) -> None:
        lines = [line for line in data.get("lines", ()) if not str(line).startswith(_PAGES)]
        if lines or not data.get("lines"):
            stock({**data, "lines": lines}, *arguments, **keywords)

    prints.muted = True  # type: ignore[attr-defined]
    worker.print_to_stdstream = prints


@contextmanager
def kept_processes() -> Iterator[None]:
    """What Tune runs in here keeps its processes to its end, and makes no snapshots of its state."""
    gone = missing(CLASSES)
    if gone:
        _warn(tuple(gone), _COST)
        yield
        return
    tune: Any = importlib.import_module("ray.tune.tune")
    with replaced(tune, "TuneController", _controller(tune.TuneController)):
        yield


_COST = "processes of trials end and start more often"


class _Own:
    """What is noted of a controller's processes and trials."""

    def __init__(self) -> None:
        self.begun: dict[Any, float] = {}
        """When a process was first seen starting."""
        self.losses: dict[Trial, int] = {}
        """How many more processes a trial may find dead: those that waited when it found the first."""


def _cache(stock: Any) -> Any:
    """A cache of processes that gives nothing up before the end.

    All trials of a search take the same resources: whoever waits blocks nobody.
    """

    class Kept(stock):  # type: ignore[misc]
        def cache_object(self, key: Any, obj: Any) -> bool:
            self._cached_objects[key].append(obj)
            self._num_cached_objects += 1
            return True

        def flush_cached_objects(self, force_all: bool = False) -> Generator[Any, None, None]:
            if force_all:
                yield from super().flush_cached_objects(force_all)

    return Kept()


def _controller(stock: Any) -> Any:
    """Tune's controller with what :func:`kept_processes` changes of it."""

    class Controller(stock):  # type: ignore[misc]
        _own: _Own | None = None

        def __init__(self, *arguments: Any, **keywords: Any) -> None:
            super().__init__(*arguments, **keywords)
            cache = _cache(importlib.import_module(CACHE.partition(":")[0])._ObjectCache)
            gone = [f"{CONTROLLER}.{name}" for name in ATTRIBUTES if not hasattr(self, name)]
            gone += [f"{CACHE}.{name}" for name in CACHED if not hasattr(cache, name)]
            if gone:
                _warn(tuple(gone), _COST)
            else:
                self._own, self._actor_cache = _Own(), cache

        def __getstate__(self) -> dict[str, Any]:
            # Tune writes what is left of this as JSON.
            return {name: value for name, value in super().__getstate__().items() if name != "_own"}

        def save_to_dir(self) -> None:
            path = Path(self.experiment_state_path)  # Tune wants one such file to be there in the end
            if self._own is None:
                super().save_to_dir()
            elif not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps({"trial_data": []}), encoding="utf-8")

        def _maybe_reuse_cached_actor(self, trial: Trial) -> bool:
            if self._own is not None:
                actor, now = self._trial_to_actor.get(trial), time.monotonic()
                starts = actor in self._actor_manager.live_actors and trial not in self._resetting_trials
                if starts and now - self._own.begun.setdefault(actor, now) < START_SECONDS:
                    return False
            return bool(super()._maybe_reuse_cached_actor(trial))

        def _trial_task_failure(self, trial: Trial, exception: Exception) -> None:
            own = self._own
            if own is not None and isinstance(exception, RayActorError) and trial in self._resetting_trials:
                # A process that was lost while it waited, perhaps with the others of its machine. Tune tells it twice:
                # of the process, which puts the trial back, and then of the call, which must not end it.
                if trial.status == "PENDING":
                    self._resetting_trials.discard(trial)
                    return
                left = own.losses.setdefault(trial, 1 + self._actor_cache.num_cached_objects)
                if left and not exception.preempted:
                    own.losses[trial] = left - 1
                    trial.run_metadata.num_failures -= 1
            super()._trial_task_failure(trial, exception)

    return Controller


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """An attribute of a module or class has another value in here."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def tune_objective() -> tuple[str | None, str | None]:
    """The ``metric`` and ``mode`` of the ``tune.run`` or ``Tuner.fit`` that is running in this thread.

    Tune passes them to a searcher (``set_search_properties``) only where its ``param_space`` is not empty. They are
    read from the arguments of ``ray.tune.run`` on the call stack. (None, None) outside of it.
    """
    code = getattr(ray.tune.run, "__code__", None) if hasattr(ray, "tune") else None
    frame = sys._getframe()
    while frame is not None and frame.f_code is not code:
        frame = frame.f_back  # type: ignore[assignment]
    values = {} if frame is None else frame.f_locals
    return values.get("metric"), values.get("mode")
