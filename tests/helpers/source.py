"""The source text of RayNAS, for tests of its rules."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MAPPED = ("spaces", "trainables")
"""Folders of the repository that are installed as packages in raynas. The source tree has stubs in their place."""


@cache
def modules() -> dict[str, Path]:
    """Every module of ours by its dotted name, as it is installed."""
    found = {}
    for folder, above in (("raynas", ()), *((name, ("raynas",)) for name in MAPPED)):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = (*above, *path.relative_to(ROOT).with_suffix("").parts)
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            if folder != "raynas" or parts[1] not in MAPPED:
                found[name] = path
    return found


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(modules()[module].read_text(encoding="utf-8"))


def nodes(*kinds: type[ast.AST]) -> Iterator[tuple[str, ast.AST]]:
    """Every node of these kinds, with its module."""
    for module in modules():
        yield from ((module, node) for node in ast.walk(tree(module)) if isinstance(node, kinds))


def names(node: ast.AST, module: str) -> list[str]:
    """The dotted names that an import statement may mean: ``from a import b`` is ``a`` and ``a.b``."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    base = node.module or ""
    if node.level:
        is_package = modules()[module].name == "__init__.py"
        package = module.split(".")[: None if is_package and node.level == 1 else -(node.level - is_package)]
        base = ".".join([*package, *([node.module] if node.module else [])])
    return [base, *(f"{base}.{alias.name}" for alias in node.names)]


def imports(module: str) -> set[str]:
    """What a module imports anywhere in its text."""
    return {name for node in ast.walk(tree(module)) for name in names(node, module)}


def public(module: str) -> bool:
    return not any(part.startswith("_") for part in module.split(".")) and bool(tree(module).body)


FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
