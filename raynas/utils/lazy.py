"""Names of a package that are imported when they are first used.

if TYPE_CHECKING:  # for type checkers and editors
from raynas.report.page import write_report

__all__ = ["write_report"]
__getattr__, __dir__ = lazy_names(__name__, {"write_report": "raynas.report.page"})
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["lazy_names"]


def lazy_names(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The functions ``__getattr__`` and ``__dir__`` of a package (PEP 562).

    Args:
        package: Its ``__name__``.
        homes: The module of each name; ``module:attribute`` where it has another name there.
    """

    def load(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, _, attribute = homes[name].partition(":")
        return getattr(importlib.import_module(module), attribute or name)

    def names() -> list[str]:
        return sorted(homes)

    return load, names
