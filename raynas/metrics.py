"""How good answers are, in one number: what a score is, wherever one is shown. Thin trials read it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["ACCURACY", "METRICS", "PERPLEXITY", "Metric", "Objective", "retrained_by", "scored_by"]


def _percent(correct: float, loss: float) -> float:
    return 100.0 * correct


def _perplexity(correct: float, loss: float) -> float:
    return math.exp(min(loss, 700.0))


@dataclass(frozen=True)
class Metric:
    """A measure and its sense."""

    name: str
    mode: str
    """Whether high is good (max) or low (min)."""
    unit: str
    examples: str
    """What the answers are about, in the plural: the name under which a tally counts them."""
    of_means: Callable[[float, float], float]
    """Of the share of right answers and the mean loss."""
    span: tuple[float, float]
    """The least and the most that it can be."""

    def __call__(self, tally: Mapping[str, float]) -> float:
        """The measure of ``correct`` and ``loss``, sums over as many examples as the tally says."""
        count = tally[self.examples]
        return self.of_means(tally["correct"] / count, tally["loss"] / count) if count else math.nan

    def text(self, value: float) -> str:
        """A value with its unit, where it has one."""
        return f"{value:.2f}{self.unit and ' ' + self.unit}"

    def formatted(self, value: float) -> str:
        """A value that says by itself of what it is."""
        return self.text(value) if self.unit else f"{self.name} {self.text(value)}"


@dataclass(frozen=True)
class Objective:
    """What a score is: stored with the scores, and read from there."""

    name: str
    mode: Literal["max", "min"] = "max"
    """Whether a high score is good (max) or a low one (min)."""
    unit: str = ""

    @property
    def metric(self) -> Metric | None:
        """The metric that the score is; None for any other score, also for the column of a table with that name."""
        same = (metric for metric in METRICS if (metric.name, metric.unit) == (self.name, self.unit))
        return next(same, None)


ACCURACY = Metric("accuracy", "max", "%", "images", _percent, (0.0, 100.0))
PERPLEXITY = Metric("perplexity", "min", "", "words", _perplexity, (1.0, math.inf))
METRICS = (ACCURACY, PERPLEXITY)


def scored_by(rows: Iterable[Mapping[str, Any]]) -> Metric | None:
    """The measure that the scores of a log are; None where they are none of these."""
    for row in rows:
        reported = json.loads(row["metrics"] or "{}") if row["score"] is not None else {}
        for measure in METRICS:
            if reported.get(measure.name) == row["score"] is not None:
                return measure
    return None


def retrained_by(result: Mapping[str, Any]) -> Metric | None:
    """The measure in the result of a retraining, ``{"test_accuracy": ...}``; None where it has none."""
    return next((measure for measure in METRICS if f"test_{measure.name}" in result), None)
