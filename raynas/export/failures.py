"""Why a network cannot be written: the line of the user's code, and what cures it."""

from __future__ import annotations

import builtins
import contextlib
import io
import logging
import sys
import warnings
from collections.abc import Iterator
from typing import Any, cast

from torch import Tensor, fx, nn

from raynas.utils.user_code import user_line, user_modules

__all__ = ["explanation", "open_length", "quiet"]

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


def _line_that_fixes_the_batch(network: nn.Module) -> str | None:
    """Where a forward needs the number of examples, as far as symbolic tracing finds it."""
    try:
        with open_length(network):
            fx.Tracer().trace(network)
    except Exception as error:  # whatever a forward raises when it is called with stand-ins for tensors
        return user_line(error, network)
    return None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Within it the exporters write nothing onto the screen: no warnings, graphs or records of their own."""
    trace = logging.getLogger("torch.__trace")
    before, trace.disabled = trace.disabled, True
    screen = io.StringIO()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(screen), contextlib.redirect_stderr(screen):
            warnings.simplefilter("ignore")
            yield
    finally:
        trace.disabled = before


@contextlib.contextmanager
def open_length(network: nn.Module) -> Iterator[None]:
    """Within it ``len(x)`` of a tensor is ``x.shape[0]`` in the code of a network.

    Python makes a plain number of every ``len``, so that a tracer would fix the batch.
    """

    def length(value: Any) -> Any:
        return (
            cast("Any", value).shape[0] if isinstance(value, Tensor) or type(value) is fx.Proxy else builtins.len(value)
        )

    modules = {id(sys.modules[name]): sys.modules[name] for name in user_modules(network) if name in sys.modules}
    spaces = [vars(module) for module in modules.values() if "len" not in vars(module)]
    for space in spaces:
        space["len"] = length
    try:
        yield
    finally:
        for space in spaces:
            del space["len"]
