"""Objects by name: ``package.module:name``, as settings and the command line give them."""

from __future__ import annotations

import importlib
from typing import Any

from raynas.config import ConfigError

__all__ = ["resolve"]


def resolve(path: str, what: str) -> Any:
    """Import ``package.module:name``.

    Args:
        path: The name.
        what: The setting that holds it, for the message.

    Raises:
        ConfigError: The form is wrong, or there is no such module or name.
    """
    module_name, colon, name = path.partition(":")
    if not colon or not module_name or not name:
        raise ConfigError(f"{what} {path!r} is not of the form package.module:name")
    try:
        module = importlib.import_module(module_name)
    except (ImportError, SyntaxError) as error:
        raise ConfigError(f"{what} {path!r}: cannot import {module_name}: {error}") from None
    if not hasattr(module, name):
        legal = getattr(module, "__all__", None) or [n for n in vars(module) if not n.startswith("_")]
        raise ConfigError(f"{what} {path!r}: {module_name} has no {name!r}; it has: {', '.join(legal)}")
    return getattr(module, name)
