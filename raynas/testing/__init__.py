"""Conformance tests that searchers, spaces, evaluators and tasks of others inherit."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raynas.testing.evaluator import EvaluatorContract
    from raynas.testing.searcher import SearcherContract
    from raynas.testing.space import SpaceContract
    from raynas.testing.task import TaskContract

__all__ = [
    "EvaluatorContract",
    "SearcherContract",
    "SpaceContract",
    "TaskContract",
]

_HOMES = {
    "EvaluatorContract": "raynas.testing.evaluator",
    "SearcherContract": "raynas.testing.searcher",
    "SpaceContract": "raynas.testing.space",
    "TaskContract": "raynas.testing.task",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
