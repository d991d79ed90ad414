"""Settings in YAML as nested dictionaries; whatever YAML leaves ambiguous is refused with its line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from raynas.exceptions import ConfigError

__all__ = ["Loader", "Tree", "read_yaml"]

Path = tuple[str, ...]


class Loader(yaml.SafeLoader):
    """Reads 1e6 as the number that people mean: YAML 1.1 wants 1.0e+6."""


# No setting is a date: 2024-01-05 is text.
Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in Loader.yaml_implicit_resolvers.items()
}
Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), [*"-+0123456789"])


@dataclass(frozen=True)
class Tree:
    """What a text in YAML holds.

    Args:
        value: Dictionaries, lists and plain values; None where there is nothing.
        lines: The line, from 1, in which the value of each key stands, by the keys above it and its own.
    """

    value: Any
    lines: Mapping[Path, int] = field(default_factory=dict)


def read_yaml(text: str) -> Tree:
    """Read YAML.

    Raises:
        ConfigError: A key stands twice, or a value has one meaning for YAML 1.1 and another for people or YAML 1.2: a
            number with colons or underscores or zeros before it, yes, no, on and off. The line is named.
        yaml.YAMLError: The text is not YAML.
    """
    loader = Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return Tree(None)
        lines = dict(_checked(node, ()))
        return Tree(loader.construct_document(node), lines)
    except ValueError as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"a value cannot be read: {error}") from None
    finally:
        loader.dispose()


def _checked(node: yaml.Node, path: Path) -> Iterator[tuple[Path, int]]:
    """The line of every key below a node, which is checked."""
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            _refuse_ambiguous(key)
            line = key.start_mark.line + 1
            if key.value in seen:
                name = ".".join((*path, str(key.value)))
                raise ConfigError(
                    f"line {line}: {name!r} stands twice, first in line {seen[key.value]}: YAML would keep only the "
                    "last; put all its settings into one"
                )
            if isinstance(key, yaml.ScalarNode):
                seen[key.value] = line
                yield (*path, key.value), line
            yield from _checked(value, (*path, str(key.value)))
    elif isinstance(node, yaml.SequenceNode):
        for place, item in enumerate(node.value):
            yield (*path, str(place)), item.start_mark.line + 1
            yield from _checked(item, (*path, str(place)))
    else:
        _refuse_ambiguous(node)


def _refuse_ambiguous(node: yaml.Node) -> None:
    if not isinstance(node, yaml.ScalarNode) or node.style is not None:
        return
    kind, text = node.tag.rpartition(":")[2], node.value
    why = ""
    if kind == "bool" and text.lower() not in ("true", "false"):
        read = "true" if text.lower() in ("yes", "on") else "false"
        why = f"is the truth value {read} in YAML 1.1 and text elsewhere: write true or false, or '{text}' in quotes"
    elif kind in ("int", "float") and ":" in text:
        why = "is a number to the base 60 in YAML 1.1: write a plain number (a duration as 90s, 90m or 1.5h), "
        why += f"or '{text}'"
    elif kind in ("int", "float") and "_" in text:
        why = f"is a number with underscores in YAML 1.1 and text elsewhere: write {text.replace('_', '')}, or '{text}'"
    elif kind == "int" and re.fullmatch(r"[-+]?0[0-9]+", text):
        why = "is a number to the base 8 in YAML 1.1 and to the base 10 elsewhere: write it without 0 before it, "
        why += f"or '{text}'"
    if why:
        raise ConfigError(f"line {node.start_mark.line + 1}: {text} {why}")
