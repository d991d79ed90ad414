"""What a driver notes in its local copy of a run: which files the object store has, and whether the driver is alive."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from raynas.storage.atomic import replace_text
from raynas.storage.listing import local_files

__all__ = ["SYNC_STATE", "SyncState", "this_process"]

SYNC_STATE = ".mirror.json"
"""The file, in the folder of the copy; it is not sent to the store."""
_TOKEN = uuid.uuid4().hex


def this_process() -> str:
    """A name of this process that no other has had, on any machine."""
    return f"{_TOKEN}-{os.getpid()}"


@dataclass(frozen=True)
class SyncState:
    """The note of a driver."""

    driver: str | None
    """Its name in the lease."""
    last: str | None
    """The driver that held the lease when the copy was last brought up to date."""
    known: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """The files that are the same in the store, by path below the folder: time in ns and size of the local file."""
    process: str | None = None
    """The process in which the driver is at work; None: it has ended in an orderly way."""

    def write(self, folder: Path) -> None:
        """Write the note, once.

        Raises:
            OSError: There is no room.
        """
        note = {"driver": self.driver, "last": self.last, "known": self.known, "process": self.process}
        replace_text(folder / SYNC_STATE, json.dumps(note), timeout=0)

    @classmethod
    def read(cls, folder: Path) -> SyncState | None:
        """The note in a folder; None where there is none, or it is damaged."""
        try:
            note = json.loads((folder / SYNC_STATE).read_text(encoding="utf-8"))
            known = {name: (int(changed), int(size)) for name, (changed, size) in note["known"].items()}
            return cls(note["driver"], note.get("last", note["driver"]), known, note.get("process"))
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None

    def unsent(self, folder: Path) -> bool:
        """Whether something is in the folder that the store does not have."""
        return any(self.known.get(name) != version for name, version in local_files(folder).items())
