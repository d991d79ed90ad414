"""The files of a local copy of a part of an object store, and whether its folder is still the same one."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import Any, BinaryIO

from raynas.config.types import is_component

__all__ = ["OpenFolder", "copy_stream", "is_temporary", "legal_path", "local_files", "stamp"]

_TEMPORARY = (".part", ".tmp")


class OpenFolder:
    """A folder that is kept open to notice when another one takes its place: meanwhile its inode is not used again.

    Args:
        folder: Need not be there yet.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file: int | None = None

    def open(self) -> None:
        """Open the folder, unless it is open or not there."""
        if self._file is None:
            with contextlib.suppress(OSError):
                self._file = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def close(self) -> None:
        """Close it."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    @property
    def lost(self) -> bool:
        """Whether the folder is gone, or is another one than that which is open."""
        try:
            here = self.folder.stat()
        except FileNotFoundError:
            return True
        return self._file is not None and not os.path.samestat(os.fstat(self._file), here)


def local_files(folder: Path) -> dict[str, tuple[int, int]]:
    """Time in ns and size of the files of a folder, by path below it; temporary ones are left out."""
    found = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if is_temporary(name) or not legal_path(name):
            continue
        with contextlib.suppress(FileNotFoundError):
            if path.is_file():
                found[name] = stamp(path)
    return found


def is_temporary(name: str) -> bool:
    """Whether a file is a temporary or a hidden one, which is not copied."""
    path = Path(name)
    return path.name.startswith(".") or path.suffix in _TEMPORARY


def legal_path(name: str) -> bool:
    """Whether the key of an object, from that of its part on, is the path of a file below a folder."""
    return all(map(is_component, name.split("/")))


def copy_stream(source: Any, time_ns: int, file: BinaryIO) -> None:
    """Write what a stream holds, and give the file the time of the object."""
    shutil.copyfileobj(source, file)
    file.flush()
    os.utime(file.fileno(), ns=(time_ns, time_ns))


def stamp(path: Path) -> tuple[int, int]:
    """Time in ns and size of a file."""
    facts = path.stat()
    return facts.st_mtime_ns, facts.st_size
