"""Why a network cannot be written: the line of the user's code, and what cures it."""

from __future__ import annotations

import builtins
import contextlib
import inspect
import linecache
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor, fx, nn

__all__ = ["explanation", "open_length", "user_line"]

_BY_VALUE = "decide by what __init__ was given, or choose with torch.where: exported code cannot depend on values"
_BY_BATCH = "the batch must stay open: take x.shape[0] for len(x), and tensor operations for loops over the batch"
_CURES = (
    ("cannot be iterated", _BY_BATCH),
    ("Constraints violated", _BY_BATCH),
    ("control flow", _BY_VALUE),
    ("data-dependent", _BY_VALUE),
    ("'len' is not supported", _BY_BATCH),
    ("not part of torch", "write it with functions of torch, or as a submodule"),
    ("numpy", "use functions of torch in place of NumPy's"),
)


def explanation(error: BaseException, network: nn.Module) -> str:
    """The reason of an error in one line, with the line of the code of the network and a cure where one is known."""
    text = " ".join((str(error).strip().splitlines() or [type(error).__name__])[0].split()).split(". ")[0]
    place = user_line(error, network)
    if place is None and "Constraints violated" in text:
        place = _line_that_fixes_the_batch(network)
    cure = next((cure for words, cure in _CURES if words in str(error)), None)
    return text.rstrip(".") + (f" ({place})" if place else "") + (f": {cure}" if cure else "")


def user_line(error: BaseException | None, network: nn.Module) -> str | None:
    """The last line of the code in which the modules of a network are defined that an error went through.

    Returns:
        The file, the number of the line and the line itself; None where the error went through no such line.
    """
    own = set(map(str, _files(network)))
    while error is not None:
        for frame in reversed(traceback.extract_tb(error.__traceback__)):
            if frame.filename in own and frame.lineno is not None:
                line = linecache.getline(frame.filename, frame.lineno).strip()
                return f"{frame.filename}, line {frame.lineno}: {line}"
        error = error.__cause__ or error.__context__
    return None


def _files(network: nn.Module) -> Iterator[Path]:
    """The files in which the modules of a network are defined, without those of torch and of RayNAS."""
    for kind in {each for module in network.modules() for each in type(module).__mro__}:
        if kind.__module__.partition(".")[0] not in ("torch", "raynas", "builtins"):
            with contextlib.suppress(TypeError, OSError):
                yield Path(inspect.getfile(kind))


def _line_that_fixes_the_batch(network: nn.Module) -> str | None:
    """Where a forward needs the number of examples, as far as symbolic tracing finds it."""
    try:
        with open_length(network):
            fx.Tracer().trace(network)
    except Exception as error:  # whatever a forward raises when it is called with stand-ins for tensors
        return user_line(error, network)
    return None


@contextlib.contextmanager
def open_length(network: nn.Module) -> Iterator[None]:
    """Within it ``len(x)`` of a tensor is ``x.shape[0]`` in the code of a network.

    Python makes a plain number of every ``len``, so that a tracer would fix the batch.
    """

    def length(value: Any) -> Any:
        return value.shape[0] if isinstance(value, (Tensor, fx.Proxy)) else builtins.len(value)

    names = {kind.__module__ for module in network.modules() for kind in type(module).__mro__}
    own = [name for name in names if name.partition(".")[0] not in ("torch", "raynas", "builtins")]
    spaces = [vars(sys.modules[name]) for name in own if name in sys.modules and "len" not in vars(sys.modules[name])]
    for space in spaces:
        space["len"] = length
    try:
        yield
    finally:
        for space in spaces:
            del space["len"]
