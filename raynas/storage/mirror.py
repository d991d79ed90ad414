"""A folder of this machine as the copy of a part of an object store, kept by a driver or by who writes a part alone.

A run works on the files of a folder. Where its storage is an object store, that folder is a copy in the cache of the
driver's user: brought there when a command begins, and sent back every two seconds and at the end, file by file as far
as they have changed. An object is there as a whole or not at all. Other processes that write keep copies of their own
parts.

Beside its copy a driver notes what the store has of it, and in the store that it is the one that goes on with the run.
So the next start on this machine finds what a driver that was killed had not sent, and sends it, unless another has
gone on. One that was only cut off, and comes back after another has gone on, overwrites nothing and ends.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import hashlib
import json
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
from raynas.exceptions import LeaseLostError, NotOwnedError
from raynas.storage.atomic import replace_file, replace_text
from raynas.storage.listing import Held, copy_stream, legal_path, local_files, passing, stamp
from raynas.storage.locks import folders_of_the_dead, own_folder
from raynas.storage.removal import make_folder, move, own, remove_file, remove_tree, scratch_folder
from raynas.utils.periods import PERIODS

__all__ = ["Mirror"]

log = logging.getLogger(__name__)
EVERY = PERIODS.mirror
"""Seconds between two looks for files that have changed."""
_RATE = 1e5
"""Bytes a second that may go into sending one file, which grows, again and again."""
_PIECE = 2**22
"""Bytes of a file that are in memory at once."""
_NOTE, _DRIVER = ".mirror.json", ".driver"
"""What a driver notes here, and there."""
_DRIVERS: set[str] = set()
"""Those of this process."""


class Mirror:
    """A folder of this machine and the part of an object store that it is a copy of.

    Args:
        storage_path: URI below which runs are kept.
        name: Of the part: a run, or something in one.
        folder: Default: one of this process.
        claim: Which part must be claimed by which driver for this one to write; default: it does not matter.

    Raises:
        ConfigError: The name is none.
    """

    def __init__(
        self, storage_path: str, name: str, folder: Path | None = None, claim: tuple[str, str] | None = None
    ) -> None:
        for part in name.split("/"):
            check_name(part, f"{part!r} in {storage_path}" if part != name else "name")
        self.storage_path, self.name, self._claim = storage_path, name, claim
        self.folder = folder or own_folder(_base(storage_path)) / name
        self._known: dict[str, tuple[int, int]] = {}
        """What is the same on both sides, by path below the folder: time and size of the local file."""
        self._sent: dict[str, float] = {}
        self._busy, self._ends = threading.Lock(), threading.Event()
        self._thread: threading.Thread | None = None
        self._driver: str | None = None
        """The name under which this one writes, if it is a driver's."""
        self._last: str | None = None
        """The driver that had claimed the run when this one started."""
        self._overtaken: LeaseLostError | None = None
        self._held = Held(self.folder)
        """Held by a driver."""

    def __reduce__(self) -> tuple[type[Mirror], tuple[str, str, Path, tuple[str, str] | None]]:
        """Pickle as another mirror of the same."""
        return type(self), (self.storage_path, self.name, self.folder, self._claim)

    @property
    def uri(self) -> str:
        """Where the copy is of."""
        uri = urlsplit(self.storage_path)
        return uri._replace(path=f"{uri.path.rstrip('/')}/{quote(self.name)}").geturl()

    @property
    def overtaken(self) -> bool:
        """Whether another driver has claimed the run."""
        return self._overtaken is not None

    def below(self, name: str) -> Mirror:
        """The mirror of something in this."""
        return Mirror(self.storage_path, f"{self.name}/{name}", self.folder / name, self._claim)

    def private(self) -> Mirror:
        """The same with a copy of its own, in a temporary folder: for a process that writes this part alone."""
        return Mirror(self.storage_path, self.name, scratch_folder(), self._claim)

    def pull(self) -> None:
        """Make the folder what the store holds; files that are the same already stay. Nothing there: no folder.

        Raises:
            OSError: The store refused.
        """
        with self._busy:
            storage, root = self._open()
            there = self._there(storage, root)
            for name in local_files(self.folder).keys() - there.keys():
                remove_file(self.folder / name)
            if not there:
                remove_tree(self.folder)
            self._known = {}
            self._bring(storage, there)

    def _there(self, storage: Any, root: str) -> dict[str, Any]:
        """What the store holds, by path below the part; what could not be a file of ours is left out, and said."""
        found = storage.get_file_info(fs.FileSelector(root, recursive=True, allow_not_found=True))
        there = {info.path[len(root) + 1 :]: info for info in found if info.type == fs.FileType.File}
        foreign = [name for name in there if not legal_path(name)]
        if foreign:
            log.warning("%s holds %r, which is no name of a file here: it is left there", self.uri, foreign[0])
        return {name: info for name, info in there.items() if name not in foreign and not passing(name)}

    def _bring(self, storage: Any, there: Mapping[str, Any]) -> None:
        """Bring files of the store here that are others than here."""
        if there:
            make_folder(self.folder)
        for name, info in there.items():
            target = self.folder / name
            if not (target.is_file() and stamp(target) == (info.mtime_ns, info.size)):
                with storage.open_input_stream(info.path) as source:
                    replace_file(target, functools.partial(copy_stream, source, info.mtime_ns))
            self._known[name] = stamp(target)

    def push(self, everything: bool = True) -> None:
        """Send what has changed here since the last time, oldest first; then delete there what was deleted here.

        Args:
            everything: Also large files that were sent a moment ago.

        Raises:
            OSError: The store refused, the next push goes on; or somebody has removed the folder.
            LeaseLostError: Another has claimed the run.
        """
        with self._busy:
            if self._known and self._held.lost:
                self._refill()
            if self._driver is not None and not (self.folder / _NOTE).exists():
                self._note()  # even if the store never answers
            known = dict(self._known)
            try:
                gone = self._known.keys() - self._send(everything)
                if gone and self.folder.is_dir():
                    self._refuse_to_meet()
                    self._delete(gone)
            finally:
                if self._driver is not None:
                    self._held.hold()
                    if self._known != known:
                        self._note()

    def _refill(self) -> None:
        """Somebody has deleted the folder: a driver brings back what the store holds, and deletes nothing there.

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
        self._bring(storage, {name: info for name, info in self._there(storage, root).items() if name not in here})
        self._held.release()
        self._held.hold()

    def _send(self, everything: bool) -> Set[str]:
        """Send what has changed; returns all that is here."""
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
                self._refuse_to_meet()
                with storage.open_output_stream(f"{root}/{name}") as stream:
                    shutil.copyfileobj(file, stream, _PIECE)  # a checkpoint need not fit into memory once more
            self._known[name], self._sent[name] = version, time.monotonic()
        return here.keys()

    def claim(self) -> None:
        """Say in the store that from now on this driver goes on with the run: the one before it must not.

        What that one wrote since the copy was made is then brought here, too.

        Raises:
            OSError: The store refused.
            LeaseLostError: Another has claimed the run since this one did.
        """
        self.check()
        if self._claim is not None:
            self._refuse_to_meet()
            return
        storage, root = self._open()
        with storage.open_output_stream(f"{root}/{_DRIVER}") as stream:
            stream.write(str(self._driver).encode())
        self._claim = self.name, str(self._driver)
        try:
            self.push()
            self.pull()
        except OSError:
            self._claim = None  # it is tried again, all of it
            raise
        self._note()

    def check(self) -> None:
        """Raise an :class:`LeaseLostError` if this one has met the traces of another; asks nobody."""
        if self._overtaken is not None:
            raise self._overtaken

    def _refuse_to_meet(self) -> None:
        """See that nobody else has claimed what this one writes."""
        if self._claim is not None and self._claimed_by(self._claim[0]) not in (None, self._claim[1]):
            self._overtaken = LeaseLostError(
                f"another has gone on with {self.uri}: this one ends, and what it had not sent stays in {self.folder}"
            )
            raise self._overtaken

    def _claimed_by(self, name: str) -> str | None:
        """The driver that goes on with a part of the store, if one has said so."""
        storage, base = fs.FileSystem.from_uri(self.storage_path)
        try:
            with storage.open_input_stream(f"{base.rstrip('/')}/{name}/{_DRIVER}") as stream:
                return bytes(stream.read()).decode()
        except FileNotFoundError:
            return None

    def _note(self) -> None:
        """Note what the store has."""
        with contextlib.suppress(OSError):  # there is no folder yet, or no room
            last = self._last if self._claim is None else self._driver
            note = json.dumps({"driver": self._driver, "last": last, "known": self._known})
            if self.folder.is_dir():
                replace_text(self.folder / _NOTE, note, patience=0)

    def recover(self) -> None:
        """Send what a driver of this run on this machine had not sent when it was killed; before :meth:`pull`.

        Where another driver has gone on since, that is kept aside instead. Nothing is deleted in the store: what
        is missing in the folder of a dead process may have been deleted by anyone.

        Raises:
            OSError: The store refused.
        """
        for folder in (self.folder, *(each / self.name for each in folders_of_the_dead(_base(self.storage_path)))):
            if self._left(folder) is None:
                continue
            try:
                own(self.folder.parent)
                if folder != self.folder:
                    move(folder, self.folder)  # or another start has taken it already
            except OSError:
                continue
            left = self._left(self.folder)
            if left is not None and left.unsent and left._claimed_by(left.name) in (None, left._last):
                log.warning("what was not sent to %s when its driver ended is sent now", self.uri)
                left._send(everything=True)
            elif left is not None and left.unsent:
                left._keep_aside()
            remove_file(self.folder / _NOTE)
            remove_tree(self.folder)
        for folder in folders_of_the_dead(_base(self.storage_path)):
            # Other runs wait for their own start.
            if not any(left and left.unsent for left in map(self._left, folder.glob("*"))):
                with contextlib.suppress(NotOwnedError):  # of a version that marked none
                    remove_tree(folder)

    @property
    def unsent(self) -> bool:
        """Whether something is here that the store does not have."""
        return any(self._known.get(name) != version for name, version in local_files(self.folder).items())

    def _left(self, folder: Path) -> Mirror | None:
        """What a driver that has ended left in a folder, by its note; None where none did."""
        left = Mirror(self.storage_path, self.name, folder)
        try:
            note = json.loads((folder / _NOTE).read_text(encoding="utf-8"))
            left._last = note.get("last", note["driver"])
            left._known = {name: (int(changed), int(size)) for name, (changed, size) in note["known"].items()}
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None
        return None if note["driver"] in _DRIVERS else left

    def _keep_aside(self) -> None:
        aside = self.folder.parent.with_name(f"{self.folder.name}-unsent-{uuid.uuid4().hex[:8]}")
        move(self.folder, aside)
        log.error("another has gone on with %s; what was not sent before is in %s", self.uri, aside)

    def forget(self) -> None:
        """Delete everything that is known, here and there; where the store refuses, some of it may stay there."""
        with self._busy:
            remove_tree(self.folder)
            with contextlib.suppress(OSError, LeaseLostError):
                self._refuse_to_meet()
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
        """Push every two seconds from now on, and at the end of the program.

        Raises:
            OSError: The store refused.
        """
        if self._thread is None:
            self._driver, self._last = uuid.uuid4().hex, self._claimed_by(self.name)
            _DRIVERS.add(self._driver)
            self._thread = threading.Thread(target=self._push_by_timer, name="raynas-mirror", daemon=True)
            self._thread.start()
            atexit.register(self.close)

    def close(self) -> None:
        """Push for the last time. Where the store refuses, the next start on this machine sends what is left."""
        self._ends.set()
        if self._thread is not None:
            self._thread.join()
            atexit.unregister(self.close)
            self._thread = None
            _DRIVERS.discard(str(self._driver))
            self._held.release()
        try:
            if not self.try_push() and self.folder.is_dir():
                log.error("it is kept in %s, and sent when the run is opened again on this machine", self.folder)
        except LeaseLostError as error:
            log.error("%s", error)

    def _push_by_timer(self) -> None:
        working = True
        while self._overtaken is None and not self._ends.wait(EVERY):
            with contextlib.suppress(LeaseLostError):  # which the run asks for
                if working:
                    working = self.try_push(everything=False)
                    continue
                with contextlib.suppress(OSError):  # said once, not every time
                    self.push(everything=False)
                    working = True

    def _open(self) -> tuple[Any, str]:
        storage, root = fs.FileSystem.from_uri(self.storage_path)
        return storage, f"{root.rstrip('/')}/{self.name}"


def _base(storage_path: str) -> Path:
    """Where the copies of a store are, whoever keeps them."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "raynas"
    return base / hashlib.blake2b(storage_path.encode(), digest_size=8).hexdigest()
