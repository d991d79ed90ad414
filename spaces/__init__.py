"""Search spaces, one family a file: ordinary PyTorch models that contain Choices.

The modules of the families are imported on first use, as in ``raynas.spaces.darts.darts_imagenet()``. Their builders
are not repeated here: most have the name of their module, which ``raynas.spaces.darts`` already means.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raynas.spaces import darts, nao, nasbench201, nasbench_macro, proxyless, recurrent, shufflenet

__all__ = ["darts", "nao", "nasbench201", "nasbench_macro", "proxyless", "recurrent", "shufflenet"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
