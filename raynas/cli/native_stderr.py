"""What Ray's C++ code prints goes into a file in the folder of the run, not onto the screen.

It is printed to file descriptor 2, past Python's ``sys.stderr`` and past Python's loggers.
"""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from pathlib import Path

from raynas.storage.atomic import open_appending
from raynas.storage.removal import make_folder

__all__ = ["RAY_LOG", "redirect", "separate"]

RAY_LOG = Path("logs") / "ray.log"
"""Where it is in the folder of a run."""


class _Stderr(io.TextIOWrapper):
    """``sys.stderr`` on a file descriptor of its own."""


def separate() -> None:
    """Give ``sys.stderr`` a file descriptor of its own, so that descriptor 2 can be redirected without it.

    For a program of our own only; called before anything keeps a reference to ``sys.stderr``.
    """
    sys.stderr.flush()
    own = os.fdopen(os.dup(2), "wb", buffering=0)
    sys.stderr = _Stderr(own, sys.stderr.encoding, "backslashreplace", line_buffering=True, write_through=True)


def redirect(folder: Path) -> None:
    """Append what is printed to file descriptor 2 to a file in the folder of a run, until the program ends.

    Does nothing where :func:`separate` was not called: then the process belongs to another program. What cannot be
    written to the file is shown on the screen as before.

    Args:
        folder: The folder of the run.
    """
    if not isinstance(sys.stderr, _Stderr):
        return
    path = folder / RAY_LOG
    with suppress(OSError):
        make_folder(path.parent)
        file = open_appending(path)
        os.dup2(file, 2)
        os.close(file)
