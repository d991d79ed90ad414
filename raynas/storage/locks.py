"""Exclusive locks on folders: one process at a time works in a folder, and its lock ends with it, however it ends.

The locks are those of ``flock`` on a file ``.lock``, whose text names the holder. This is not the package ``filelock``:
Python 3.10 gets version 3 of it, with which a second process that tries to lock the file truncates the text that names
the holder, and a file system without locks looks like a folder that another process has locked for ever. Both versions
3 and 4 lock a FIFO, and create the lock file of a folder that is only looked at.
"""

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

__all__ = ["abandoned_folders", "exclusive", "is_unlocked", "lock_folder", "lock_until_exit", "process_folder"]

log = logging.getLogger(__name__)
_LOCK = ".lock"
_Method = TypeVar("_Method", bound=Callable[..., Any])


class _ProcessLocks:
    """The locks that this process holds, each possibly by several users: the operating system counts it as one user."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._held: dict[Path, tuple[int, int]] = {}
        """The open lock file of each folder, and how often it is held."""

    def acquire(self, folder: Path) -> None:
        """Lock a folder, or count one more user of its lock.

        Raises:
            ConfigError: Another process holds the lock.
        """
        with self._guard:
            file, users = self._held.get(folder) or (_open_locked(folder), 0)
            self._held[folder] = file, users + 1

    def release(self, folder: Path) -> None:
        """Count one user less; the last one unlocks the folder."""
        with self._guard:
            file, users = self._held.pop(folder)
            if users > 1:
                self._held[folder] = file, users - 1
                return
            with contextlib.suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_UN)  # a process forked meanwhile has the file open, too
            os.close(file)


_LOCKS = _ProcessLocks()


@contextlib.contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Keep other processes from writing into a folder; this process may lock it several times at once.

    Raises:
        ConfigError: Another process has locked it; the message names that process.
    """
    folder = folder.absolute()
    _LOCKS.acquire(folder)
    try:
        yield
    finally:
        _LOCKS.release(folder)


def exclusive(method: _Method) -> _Method:
    """Decorate a method of an object that has a ``folder``: the folder is locked while the method runs."""

    @functools.wraps(method)
    def locked(self: Any, *arguments: Any, **keywords: Any) -> Any:
        adopt(self.folder)
        with lock_folder(self.folder):
            return method(self, *arguments, **keywords)

    return cast("_Method", locked)


def process_folder(base: Path) -> Path:
    """A folder of this process below ``base``, the same at every call, locked until the process ends."""
    return _make_process_folder(base, os.getpid())


@functools.cache
def _make_process_folder(base: Path, process: int) -> Path:
    folder = base / f"{socket.gethostname()}-{process}-{uuid.uuid4().hex[:8]}"
    made = folder.with_name(f".{folder.name}")
    own(made)
    _open_locked(made)  # open to the end of this process
    move(made, folder)
    return folder


def abandoned_folders(base: Path) -> list[Path]:
    """The folders below ``base`` of processes of this machine that have ended: nobody holds their locks any more."""
    return [folder for folder in base.glob(f"{socket.gethostname()}-*") if is_unlocked(folder)]


def lock_until_exit(folder: Path) -> None:
    """Hold the lock of a folder until this process ends.

    Raises:
        ConfigError: Another process has locked it.
    """
    _open_locked(folder)


def is_unlocked(folder: Path) -> bool:
    """Whether a folder has a lock file, and no process holds the lock."""
    with contextlib.suppress(OSError):
        file = open_lock(folder / _LOCK, create=False)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        finally:
            os.close(file)
    return False


def _open_locked(folder: Path) -> int:
    """Open and lock the lock file of a folder, where the file system can do that, and write this process into it."""
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
