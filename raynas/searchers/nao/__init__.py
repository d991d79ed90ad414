"""NAO (Luo et al., NeurIPS 2018): an encoder, a score predictor and a decoder; search by gradient in the encoding.

The searcher and its networks import torch, the settings and the diagnostics do not.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raynas.searchers.nao.searcher import NAO
    from raynas.searchers.nao.settings import NAOSettings

__all__ = ["NAO", "NAOSettings"]

_HOMES = {"NAO": "raynas.searchers.nao.searcher", "NAOSettings": "raynas.searchers.nao.settings"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
