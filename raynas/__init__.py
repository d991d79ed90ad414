"""RayNAS: neural architecture search on Ray.

The names that a program usually needs. They are imported on first use: a thin Tune trial reads parts of this package
and must not wait for torch.
"""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["Choice", "Config", "Dataset", "Run", "Split", "decisions", "derive", "prepare"]

_HOMES = {
    "Choice": "raynas.nn.choice",
    "Config": "raynas.config.run",
    "Dataset": "raynas.data.dataset",
    "Run": "raynas.runs.network",
    "Split": "raynas.data.dataset",
    "decisions": "raynas.nn.choice",
    "derive": "raynas.nn.subnet",
    "prepare": "raynas.runs.factory",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'raynas' has no attribute {name!r}")
