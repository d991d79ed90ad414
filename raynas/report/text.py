"""Formatting of numbers, durations and limits for the report."""

from __future__ import annotations

import math
from html import escape
from typing import Any

from raynas.analysis.run_data import RunData, Scored
from raynas.utils.formatting import quantity

__all__ = ["NAMES", "absent", "bounds", "count", "duration", "score", "score_label", "tested", "tip"]

NAMES = {"macs": "MACs", "parameters": "parameters", "latency_ms": "latency in ms"}
NONE = "-"


def absent(text: str) -> str:
    """A paragraph that says that something is missing."""
    return f'<p class="absent">{escape(text)}</p>'


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def score(run_data: RunData, value: Any) -> str:
    """A score with its unit."""
    if not _number(value):
        return NONE
    return f"{value:.4g}" if run_data.metric is None else run_data.metric.text(value)


def score_label(run_data: RunData) -> str:
    """The axis label of the score."""
    better = f"{'higher' if run_data.mode == 'max' else 'lower'} is better"
    metric = run_data.metric
    if metric is None:
        return f"score ({better})"
    return f"validation {metric.name}, {metric.unit or better}"


def tested(run_data: RunData, key: str, part: str = "test") -> str:
    """The test result of a retrained architecture."""
    metric, result = run_data.tested(key)
    value: Any = result.get(f"{part}_{metric.name}")
    return metric.text(value) if _number(value) else NONE


def count(value: Any) -> str:
    """A large number: 322.9 M."""
    return quantity(value) if _number(value) else NONE


def duration(seconds: float) -> str:
    """A duration in a suitable unit."""
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def bounds(run_data: RunData, cost: str) -> list[tuple[str, float]]:
    """The limits on a cost, each with the words for it."""
    pair = zip(("at least", "at most"), run_data.limits.bounds.get(cost, (None, None)), strict=True)
    return [(f"{words} {quantity(value)}", value) for words, value in pair if value is not None]


def tip(run_data: RunData, one: Scored) -> str:
    """The tooltip of an architecture."""
    costs = [f"{quantity(value)} {NAMES.get(name, name)}" for name, value in one.costs.items()]
    return ", ".join([f"{one.key}: {score(run_data, one.score)}", *costs])
