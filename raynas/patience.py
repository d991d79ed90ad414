"""Writing to storage that fails for a while: a disk that is full, a file server that is started again."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from raynas.periods import PERIODS

__all__ = ["PATIENCE", "append_line", "patiently", "reason", "replace_text", "write_json"]

log = logging.getLogger(__name__)
PATIENCE = 600.0
"""Seconds for which a write is tried again before what was computed is given up."""
_AGAIN = PERIODS.again
T = TypeVar("T")


def patiently(write: Callable[[], T], what: str, patience: float | None = None) -> T:
    """Call ``write`` until the storage takes it, and say so when that takes more than one attempt.

    Args:
        write: Leaves nothing behind where it fails.
        what: It writes, for the message.
        patience: Seconds; default: ``PATIENCE``.

    Raises:
        OSError: The storage refused to the end.
    """
    seconds = PATIENCE if patience is None else patience
    begin, told = time.monotonic(), False
    while True:
        try:
            written = write()
        except OSError as error:
            if time.monotonic() - begin >= seconds:
                raise
            if not told:
                log.warning("cannot write %s: %s; trying again for %g minutes", what, reason(error), seconds / 60)
                told = True
            time.sleep(_AGAIN)
        else:
            if told:
                log.warning("wrote %s after %.0f s: the run goes on", what, time.monotonic() - begin)
            return written


def reason(error: OSError) -> str:
    """Why the storage refused, in a few words."""
    return "the disk is full" if error.errno == errno.ENOSPC else error.strerror or str(error)


def append_line(path: Path, text: str) -> None:
    """Add a line to a file, the whole line or nothing of it.

    Raises:
        OSError: As :func:`patiently`.
    """
    line = f"{text}\n".encode()

    def write() -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab", buffering=0) as file:
            end = file.seek(0, os.SEEK_END)
            try:
                torn = b"\n" if end and not _ends_with_line(path) else b""  # by a power cut
                if file.write(torn + line) != len(torn + line):
                    raise OSError(errno.ENOSPC, "No space left on device")
            except OSError:
                file.truncate(end)
                raise

    patiently(write, str(path))


def _ends_with_line(path: Path) -> bool:
    with open(path, "rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() == b"\n"


def replace_text(path: Path, text: str, patience: float | None = None) -> None:
    """Write a file such that a reader sees all of it or what was there before.

    Raises:
        OSError: As :func:`patiently`.
    """
    part = path.with_suffix(".part")

    def write() -> None:
        try:
            part.write_text(text, encoding="utf-8")
            os.replace(part, path)
        except OSError:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            raise

    patiently(write, str(path), patience)


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON, as :func:`replace_text`; the folder is there.

    Raises:
        OSError: As :func:`patiently`.
    """
    replace_text(path, json.dumps(value, indent=2))
