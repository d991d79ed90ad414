"""Settings from a YAML file and the command line, checked; and back to YAML.

    config = load("run.yaml", ["train.epochs=5", "limits.macs=3.3e8"])
    config = load("rlnas")                    # one of raynas.config.presets

Unknown keys and values out of range are refused with a message that names the legal ones.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from raynas.config.errors import explain_setting
from raynas.config.presets import PRESETS
from raynas.config.reading import Loader, read_yaml
from raynas.config.run import Config
from raynas.config.trust import refuse_foreign, words
from raynas.exceptions import ConfigError

__all__ = ["dump", "load", "load_kept", "parse", "read"]

_ADAPTER = TypeAdapter(Config)
_log = logging.getLogger(__name__)


class _Dumper(yaml.SafeDumper):
    """Puts text that a loader would take for a number into quotes, and dates not."""


_Dumper.yaml_implicit_resolvers = Loader.yaml_implicit_resolvers


def parse(tree: Mapping[str, Any], lines: Mapping[tuple[str, ...], int] | None = None) -> Config:
    """Make a :class:`Config` of nested dictionaries.

    Args:
        tree: The settings.
        lines: Where they stand in a file, for messages.

    Raises:
        ConfigError: Unknown keys (with the legal ones) or illegal values.
    """
    tree, lines = dict(tree), lines or {}
    wrong = [*_empty_groups(tree, lines), *_truth_values(tree, Config(), (), lines)]
    if wrong:
        raise ConfigError("\n".join(wrong))
    search = tree.get("search")
    if isinstance(search, Mapping) and "features" in search:  # settings kept by runs of an earlier version
        tree["search"] = {name: value for name, value in search.items() if name != "features"}
        if not isinstance(search["features"], Mapping) or search["features"].get("score") is not None:
            _log.warning("search.features was removed and has no effect; delete it from the settings")
    try:
        return _ADAPTER.validate_python(tree)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(mistake, lines) for mistake in error.errors())) from None


def _at(path: Sequence[str], lines: Mapping[tuple[str, ...], int]) -> str:
    """Where a setting stands in a file."""
    line = lines.get(tuple(path))
    return "" if line is None else f"line {line}: "


def _empty_groups(tree: Mapping[str, Any], lines: Mapping[tuple[str, ...], int]) -> Iterator[str]:
    """Groups of settings without a value, as a forgotten indentation leaves them."""

    def walk(node: Mapping[str, Any], known: Any, path: tuple[str, ...]) -> Iterator[str]:
        for name, value in node.items():
            default, here = getattr(known, str(name), None), (*path, str(name))
            group = dataclasses.is_dataclass(default)
            if value is None and (group or isinstance(default, dict)):
                yield f"{_at(here, lines)}the group {'.'.join(here)!r} is empty: leave it out, or indent its settings"
            elif group and isinstance(value, Mapping):
                yield from walk(value, default, here)

    return walk(tree, Config(), ())


def _truth_values(node: Any, known: Any, path: tuple[str, ...], lines: Mapping[tuple[str, ...], int]) -> Iterator[str]:
    """True and false where a number is wanted, which Python takes for 1 and 0."""
    for field in dataclasses.fields(known):
        value, here = node.get(field.name) if isinstance(node, Mapping) else None, (*path, field.name)
        if dataclasses.is_dataclass(getattr(known, field.name)):
            yield from _truth_values(value, getattr(known, field.name), here, lines)
            continue
        named = value if field.name == "limits" and isinstance(value, Mapping) else {}
        numbers = [(here, value)] if "bool" not in str(field.type) and "Any" not in str(field.type) else []
        for place, each in [*numbers, *(((*here, str(name)), each) for name, each in named.items())]:
            if isinstance(each, bool) or (isinstance(each, list) and any(isinstance(item, bool) for item in each)):
                where = f"{_at(place, lines)}setting {'.'.join(place)}"
                yield f"{where} = {str(each).lower()} is a truth value, not a number"


def _explain(mistake: Any, lines: Mapping[tuple[str, ...], int]) -> str:
    """One of pydantic's findings in one line that names what would be legal."""
    return _at([str(part) for part in mistake["loc"]], lines) + explain_setting(mistake, Config())


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
    lines: dict[tuple[str, ...], int] = {}
    if file is not None and str(file) in PRESETS and not Path(file).exists():
        tree = copy.deepcopy(dict(PRESETS[str(file)]))
    elif file is not None:
        tree, lines = _read(file)
    given: dict[str, Any] = {}
    _apply(given, overrides, values or {})
    _apply(tree, overrides, values or {})
    with _of_file(file, lines):
        config = parse(tree, {path: line for path, line in lines.items() if _get(given, path) is None})
    if file is not None and not trust:
        refuse_foreign(config, file, named=set(words(given)))
    return config


