"""The statements of a ``forward`` from a traced graph, written as a person would: few names, operators, comments."""

from __future__ import annotations

import builtins
import cmath
import inspect
import json
import keyword
import math
import operator
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import fx
from torch.nn import functional as F

from raynas.exceptions import CodegenError

__all__ = ["member", "text_literal", "value_text", "write_forward"]

# Where a function is looked for, in this order, and what stands before its name.
_NAMESPACES = {
    "F.": F, "torch.": torch, "torch.fft.": torch.fft, "torch.linalg.": torch.linalg,
    "torch.special.": torch.special, "math.": math, "operator.": operator, "": builtins,
}  # fmt: skip
_RUNS_CODE = set(["breakpoint", "compile", "delattr", "eval", "exec", "globals", "input", "locals", "open", "setattr"])
"""Built-in functions that no network needs."""
_RESERVED = {"F", "torch", "math", "operator", "nn", "self"}
_BINARY: dict[Callable[..., Any], str] = {
    operator.add: "+", operator.sub: "-", operator.mul: "*", operator.truediv: "/", operator.floordiv: "//",
    operator.mod: "%", operator.pow: "**", operator.matmul: "@", operator.eq: "==", operator.ne: "!=",
    operator.lt: "<", operator.le: "<=", operator.gt: ">", operator.ge: ">=", operator.and_: "&", operator.or_: "|",
}  # fmt: skip


def write_forward(graph: fx.Graph, indent: str) -> tuple[list[str], str]:
    """Write a traced graph as Python statements.

    Args:
        graph: Layers are called as members of ``self`` (:func:`member`).
        indent: What stands before every line.

    Returns:
        The names of the inputs, and the lines.

    Raises:
        CodegenError: The graph calls something that torch and Python do not have.
    """
    last_use = {node: user for user in graph.nodes for node in user.all_input_nodes}
    names: dict[fx.Node, str] = {}
    inputs: list[str] = []
    lines: list[str] = []
    place = ""
    for node in graph.nodes:
        if node.op == "placeholder":
            name = _identifier(node.target, "argument of forward")
            names[node] = name if name not in _RESERVED else f"{name}_"
            inputs.append(names[node])
            continue
        if node.op == "get_attr":
            names[node] = member(str(node.target))
            continue
        text = _expression(node, names)
        if node.op == "output":
            lines.append(f"{indent}return {text}")
            break
        dying = [names.pop(used) for used in node.all_input_nodes if last_use[used] is node]
        # The result takes the shortest name that it sets free: a chain of layers reads x = ...(x), as by hand.
        free = [name for name in dying if not name.startswith(("self.", "self["))]
        name = min(free, key=lambda each: (len(each), each)) if free else _fresh(names, inputs[0] if inputs else "x")
        if node.target is getattr:
            name = _fresh(names, _identifier(node.args[1], "attribute"))
        here = _place(node)
        if here != place:
            lines.append(f"{indent}# {_one_line(here)}" if here else "")
            place = here
        if node in last_use:
            names[node] = name
        lines.append(f"{indent}{name} = {text}" if node in last_use else f"{indent}{text}")  # unused: for its effect
    return inputs, "\n".join(lines)


def _fresh(names: dict[fx.Node, str], stem: str) -> str:
    """``stem``, or ``stem`` with the smallest number that is free."""
    taken = _RESERVED.union(names.values())
    return next(name for name in (stem, *(f"{stem}{i}" for i in range(1, len(taken) + 2))) if name not in taken)


def _place(node: fx.Node) -> str:
    """Where in the network a node belongs: its module to a depth of two names, as ``blocks.3``."""
    stack = [path for path in node.meta.get("nn_module_stack", {}) if path]
    if node.op == "call_module":
        stack = [path for path in stack if path != node.target]
    return ".".join(stack[-1].split(".")[:2]) if stack else ""


def _expression(node: fx.Node, names: dict[fx.Node, str]) -> str:
    args = [value_text(value, names) for value in node.args]
    named = [f"{_identifier(name, 'argument')}={value_text(value, names)}" for name, value in node.kwargs.items()]
    if node.op == "output":
        return args[0]
    if node.op == "call_module":
        return f"{member(str(node.target))}({', '.join(args + named)})"
    if node.op == "call_method":
        return f"{args[0]}.{_identifier(node.target, 'method')}({', '.join(args[1:] + named)})"
    assert callable(node.target)
    defaults = _defaults(node.target)
    named = [
        text for text, (name, value) in zip(named, node.kwargs.items(), strict=True) if not _is(value, defaults, name)
    ]
    return _call(node.target, node.args, args, named)


