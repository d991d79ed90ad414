"""The one place that removes and moves files: only below folders that RayNAS has made and marked as its own.

A folder is marked by a file ``.raynas`` in it. Before anything is removed its path is resolved, so that neither ``..``
nor a symbolic link leads out of the marked folder.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from raynas.exceptions import NotOwnedError

__all__ = [
    "MARKER",
    "adopt",
    "check_owned",
    "free_name",
    "make_folder",
    "move",
    "own",
    "owned",
    "remove_file",
    "remove_tree",
    "scratch",
    "scratch_folder",
]

MARKER = ".raynas"
"""Name of the file that marks a folder."""
_TEXT = b"RayNAS made this folder and may remove what is in it.\n"
_OWNED: set[Path] = set()
"""The folders that this process has marked: they are marked again when somebody has deleted them meanwhile."""


def own(folder: Path) -> None:
    """Make a folder, unless it is there, and mark it if this made it, or if this process has marked it before.

    Below a folder that is marked no other mark is needed.

    Raises:
        OSError: It cannot be made.
    """
    made = not folder.is_dir()
    folder.mkdir(parents=True, exist_ok=True)
    if (made or folder.resolve() in _OWNED) and not owned(folder):
        _mark(folder)


def adopt(folder: Path) -> None:
    """As :func:`own`; also marks a folder that is there and empty, or holds a run of a version that marked nothing.

    Raises:
        OSError: It cannot be made.
    """
    own(folder)
    if not owned(folder) and ((folder / "config.yaml").is_file() or not any(folder.iterdir())):
        _mark(folder)


def make_folder(folder: Path) -> None:
    """Make a folder that is missing, as :func:`own` does; one stat where it is there."""
    if not folder.is_dir():
        own(folder)


def _mark(folder: Path) -> None:
    file = os.open(folder / MARKER, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        if os.fstat(file).st_size == 0:
            os.write(file, _TEXT)
    finally:
        os.close(file)
    _OWNED.add(folder.resolve())


def owned(path: Path) -> bool:
    """Whether a path, resolved, is a marked folder or lies below one. A link counts as what stands at its own place."""
    if path.is_symlink():
        place = path.parent.resolve()
        return any(map(_marked, (place, *place.parents)))
    place = path.resolve()
    return any(map(_marked, (place, *place.parents)))


def _marked(folder: Path) -> bool:
    try:
        return stat.S_ISREG(os.lstat(folder / MARKER).st_mode)
    except OSError:
        return False


def check_owned(path: Path) -> None:
    """Refuse what is not below a folder of RayNAS.

    Raises:
        NotOwnedError: It is not.
    """
    if path.name in ("", ".", "..") or not owned(path):
        text = f"not removed, for RayNAS has not made the folder (no {MARKER} in it)"
        raise NotOwnedError(errno.EPERM, text, str(path))


def remove_file(path: Path) -> None:
    """Remove a file or a link below a folder of RayNAS; nothing there: nothing is done.

    Raises:
        NotOwnedError: It is not below one.
        OSError: It cannot be removed.
    """
    if not os.path.lexists(path):
        return
    check_owned(path)
    path.unlink(missing_ok=True)


def remove_tree(folder: Path) -> None:
    """Remove a folder of RayNAS, or one below it, with all that is in it, as far as the system allows.

    Links in it are removed, what they lead to is not.

    Raises:
        NotOwnedError: It is neither.
    """
    if not os.path.lexists(folder):
        return
    check_owned(folder)
    if folder.is_symlink():
        folder.unlink(missing_ok=True)
        return
    # The mark goes last: what a kill leaves of the folder can still be removed.
    for entry in list(folder.iterdir()) if folder.is_dir() else []:
        if entry.name != MARKER and entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        elif entry.name != MARKER:
            with contextlib.suppress(OSError):
                entry.unlink()
    shutil.rmtree(folder, ignore_errors=True)
    _OWNED.discard(folder.absolute())


def move(source: Path, target: Path) -> None:
    """Give a file or a folder of RayNAS another place, where nothing is.

    Raises:
        NotOwnedError: The source is not below a folder of RayNAS.
        OSError: It cannot be moved; FileExistsError: something is there.
    """
    check_owned(source)
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    source.rename(target)


def scratch_folder(prefix: str = "raynas-", parent: Path | None = None) -> Path:
    """A new folder that this user alone may read, marked; default: in the system's temporary folder.

    Raises:
        OSError: It cannot be made.
    """
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    _mark(folder)
    return folder


@contextlib.contextmanager
def scratch(prefix: str = "raynas-", parent: Path | None = None) -> Iterator[Path]:
    """As :func:`scratch_folder`; removed in the end."""
    folder = scratch_folder(prefix, parent)
    try:
        yield folder
    finally:
        with contextlib.suppress(OSError):
            remove_tree(folder)


def free_name(path: Path) -> Path:
    """The same with the first number behind its stem that is free: ``name-0``."""
    for number in range(10**6):
        free = path.with_name(f"{path.stem}-{number}{path.suffix}")
        if not os.path.lexists(free):
            return free
    return path.with_name(f"{path.stem}-{secrets.token_hex(8)}{path.suffix}")
