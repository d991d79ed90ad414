"""A table that only grows, as a folder of Parquet files: the storage under :mod:`raynas.results`.

Each *part* is written as a whole under a temporary name, synced to the disk and renamed, and never changes
afterwards. So whoever reads the folder sees complete parts alone, and a kill at any moment costs nothing that was
written. Small parts are merged by :func:`compact`.
"""

from __future__ import annotations

import errno
import json
import uuid
import warnings
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from raynas.patience import remove_abandoned, replace_file
from raynas.removal import check_owned, own

__all__ = ["Folder", "compact", "number_of"]

_REPLACES = b"raynas.replaces"
_ABANDONED = 60.0  # seconds after which a temporary file has no writer any more


class Folder:
    """A folder of parts on any storage that pyarrow knows.

    Args:
        location: A local path, or a URI such as ``s3://bucket/run/log``.
    """

    def __init__(self, location: str | Path) -> None:
        self.location = str(location)
        if "://" in self.location:
            self._storage, path = fs.FileSystem.from_uri(self.location)
            self._path = path.rstrip("/")
        else:
            self._storage, self._path = fs.LocalFileSystem(), Path(location).absolute().as_posix()
        self._local = isinstance(self._storage, fs.LocalFileSystem)

    def create(self) -> None:
        """Make the folder, unless it is there.

        Raises:
            OSError: The storage refused.
        """
        if self._local:
            own(Path(self._path))
        else:
            self._storage.create_dir(self._path, recursive=True)

    def parts(self) -> list[str]:
        """Names of the parts, oldest first.

        Raises:
            FileNotFoundError: There is no such folder.
        """
        names = (info.base_name for info in self._storage.get_file_info(fs.FileSelector(self._path)))
        return sorted(name for name in names if name.startswith("part-") and name.endswith(".parquet"))

    def write(self, table: pa.Table, number: int) -> None:
        """Add a part: it is there as a whole or not at all, and still there after a power cut.

        Args:
            table: The rows.
            number: Its place in the order of parts; of equal numbers either may come first.

        Raises:
            OSError: The storage refused; nothing is left behind.
        """
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
        name = f"part-{number:08d}-{uuid.uuid4().hex[:8]}.parquet"
        if not self._local:
            with self._storage.open_output_stream(f"{self._path}/{name}") as stream:
                stream.write(sink.getvalue())  # an object store shows whole objects only
            return
        replace_file(Path(self._path, name), lambda file: file.write(sink.getvalue()))

    def read(self, schema: pa.Schema) -> pa.Table:
        """All rows, oldest part first; columns that a part lacks are null.

        Raises:
            FileNotFoundError: There is no such folder.
        """
        tables, _ = self._load()
        return pa.concat_tables([schema.empty_table(), *tables.values()], promote_options="default")

    def compact(self) -> int:
        """See :func:`compact`."""
        tables, replaced = self._load()
        if len(tables) > 1:
            # The merged part names what it replaces: as long as those are there, readers skip them.
            names = [*tables, *replaced]
            merged = pa.concat_tables(tables.values(), promote_options="default")
            merged = merged.replace_schema_metadata({_REPLACES: json.dumps(names).encode()})
            self.write(merged, max(map(number_of, tables)))
            replaced = names
        for name in replaced:
            self._delete(name)
        if self._local:
            remove_abandoned(Path(self._path), _ABANDONED)
        return len(tables) if len(tables) > 1 else 0

    def _delete(self, name: str) -> None:
        """Remove a part; the name is one of :meth:`parts`."""
        if self._local:
            check_owned(Path(self._path, name))
        self._storage.delete_file(f"{self._path}/{name}")

    def _load(self) -> tuple[dict[str, pa.Table], list[str]]:
        """The parts by name, and the names of those that an interrupted compaction left behind."""
        tables = self._load_all()
        listed = (json.loads((table.schema.metadata or {}).get(_REPLACES, b"[]")) for table in tables.values())
        replaced = {name for names in listed for name in names} & set(tables)
        return {name: table for name, table in tables.items() if name not in replaced}, sorted(replaced)

    def _load_all(self) -> dict[str, pa.Table]:
        for _ in range(20):
            tables, broken = {}, []
            for name in self.parts():
                try:
                    with self._storage.open_input_file(f"{self._path}/{name}") as file:
                        tables[name] = pq.read_table(file, page_checksum_verification=True)
                except FileNotFoundError:
                    break  # compacted while we read: look again
                except (pa.ArrowException, OSError) as error:
                    broken.append(f"{name} ({error})")
            else:
                for text in broken:
                    message = f"{self.location} has a part that cannot be read and is left out: {text}"
                    warnings.warn(message, RuntimeWarning, stacklevel=4)
                return tables
        raise OSError(errno.EBUSY, f"{self.location} changes faster than it can be read")


def number_of(part: str) -> int:
    """The number in a part's name."""
    return int(part.split("-")[1])


def compact(location: str | Path) -> int:
    """Merge the small parts of a folder into one, best at the start or at the end of a run.

    Safe against a kill at any moment, against readers and against other writers; only two must not compact one
    folder at once. Parts that cannot be read are left alone.

    Returns:
        How many parts were merged; 0 where there was nothing to do.

    Raises:
        FileNotFoundError: There is no such folder.
        OSError: The storage refused; nothing is lost.
    """
    return Folder(location).compact()
