"""Ray that is started on this machine: only this machine reaches it, and only its owner reads what it writes."""

from __future__ import annotations

import atexit
import contextlib
import functools
import logging
import os
import re
import signal
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray
from ray._private import ray_constants

from raynas._compat import replaced
from raynas.exceptions import ConfigError
from raynas.storage.locks import is_unlocked, lock_until_exit
from raynas.storage.removal import move, remove_tree, scratch_folder

__all__ = ["end_processes", "on_loopback", "own_processes", "private_folder"]

log = logging.getLogger(__name__)
_PREFIX = "rn-"
_MADE: dict[int, Path] = {}
"""The folder of a process, by its id."""
_NEEDED = {"the GCS": b"/gcs_server\0", "the raylet": b"/raylet/raylet\0"}
"""Programs, by what they are called in messages."""
_LONGEST = 107 - len("/rn-12345678/r/session_2026-12-01_00-17-01_596212_1234567/sockets/plasma_store.1")
"""Bytes of the path of the folder below which sockets still have a path that Linux takes."""


@contextlib.contextmanager
def on_loopback() -> Iterator[None]:
    """A Ray that starts in here takes 127.0.0.1 for its address, and listens there alone.

    Ray does so by itself on Windows and macOS, where it makes no clusters. Elsewhere it takes the address of a network
    for its own, also in place of a 127.0.0.1 that it is given, and listens everywhere. No public setting changes that.
    """
    variable: Any = getattr(ray_constants, "ENABLE_RAY_CLUSTERS_ENV_VAR", None)
    if variable is None or not hasattr(ray_constants, "ENABLE_RAY_CLUSTER"):
        log.warning("Ray %s listens on all interfaces here: see cluster/README.md, Security", ray.__version__)
        yield
        return
    # The environment is for the processes that Ray starts, the constant for this one, which read it long ago.
    with _environment(variable, "0"), replaced(ray_constants, "ENABLE_RAY_CLUSTER", False):
        yield


@contextlib.contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    """A variable of the environment has another value in here."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def private_folder() -> str:
    """Where a Ray of this process keeps its logs and sockets, instead of a /tmp/ray that everybody may read and write.

    It is in the temporary folder, or in another one where that has a long path, and ends with this process. What is
    left of processes that were killed is removed.

    Raises:
        ConfigError: There is no folder for it.
    """
    return str(_private_folder(os.getpid()) / "r")  # Ray lets everybody into the folder that it is given


@functools.cache
def _private_folder(process: int) -> Path:
    base = _base()
    _remove_dead(base)
    folder = scratch_folder(f".{_PREFIX}", base)  # for its owner alone
    lock_until_exit(folder)
    visible = base / folder.name[1:]  # from now on others may look whether it is locked
    move(folder, visible)
    folder = visible
    _MADE[process] = folder
    return folder


def _base() -> Path:
    """A folder with a path that is short enough."""
    candidates = [tempfile.gettempdir(), "/tmp", "/var/tmp"]
    for name in candidates:
        if len(os.fsencode(os.path.realpath(name))) <= _LONGEST and os.access(name, os.W_OK | os.X_OK):
            return Path(name).resolve()
    raise ConfigError(
        f"Ray needs a folder with a path of at most {_LONGEST} bytes for its sockets, in which this user may write: "
        f"none of {', '.join(candidates)} is one; name another one by TMPDIR"
    )


def _remove_dead(base: Path) -> None:
    for folder in base.glob(f"{_PREFIX}????????"):
        with contextlib.suppress(OSError):
            found = folder.lstat()
            own = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077
            if own and is_unlocked(folder):
                _end_writers(folder)
                remove_tree(folder)


def end_processes() -> None:
    """End the processes of a Ray that this process has started and that has died: they would wait for it."""
    folder = _MADE.get(os.getpid())
    if folder is not None:
        _end_writers(folder)


def own_processes() -> list[str]:
    """Which of the two processes that a driver needs are there, of a Ray that this process starts."""
    found = []
    for thread in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # the thread has ended
            for child in (thread / "children").read_text().split():
                line = Path(f"/proc/{child}/cmdline").read_bytes()
                found += [name for name, program in _NEEDED.items() if program in line]
    return found


def _end_writers(folder: Path) -> None:
    """End the processes of Ray that have a file below a folder open for writing, this one excepted.

    Ray's agents outlive a driver that was killed by a minute: so long they try to tell its GCS, which is gone.
    """
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended, or is another user's
            own = process.stat().st_uid == os.geteuid() and int(process.name) != os.getpid()
            if own and b"ray" in (process / "cmdline").read_bytes() and _writes(process, folder):
                os.kill(int(process.name), signal.SIGKILL)


def _writes(process: Path, folder: Path) -> bool:
    for file in (process / "fd").iterdir():
        with contextlib.suppress(OSError):  # it was closed meanwhile
            if os.readlink(file).startswith(f"{folder}/"):
                flags = re.search(r"^flags:\s*(\d+)", (process / "fdinfo" / file.name).read_text(), re.MULTILINE)
                if flags and int(flags[1], 8) & (os.O_WRONLY | os.O_RDWR):
                    return True
    return False


def _remove() -> None:
    """At the end of the process, unless that was forked from the one that made the folder."""
    folder = _MADE.get(os.getpid())
    if folder is not None:
        ray.shutdown(_exiting_interpreter=True)  # as Ray does by itself, a moment later: it would make the folder again
        with contextlib.suppress(OSError):
            remove_tree(folder)


atexit.register(_remove)  # here, so that it comes after all that may still ask Ray
