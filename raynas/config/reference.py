"""The settings with their types, defaults and meaning, read from the classes that define them.

The command line (``raynas settings``, ``raynas search --help``) and the documentation show what is said here.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import sys
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from raynas.config.run import Config
from raynas.exceptions import ConfigError

__all__ = ["Group", "Setting", "fields_of", "groups", "select"]

_KINDS = {
    "Count": "int ≥ 1",
    "Share": "float, 0 ≤ x < 1",
    "Positive": "float > 0",
    "NotNegative": "float ≥ 0",
    "Duration": "seconds, or text such as 90m or 2h",
    "Name": "one path component",
    "Place": "place",
    "Domains": "mapping to search domains",
}
_SIGNS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


@dataclass(frozen=True)
class Setting:
    """One setting.

    Attributes:
        name: With the names of its groups, e.g. ``train.pool.size``.
        kind: What it may be, in words.
        default: As it is written in a settings file.
        text: What it means.
    """

    name: str
    kind: str
    default: str
    text: str


@dataclass(frozen=True)
class Group:
    """Settings that belong together.

    Attributes:
        name: E.g. ``train.pool``; empty for those at the top level.
        text: What they are for.
        settings: In the order in which they are defined.
    """

    name: str
    text: str
    settings: tuple[Setting, ...]


def groups(settings: type[Any] = Config, name: str = "") -> Iterator[Group]:
    """A dataclass of settings, followed by the groups below it.

    Args:
        settings: The dataclass; every field must have a default.
        name: Its name as a group.
    """
    prefix = f"{name}." if name else ""
    aliases = _aliases(sys.modules[settings.__module__])
    hints = typing.get_type_hints(settings)
    found, below, defaults = [], list[Group](), settings()
    for field, kind, _, text in fields_of(settings):
        if dataclasses.is_dataclass(hints[field]):
            below += groups(typing.cast("type[Any]", hints[field]), prefix + field)
            continue
        kind = re.sub(r"\b[A-Z]\w+\b", lambda alias: aliases.get(alias[0], alias[0]), kind)
        default = yaml.safe_dump(getattr(defaults, field), default_flow_style=True, width=1000)
        found.append(Setting(prefix + field, _kind(kind), default.removesuffix("\n").removesuffix("\n..."), text))
    yield Group(name, inspect.getdoc(settings) or "", tuple(found))
    yield from below


def select(name: str) -> list[Group]:
    """The group of this name and those below it; a setting's name gives that setting alone.

    Raises:
        ConfigError: There is no such group or setting; the legal groups are named.
    """
    known = list(groups())
    chosen = [group for group in known if group.name == name or group.name.startswith(f"{name}.")]
    single = [
        dataclasses.replace(group, settings=(setting,))
        for group in known
        for setting in group.settings
        if setting.name == name
    ]
    if not chosen and not single:
        legal = ", ".join(group.name for group in known if group.name)
        raise ConfigError(f"there is no setting and no group {name!r}; legal groups: {legal}")
    return chosen or single


def fields_of(settings: type[Any]) -> Iterator[tuple[str, str, str | None, str]]:
    """Name, annotation, default and description of each field of a dataclass, as its source code has them."""
    (node,) = ast.parse(inspect.cleandoc("\n" + inspect.getsource(settings))).body
    assert isinstance(node, ast.ClassDef)
    for each, after in zip(node.body, [*node.body[1:], None], strict=True):
        if not isinstance(each, ast.AnnAssign) or not isinstance(each.target, ast.Name):
            continue
        if "ClassVar" in ast.unparse(each.annotation) or each.target.id.startswith("_"):
            continue
        text = after.value.value if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else ""
        default = None if each.value is None else _default(each.value)
        yield each.target.id, ast.unparse(each.annotation), default, inspect.cleandoc(str(text))


def _aliases(module: Any) -> dict[str, str]:
    """The types that a module names, as their source code has them: ``Step`` is ``Literal['retrain', ...]``."""
    return {
        each.targets[0].id: ast.unparse(each.value)
        for each in ast.parse(inspect.getsource(module)).body
        if isinstance(each, ast.Assign) and isinstance(each.targets[0], ast.Name)
    }


def _default(value: ast.expr) -> str:
    """A default as it is written in YAML or Python; a factory as what it makes."""
    if isinstance(value, ast.Call):
        given = {word.arg: word.value for word in value.keywords}
        if "default" in given or (value.args and ast.unparse(value.func) == "Field"):
            return ast.unparse(given.get("default") or value.args[0])
        factory = given.get("default_factory")
        if isinstance(factory, ast.Name):
            return {"dict": "{}", "list": "[]"}.get(factory.id, factory.id)
        if isinstance(factory, ast.Lambda):
            return ast.unparse(factory.body)
    return ast.unparse(value)


def _kind(annotation: str) -> str:
    """A type in words, e.g. ``int ≥ 2`` for ``Annotated[int, Field(ge=2)]``."""
    optional = annotation.endswith(" | None")
    text = annotation.removesuffix(" | None")
    found = re.fullmatch(r"Annotated\[(\w+), Field\((.*)\)\]", text)
    if found:
        bounds = [part.split("=") for part in found[2].split(", ")]
        text = f"{found[1]} " + ", ".join(f"{_SIGNS[sign]} {value}" for sign, value in bounds)
    elif text.startswith(("Literal[", "list[Literal[")):
        text = ("list of " if text.startswith("list") else "one of ") + ", ".join(re.findall(r"'([^']*)'", text))
    else:
        text = _KINDS.get(text, text)
    return text + (" or null" if optional else "")
