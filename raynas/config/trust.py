"""Code that settings name: what a file names is run only if it is RayNAS' own, or somebody vouches for it.

Settings are code: ``space: my_pkg.net:space`` imports a module and calls a function. What somebody names on the command
line, or in Python, is run. What only a file names, be it the folder of a run or a settings file, may have been written
by anybody.
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Collection, Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from raynas.config.run import Config
from raynas.exceptions import ConfigError
from raynas.utils.imports import full_name, resolve

__all__ = ["ForeignError", "foreign", "refuse", "refuse_foreign", "trusting", "words"]

_OWN = (
    "raynas.spaces",
    "raynas.trainables",
    "raynas.architecture",
    "raynas.searchers",
    "raynas.evaluation.proxies.scores",
    "raynas.evaluation.proxies.az_nas",
)
"""Packages and modules of RayNAS with what settings are meant to name. Other functions of ``raynas`` write files or
read command lines, so that a file could do harm by calling them."""
_OF_DECISIONS = ("canonical", "alike", "graph", "notation")
_TRUSTED: ContextVar[bool] = ContextVar("trusted", default=False)


class ForeignError(ConfigError):
    """A file names code that is not RayNAS' own, and nobody vouches for it."""


def settings(config: Config) -> dict[str, Any]:
    """All settings that may name code, with their values."""
    search, args = config.search, config.space_args
    found = {
        "space": config.space,
        **{f"space_args.{name}": args[name] for name in _OF_DECISIONS if name in args},
        "data.name": config.data.name,
        "search.trainable": search.trainable,
        "search.trainable_args.score": search.trainable_args.get("score"),
        "search.trainable_args.decoder": search.trainable_args.get("decoder"),
        "search.filter.score": search.filter.score,
        "search.method": search.method,
        "search.loggers": search.loggers,
        "truth.table.decoder": config.truth.table.get("decoder"),
    }
    return {name: value for name, value in found.items() if value}


def words(value: Any) -> Iterator[str]:
    """All texts in a value, however deep."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from words(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from words(each)


def foreign(config: Config, named: Collection[str] = ()) -> dict[str, Any]:
    """The settings that name code which is not RayNAS' own, nor among ``named``, with their values."""
    return {
        name: value
        for name, value in settings(config).items()
        if any(":" in word and word not in named and not _is_own(word, name) for word in words(value))
    }


def _is_own(path: str, setting: str) -> bool:
    """Whether what has this name is public, and was written as a part of RayNAS; it is imported only if it may be."""
    module, _, name = path.partition(":")
    module = full_name(module)
    if not _stands_in(module) or name.startswith("_"):
        return False
    with contextlib.suppress(ConfigError):  # there is no such name, which is said where it is needed
        found = resolve(path, setting)
        return not callable(found) or _stands_in(str(getattr(found, "__module__", "")))
    return True


def _stands_in(module: str) -> bool:
    return any(module == own or module.startswith(f"{own}.") for own in _OWN)


def refuse_foreign(config: Config, file: str | Path, named: Collection[str] = ()) -> None:
    """Refuse settings from a file that name code which is not RayNAS' own.

    Args:
        config: The settings.
        file: Where they come from, for the message.
        named: What somebody has named beside the file, word for word: that is run.

    Raises:
        ForeignError: There are such; it names them, and says what to do.
    """
    strange = foreign(config, named)
    if strange:
        refuse(strange, file)


def refuse(strange: Mapping[str, Any], file: str | Path) -> None:
    """Say what a file names, and what to do where that may be run.

    Raises:
        ForeignError: Always, unless everything is trusted here.
    """
    if _TRUSTED.get():
        return
    names = ", ".join(f"{name} = {', '.join(words(value))}" for name, value in strange.items())
    again = " ".join(
        shlex.quote(f"{name}={value}" if isinstance(value, str) else f"{name}=[{', '.join(words(value))}]")
        for name, value in strange.items()
    )
    raise ForeignError(
        f"{file} names code that is not RayNAS' own, and would run it: {names}. If you trust it, name it yourself, "
        f"{again}, or trust all that the file names: --trust, in Python trust=True"
    )


@contextlib.contextmanager
def trusting(everything: bool) -> Iterator[None]:
    """Whether all that files name is run in here."""
    before = _TRUSTED.set(everything)
    try:
        yield
    finally:
        _TRUSTED.reset(before)
