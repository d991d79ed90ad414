"""Training curves, read from training.jsonl."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

from raynas.results.timing import PAUSE

__all__ = ["Curve", "read_curve"]


@dataclass(frozen=True)
class Curve:
    """A training curve."""

    steps: list[int]
    losses: list[float]
    total: int
    """Steps of the whole schedule."""
    seconds: float
    """From the first entry to the last, pauses left out."""
    waiting: float = 0.0
    """Share of the time in which the ranks waited for data."""

    @property
    def finished(self) -> bool:
        """Whether the last step is there."""
        return self.steps[-1] >= self.total


def read_curve(path: Path, what: str, notes: list[str]) -> Curve | None:
    """A training curve; steps that were made twice, before and after a resume, count as they were made last."""
    if not path.is_file():
        return None
    entries: list[dict[str, float]] = []
    seconds, before, broken = 0.0, math.nan, 0
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = {name: float(value) for name, value in json.loads(line).items()}
            step, now = entry["step"], entry.get("time", entry.get("seconds", math.nan))
            entry["loss"], entry["total"]
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
            broken += 1
            continue
        if 0 <= now - before <= PAUSE:
            seconds += now - before
        before = now
        while entries and entries[-1]["step"] >= step:
            entries.pop()
        entries.append(entry)
    if broken:
        notes.append(f"Lines of the training curve of the {what} that cannot be read and are left out: {broken}.")
    if not entries:
        return None
    steps, losses = [int(entry["step"]) for entry in entries], [entry["loss"] for entry in entries]
    waiting = [entry.get("waiting", 0.0) for entry in entries]
    return Curve(steps, losses, int(entries[-1]["total"]), seconds, sum(waiting) / len(waiting))
