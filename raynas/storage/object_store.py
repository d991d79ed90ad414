"""Runs in an object store: ``--storage-path s3://bucket/path``; their local files are a :class:`StoreSync`.

Credentials come from the environment of each node (``AWS_PROFILE``, ``AWS_ACCESS_KEY_ID``, the role of a machine);
``AWS_ENDPOINT_URL`` names a store that is not Amazon's.
"""

from __future__ import annotations

import re
import threading
import uuid
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pyarrow import ArrowException, fs

from raynas.config.types import check_name, is_name
from raynas.exceptions import ConfigError
from raynas.storage.recovery import recover
from raynas.storage.removal import remove_tree, scratch_folder
from raynas.storage.sync import StoreSync

__all__ = ["check_folder", "check_storage", "fetch", "newest", "open_sync", "remote", "split_uri", "unusable"]

SCHEMES = ("s3", "gs")
TIMEOUT = 30.0
"""Seconds within which a store must answer at the start of a run."""


def remote(storage_path: str) -> bool:
    """Whether runs are kept in an object store, or are meant to be: s3:/bucket is no folder, but a URI misspelt."""
    return "://" in storage_path or re.match(rf"({'|'.join(SCHEMES)})(:|//)", storage_path) is not None


def split_uri(uri: str) -> tuple[str, str]:
    """The storage path and the name of a run of which this is the URI."""
    storage, _, name = uri.rstrip("/").rpartition("/")
    return storage, unquote(name)


def check_storage(storage_path: str) -> None:
    """Write an object and delete it.

    Raises:
        ConfigError: It is no URI of an object store, or this process cannot write there.
    """
    # First, for other messages show it. A secret may hold a slash: what stands before that is then no host with a port.
    host, _, path = re.sub(r"^\w*(:/*|//+)", "", storage_path).partition("/")
    if "@" in host or ("@" in path and not re.fullmatch(r"[^:]*(:\d+)?", host)):
        raise ConfigError("storage_path holds credentials, which would be written into files: set AWS_ACCESS_KEY_ID")
    uri = urlsplit(storage_path)
    if uri.scheme not in SCHEMES or not uri.netloc or {".", ".."} & set(unquote(uri.path).split("/")):
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
    thread.join(TIMEOUT)
    problem = outcome[0] if outcome else f"no answer within {TIMEOUT:g} seconds"
    if problem:
        raise ConfigError(f"cannot write to {storage_path}: {problem}")


def check_folder(folder: Path) -> None:
    """See that the folder of a run is there and takes files, or that it can be made.

    Raises:
        ConfigError: This process cannot write there.
    """
    where = folder if folder.exists() else folder.parent
    try:
        where.mkdir(parents=True, exist_ok=True)
        remove_tree(scratch_folder(".raynas-", where))
    except OSError as error:
        raise ConfigError(f"cannot write into {where}: {error.strerror}; take another --storage-path") from None


def unusable(storage_path: str) -> str | None:
    """What keeps this process from using an object store, if anything does."""
    try:
        check_storage(storage_path)
    except ConfigError as error:
        return str(error)
    return None


def open_sync(storage_path: str, name: str) -> StoreSync | None:
    """The local copy of a run, up to date; None where the storage is a folder itself.

    Raises:
        ConfigError: The storage cannot be used, or the name is none.
    """
    check_name(name)
    if not remote(storage_path):
        return None
    check_storage(storage_path)
    sync = StoreSync(storage_path, name)
    recover(sync)
    sync.pull()
    return sync


def fetch(storage_path: str, name: str) -> Path:
    """The folder of a run on this machine, which need not exist; raises as :func:`open_sync`."""
    sync = open_sync(storage_path, name)
    return Path(storage_path).expanduser() / name if sync is None else sync.folder


def newest(storage_path: str) -> str | None:
    """The name of the run whose settings were written last.

    Raises:
        ConfigError: The storage cannot be used.
    """
    if not remote(storage_path):
        kept = Path(storage_path).expanduser().glob("*/config.yaml")
        found = {path.parent.name: path.stat().st_mtime_ns for path in kept if is_name(path.parent.name)}
        return max(found, key=lambda name: found[name], default=None)
    check_storage(storage_path)
    storage, root = fs.FileSystem.from_uri(storage_path)
    folders = storage.get_file_info(fs.FileSelector(root, allow_not_found=True))
    runs = [each for each in folders if each.type == fs.FileType.Directory and is_name(each.base_name)]
    infos = storage.get_file_info([f"{each.path}/config.yaml" for each in runs])
    there = [info for info in infos if info.type == fs.FileType.File]
    return max(there, key=lambda info: info.mtime_ns).path.split("/")[-2] if there else None
