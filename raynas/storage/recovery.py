"""What a driver that was killed has left on this machine, and had not uploaded to the object store."""

from __future__ import annotations

import contextlib
import logging
import uuid
from pathlib import Path

from raynas.exceptions import NotOwnedError
from raynas.storage.lease import lease_holder
from raynas.storage.locks import abandoned_folders
from raynas.storage.removal import move, own, remove_file, remove_tree
from raynas.storage.sync import StoreSync, cache_folder
from raynas.storage.sync_state import SYNC_STATE, SyncState, this_process

__all__ = ["recover"]

log = logging.getLogger(__name__)


def recover(sync: StoreSync) -> None:
    """Upload what a driver of the same run on this machine had not uploaded when it was killed; before ``pull``.

    Where another driver has claimed the run since, that is kept aside instead. Nothing is deleted in the store: what is
    missing in the folder of a dead process may have been deleted by anyone.

    Args:
        sync: Of the run; nothing was downloaded yet.

    Raises:
        OSError: The store refused.
    """
    cache = cache_folder(sync.storage_path)
    for folder in (sync.folder, *(each / sync.name for each in abandoned_folders(cache))):
        if _left(folder) is None:
            continue
        try:
            own(sync.folder.parent)
            if folder != sync.folder:
                move(folder, sync.folder)  # or another start has taken it already
        except OSError:
            continue
        state = _left(sync.folder)
        if state is not None and state.unsent(sync.folder):
            _upload(sync, state)
        remove_file(sync.folder / SYNC_STATE)
        remove_tree(sync.folder)
    for folder in abandoned_folders(cache):
        # Other runs wait for their own start.
        if not any((state := _left(run)) is not None and state.unsent(run) for run in folder.glob("*")):
            with contextlib.suppress(NotOwnedError):  # of a version that marked none
                remove_tree(folder)


def _left(folder: Path) -> SyncState | None:
    """The note of a driver that has ended; None where there is none."""
    state = SyncState.read(folder)
    return None if state is None or state.process == this_process() else state


def _upload(sync: StoreSync, state: SyncState) -> None:
    """Upload what a driver had not uploaded, or keep it aside where another one has claimed the run since."""
    if lease_holder(sync.storage_path, sync.name) in (None, state.last):
        log.warning("what was not uploaded to %s when its driver ended is uploaded now", sync.uri)
        left = StoreSync(sync.storage_path, sync.name, sync.folder)
        left.restore(state)
        left.upload()
        return
    aside = sync.folder.parent.with_name(f"{sync.folder.name}-unsent-{uuid.uuid4().hex[:8]}")
    move(sync.folder, aside)
    log.error("another process has resumed %s; what was not uploaded before is in %s", sync.uri, aside)
