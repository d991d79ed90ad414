"""Folders in which one process alone is at work: it holds a lock on each, which ends with it, however it ends."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import logging
import os
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

from raynas.exceptions import ConfigError
from raynas.storage.atomic import open_lock, reason
from raynas.storage.removal import adopt, move, own

__all__ = ["alone", "folders_of_the_dead", "holding", "is_free", "keep_locked", "own_folder"]

log = logging.getLogger(__name__)
_LOCK = ".lock"
_GUARD = threading.Lock()
_HELD: dict[Path, tuple[int, int]] = {}
"""The open lock files of this process, and how often each is held."""
_Method = TypeVar("_Method", bound=Callable[..., Any])


@contextlib.contextmanager
def holding(folder: Path) -> Iterator[None]:
    """Keep other processes from writing into a folder; this one may hold it several times at once.

    Raises:
        ConfigError: Another one does already.
    """
    folder = folder.absolute()
    with _GUARD:
        file, times = _HELD.get(folder) or (_opened(folder), 0)
        _HELD[folder] = file, times + 1
    try:
        yield
    finally:
        with _GUARD:
            file, times = _HELD.pop(folder)
            if times > 1:
                _HELD[folder] = file, times - 1
            else:
                os.close(file)


def alone(method: _Method) -> _Method:
    """Of a method of what has a ``folder``: meanwhile no other process is at work there."""

    @functools.wraps(method)
    def held(self: Any, *arguments: Any, **keywords: Any) -> Any:
        adopt(self.folder)
        with holding(self.folder):
            return method(self, *arguments, **keywords)

    return cast("_Method", held)


def own_folder(base: Path) -> Path:
    """A folder of this process below ``base``, the same at every call."""
    return _make_own(base, os.getpid())


@functools.cache
def _make_own(base: Path, process: int) -> Path:
    folder = base / f"{socket.gethostname()}-{process}-{uuid.uuid4().hex[:8]}"
    made = folder.with_name(f".{folder.name}")
    own(made)
    _opened(made)  # open to the end of this process
    move(made, folder)
    return folder


def folders_of_the_dead(base: Path) -> list[Path]:
    """The folders below ``base`` of processes of this machine that have ended: nobody holds their locks any more."""
    return [folder for folder in base.glob(f"{socket.gethostname()}-*") if is_free(folder)]


def keep_locked(folder: Path) -> None:
    """Hold the lock of a folder to the end of this process."""
    _opened(folder)


def is_free(folder: Path) -> bool:
    """Whether a folder has a lock, and nobody holds it."""
    with contextlib.suppress(OSError):
        file = open_lock(folder / _LOCK, create=False)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        finally:
            os.close(file)
    return False


def _opened(folder: Path) -> int:
    """A lock file, locked where the file system can do that; it tells who holds it."""
    try:
        file = open_lock(folder / _LOCK)
    except OSError as error:
        raise ConfigError(f"cannot lock {folder / _LOCK}: {reason(error)}") from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            holder = os.read(file, 200).decode(errors="replace") or "another process"
            os.close(file)
            raise ConfigError(
                f"{holder} is at work on {folder}: wait for its end, or give this run another --name"
            ) from None
        log.warning("nothing keeps a second process from writing into %s: it cannot be locked (%s)", folder, error)
    os.ftruncate(file, 0)
    os.write(file, f"process {os.getpid()} on {socket.gethostname()}".encode())
    return file
