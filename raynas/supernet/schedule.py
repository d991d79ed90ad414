"""How many steps the training of a supernet has, where it is given epochs, minutes, or both."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

from raynas.config.train import TrainConfig

__all__ = ["UNLIMITED", "Schedule", "make_schedule"]

UNLIMITED = 10**9
"""Steps of a schedule that counts minutes, before anything is measured."""
_SHORT = 50
"""Steps of a schedule that no budget shortens: measuring would be a large part of it."""
_MEASURED = 3.0
"""Seconds of training after which its speed is known well enough to shorten a schedule of epochs."""


class Schedule:
    """The number of steps: as many as the recipe has, or as fit into the time.

    Machines get slower and faster during a training, so the number is planned again after every chunk: half of the time
    is spent at half of the steps, and the learning rate ends when the time does.

    Args:
        most_steps: An upper bound.
        total: The steps as planned before.
        spent: Seconds that the first steps took in earlier processes.
        most_seconds: That it may still take.
    """

    def __init__(self, most_steps: int, total: int, spent: float, most_seconds: float) -> None:
        self.total = total
        self._most_steps, self._begin = most_steps, time.monotonic() - spent
        self._end = time.monotonic() + most_seconds

    def spent(self) -> float:
        """The seconds that it took so far, in all processes."""
        return time.monotonic() - self._begin

    def reached(self, step: int) -> None:
        """Plan again, after ``step`` steps."""
        spent, left = self.spent(), max(self._end - time.monotonic(), 0.0)
        if not left:
            self.total = step
        elif math.isfinite(left) and (spent >= _MEASURED or self._most_steps == UNLIMITED):
            self.total = min(step + max(int(left * step / spent), 1), self._most_steps)


def make_schedule(recipe: TrainConfig, epoch_steps: int, most: float, saved: Mapping[str, Any]) -> Schedule:
    """The schedule of a training, or of what is left of it.

    Args:
        recipe: How to train; nothing open.
        epoch_steps: Steps of an epoch.
        most: Seconds that it may still take.
        saved: The values of its newest checkpoint; empty where there is none.
    """
    assert recipe.epochs is not None
    spent = saved.get("seconds", 0.0)
    if recipe.minutes is not None:
        return Schedule(UNLIMITED, saved.get("total", UNLIMITED), spent, min(60 * recipe.minutes - spent, most))
    steps = max(round(recipe.epochs * epoch_steps), 1)
    return Schedule(steps, saved.get("total", steps), spent, math.inf if steps < _SHORT else most)
