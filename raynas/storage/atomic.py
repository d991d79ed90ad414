"""Files written as a whole, also to storage that fails for a while: a full disk, a file server that starts again.

Everything that RayNAS writes goes through this module. A file is written under an unpredictable temporary name in the
same folder, synced to the disk and put in place: readers see all of it or what was there before, and a failure or a
kill leaves what was there before. Lines are appended as a whole or not at all. No symbolic link is followed. A folder
that somebody has deleted meanwhile is made again.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import secrets
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from raynas.storage.removal import make_folder, remove_file
from raynas.utils.periods import PERIODS

__all__ = [
    "RETRY_SECONDS",
    "append_line",
    "create_text",
    "open_appending",
    "open_lock",
    "put_in_place",
    "reason",
    "remove_abandoned",
    "replace_by_draft",
    "replace_bytes",
    "replace_file",
    "replace_text",
    "write_json",
    "write_with_retry",
]

log = logging.getLogger(__name__)
RETRY_SECONDS = 600.0
"""Seconds for which a write that fails is tried again; then its error is raised."""
_RETRY_PERIOD = PERIODS.again
"""Seconds between two attempts."""
_PERMANENT = (errno.ELOOP, errno.EISDIR, errno.ENAMETOOLONG)
"""Errors for which a write is not tried again."""
_ABANDONED = 3600.0
"""Seconds after which a temporary file has no writer any more."""
T = TypeVar("T")


def write_with_retry(write: Callable[[], T], what: str, timeout: float | None = None) -> T:
    """Call ``write`` until it succeeds; log a warning when that takes more than one attempt.

    Args:
        write: Leaves nothing behind where it fails.
        what: It writes, for the message.
        timeout: Seconds; 0: one attempt; default: ``RETRY_SECONDS``.

    Raises:
        OSError: Of the last attempt.
    """
    seconds = RETRY_SECONDS if timeout is None else timeout
    begin, warned = time.monotonic(), False
    while True:
        try:
            written = write()
        except OSError as error:
            if time.monotonic() - begin >= seconds or error.errno in _PERMANENT:
                raise
            if not warned:
                log.warning("cannot write %s: %s; trying again for %g minutes", what, reason(error), seconds / 60)
                warned = True
            time.sleep(_RETRY_PERIOD)
        else:
            if warned:
                log.warning("wrote %s after %.0f s: the run goes on", what, time.monotonic() - begin)
            return written


def reason(error: OSError) -> str:
    """Why the storage refused, in a few words."""
    if error.errno == errno.ELOOP:
        return "it is a symbolic link, and RayNAS follows none where it writes: remove it"
    return "the disk is full" if error.errno == errno.ENOSPC else error.strerror or str(error)


def append_line(path: Path, text: str) -> None:
    """Add a line to a file, the whole line or nothing of it.

    Raises:
        OSError: As :func:`write_with_retry`.
    """
    line = f"{text}\n".encode()

    def write() -> None:
        make_folder(path.parent)
        with os.fdopen(_open_there(path, os.O_RDWR | os.O_APPEND), "a+b", buffering=0) as file:
            end = file.seek(0, os.SEEK_END)
            try:
                torn = b"\n" if end and os.pread(file.fileno(), 1, end - 1) != b"\n" else b""  # by a power cut
                if file.write(torn + line) != len(torn + line):
                    raise OSError(errno.ENOSPC, "No space left on device")
            except OSError:
                file.truncate(end)
                raise

    write_with_retry(write, str(path))


def open_lock(path: Path, create: bool = True) -> int:
    """Open a lock file for reading and writing; returns its descriptor, which the caller closes.

    Raises:
        OSError: It is a link, no regular file, not there, or cannot be written.
    """
    return _open_there(path, os.O_RDWR, create)


def open_appending(path: Path) -> int:
    """Open a file, made if missing, for appending to it; returns its descriptor, which the caller closes.

    Raises:
        OSError: It is a link, no regular file, or cannot be written.
    """
    return _open_there(path, os.O_WRONLY | os.O_APPEND)


def _open_there(path: Path, flags: int, create: bool = True) -> int:
    """Open a file for changing it in its place; no link is followed, nothing but a regular file is opened."""
    flags |= (os.O_CREAT if create else 0) | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    file = os.open(path, flags, 0o666)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OSError(errno.ENXIO, "it is no regular file", str(path))
    return file


def create_text(path: Path, text: str, mode: int = 0o666) -> None:
    """Write a small file that is not there yet.

    Args:
        path: In a folder that is there.
        text: ASCII.
        mode: Who may read and write it, as for ``os.open``.

    Raises:
        FileExistsError: It is there.
        OSError: The storage refused; what was written of it is removed.
    """
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    _fill(file, path, lambda opened: opened.write(text.encode("ascii")))


def replace_file(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file such that a reader sees all of it or what was there before, also after a power cut; one attempt.

    Args:
        path: Of the file. A link there is replaced, not followed. The folder is made if it is missing.
        write: Called with the open file.

    Raises:
        OSError: The storage refused; what was there before stays.
    """
    make_folder(path.parent)
    part = path.with_name(f".{secrets.token_hex(8)}.part")
    file = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    _fill(file, part, write)
    try:
        os.replace(part, path)
    except OSError:
        with contextlib.suppress(OSError):
            part.unlink()
        raise
    _sync_folder(path.parent)


def _fill(file: int, path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file that this process has just created and sync it; where that fails, the file is removed again."""
    try:
        with os.fdopen(file, "wb") as opened:
            write(opened)
            opened.flush()
            os.fsync(opened.fileno())
    except BaseException:
        with contextlib.suppress(OSError):
            path.unlink()
        raise


def replace_by_draft(path: Path, write: Callable[[Path], object]) -> None:
    """As :func:`replace_file`, where a library makes the file itself: it gets a temporary path."""
    make_folder(path.parent)
    draft = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        write(draft)
        put_in_place(draft, path)
    except BaseException:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise


def put_in_place(draft: Path, path: Path) -> None:
    """Give a finished file of a scratch folder on the same disk its place; what stands there is replaced.

    Raises:
        OSError: The storage refused; what was there before stays.
    """
    make_folder(path.parent)
    file = os.open(draft, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)
    os.replace(draft, path)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # where the system can sync a folder
        file = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(file)
        finally:
            os.close(file)


def remove_abandoned(folder: Path, seconds: float = _ABANDONED) -> None:
    """Remove the temporary files that writers have left in a folder when they were killed.

    Args:
        folder: Not those below it.
        seconds: Age from which a file has no writer any more.
    """
    for part in (*folder.glob(".*.part"), *folder.glob(".*.tmp"), *folder.glob(".tmp??????")):  # the last: safetensors
        with contextlib.suppress(OSError):
            if part.is_file() and time.time() - part.stat().st_mtime > seconds:
                remove_file(part)


def replace_bytes(path: Path, content: bytes, timeout: float | None = None) -> None:
    """As :func:`replace_file`, tried again as by :func:`write_with_retry`.

    Raises:
        OSError: As :func:`write_with_retry`.
    """
    write_with_retry(lambda: replace_file(path, lambda file: file.write(content)), str(path), timeout)


def replace_text(path: Path, text: str, timeout: float | None = None) -> None:
    """As :func:`replace_bytes`, of text in UTF-8.

    Raises:
        OSError: As :func:`write_with_retry`.
    """
    replace_bytes(path, text.encode(), timeout)


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON, as :func:`replace_text`.

    Raises:
        OSError: As :func:`write_with_retry`.
    """
    replace_text(path, json.dumps(value, indent=2))
