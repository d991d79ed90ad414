"""The columns of a Parquet or Arrow (Feather) file, memory-mapped: numbers without gaps, and text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from raynas.exceptions import TableError

__all__ = [
    "Array",
    "Columns",
]

Array = npt.NDArray[np.float64]


class Columns:
    """What is read of a file, as far as it is needed.

    Raises:
        TableError: There is no such file, or it is no table.
    """

    def __init__(self, file: str) -> None:
        self.file = file
        self._path = Path(file).expanduser()
        if not self._path.is_file():
            raise TableError(f"there is no table {file}")
        try:
            with self._path.open("rb") as opened:
                magic = opened.read(6)
            self._is_parquet = magic.startswith(b"PAR1")
            if not self._is_parquet and magic != b"ARROW1":
                raise TableError(f"{file} is neither a Parquet nor an Arrow (Feather) file")
            self._schema = pq.read_schema(self._path) if self._is_parquet else pa.ipc.open_file(self._map()).schema
        except (pa.ArrowException, OSError) as error:
            raise self._unreadable(error) from None
        self.names: list[str] = self._schema.names
        self.numeric = [name for name, kind in zip(self.names, self._schema.types, strict=True) if _is_number(kind)]
        """The columns that hold numbers."""

    def _map(self) -> pa.MemoryMappedFile:
        return pa.memory_map(str(self._path))

    def _unreadable(self, error: Exception) -> TableError:
        return TableError(f"table {self.file} cannot be read: {str(error).splitlines()[0]}")

    @property
    def listed(self) -> str:
        """The names of the columns, for a message."""
        return ", ".join(self.names[:40]) + (f", ... ({len(self.names)} in all)" if len(self.names) > 40 else "")

    def load(self, numbers: Sequence[str], texts: Sequence[str]) -> None:
        """Read columns of numbers and columns of text (or of integers, taken as text).

        Raises:
            TableError: One of them is not there or of another type, or the file has no rows.
        """
        for name in (*numbers, *texts):
            if self.names.count(name) != 1:
                fault = f"several columns {name!r}" if name in self.names else f"no column {name!r}"
                raise TableError(f"table {self.file} has {fault}; it has: {self.listed}")
            kind = self._schema.types[self.names.index(name)]
            if name in numbers and not _is_number(kind):
                raise self.error(name, None, f"holds {kind}, not numbers")
            if name in texts and not _is_text(kind):
                raise self.error(name, None, f"holds {kind}, not text")
        needed = list(dict.fromkeys((*numbers, *texts)))
        try:
            if self._is_parquet:
                self._table = pq.ParquetFile(self._path, memory_map=True).read(columns=needed)
            else:
                fields = pa.ipc.IpcReadOptions(included_fields=sorted(map(self.names.index, needed)))
                self._table = pa.ipc.open_file(self._map(), options=fields).read_all()
        except (pa.ArrowException, OSError) as error:
            raise self._unreadable(error) from None
        if len(self._table) == 0:
            raise TableError(f"table {self.file} has no rows")

    def error(self, column: str, row: int | None, what: str) -> TableError:
        """What is wrong, with its place."""
        place = f"column {column!r}" + ("" if row is None else f", row {row}")
        return TableError(f"table {self.file}, {place}: {what}")

    def numbers(self, name: str) -> Array:
        """A column that was loaded, as numbers: [rows].

        Raises:
            TableError: A row is empty or not finite.
        """
        column = self._table.column(name)
        values: Array = column.cast(pa.float64(), safe=False).to_numpy()
        for row in np.flatnonzero(~np.isfinite(values))[:1].tolist():
            value = column[row].as_py()
            raise self.error(name, row, "empty" if value is None else f"{value} is no finite number")
        return values

    def texts(self, name: str) -> pa.ChunkedArray:
        """A column that was loaded, as text; null where it is empty."""
        return self._table.column(name).cast(pa.large_string())


def _is_number(kind: pa.DataType) -> bool:
    numbers = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
    return any(is_kind(kind) for is_kind in numbers)


def _is_text(kind: pa.DataType) -> bool:
    inner = kind.value_type if pa.types.is_dictionary(kind) else kind
    texts = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_integer)
    return any(is_kind(inner) for is_kind in texts)
