"""The log of a run: schema, storage, queries, Pareto fronts."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

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


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
