"""Figures of a run for Prometheus, by ``ray.util.metrics``: every node's metrics agent serves them.

Ray puts ``ray_`` before a name and ``_total`` behind that of a counter: ``ray_raynas_best_score``,
``ray_raynas_actor_busy_seconds_total``. All are tagged with the run's name. The driver writes at most a few times a
second, an actor once a request; a value costs about two microseconds.

Metrics never end a run: what Ray refuses is left out from then on, with one warning.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ray.util.metrics import Counter, Gauge

from raynas.utils.periods import PERIODS

if TYPE_CHECKING:
    from raynas.progress import SearchStatus, TrainingStatus

__all__ = ["ACTOR", "SEARCH", "STOPPED", "TRAINING", "ActorMetrics", "RunMetrics"]

SEARCH = {
    "raynas_best_score": "best score of the highest fidelity that was reached so far",
    "raynas_scored": "architectures whose scoring has ended",
    "raynas_wanted": "architectures to be scored in all",
    "raynas_failed": "architectures that could not be scored",
    "raynas_scores_per_second": "architectures scored a second, since the search began",
    "raynas_overhead": "share of the workers' time in which they do not score, since the search began",
}
"""Gauges of the driver in a search."""
STOPPED = {"raynas_stopped": "architectures that were stopped early at a rung"}
"""The same, with the tag ``rung``: the fidelity."""
TRAINING = {
    "raynas_training_loss": "loss of the last chunk of steps, mean over the workers",
    "raynas_training_images_per_second": "images, or words, a second through all workers together",
    "raynas_training_waiting": "share of the time in which the workers waited for data",
    "raynas_training_step": "steps made",
    "raynas_training_steps": "steps of the whole schedule",
}
"""Gauges of the driver in a training, with the tag ``what``: supernet, or retrain and the architecture's key."""
ACTOR = {
    "raynas_actor_busy_seconds": "seconds in which an actor trained or scored: its rate is the actor's utilisation",
    "raynas_actor_scores": "answers of an actor: an architecture at one fidelity each",
    "raynas_actor_images": "images, or words, that went through an actor in training",
}
"""Counters of each supernet actor, with the tag ``actor``."""

logger = logging.getLogger(__name__)
_AGAIN = PERIODS.metrics
"""Seconds after which a gauge is set again: Ray serves only those that were set in the last 10."""


class _Guard:
    """Sets metrics until Ray refuses one."""

    def __init__(self) -> None:
        self._failed = False

    def __call__(self, change: Callable[[float, dict[str, str]], None], value: float, tags: dict[str, str]) -> None:
        """Change a gauge or a counter. Ray takes tags of ASCII characters only: others are written as escapes."""
        if self._failed:
            return
        try:
            change(value, {name: text.encode("ascii", "backslashreplace").decode() for name, text in tags.items()})
        except Exception as error:
            self._failed = True
            logger.warning("no more metrics of this process: %s: %s", type(error).__name__, error)


class RunMetrics:
    """What the driver knows of a run.

    Args:
        run: Its name.
    """

    def __init__(self, run: str) -> None:
        self._run = run

    @contextmanager
    def search(self, show: Callable[[SearchStatus], None]) -> Iterator[Callable[[SearchStatus], None]]:
        """Yields a function that measures what is reported of a search, and passes it to ``show``."""
        gauges = [Gauge(name, text, ("run",)) for name, text in SEARCH.items()]
        (stopped,) = (Gauge(name, text, ("run", "rung")) for name, text in STOPPED.items())
        with _lasting() as put:

            def report(status: SearchStatus) -> None:
                show(status)
                values = (status.best, status.scored, status.wanted, status.failed, status.per_second, status.overhead)
                for gauge, value in zip(gauges, values, strict=True):
                    put(gauge, value, run=self._run)
                for rung, count in status.stopped_at.items():
                    put(stopped, count, run=self._run, rung=str(rung))

            yield report

    @contextmanager
    def training(self, what: str, show: Callable[[TrainingStatus], None]) -> Iterator[Callable[[TrainingStatus], None]]:
        """Yields a function that measures what is reported of a training, and passes it to ``show``."""
        gauges = [Gauge(name, text, ("run", "what")) for name, text in TRAINING.items()]
        with _lasting() as put:

            def report(status: TrainingStatus) -> None:
                show(status)
                values = (status.loss, status.images_per_second, status.waiting, status.step, status.total)
                for gauge, value in zip(gauges, values, strict=True):
                    put(gauge, value, run=self._run, what=what)

            yield report


@contextmanager
def _lasting() -> Iterator[Callable[..., None]]:
    """Yields ``put(gauge, value, **tags)``; what was put is served until the end, also where nothing new comes."""
    latest: dict[tuple[Gauge, tuple[tuple[str, str], ...]], float] = {}
    ended, guard = threading.Event(), _Guard()

    def put(gauge: Gauge, value: float, **tags: str) -> None:
        if math.isfinite(value):
            guard(gauge.set, value, tags)
            latest[gauge, tuple(tags.items())] = value

    def repeat() -> None:
        while not ended.wait(_AGAIN):
            for (gauge, tags), value in list(latest.items()):
                guard(gauge.set, value, dict(tags))

    thread = threading.Thread(target=repeat, name="raynas-metrics", daemon=True)
    thread.start()
    try:
        yield put
    finally:
        ended.set()
        thread.join()


class ActorMetrics:
    """What one actor has done.

    Args:
        run: Name of the run.
        actor: Its own name.
    """

    def __init__(self, run: str, actor: str) -> None:
        self._counters = [Counter(name, text, ("run", "actor")) for name, text in ACTOR.items()]
        self._tags, self._guard = {"run": run, "actor": actor}, _Guard()

    def worked(self, seconds: float, scores: int = 0, images: int = 0) -> None:
        """Count a piece of work."""
        for counter, value in zip(self._counters, (seconds, scores, images), strict=True):
            if value > 0:
                self._guard(counter.inc, value, self._tags)
