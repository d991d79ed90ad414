"""Folders in which one process alone is at work: it holds a lock on each, to its end, however it ends."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import socket
import uuid
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from raynas.config import ConfigError

__all__ = ["folders_of_the_dead", "hold", "own_folder"]

log = logging.getLogger(__name__)
_LOCK = ".lock"
_OWN: dict[Path, BaseFileLock] = {}
"""The locks on the folders of this process alone."""


def hold(folder: Path) -> BaseFileLock:
    """Keep other processes from writing into the folder of a run, until this one releases it or ends in any way.

    Raises:
        ConfigError: One does already.
    """
    lock = FileLock(folder / _LOCK, timeout=0, is_singleton=True)
    try:
        lock.acquire()
    except Timeout:
        raise ConfigError(
            f"another process is at work on {folder}: wait for its end, or give this run another --name"
        ) from None
    except (NotImplementedError, OSError) as error:
        log.warning("nothing keeps a second process from writing into %s: it cannot be locked (%s)", folder, error)
    return lock


def own_folder(base: Path) -> Path:
    """A folder of this process below ``base``, the same at every call."""
    return _make_own(base, os.getpid())


@functools.cache
def _make_own(base: Path, process: int) -> Path:
    folder = base / f"{socket.gethostname()}-{process}-{uuid.uuid4().hex[:8]}"
    folder.mkdir(parents=True)
    _OWN[folder] = FileLock(folder / _LOCK)
    _OWN[folder].acquire()
    return folder


def folders_of_the_dead(base: Path) -> list[Path]:
    """The folders below ``base`` of processes of this machine that have ended: nobody holds their locks any more."""
    dead = []
    for folder in base.glob(f"{socket.gethostname()}-*"):
        if folder not in _OWN:
            with contextlib.suppress(Timeout, OSError), FileLock(folder / _LOCK, timeout=0):
                dead.append(folder)
    return dead
