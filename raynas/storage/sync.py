"""A local folder that is kept in step with a part of an object store: by a driver, or by a process that writes a part.

A run works on the files of a folder. Where its storage is an object store, that folder is a copy in the cache of the
driver's user: downloaded when a command begins, and uploaded every two seconds and at the end, file by file as far as
they have changed. An object is there as a whole or not at all. Other processes that write have copies of their own
parts.

A driver notes beside its copy what the store has of it (:class:`raynas.storage.sync_state.SyncState`), and claims the
run in the store (:class:`raynas.storage.lease.Lease`). The next start on this machine uploads what a driver that was
killed had not uploaded, unless another driver has claimed the run since. A driver that was cut off from the store, and
comes back after another has claimed the run, overwrites nothing and ends.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import hashlib
import logging
import math
import os
import shutil
import threading
import time
import uuid
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from pyarrow import fs

from raynas.config.types import check_name
from raynas.exceptions import LeaseLostError
from raynas.storage.atomic import replace_file
from raynas.storage.lease import Lease, lease_holder
from raynas.storage.listing import OpenFolder, copy_stream, is_temporary, legal_path, local_files, stamp
from raynas.storage.locks import process_folder
from raynas.storage.removal import make_folder, own, remove_file, remove_tree, scratch_folder
from raynas.storage.sync_state import SYNC_STATE, SyncState, this_process
from raynas.utils.periods import PERIODS

__all__ = ["StoreSync", "cache_folder"]

log = logging.getLogger(__name__)
EVERY = PERIODS.mirror
"""Seconds between two looks for files that have changed."""
_RATE = 1e5
"""Bytes a second up to which one growing file is uploaded again and again."""
_PIECE = 2**22
"""Bytes of a file that are in memory at once."""


class StoreSync:
    """A local folder and the part of an object store that it is a copy of.

    Args:
        storage_path: URI below which runs are kept.
        name: Of the part: a run, or something in one.
        folder: Default: one of this process.
        lease: The claim under which this one writes; default: whoever writes is not checked.

    Raises:
        ConfigError: The name is none.
    """

    def __init__(self, storage_path: str, name: str, folder: Path | None = None, lease: Lease | None = None) -> None:
        for part in name.split("/"):
            check_name(part, f"{part!r} in {storage_path}" if part != name else "name")
        self.storage_path, self.name, self._lease = storage_path, name, lease
        self.folder = folder or process_folder(cache_folder(storage_path)) / name
        self._known: dict[str, tuple[int, int]] = {}
        """What is the same on both sides, by path below the folder: time and size of the local file."""
        self._sent: dict[str, float] = {}
        self._busy, self._ends = threading.Lock(), threading.Event()
        self._thread: threading.Thread | None = None
        self._driver: str | None = None
        """The name under which this one claims the run, if it is a driver's."""
        self._last: str | None = None
        """The driver that had claimed the run when this one started."""
        self._lost: LeaseLostError | None = None
        self._open_folder = OpenFolder(self.folder)
        """Held open by a driver."""

    def __reduce__(self) -> tuple[type[StoreSync], tuple[str, str, Path, Lease | None]]:
        """Pickle as another one of the same folder and part."""
        return type(self), (self.storage_path, self.name, self.folder, self._lease)

    @property
    def uri(self) -> str:
        """Where the copy is of."""
        uri = urlsplit(self.storage_path)
        return uri._replace(path=f"{uri.path.rstrip('/')}/{quote(self.name)}").geturl()

    @property
    def lease_lost(self) -> bool:
        """Whether another driver has claimed the run, as far as this one has noticed."""
        return self._lost is not None

    def below(self, name: str) -> StoreSync:
        """The same for a part of this part."""
        return StoreSync(self.storage_path, f"{self.name}/{name}", self.folder / name, self._lease)

    def private(self) -> StoreSync:
        """The same with a copy of its own, in a temporary folder: for a process that writes this part alone."""
        return StoreSync(self.storage_path, self.name, scratch_folder(), self._lease)

    def pull(self) -> None:
        """Make the folder what the store holds; files that are the same already stay. Nothing there: no folder.

        Raises:
            OSError: The store refused.
        """
        with self._busy:
            storage, root = self._open()
            there = self._objects(storage, root)
            for name in local_files(self.folder).keys() - there.keys():
                remove_file(self.folder / name)
            if not there:
                remove_tree(self.folder)
            self._known = {}
            self._download(storage, there)

    def _objects(self, storage: Any, root: str) -> dict[str, Any]:
        """What the store holds, by path below the part; what could not be a file here is left out with a warning."""
        found = storage.get_file_info(fs.FileSelector(root, recursive=True, allow_not_found=True))
        there = {info.path[len(root) + 1 :]: info for info in found if info.type == fs.FileType.File}
        foreign = [name for name in there if not legal_path(name)]
        if foreign:
            log.warning("%s holds %r, which is no name of a file here: it is left there", self.uri, foreign[0])
        return {name: info for name, info in there.items() if name not in foreign and not is_temporary(name)}

    def _download(self, storage: Any, there: Mapping[str, Any]) -> None:
        """Download the objects that differ from the local files."""
        if there:
            make_folder(self.folder)
        for name, info in there.items():
            target = self.folder / name
            if not (target.is_file() and stamp(target) == (info.mtime_ns, info.size)):
                with storage.open_input_stream(info.path) as source:
                    replace_file(target, functools.partial(copy_stream, source, info.mtime_ns))
            self._known[name] = stamp(target)

    def push(self, everything: bool = True) -> None:
        """Upload what has changed here since the last time, oldest first; then delete there what was deleted here.

        Args:
            everything: Also large files that were uploaded a moment ago.

        Raises:
            OSError: The store refused, and the next push continues; or somebody has removed the folder.
            LeaseLostError: Another has claimed the run.
        """
        with self._busy:
            if self._known and self._open_folder.lost:
                self._refill()
            if self._driver is not None and not (self.folder / SYNC_STATE).exists():
                self._note()  # even if the store never answers
            known = dict(self._known)
            try:
                gone = self._known.keys() - self.upload(everything)
                if gone and self.folder.is_dir():
                    self._check_lease()
                    self._delete(gone)
            finally:
                if self._driver is not None:
                    self._open_folder.open()
                    if self._known != known:
                        self._note()

    def _refill(self) -> None:
        """Somebody has deleted the folder: a driver downloads what the store holds, and deletes nothing there.

        Raises:
            FileNotFoundError: This is no driver.
            OSError: The store refused.
        """
        if self._driver is None:
            raise FileNotFoundError(f"{self.folder} is gone; what {self.uri} holds stays as it is")
        log.warning("somebody has deleted %s: it is made again from %s", self.folder, self.uri)
        storage, root = self._open()
        here = local_files(self.folder)
        self._known = {}
        own(self.folder)
        self._download(storage, {name: each for name, each in self._objects(storage, root).items() if name not in here})
        self._open_folder.close()
        self._open_folder.open()

    def upload(self, everything: bool = True) -> Set[str]:
        """Upload what has changed, and delete nothing; see :meth:`push`.

        Returns:
            The names of all files here.

        Raises:
            OSError: The store refused.
            LeaseLostError: Another driver has claimed the run.
        """
        storage, root = self._open()
        here = local_files(self.folder)
        for name, version in sorted(here.items(), key=lambda item: item[1]):
            lately = time.monotonic() - self._sent.get(name, -math.inf) < version[1] / _RATE
            if self._known.get(name) == version or (lately and not everything):
                continue
            try:
                file = (self.folder / name).open("rb")
            except FileNotFoundError:
                continue  # deleted meanwhile
            with file:
                self._check_lease()
                with storage.open_output_stream(f"{root}/{name}") as stream:
                    shutil.copyfileobj(file, stream, _PIECE)  # a checkpoint need not fit into memory once more
            self._known[name], self._sent[name] = version, time.monotonic()
        return here.keys()

    def claim(self) -> None:
        """Claim the run in the store: the driver before this one must not write any more.

        What that one wrote since the copy was made is then downloaded, too.

        Raises:
            OSError: The store refused.
            LeaseLostError: Another driver has claimed the run since this one did.
        """
        self.check()
        if self._lease is not None:
            self._check_lease()
            return
        lease = Lease(self.storage_path, self.name, str(self._driver))
        lease.claim()
        self._lease = lease
        try:
            self.push()
            self.pull()
        except OSError:
            self._lease = None  # all of it is tried again
            raise
        self._note()

    def check(self) -> None:
        """Raise the :class:`LeaseLostError` that an earlier call met, if any; the store is not asked."""
        if self._lost is not None:
            raise self._lost

    def _check_lease(self) -> None:
        """Look into the store whether another driver has claimed what this one writes.

        Raises:
            LeaseLostError: It has.
        """
        if self._lease is None:
            return
        try:
            self._lease.check(f"{self.uri}: this one ends; what was not uploaded stays in {self.folder}")
        except LeaseLostError as error:
            self._lost = error
            raise

    def _note(self, ends: bool = False) -> None:
        """Note what the store has, and whether the driver is at work from now on."""
        last = self._last if self._lease is None else self._driver
        state = SyncState(self._driver, last, self._known, None if ends else this_process())
        with contextlib.suppress(OSError):  # there is no folder yet, or no room
            if self.folder.is_dir():
                state.write(self.folder)

    def restore(self, state: SyncState) -> None:
        """Continue from the note of a driver that has ended."""
        self._last, self._known = state.last, dict(state.known)

    def forget(self) -> None:
        """Delete everything that is known, here and there; where the store refuses, some of it stays there."""
        with self._busy:
            remove_tree(self.folder)
            with contextlib.suppress(OSError, LeaseLostError):
                self._check_lease()
                self._delete(set(self._known))

    def _delete(self, names: Set[str]) -> None:
        storage, root = self._open()
        for name in names:
            if storage.get_file_info(f"{root}/{name}").type == fs.FileType.File:
                storage.delete_file(f"{root}/{name}")
            del self._known[name]

    def try_push(self, everything: bool = True) -> bool:
        """Push; where the store refuses, log that and leave it to the next time."""
        try:
            self.push(everything)
        except OSError as error:
            log.error("cannot write to %s, it is tried again: %s", self.uri, " ".join(str(error).split())[:300])
            return False
        return True

    def start(self) -> None:
        """Push every two seconds from now on, and at the end of the program.

        Raises:
            OSError: The store refused.
        """
        if self._thread is None:
            self._driver, self._last = uuid.uuid4().hex, lease_holder(self.storage_path, self.name)
            self._thread = threading.Thread(target=self._push_by_timer, name="raynas-sync", daemon=True)
            self._thread.start()
            atexit.register(self.close)

    def close(self) -> None:
        """Push for the last time. Where the store refuses, the next start on this machine uploads what is left."""
        self._ends.set()
        if self._thread is not None:
            self._thread.join()
            atexit.unregister(self.close)
            self._thread = None
            self._open_folder.close()
        try:
            if not self.try_push() and self.folder.is_dir():
                log.error("it is kept in %s, and uploaded when the run is opened again on this machine", self.folder)
        except LeaseLostError as error:
            log.error("%s", error)
        if self._driver is not None and (self.folder / SYNC_STATE).exists():
            self._note(ends=True)

    def _push_by_timer(self) -> None:
        working = True
        while self._lost is None and not self._ends.wait(EVERY):
            with contextlib.suppress(LeaseLostError):  # the run calls check()
                if working:
                    working = self.try_push(everything=False)
                    continue
                with contextlib.suppress(OSError):  # logged once, not every time
                    self.push(everything=False)
                    working = True

    def _open(self) -> tuple[Any, str]:
        storage, root = fs.FileSystem.from_uri(self.storage_path)
        return storage, f"{root.rstrip('/')}/{self.name}"


def cache_folder(storage_path: str) -> Path:
    """Where the local copies of a store are."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "raynas"
    return base / hashlib.blake2b(storage_path.encode(), digest_size=8).hexdigest()
