"""The log of a run: schema, storage, queries, Pareto fronts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raynas.utils.lazy import lazy_names

if TYPE_CHECKING:
    from raynas.results.log import (
        SCHEMA,
        SIMULATED,
        STATUSES,
        Log,
        Meter,
        compact,
        cost_names,
        objective,
        read,
        settings,
    )
    from raynas.results.queries import latest, leaderboard, pareto

__all__ = [
    "SCHEMA",
    "SIMULATED",
    "STATUSES",
    "Log",
    "Meter",
    "compact",
    "cost_names",
    "latest",
    "leaderboard",
    "objective",
    "pareto",
    "read",
    "settings",
]

_HOMES = {
    "Log": "raynas.results.log",
    "Meter": "raynas.results.log",
    "SCHEMA": "raynas.results.log",
    "SIMULATED": "raynas.results.log",
    "STATUSES": "raynas.results.log",
    "compact": "raynas.results.log",
    "cost_names": "raynas.results.log",
    "latest": "raynas.results.queries",
    "leaderboard": "raynas.results.queries",
    "objective": "raynas.results.log",
    "pareto": "raynas.results.queries",
    "read": "raynas.results.log",
    "settings": "raynas.results.log",
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
