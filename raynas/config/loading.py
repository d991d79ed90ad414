"""Settings from a YAML file and the command line, checked; and back to YAML.

    config = load("run.yaml", ["train.epochs=5", "limits.macs=3.3e8"])
    config = load("rlnas")                    # one of raynas.config.presets

Unknown keys and values out of range are refused with a message that names the legal ones.
"""

from __future__ import annotations

import copy
import dataclasses
import difflib
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from raynas.config.presets import PRESETS
from raynas.config.run import Config
from raynas.config.trust import refuse_foreign, words
from raynas.exceptions import ConfigError

__all__ = ["dump", "load", "load_kept", "parse", "read"]

_ADAPTER = TypeAdapter(Config)
_log = logging.getLogger(__name__)


class _Loader(yaml.SafeLoader):
    """Reads 1e6 as the number that people mean: YAML 1.1 wants 1.0e+6."""


class _Dumper(yaml.SafeDumper):
    """Puts text that looks like such a number into quotes."""


for _each in (_Loader, _Dumper):
    # No setting is a date: 2024-01-05 is text.
    _each.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in _each.yaml_implicit_resolvers.items()
    }
    _each.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), [*"-+0123456789"]
    )


def parse(tree: Mapping[str, Any]) -> Config:
    """Make a :class:`Config` of nested dictionaries.

    Raises:
        ConfigError: Unknown keys (with the legal ones) or illegal values.
    """
    tree = dict(tree)
    search = tree.get("search")
    if isinstance(search, Mapping) and "features" in search:  # settings kept by runs of an earlier version
        tree["search"] = {name: value for name, value in search.items() if name != "features"}
        if not isinstance(search["features"], Mapping) or search["features"].get("score") is not None:
            _log.warning("search.features was removed and has no effect; delete it from the settings")
    try:
        return _ADAPTER.validate_python(tree)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(mistake) for mistake in error.errors())) from None


def _explain(mistake: Any) -> str:
    """One of pydantic's findings in one line that names what would be legal."""
    path = [str(part) for part in mistake["loc"]]
    where = ".".join(path)
    if mistake["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        group: Any = Config()
        for part in path[:-1]:
            group = getattr(group, part)
        legal = [f.name for f in dataclasses.fields(group)]
        close = difflib.get_close_matches(path[-1], legal, 1)
        meant = f"; did you mean {'.'.join((*path[:-1], *close))}?" if close else ""
        return f"unknown setting {where!r}; legal ones: {', '.join(legal)}{meant}"
    return f"setting {where} = {mistake['input']!r}: {mistake['msg'][0].lower()}{mistake['msg'][1:]}"


def load(
    file: str | Path | None = None,
    overrides: Sequence[str] = (),
    values: Mapping[str, Any] | None = None,
    *,
    trust: bool = False,
) -> Config:
    """Read a YAML file, if given, then set ``values``, then apply ``key=value`` overrides.

    Args:
        file: Settings in YAML, or the name of some that come with RayNAS: see :mod:`raynas.config.presets`.
        overrides: Keys with dots, values in YAML.
        values: By keys with dots, taken as they are.
        trust: Whether code that the file alone names may be run though it is not RayNAS' own.

    Raises:
        ConfigError: The file is missing, no text in UTF-8 or not a mapping, an override is not of the form key=value,
            a setting is illegal, or the file names code that is not to be trusted.
    """
    tree: dict[str, Any] = {}
    if file is not None and str(file) in PRESETS and not Path(file).exists():
        tree = copy.deepcopy(dict(PRESETS[str(file)]))
    elif file is not None:
        tree = _read(file)
    given: dict[str, Any] = {}
    _apply(given, overrides, values or {})
    _apply(tree, overrides, values or {})
    config = parse(tree)
    if file is not None and not trust:
        refuse_foreign(config, file, named=set(words(given)))
    return config


def read(file: str | Path) -> Config:
    """The settings in a file, to be looked at: what they name is not to be run.

    Raises:
        ConfigError: As :func:`load` does.
    """
    return parse(_read(file))


def _apply(tree: dict[str, Any], overrides: Sequence[str], values: Mapping[str, Any]) -> None:
    """Set ``values``, then what ``key=value`` says."""
    for name, value in values.items():
        _set(tree, name, value)
    for override in overrides:
        name, equals, text = override.partition("=")
        if not equals or not name:
            raise ConfigError(f"{override!r} is not of the form key=value")
        try:
            _set(tree, name, _Loader(text).get_single_data())
        except (yaml.YAMLError, ValueError):
            raise ConfigError(f"the value of {override!r} is not YAML") from None


def load_kept(file: Path) -> Config:
    """The settings that a run has kept.

    Raises:
        ConfigError: They cannot be read; the file is named.
    """
    try:
        return read(file)
    except ConfigError as error:
        told = "; ".join(str(error).splitlines())
        raise ConfigError(told if str(file) in told else f"{file} cannot be read: {told}") from None


def _read(file: str | Path) -> dict[str, Any]:
    """The nested dictionaries in a YAML file."""
    try:
        read = _Loader(Path(file).read_text(encoding="utf-8")).get_single_data()
    except OSError as error:
        legal = ", ".join(PRESETS)
        raise ConfigError(f"cannot read the settings file {str(file)!r}: {error.strerror}; by name: {legal}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file} is no text in UTF-8: {error.reason} at byte {error.start}") from None
    except RecursionError:
        raise ConfigError(f"{file} is nested too deep") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{file} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(read or {}, dict):
        raise ConfigError(f"{file} must hold settings as 'key: value' lines, not {type(read).__name__}")
    return dict(read or {})


def _set(tree: dict[str, Any], name: str, value: Any) -> None:
    """Put a value into a tree at a key with dots."""
    node = tree
    *above, last = name.split(".")
    for part in above:
        node = node.setdefault(part, {})
        if not isinstance(node, dict):
            raise ConfigError(f"{name!r}: {part!r} is not a group of settings")
    node[last] = value


def dump(config: Config) -> str:
    """The whole tree as YAML; :func:`load` reads it back."""
    return str(yaml.dump(_ADAPTER.dump_python(config), Dumper=_Dumper, sort_keys=False))
