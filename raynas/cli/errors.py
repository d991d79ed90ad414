"""What the command line says of errors: bad input is one line; of a bug the traceback is kept in a file."""

from __future__ import annotations

import traceback
from pathlib import Path

from raynas import exceptions
from raynas.storage.atomic import replace_text
from raynas.storage.removal import scratch_folder

__all__ = ["BAD_INPUT", "one_line", "write_traceback"]

BAD_INPUT: tuple[type[Exception], ...] = (*(vars(exceptions)[name] for name in exceptions.__all__), OSError)
"""Errors that say what a person can change. Everything else may be a bug, of RayNAS or of the code of a user."""
_FILE = "error.log"


def one_line(error: BaseException) -> str:
    """The message of an error without line breaks; the name of its class where it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def write_traceback(error: BaseException, folder: Path | None) -> Path:
    """Keep the traceback of an error.

    Args:
        error: With its causes.
        folder: Of the run. Where there is none yet, or it takes no file: a new temporary folder.

    Returns:
        The file.
    """
    text = "".join(traceback.format_exception(error))
    if folder is not None and folder.is_dir():
        try:
            replace_text(folder / _FILE, text, timeout=0)
        except OSError:
            pass
        else:
            return folder / _FILE
    path = scratch_folder() / _FILE
    replace_text(path, text, timeout=0)
    return path
