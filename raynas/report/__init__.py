"""The HTML report of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raynas.utils.lazy import lazy_names

if TYPE_CHECKING:
    from raynas.report.page import write_report

__all__ = [
    "write_report",
]

_HOMES = {
    "write_report": "raynas.report.page",
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
