"""What a run may spend, and what it has spent by its own records."""

from __future__ import annotations

import itertools
import math
import time
from pathlib import Path

from raynas import results
from raynas.config.run import Config
from raynas.exceptions import ConfigError
from raynas.results.files import CurveLine, read_lines
from raynas.results.timing import PAUSE, read_clock

__all__ = ["Budget", "search_seconds", "training_seconds"]


def training_seconds(curve: Path) -> tuple[float, float]:
    """Seconds of a training by its curve, pauses left out; and GPU seconds.

    Args:
        curve: The ``training.jsonl`` of a supernet; what came before its first line does not count.
    """
    points = [line for line in read_lines(curve, CurveLine) if "time" in line]
    spent = gpu = 0.0
    for before, point in itertools.pairwise(points):
        took = point["time"] - before["time"]
        if took <= PAUSE:
            spent += took
            gpu += took * point.get("gpus", 0.0)
    return spent, gpu


def search_seconds(log: Path) -> tuple[float, float]:
    """Seconds of the searches of a log, pauses left out; and the seconds of the GPUs that were held for them."""
    if not log.exists():
        return 0.0, 0.0
    rows = sorted(results.read(log).to_pylist(), key=lambda row: row["time"])
    clock = read_clock(rows)[1]
    busy = sum(row["seconds"] or 0.0 for row in rows if row["gpu_seconds"])
    each = sum(row["gpu_seconds"] or 0.0 for row in rows) / busy if busy else 0.0
    return clock.wall, clock.wall * clock.workers * each


class Budget:
    """What is left to a run from now on. Made when a command begins.

    Args:
        config: Its ``time_budget`` and ``budget_gpu_hours`` count.
        folder: Of the run: what earlier commands spent is read off its records.
    """

    def __init__(self, config: Config, folder: Path) -> None:
        self._seconds, self._gpu = math.inf, math.inf
        self.given = config.time_budget is not None or config.budget_gpu_hours is not None
        """Whether there is one."""
        self.given_seconds: float | None = None
        """Seconds that were left at the start: what counts where the time is simulated."""
        if not self.given:
            return
        logs = (search_seconds(folder / name) for name in ("scored.parquet", "sample"))
        parts = [training_seconds(folder / "supernet" / "training.jsonl"), *logs]
        if config.time_budget is not None:
            self._seconds = config.time_budget - sum(seconds for seconds, _ in parts)
        if config.budget_gpu_hours is not None:
            self._gpu = 3600 * config.budget_gpu_hours - sum(gpu for _, gpu in parts)
        self.given_seconds = None if config.time_budget is None else max(self._seconds, 0.0)
        self._since = time.monotonic()
        self._held = 0.0
        self._held_before = any(gpu for _, gpu in parts)

    def hold(self, gpus: float) -> None:
        """From now on so many GPUs are held.

        Raises:
            ConfigError: None is, and GPU hours are counted.
        """
        if not self.given:
            return
        if math.isfinite(self._gpu) and not gpus and not self._held and not self._held_before:
            raise ConfigError("budget_gpu_hours: this run holds no GPU; bound it by time_budget")
        passed, self._since = time.monotonic() - self._since, time.monotonic()
        self._seconds, self._gpu = self._seconds - passed, self._gpu - passed * self._held
        self._held = gpus

    @property
    def left(self) -> float | None:
        """Seconds, as long as so many GPUs are held; None without a budget; 0 where it is spent."""
        if not self.given:
            return None
        passed = time.monotonic() - self._since
        by_gpu = self._gpu / self._held if self._held else math.inf
        least = min(self._seconds, by_gpu)
        return None if math.isinf(least) else max(least - passed, 0.0)
