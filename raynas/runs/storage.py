"""Where a run keeps its files: a folder of this machine, or the local copy of a part of an object store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from raynas.config.types import check_name
from raynas.storage.atomic import write_with_retry
from raynas.storage.object_store import check_folder, check_storage, remote
from raynas.storage.recovery import recover
from raynas.storage.sync import StoreSync

__all__ = ["RunStorage"]

_Status = TypeVar("_Status")


class RunStorage:
    """The folder of a run, and its synchronisation with an object store where that is the storage.

    Nothing is read or written before :meth:`attach`.

    Args:
        storage_path: A folder, or the URI of an object store.
        name: Of the run.

    Raises:
        ConfigError: The name is not legal.
    """

    def __init__(self, storage_path: str, name: str) -> None:
        check_name(name)
        self._storage_path, self._name = storage_path, name
        self.sync = StoreSync(storage_path, name) if remote(storage_path) else None
        """Synchronises the folder with the object store; None where the storage is a folder."""
        self.folder = Path(storage_path).expanduser() / name if self.sync is None else self.sync.folder
        """Where the files are on this machine."""
        self._attached = False

    @property
    def place(self) -> str:
        """Where everything is kept: the folder, or the URI."""
        return str(self.folder) if self.sync is None else self.sync.uri

    @property
    def visible_to_nodes(self) -> Path | str:
        """What every node of the cluster must be able to write to."""
        return self.folder if self.sync is None else self._storage_path

    def shown(self, path: Path) -> str:
        """Where a file of the run is kept."""
        return f"{self.place}/{path.relative_to(self.folder)}"

    def below(self, name: str) -> Path | StoreSync:
        """A folder of the run, for processes on other nodes."""
        return self.folder / name if self.sync is None else self.sync.below(name)

    def check(self) -> None:
        """Check that the folder can be written to, before anything is started.

        Raises:
            ConfigError: It cannot.
        """
        if self.sync is None:
            check_folder(self.folder)

    def attach(self) -> bool:
        """Bring the files here from the object store, and send what changes from then on; returns whether it did.

        Raises:
            ConfigError: The store cannot be used.
            OSError: The store refused.
        """
        if self.sync is None or self._attached:
            return False
        check_storage(self._storage_path)
        self.sync = StoreSync(self._storage_path, self._name)
        recover(self.sync)
        self.sync.pull()
        self.sync.start()
        self._attached = True
        return True

    def claim(self) -> None:
        """Note in the store that this process continues the run."""
        if self.sync is not None:
            write_with_retry(self.sync.claim, self.sync.uri)

    def push(self) -> None:
        """Make sure that the files are in the store.

        Raises:
            OSError: The store refused for ten minutes.
        """
        if self.sync is not None:
            write_with_retry(self.sync.push, self.sync.uri)

    def try_push(self) -> None:
        """Send the files, unless the store refuses."""
        if self.sync is not None:
            self.sync.try_push()

    @contextmanager
    def reporting_lost_lease(self) -> Iterator[None]:
        """Where Tune or Ray Train fails because another process continues the run, raise that error instead.

        Raises:
            LeaseLostError: Something in the block failed, and another process continues the run.
        """
        try:
            yield
        except RuntimeError:
            if self.sync is not None:
                with suppress(OSError):
                    self.sync.claim()
            raise

    def guarded(self, show: Callable[[_Status], None]) -> Callable[[_Status], None]:
        """The function, which from then on fails once another process continues the run: nothing more is computed."""

        def checked(status: _Status) -> None:
            if self.sync is not None:
                self.sync.check()
            show(status)

        return checked

    def close(self) -> None:
        """Send the files where the store takes them, and end the synchronisation. It may be attached again."""
        if self.sync is not None and self._attached:
            self.sync.close()
            self._attached = self.sync.lease_lost  # a run that another process continues is not taken back
