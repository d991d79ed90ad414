"""Runs in an object store: ``--storage-path s3://bucket/path``.

A run works on the files of a folder. Where its storage is an object store, that folder is a copy in the cache of the
driver's user: brought there when a command begins, and sent back every two seconds and at the end, file by file as far
as they have changed. An object is there as a whole or not at all. Other processes that write keep copies of their own
parts.

Credentials come from the environment of each node (``AWS_PROFILE``, ``AWS_ACCESS_KEY_ID``, the role of a machine);
``AWS_ENDPOINT_URL`` names a store that is not Amazon's.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import logging
import math
import os
import re
import shutil
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Set
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pyarrow import ArrowException, fs

from raynas.config import ConfigError

__all__ = ["Mirror", "check_storage", "fetch", "newest", "open_mirror", "remote", "unusable"]

log = logging.getLogger(__name__)
SCHEMES = ("s3", "gs")
PATIENCE = 30.0
"""Seconds in which a storage must answer at the start."""
EVERY = 2.0
"""Seconds between two looks for files that have changed."""
_RATE = 1e5
"""Bytes a second that may go into sending one file, which grows, again and again."""
_TEMPORARY = (".part", ".tmp")


def remote(storage_path: str) -> bool:
    """Whether runs are kept in an object store."""
    return "://" in storage_path


def check_storage(storage_path: str) -> None:
    """Write an object and delete it.

    Raises:
        ConfigError: It is no URI of an object store, or this process cannot write there.
    """
    # First, for other messages show it. A secret may hold a slash: what stands before that is then no host with a port.
    host, _, path = storage_path.partition("://")[2].partition("/")
    if "@" in host or ("@" in path and not re.fullmatch(r"[^:]*(:\d+)?", host)):
        raise ConfigError("storage_path holds credentials, which would be written into files: set AWS_ACCESS_KEY_ID")
    uri = urlsplit(storage_path)
    if uri.scheme not in SCHEMES or not uri.netloc:
        raise ConfigError(
            f"storage_path {storage_path!r} is no storage; legal: a folder that all nodes mount, "
            f"{', '.join(f'{scheme}://bucket/path' for scheme in SCHEMES)}"
        )
    outcome: list[str] = []

    def probe() -> None:
        try:
            storage, path = fs.FileSystem.from_uri(storage_path)
            name = f"{path.rstrip('/')}/.raynas-{uuid.uuid4().hex}"
            with storage.open_output_stream(name) as stream:
                stream.write(b"RayNAS can write here")
            storage.delete_file(name)
            outcome.append("")
        except (OSError, ValueError, ArrowException) as error:
            outcome.append(" ".join(str(error).split())[:300] or type(error).__name__)

    thread = threading.Thread(target=probe, name="raynas-probe", daemon=True)  # it may hang
    thread.start()
    thread.join(PATIENCE)
    said = outcome[0] if outcome else f"no answer within {PATIENCE:g} seconds"
    if said:
        raise ConfigError(f"cannot write to {storage_path}: {said}")


def unusable(storage_path: str) -> str | None:
    """What keeps this process from using an object store, if anything does."""
    try:
        check_storage(storage_path)
    except ConfigError as error:
        return str(error)
    return None


class Mirror:
    """A folder of this machine and the part of an object store that it is a copy of.

    Args:
        storage_path: URI below which runs are kept.
        name: Of the part: a run, or something in one.
        folder: Default: one of this process.
    """

    def __init__(self, storage_path: str, name: str, folder: Path | None = None) -> None:
        self.storage_path, self.name = storage_path, name
        self.folder = folder or _cache(storage_path) / name
        self._known: dict[str, tuple[int, int]] = {}
        """What is the same on both sides, by path below the folder: time and size of the local file."""
        self._sent: dict[str, float] = {}
        self._busy, self._ends = threading.Lock(), threading.Event()
        self._thread: threading.Thread | None = None

    def __reduce__(self) -> tuple[type[Mirror], tuple[str, str, Path]]:
        """Pickle as another mirror of the same."""
        return type(self), (self.storage_path, self.name, self.folder)

    @property
    def uri(self) -> str:
        """Where the copy is of."""
        uri = urlsplit(self.storage_path)
        return uri._replace(path=f"{uri.path.rstrip('/')}/{self.name}").geturl()

    def below(self, name: str) -> Mirror:
        """The mirror of something in this."""
        return Mirror(self.storage_path, f"{self.name}/{name}", self.folder / name)

    def private(self) -> Mirror:
        """The same with a copy of its own, in a temporary folder: for a process that writes this part alone."""
        return Mirror(self.storage_path, self.name, Path(tempfile.mkdtemp(prefix="raynas-")))

    def pull(self) -> None:
        """Make the folder what the store holds; files that are the same already stay. Nothing there: no folder.

        Raises:
            OSError: The store refused.
        """
        with self._busy:
            storage, root = self._open()
            found = storage.get_file_info(fs.FileSelector(root, recursive=True, allow_not_found=True))
            there = {info.path[len(root) + 1 :]: info for info in found if info.type == fs.FileType.File}
            there = {name: info for name, info in there.items() if ".." not in Path(name).parts and not _passing(name)}
            for name in self._local().keys() - there.keys():
                (self.folder / name).unlink(missing_ok=True)
            if not there:
                shutil.rmtree(self.folder, ignore_errors=True)
            self._known = {}
            for name, info in there.items():
                target = self.folder / name
                if not (target.is_file() and _stamp(target) == (info.mtime_ns, info.size)):
                    target.parent.mkdir(parents=True, exist_ok=True)
                    part = target.with_name(f"{target.name}-{uuid.uuid4().hex[:8]}.part")
                    with storage.open_input_stream(info.path) as source, part.open("wb") as file:
                        shutil.copyfileobj(source, file)
                    os.utime(part, ns=(info.mtime_ns, info.mtime_ns))
                    os.replace(part, target)
                self._known[name] = _stamp(target)

    def push(self, everything: bool = True) -> None:
        """Send what has changed here since the last time, oldest first; then delete there what was deleted here.

        Args:
            everything: Also large files that were sent a moment ago.

        Raises:
            OSError: The store refused, the next push goes on; or somebody has removed the folder.
        """
        with self._busy:
            if self._known and not self.folder.is_dir():
                raise FileNotFoundError(f"{self.folder} is gone; what {self.uri} holds stays as it is")
            storage, root = self._open()
            here = self._local()
            for name, stamp in sorted(here.items(), key=lambda item: item[1]):
                lately = time.monotonic() - self._sent.get(name, -math.inf) < stamp[1] / _RATE
                if self._known.get(name) == stamp or (lately and not everything):
                    continue
                try:
                    content = (self.folder / name).read_bytes()
                except FileNotFoundError:
                    continue  # deleted meanwhile
                with storage.open_output_stream(f"{root}/{name}") as stream:
                    stream.write(content)
                self._known[name], self._sent[name] = stamp, time.monotonic()
            self._delete(self._known.keys() - here.keys())

    def forget(self) -> None:
        """Delete everything that is known, here and there; where the store refuses, some of it may stay there."""
        with self._busy:
            shutil.rmtree(self.folder, ignore_errors=True)
            with contextlib.suppress(OSError):
                self._delete(set(self._known))

    def _delete(self, names: Set[str]) -> None:
        storage, root = self._open()
        for name in names:
            if storage.get_file_info(f"{root}/{name}").type == fs.FileType.File:
                storage.delete_file(f"{root}/{name}")
            del self._known[name]

    def try_push(self, everything: bool = True) -> bool:
        """Push; where the store refuses, say so and leave it to the next time."""
        try:
            self.push(everything)
        except OSError as error:
            log.error("cannot write to %s, it is tried again: %s", self.uri, " ".join(str(error).split())[:300])
            return False
        return True

    def start(self) -> None:
        """Push every two seconds from now on, and at the end of the program."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._push_by_timer, name="raynas-mirror", daemon=True)
            self._thread.start()
            atexit.register(self.close)

    def close(self) -> None:
        """Push for the last time. Where the store refuses, the folder is kept aside."""
        self._ends.set()
        if self._thread is not None:
            self._thread.join()
            atexit.unregister(self.close)
            self._thread = None
        if not self.try_push():
            aside = self.folder.parent.with_name(f"{self.folder.name}-unsent-{uuid.uuid4().hex[:8]}")
            if self.folder.is_dir():
                self.folder.rename(aside)
                log.error("the run as it should be there is in %s", aside)

    def _push_by_timer(self) -> None:
        working = True
        while not self._ends.wait(EVERY):
            if working:
                working = self.try_push(everything=False)
                continue
            try:  # said once, not every time
                self.push(everything=False)
                working = True
            except OSError:
                continue

    def _open(self) -> tuple[Any, str]:
        storage, root = fs.FileSystem.from_uri(self.storage_path)
        return storage, f"{root.rstrip('/')}/{self.name}"

    def _local(self) -> dict[str, tuple[int, int]]:
        """The files of the folder, by path below it; temporary ones left out."""
        found = {}
        for path in self.folder.rglob("*"):
            if _passing(path.name):
                continue
            try:
                if path.is_file():
                    found[path.relative_to(self.folder).as_posix()] = _stamp(path)
            except FileNotFoundError:
                continue
        return found


