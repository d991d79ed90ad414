"""Errors in a user's own code: the line that they went through, and bad values as errors of the settings."""

from __future__ import annotations

import contextlib
import inspect
import linecache
import os
import sysconfig
import traceback
from collections.abc import Iterator

from torch import nn

from raynas.exceptions import ConfigError

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_STANDARD_LIBRARY = sysconfig.get_paths()["stdlib"] + os.sep

__all__ = ["last_user_line", "one_line_with_place", "user_line", "user_modules", "validating"]


def user_modules(network: nn.Module) -> set[str]:
    """The Python modules in which the parts of a network are defined, without those of torch and of RayNAS."""
    names = {kind.__module__ for module in network.modules() for kind in type(module).__mro__}
    return {name for name in names if name.partition(".")[0] not in ("torch", "raynas", "builtins")}


def user_line(error: BaseException | None, network: nn.Module) -> str | None:
    """The last line of the code in which the parts of a network are defined that an error went through.

    Returns:
        The file, the number of the line and the line itself; None where the error went through no such line.
    """
    own = set(_files(network))
    while error is not None:
        for frame in reversed(traceback.extract_tb(error.__traceback__)):
            if frame.filename in own and frame.lineno is not None:
                line = linecache.getline(frame.filename, frame.lineno).strip()
                return f"{frame.filename}, line {frame.lineno}: {line}"
        error = error.__cause__ or error.__context__
    return None


def last_user_line(error: BaseException) -> str:
    """The last line that an error went through outside of RayNAS and of installed packages, for the end of a message.

    Returns:
        ``" (FILE, line N: CODE)"``; empty where there is none.
    """
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        installed = "site-packages" in frame.filename or frame.filename.startswith((_PACKAGE, _STANDARD_LIBRARY))
        if not installed and frame.line:
            return f" ({frame.filename}, line {frame.lineno}: {frame.line})"
    return ""


def one_line_with_place(error: BaseException) -> str:
    """The type of an error, the first line of its message and :func:`last_user_line`."""
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}{last_user_line(error)}"


def _files(network: nn.Module) -> Iterator[str]:
    names = user_modules(network)
    for kind in {each for module in network.modules() for each in type(module).__mro__}:
        if kind.__module__ in names:
            with contextlib.suppress(TypeError, OSError):
                yield inspect.getfile(kind)


@contextlib.contextmanager
def validating(what: str = "") -> Iterator[None]:
    """Raise a plain ``ValueError`` of what a user gave as a ``ConfigError``; the command line takes others for bugs.

    To be put around the call of a validator, and of nothing else.

    Args:
        what: The setting or object that is validated, put before the message.

    Raises:
        ConfigError: The validator raised a plain ``ValueError``; its subclasses pass unchanged.
    """
    try:
        yield
    except ValueError as error:
        if type(error) is not ValueError:
            raise
        raise ConfigError(f"{what}: {error}" if what else str(error)) from error
