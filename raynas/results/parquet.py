"""A table that only grows, as a folder of Parquet files: the storage under :mod:`raynas.results.log`.

Each *part* is written as a whole under a temporary name, synced to the disk and renamed, and never changes
afterwards. So whoever reads the folder sees complete parts alone, and a kill at any moment costs nothing that was
written. Small parts are merged by :func:`compact`.
"""

from __future__ import annotations

import errno
import json
import re
import uuid
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from raynas.metrics import Objective
from raynas.storage.atomic import remove_abandoned, replace_file
from raynas.storage.removal import check_owned, own

__all__ = ["Folder", "compact", "is_cost", "number_of", "objective_in"]

_REPLACES, _SETTINGS, _OBJECTIVE = b"raynas.replaces", b"raynas.settings", b"raynas.objective"
_NAME = re.compile(r"part-\d{8,18}-[0-9a-f]{8}\.parquet")
_ABANDONED = 60.0  # seconds after which a temporary file has no writer any more


class Folder:
    """A folder of parts on any storage that pyarrow knows.

    Args:
        location: A local path, or a URI such as ``s3://bucket/run/log``.
        schema: Of all parts; a part may lack columns and have further ones of costs (:func:`is_cost`), and a file with
            columns of other types is no part.
    """

    def __init__(self, location: str | Path, schema: pa.Schema | None = None) -> None:
        self.location, self.schema = str(location), schema
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
        return sorted(name for name in names if _NAME.fullmatch(name))

    def write(
        self,
        table: pa.Table,
        number: int,
        settings: Mapping[str, Any] | None = None,
        objective: Objective | None = None,
    ) -> None:
        """Add a part: it is there as a whole or not at all, and still there after a power cut.

        Args:
            table: The rows.
            number: Its place in the order of parts; of equal numbers either may come first.
            settings: What the rows depend on, kept beside them.
            objective: What the scores are, kept beside them.

        Raises:
            OSError: The storage refused; nothing is left behind.
        """
        notes = {_SETTINGS: settings, _OBJECTIVE: None if objective is None else asdict(objective)}
        given = {name: json.dumps(value).encode() for name, value in notes.items() if value is not None}
        table = table.replace_schema_metadata({**(table.schema.metadata or {}), **given})
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
        name = f"part-{number:08d}-{uuid.uuid4().hex[:8]}.parquet"
        if not self._local:
            with self._storage.open_output_stream(f"{self._path}/{name}") as stream:
                stream.write(sink.getvalue())  # an object store shows whole objects only
            return
        replace_file(Path(self._path, name), lambda file: file.write(sink.getvalue()))

    def load(self) -> dict[str, pa.Table]:
        """The rows of each part by its name, oldest first; columns of the schema that a part lacks are null.

        A part that cannot be read is named in a ``RuntimeWarning`` and left out.

        Raises:
            FileNotFoundError: There is no such folder.
        """
        return self._load()[0]

    def settings(self) -> dict[str, dict[str, Any] | None]:
        """What :meth:`write` was told that the rows depend on, by the name of the part; None where it was not."""
        return {name: _settings(schema) for name, schema in self._schemas().items()}

    def objectives(self) -> dict[str, Objective | None]:
        """What the scores are, by the name of the part; None where :meth:`write` was not given it."""
        return {name: objective_in(schema) for name, schema in self._schemas().items()}

    def cost_names(self) -> list[str]:
        """The columns of costs in any part."""
        return list(dict.fromkeys(f.name for schema in self._schemas().values() for f in schema if is_cost(f)))

    def _schemas(self) -> dict[str, pa.Schema]:
        found: dict[str, pa.Schema] = {}
        for name in self.parts():
            try:
                with self._storage.open_input_file(f"{self._path}/{name}") as file:
                    found[name] = pq.read_schema(file)
            except (pa.ArrowException, OSError):
                continue  # it is named when the log is read
        return found

    def compact(self, objective: Objective | None = None) -> int:
        """See :func:`compact`; an objective is also written into a part that has none."""
        tables, replaced = self._load()
        known = [objective_in(table.schema) for table in tables.values()]
        if len(tables) > 1 or (objective is not None and tables and known[-1] is None):
            # The merged part names what it replaces: as long as those are there, readers skip them.
            names = [*tables, *replaced]
            told = [settings for table in tables.values() if (settings := _settings(table.schema)) is not None]
            merged = pa.concat_tables(tables.values(), promote_options="default")
            merged = merged.replace_schema_metadata({_REPLACES: json.dumps(names).encode()})
            objective = objective or next((each for each in reversed(known) if each is not None), None)
            self.write(merged, max(map(number_of, tables)), told[-1] if told else None, objective)
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
        replaced = self._find_replaced(tables)
        return {name: table for name, table in tables.items() if name not in replaced}, sorted(replaced)

    def _find_replaced(self, tables: Mapping[str, pa.Table]) -> set[str]:
        """The parts that a merged part replaces; one that has fewer rows than what it names replaces nothing."""
        claims = {name: set(_replaced(table.schema)) & set(tables) - {name} for name, table in tables.items()}
        found: set[str] = set()
        # Whatever is merged again names all that its parts named: the outermost comes first.
        for name in sorted(claims, key=lambda each: len(claims[each]), reverse=True):
            if name in found:
                continue
            within = set().union(*(claims[each] for each in claims[name])) - {name}
            rows = sum(len(tables[each]) for each in claims[name] - within)
            largest = max((len(tables[each]) for each in claims[name]), default=0)
            if max(rows, largest) <= len(tables[name]):
                found |= claims[name]
                continue
            message = (
                f"{self.location} has a part that names more rows as replaced than it has: {name} "
                f"({len(tables[name])} rows); no part is replaced by it: delete it if it is not of this run"
            )
            warnings.warn(message, RuntimeWarning, stacklevel=5)
        return found

    def _load_all(self) -> dict[str, pa.Table]:
        for _ in range(20):
            tables, broken = {}, []
            for name in self.parts():
                try:
                    with self._storage.open_input_file(f"{self._path}/{name}") as file:
                        tables[name] = self._fit(pq.read_table(file, page_checksum_verification=True))
                except FileNotFoundError:
                    break  # compacted while we read: look again
                except (pa.ArrowException, OSError, ValueError) as error:
                    broken.append(f"{name} ({error})")
            else:
                for text in broken:
                    message = f"{self.location} has a part that cannot be read and is left out: {text}"
                    warnings.warn(" ".join(message.split()), RuntimeWarning, stacklevel=4)
                return tables
        raise OSError(errno.EBUSY, f"{self.location} changes faster than it can be read")

    def _fit(self, table: pa.Table) -> pa.Table:
        """The table with the columns of the schema and of its types.

        Raises:
            ValueError: A column is of another type, a text no UTF-8, or nothing in it is of this schema.
        """
        if self.schema is None:
            return _valid(table)
        further = [f for f in table.schema if is_cost(f) and f.name not in self.schema.names]
        if not set(table.column_names) & set(self.schema.names):
            raise ValueError(f"it has none of the columns {', '.join(self.schema.names[:3])}, ...")
        columns = []
        schema = pa.schema([*self.schema, *(pa.field(f.name, pa.float64(), metadata=f.metadata) for f in further)])
        for field in schema:
            if field.name not in table.column_names:
                columns.append(pa.nulls(len(table), field.type))
                continue
            try:
                columns.append(table.column(field.name).cast(field.type))
            except pa.ArrowException as error:
                raise ValueError(f"column {field.name!r} is no {field.type}: {error}") from None
        return _valid(pa.table(columns, schema=schema.with_metadata(table.schema.metadata)))


def _valid(table: pa.Table) -> pa.Table:
    table.validate(full=True)
    return table


def _replaced(schema: pa.Schema) -> list[str]:
    """The parts that one of this schema replaces."""
    found = _metadata(schema, _REPLACES)
    return [name for name in found if isinstance(name, str)] if isinstance(found, list) else []


def _settings(schema: pa.Schema) -> dict[str, Any] | None:
    """What the rows of a part of this schema depend on, as far as it says so."""
    found = _metadata(schema, _SETTINGS)
    return found if isinstance(found, dict) else None


def objective_in(schema: pa.Schema) -> Objective | None:
    """What the scores in a part of this schema are, as far as it says so."""
    found = _metadata(schema, _OBJECTIVE)
    if not isinstance(found, dict) or found.get("mode") not in ("max", "min"):
        return None
    return Objective(str(found.get("name", "score")), found["mode"], str(found.get("unit", "")))


def is_cost(field: pa.Field) -> bool:
    """Whether a column holds a cost."""
    return (field.metadata or {}).get(b"cost") == b"yes"


def _metadata(schema: pa.Schema, name: bytes) -> Any:
    try:
        return json.loads((schema.metadata or {}).get(name, b"null"))
    except ValueError:
        return None


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
