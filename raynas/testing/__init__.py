"""Conformance tests that searchers, spaces, evaluators and tasks of others inherit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raynas.utils.lazy import lazy_names

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

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
