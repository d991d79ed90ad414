"""Objects by name: ``package.module:name``, as settings and the command line give them.

Which of them a file may name without anybody vouching for it: see :mod:`raynas.config.trust`.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
from types import BuiltinFunctionType, FunctionType
from typing import Any

from raynas.exceptions import ConfigError

__all__ = ["full_name", "resolve"]


def full_name(module: str) -> str:
    """The module that a setting means: ``spaces.darts`` is ``raynas.spaces.darts``, likewise ``trainables``.

    Another package called ``spaces`` is meant only where RayNAS has no such module.
    """
    if module.partition(".")[0] in ("spaces", "trainables"):
        with contextlib.suppress(ImportError):
            if importlib.util.find_spec(f"raynas.{module}") is not None:
                return f"raynas.{module}"
    return module


def resolve(path: str, what: str) -> Any:
    """Import ``package.module:name``.

    Args:
        path: The name.
        what: The setting that holds it, for the message.

    Raises:
        ConfigError: The form is wrong, there is no such module or name, or it belongs to Python itself: nothing there
            is made for a search, and much of it does harm.
    """
    module_name, colon, name = path.partition(":")
    if not colon or not module_name or not name:
        raise ConfigError(f"{what} {path!r} is not of the form package.module:name")
    _refuse_pythons_own(module_name, path, what)
    module_name = full_name(module_name)
    try:
        module = importlib.import_module(module_name)
    except (ImportError, SyntaxError) as error:
        raise ConfigError(f"{what} {path!r}: cannot import {module_name}: {error}") from None
    if not hasattr(module, name):
        legal = getattr(module, "__all__", None) or [n for n in vars(module) if not n.startswith("_")]
        raise ConfigError(f"{what} {path!r}: {module_name} has no {name!r}; it has: {', '.join(legal)}")
    found = getattr(module, name)
    if isinstance(found, (type, FunctionType, BuiltinFunctionType)):
        _refuse_pythons_own(found.__module__ or "", path, what)
    return found


def _refuse_pythons_own(module: str, path: str, what: str) -> None:
    if module.partition(".")[0] in sys.stdlib_module_names:
        raise ConfigError(f"{what} {path!r} belongs to Python itself ({module}), and is never run by its name")
