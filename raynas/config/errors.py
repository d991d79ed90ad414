"""Errors of pydantic in one line each, and the groups of settings that raise them as errors of RayNAS."""

from __future__ import annotations

import dataclasses
import difflib
import functools
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic.dataclasses import dataclass
from typing_extensions import dataclass_transform

from raynas.config.types import STRICT
from raynas.exceptions import ConfigError

__all__ = ["explain", "explain_setting", "settings_group"]

T = TypeVar("T")


def explain(mistake: Mapping[str, Any]) -> str:
    """Words one entry of ``ValidationError.errors()``: the setting, its value, and what would be legal."""
    message = mistake["msg"].removeprefix("Value error, ")
    where = ".".join(str(part) for part in mistake["loc"])
    value = f"setting {where} = {mistake['input']!r}: " if where else ""
    return f"{value}{message[0].lower()}{message[1:]}"


def explain_setting(mistake: Mapping[str, Any], group: Any) -> str:
    """The same for a tree of settings; of an unknown one with the legal names.

    Args:
        mistake: The entry.
        group: The tree, with any values.
    """
    path = [str(part) for part in mistake["loc"]]
    where = ".".join(path)
    if mistake["type"] not in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"setting {where} = {mistake['input']!r}: {mistake['msg'][0].lower()}{mistake['msg'][1:]}"
    for part in path[:-1]:
        group = getattr(group, part)
    legal = [field.name for field in dataclasses.fields(group)]
    close = difflib.get_close_matches(path[-1], legal, 1)
    meant = f"; did you mean {'.'.join((*path[:-1], *close))}?" if close else ""
    return f"unknown setting {where!r}; legal ones: {', '.join(legal)}{meant}"


@dataclass_transform()
def settings_group(cls: type[T]) -> type[T]:
    """Makes a pydantic dataclass whose constructor raises :class:`raynas.exceptions.ConfigError` for illegal values.

    All fields need defaults. Values are checked when they are assigned, too.
    """
    made: Any = dataclass(config=STRICT)(cls)
    init = made.__init__

    @functools.wraps(init)
    def checked(self: Any, *arguments: Any, **values: Any) -> None:
        try:
            init(self, *arguments, **values)
        except ValidationError as error:
            raise ConfigError("\n".join(explain_setting(each, made()) for each in error.errors())) from None

    made.__init__ = checked
    result: type[T] = made
    return result
