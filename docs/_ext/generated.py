"""Parts of the documentation that are made from the repository when it is built.

A page holds one of these comments on a line of its own:

``<!-- repository-page: cluster/README.md -->``
    The text of a Markdown file of the repository. Its links to files that are pages here lead to these pages; links to
    other files of the repository become the path of the file.
``<!-- settings: raynas.config.run:Config -->``
    The settings of a dataclass and of the groups below it: name, type, default, and the docstring below each field.
``<!-- arguments: raynas.searchers.evolution:EvolutionSettings -->``
    The arguments of a class from its ``__init__`` or its fields, with the texts of its Google-style docstring.
``<!-- public-names: raynas -->``
    Autodoc directives for everything in ``__all__`` of a module.

What is documented is imported, as autodoc does.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import re
import textwrap
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

from raynas.config import reference

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "benchmarks/README.md": "benchmarks.md",
    "cluster/README.md": "cluster.md",
    "cluster/monitoring.md": "monitoring.md",
    "cluster/faults.md": "faults.md",
}
"""Files of the repository that are pages of the documentation."""
_COMMENT = re.compile(r"^<!-- ([a-z-]+): (\S+) -->$", re.MULTILINE)
_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?![a-z]+:|#)([^)\s#]+)(#[^)\s]*)?\)")


def repository_page(name: str, page: Path) -> str:
    """The text of a Markdown file, with links as seen from ``page``."""
    source = ROOT / name

    def link(found: re.Match[str]) -> str:
        picture, text, target, anchor = found.groups()
        path = (source.parent / target).resolve()
        inside = path.relative_to(ROOT).as_posix()
        there = DOCS / PAGES[inside] if inside in PAGES else path
        if there.is_relative_to(DOCS):
            return f"{picture}[{text}]({os.path.relpath(there, page.parent)}{anchor or ''})"
        return f"`{inside}`" if text in (inside, path.name, f"`{inside}`") else f"{text} (`{inside}`)"

    return _LINK.sub(link, source.read_text(encoding="utf-8"))


def settings(name: str) -> str:
    """Definition lists of the settings of a class, and of the groups below it."""
    lines = []
    for group in reference.groups(_class(name)):
        level = "#" * (2 if "." not in group.name else 3)
        lines += [f"{level} `{group.name}`" if group.name else "## Top level", "", group.text, ""]
        for each in group.settings:
            text = f"*{each.kind}*, default `{each.default}`. {each.text}".strip()
            lines += [f"`{each.name}`", textwrap.indent(text, "  ").replace("  ", ": ", 1), ""]
    return "\n".join(lines)


def _class(name: str) -> type[Any]:
    module, _, wanted = name.partition(":")
    found: type[Any] = getattr(importlib.import_module(module), wanted)
    return found


def arguments(name: str) -> str:
    """A table of the arguments of a class: name, default and description."""
    given_class = _class(name)
    (node,) = ast.parse(inspect.cleandoc("\n" + inspect.getsource(given_class))).body
    assert isinstance(node, ast.ClassDef)
    init = next((each for each in node.body if isinstance(each, ast.FunctionDef) and each.name == "__init__"), None)
    known = list(reference.fields_of(given_class))
    defaults = {field: default for field, _, default, _ in known}
    if init is not None:
        given = init.args
        pairs = [*zip(given.args[len(given.args) - len(given.defaults) :], given.defaults, strict=True)]
        pairs += [(a, d) for a, d in zip(given.kwonlyargs, given.kw_defaults, strict=True) if d is not None]
        common = {"seed", "metric", "mode", "points_to_evaluate", "settings"}
        defaults = {a.arg: ast.unparse(d) for a, d in pairs if a.arg not in common}
    texts = {field: " ".join(text.split()) for field, _, _, text in known if text}
    texts |= _described(ast.get_docstring(node) or "")
    rows = ["| argument | default | meaning |", "|---|---|---|"]
    for each, default in defaults.items():
        text = texts.get(each, "").replace("|", "\\|")
        rows.append(f"| `{each}` | {'' if default is None else f'`{default}`'} | {text} |")
    return "\n".join(rows)


def _described(docstring: str) -> dict[str, str]:
    """The texts of the sections Args and Attributes of a Google-style docstring."""
    texts: dict[str, str] = {}
    name = ""
    inside = False
    for line in docstring.splitlines():
        if re.fullmatch(r"\w+:", line):
            inside = line in ("Args:", "Attributes:")
        elif inside:
            found = re.match(r"    (\w+): (.*)", line)
            if found:
                name = found[1]
                texts[name] = found[2]
            elif name and line.strip():
                texts[name] += " " + line.strip()
    return {key: re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text) for key, text in texts.items()}


def public_names(module: str, documented: set[str]) -> str:
    """Autodoc directives for what a module offers, except for what its page documents already."""
    here = importlib.import_module(module)
    lines = []
    for name in here.__all__:
        thing: Any = getattr(here, name)
        home = getattr(thing, "__module__", None)
        full = f"{home}.{getattr(thing, '__qualname__', name)}"
        if full in documented:
            continue
        documented.add(full)
        if inspect.isclass(thing) and not isinstance(thing, types.GenericAlias):
            lines += [f".. autoclass:: {full}", "   :members:", "   :show-inheritance:", ""]
        elif inspect.isroutine(thing):
            lines += [f".. autofunction:: {full}", ""]
        elif not isinstance(thing, str):
            lines += [f".. py:data:: {module}.{name}", f"   :value: {thing!r}", ""]
    return "\n".join(["```{eval-rst}", *lines, "```"])


def fill(app: Sphinx, name: str, source: list[str]) -> None:
    """Replace the comments in a page by what they stand for."""
    page = Path(app.srcdir) / f"{name}.md"
    documented: set[str] = set()
    makers: dict[str, Callable[[str], str]] = {
        "repository-page": lambda file: repository_page(file, page),
        "settings": settings,
        "arguments": arguments,
        "public-names": lambda module: public_names(module, documented),
    }
    source[0] = _COMMENT.sub(lambda m: makers[m[1]](m[2]) if m[1] in makers else m[0], source[0])


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("source-read", fill)
    return {"version": "1", "parallel_read_safe": True}