def read(file: str | Path) -> Config:
    """The settings in a file, to be looked at: what they name is not to be run.

    Raises:
        ConfigError: As :func:`load` does.
    """
    tree, lines = _read(file)
    with _of_file(file, lines):
        return parse(tree, lines)


@contextlib.contextmanager
def _of_file(file: str | Path | None, lines: Mapping[Any, int]) -> Iterator[None]:
    """Name the file in messages that name a line."""
    try:
        yield
    except ConfigError as error:
        if not lines or not isinstance(file, (str, Path)):
            raise
        raise ConfigError(re.sub(r"^(?=line \d+: )", f"{file}, ", str(error), flags=re.MULTILINE)) from None


def _apply(tree: dict[str, Any], overrides: Sequence[str], values: Mapping[str, Any]) -> None:
    """Set ``values``, then what ``key=value`` says."""
    for name, value in values.items():
        _set(tree, name, value)
    for override in overrides:
        name, equals, text = override.partition("=")
        if not equals or not name:
            raise ConfigError(f"{override!r} is not of the form key=value")
        try:
            value = read_yaml(text).value
        except ConfigError as error:
            raise ConfigError(f"the value of {override!r}: {str(error).removeprefix('line 1: ')}") from None
        except yaml.YAMLError:
            raise ConfigError(f"the value of {override!r} is not YAML") from None
        _set(tree, name, value)


def load_kept(file: Path) -> Config:
    """The settings that a run has kept.

    Raises:
        ConfigError: They cannot be read; the file is named.
    """
    try:
        return read(file)
    except ConfigError as error:
        reason = "; ".join(str(error).splitlines())
        raise ConfigError(reason if str(file) in reason else f"{file} cannot be read: {reason}") from None


def _read(file: str | Path) -> tuple[dict[str, Any], dict[tuple[str, ...], int]]:
    """The nested dictionaries in a YAML file, and the line of each key."""
    try:
        tree = read_yaml(Path(file).read_text(encoding="utf-8"))
        read = tree.value
    except OSError as error:
        legal = ", ".join(PRESETS)
        raise ConfigError(f"cannot read the settings file {str(file)!r}: {error.strerror}; by name: {legal}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file} is no text in UTF-8: {error.reason} at byte {error.start}") from None
    except RecursionError:
        raise ConfigError(f"{file} is nested too deep") from None
    except ConfigError as error:
        raise ConfigError(f"{file}, {error}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{file} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(read or {}, dict):
        raise ConfigError(f"{file} must hold settings as 'key: value' lines, not {type(read).__name__}")
    return dict(read or {}), dict(tree.lines)


def _get(tree: Any, path: Sequence[str]) -> Any:
    for part in path:
        tree = tree.get(part) if isinstance(tree, Mapping) else None
    return tree


def _set(tree: dict[str, Any], name: str, value: Any) -> None:
    """Put a value into a tree at a key with dots; settings of a group are added to those that it has."""
    node = tree
    *above, last = name.split(".")
    for part in above:
        node = node.setdefault(part, {})
        if not isinstance(node, dict):
            raise ConfigError(f"{name!r}: {part!r} is not a group of settings")
    group: Any = Config()
    for part in (*above, last):
        group = getattr(group, part, None)
    if dataclasses.is_dataclass(group) and isinstance(value, Mapping) and isinstance(node.get(last), dict):
        for key, each in value.items():
            _set(tree, f"{name}.{key}", each)
        return
    node[last] = value


def dump(config: Config) -> str:
    """The whole tree as YAML; :func:`load` reads it back."""
    return str(yaml.dump(_ADAPTER.dump_python(config), Dumper=_Dumper, sort_keys=False))