def _defaults(function: Callable[..., Any]) -> Mapping[str, Any]:
    try:
        return {name: each.default for name, each in inspect.signature(function).parameters.items()}
    except (TypeError, ValueError):  # functions written in C++ do not tell
        return {}


def _is(value: Any, defaults: Mapping[str, Any], name: str) -> bool:
    return name in defaults and type(value) is type(defaults[name]) and value == defaults[name]


def _call(function: Callable[..., Any], values: Sequence[Any], args: list[str], named: list[str]) -> str:
    if function in _BINARY and len(args) == 2:
        # The only operands that are not a name or a plain literal are negative numbers: -2 ** x would be misread.
        left, right = (f"({text})" if text.startswith("-") else text for text in args)
        return f"{left} {_BINARY[function]} {right}"
    if function is getattr and len(args) == 2:
        return f"{args[0]}.{_identifier(values[1], 'attribute')}"
    if function is operator.getitem:
        index = args[1]
        return f"{args[0]}[{index[1:-1] if isinstance(values[1], tuple) and len(values[1]) > 1 else index}]"
    if isinstance(function, torch._ops.OpOverload):
        return f"torch.ops.{function}({', '.join(args + named)})"
    if function is operator.neg:
        return f"-{args[0]}"
    for prefix, namespace in _NAMESPACES.items():
        for name, value in vars(namespace).items():
            if value is function and (not name.startswith("_") or name == "_assert") and name not in _RUNS_CODE:
                return f"{prefix}{name}({', '.join(args + named)})"
    name = f"{getattr(function, '__module__', '?')}.{getattr(function, '__qualname__', function)}"
    raise CodegenError(f"forward calls {name}, which is not part of torch")


def value_text(value: Any, names: dict[fx.Node, str]) -> str:
    """A value of a graph as Python code.

    Raises:
        CodegenError: A value that has no literal form.
    """
    if isinstance(value, fx.Node):
        return names[value]
    if isinstance(value, slice):
        # Inside an index a slice reads a:b, and that is the only place where one can stand.
        parts = ["" if part is None else value_text(part, names) for part in (value.start, value.stop, value.step)]
        return ":".join(parts if parts[2] else parts[:2])
    if isinstance(value, tuple):
        inner = [value_text(item, names) for item in value]
        return f"({inner[0]},)" if len(inner) == 1 else f"({', '.join(inner)})"
    if isinstance(value, list):
        return f"[{', '.join(value_text(item, names) for item in value)}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{value_text(key, names)}: {value_text(item, names)}' for key, item in value.items())}}}"
    if isinstance(value, torch.device):
        return f'torch.device("{value}")'
    if isinstance(value, (torch.dtype, torch.layout, torch.memory_format)):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    if isinstance(value, complex) and not cmath.isfinite(value):
        return f"complex({value_text(value.real, names)}, {value_text(value.imag, names)})"
    if value is Ellipsis:
        return "..."
    if isinstance(value, str):
        return text_literal(value)
    for kind in (bool, int, float, complex):
        if isinstance(value, kind):
            return kind.__repr__(value)  # not that of a class derived from it, which may be anything
    if value is None:
        return "None"
    raise CodegenError(f"forward uses {value!r}, a {type(value).__name__} that cannot be written as code")


def text_literal(text: str) -> str:
    """A text as a Python literal on one line."""
    text = str.__str__(text)
    return json.dumps(text) if text.isascii() and text.isprintable() else repr(text)


def _is_identifier(text: Any) -> bool:
    """Whether a text stands for itself as a name in Python code: not as a keyword, not in another normal form."""
    return (
        isinstance(text, str)
        and text.isidentifier()
        and not keyword.iskeyword(text)
        and unicodedata.normalize("NFKC", text) == text
    )


def _identifier(text: Any, what: str) -> str:
    if not _is_identifier(text):
        raise CodegenError(f"forward uses the {what} {text!r}, which is no name in Python")
    return str(text)


def _one_line(text: str) -> str:
    return text if text.isprintable() else text_literal(text)


def member(path: str) -> str:
    """``blocks.3.conv`` as ``self.blocks[3].conv``."""
    text = "self"
    for part in path.split("."):
        # Within a class Python would read a name that begins with two underscores as another one.
        if _is_identifier(part) and not part.startswith("__"):
            text += f".{part}"
        else:
            text += f"[{part}]" if part.isdecimal() and part == str(int(part)) else f"[{value_text(part, {})}]"
    return text