def _passing(name: str) -> bool:
    """Whether a file is a temporary one, or somebody else's."""
    path = Path(name)
    return path.name.startswith(".") or path.suffix in _TEMPORARY


def _stamp(path: Path) -> tuple[int, int]:
    facts = path.stat()
    return facts.st_mtime_ns, facts.st_size


def _cache(storage_path: str) -> Path:
    """Where this process keeps its copies: what others do with the same run must not meet. The dead's are removed."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "raynas"
    base /= hashlib.blake2b(storage_path.encode(), digest_size=8).hexdigest()
    host = socket.gethostname()
    for folder in base.glob(f"{host}-*"):
        process = folder.name.removeprefix(f"{host}-")
        if process.isdigit() and not Path("/proc", process).exists():
            shutil.rmtree(folder, ignore_errors=True)
    return base / f"{host}-{os.getpid()}"


def open_mirror(storage_path: str, name: str) -> Mirror | None:
    """The mirror of a run, its folder brought here; None where the storage is a folder itself.

    Raises:
        ConfigError: The storage cannot be used.
    """
    if not remote(storage_path):
        return None
    check_storage(storage_path)
    mirror = Mirror(storage_path, name)
    mirror.pull()
    return mirror


def fetch(storage_path: str, name: str) -> Path:
    """The folder of a run on this machine, which need not exist; raises as :func:`open_mirror`."""
    mirror = open_mirror(storage_path, name)
    return Path(storage_path).expanduser() / name if mirror is None else mirror.folder


def newest(storage_path: str) -> str | None:
    """The name of the run whose settings were written last.

    Raises:
        ConfigError: The storage cannot be used.
    """
    if not remote(storage_path):
        runs = sorted(Path(storage_path).expanduser().glob("*/config.yaml"), key=lambda p: p.stat().st_mtime)
        return runs[-1].parent.name if runs else None
    check_storage(storage_path)
    storage, root = fs.FileSystem.from_uri(storage_path)
    folders = storage.get_file_info(fs.FileSelector(root, allow_not_found=True))
    infos = storage.get_file_info(
        [f"{each.path}/config.yaml" for each in folders if each.type == fs.FileType.Directory]
    )
    there = [info for info in infos if info.type == fs.FileType.File]
    return max(there, key=lambda info: info.mtime_ns).path.split("/")[-2] if there else None
