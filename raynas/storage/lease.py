"""Which driver may write a run in an object store: the one that has claimed it last."""

from __future__ import annotations

from dataclasses import dataclass

from pyarrow import fs

from raynas.exceptions import LeaseLostError

__all__ = ["Lease", "lease_holder"]

_FILE = ".driver"
"""The object of a run that names its driver."""


def lease_holder(storage_path: str, name: str) -> str | None:
    """The driver that has claimed a part of a store last; None where none has.

    Raises:
        OSError: The store refused.
    """
    storage, base = fs.FileSystem.from_uri(storage_path)
    try:
        with storage.open_input_stream(f"{base.rstrip('/')}/{name}/{_FILE}") as stream:
            return bytes(stream.read()).decode()
    except FileNotFoundError:
        return None


@dataclass(frozen=True)
class Lease:
    """The claim of one driver.

    The claim is read before each write, not together with it: two drivers that write at the same moment are not kept
    apart. A driver that was cut off for longer notices the claim of another before it overwrites anything.
    """

    storage_path: str
    """URI below which runs are kept."""
    name: str
    """The run."""
    driver: str
    """A name that no other driver has."""

    def claim(self) -> None:
        """Write into the store that this driver continues the run.

        Raises:
            OSError: The store refused.
        """
        storage, base = fs.FileSystem.from_uri(self.storage_path)
        with storage.open_output_stream(f"{base.rstrip('/')}/{self.name}/{_FILE}") as stream:
            stream.write(self.driver.encode())

    def check(self, what: str) -> None:
        """Look into the store whether another driver has claimed the run since.

        Args:
            what: Would be lost, for the message.

        Raises:
            OSError: The store refused.
            LeaseLostError: Another driver has.
        """
        if lease_holder(self.storage_path, self.name) not in (None, self.driver):
            raise LeaseLostError(f"another process has resumed {what}")
