"""The log of a run: schema, storage, queries, Pareto fronts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raynas.utils.lazy import lazy_names

if TYPE_CHECKING:
    from raynas.results.log import SCHEMA, SIMULATED, STATUSES, Log, Meter, compact, read, settings
    from raynas.results.queries import latest, leaderboard, mode_of, pareto

__all__ = [
    "SCHEMA",
    "SIMULATED",
    "STATUSES",
    "Log",
    "Meter",
    "compact",
    "latest",
    "leaderboard",
    "mode_of",
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
    "latest": "raynas.results.queries",
    "leaderboard": "raynas.results.queries",
    "mode_of": "raynas.results.queries",
    "pareto": "raynas.results.queries",
    "read": "raynas.results.log",
    "settings": "raynas.results.log",
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
