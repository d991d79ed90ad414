"""Images in Parquet files, in the layout of Hugging Face's hub."""

from __future__ import annotations

import functools
import json
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

from raynas.data.decoding import Decoder
from raynas.data.order import MIXED
from raynas.data.readers.source import Source, from_encoded
from raynas.exceptions import DataError

__all__ = ["Columns", "ParquetImages", "parquet"]

_LABELS = ("label", "labels")
_IMAGES = ("image", "img", "images")


class Columns(TypedDict, total=False):
    """The columns of a table, where they are named: ``data.label`` and ``data.image``."""

    label: str | None
    image: str | None


@dataclass(frozen=True)
class _Names:
    """The columns that are read, the same in all files."""

    image: str
    label: str


def parquet(folder: Path, size: int | None = None, columns: Columns | None = None) -> tuple[Source, Source]:
    """Parquet files ``train*.parquet`` and ``test*.parquet`` (or ``val*.parquet``), there or in ``data/`` below.

    The label is in the column called ``label`` or ``labels``, the image in that called ``image``, ``img`` or
    ``images``; without such a name, the only column of integers or truth values, and the only one of encoded images:
    bytes, or a struct with a field ``bytes``. All files have the same columns.

    Args:
        folder: Of the files.
        size: See :class:`raynas.data.decoding.Decoder`.
        columns: Other names.

    Raises:
        DataError: No files, or columns that are missing, not to be told apart, or of another type; labels or images
            without a value. The file is named, and the row in it.
    """
    train, test = _files(folder)
    schemas = {file: _schema(file) for file in (*train, *test)}
    first = schemas[train[0]]
    given = columns or {}
    names = _Names(
        given.get("image") or _only(first, "image", _IMAGES, _is_image, train[0]),
        given.get("label") or _only(first, "label", _LABELS, _is_number, train[0]),
    )
    for file, schema in schemas.items():
        _check(file, schema, names)
    classes = _class_names(first, names.label)
    decoder = Decoder(size)
    return _source(train, names, classes, decoder), _source(test, names, classes, decoder)


def _files(folder: Path) -> tuple[list[Path], list[Path]]:
    for place in (folder, folder / "data"):
        train, test, val = (sorted(place.glob(f"{part}*.parquet")) for part in ("train", "test", "val"))
        if train and (test or val):
            return train, test or val
    raise DataError(
        f"no parquet images in {folder}: expected train*.parquet and test*.parquet (or val*.parquet), there or in data/"
    )


def _schema(file: Path) -> Any:
    import pyarrow as pa
    from pyarrow import parquet as pq

    try:
        return pq.read_schema(file)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file} is no Parquet file that can be read: {str(error).splitlines()[0]}") from error


def _is_image(kind: Any) -> bool:
    from pyarrow import types

    def is_bytes(of: Any) -> bool:
        return bool(types.is_binary(of) or types.is_large_binary(of))

    if types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and is_bytes(kind.field("bytes").type)
    return is_bytes(kind)


def _is_number(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_integer(kind) or types.is_boolean(kind))


def _is_label(kind: Any) -> bool:
    from pyarrow import types

    if types.is_dictionary(kind):
        kind = kind.value_type
    return _is_number(kind) or bool(types.is_string(kind) or types.is_large_string(kind))


def _only(schema: Any, what: str, names: Sequence[str], fits: Any, file: Path) -> str:
    """The column of labels or images, by its name or as the only one of its type."""
    named = [name for name in names if name in schema.names]
    found = named or [field.name for field in schema if fits(field.type)]
    if what == "image" and len(found) > 1:
        found = [name for name in found if fits(schema.field(name).type)]
    if len(found) != 1:
        example = found[0] if found else next(iter(schema.names), "NAME")
        raise DataError(
            f"{len(found)} columns could hold the {what}s, need one, or one named {names[0]!r}: {_listed(schema)} "
            f"({file}); name it: data.{what}={example}"
        )
    return found[0]


def _check(file: Path, schema: Any, names: _Names) -> None:
    for what, name, fits, legal in (
        ("image", names.image, _is_image, "encoded images: bytes, or a struct with a field 'bytes'"),
        ("label", names.label, _is_label, "integers, words or truth values"),
    ):
        if name not in schema.names:
            raise DataError(
                f"{file} has no column {name!r} of the {what}s: all files of a data set need the same columns, this "
                f"one has {_listed(schema)}; move it away if it is no part of the data, or set data.{what}"
            )
        if not fits(schema.field(name).type):
            raise DataError(
                f"column {name!r} of {file} is {schema.field(name).type}; {what}s must be {legal}: name another "
                f"column, data.{what}=...; there are {_listed(schema)}"
            )


def _listed(schema: Any) -> str:
    return ", ".join(f"{field.name}: {field.type}" for field in schema)


def _class_names(schema: Any, label: str) -> tuple[str, ...] | None:
    """The names of the classes, where the files hold them as Hugging Face's datasets write them."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        names = features[label]["names"]
        return tuple(names) if all(isinstance(name, str) for name in names) else None
    except (KeyError, TypeError, ValueError):
        return None


def _source(files: Sequence[Path], names: _Names, classes: tuple[str, ...] | None, decoder: Decoder) -> Source:
    labels = [_labels(file, names.label) for file in files]
    if len({values.dtype.kind in "iu" for values in labels if len(values)}) > 1:
        raise DataError(f"column {names.label!r} holds numbers in some files of {files[0].parent}, words in others")
    read = ParquetImages(files, names.image)
    return from_encoded(np.concatenate(labels), read, decoder, classes)._replace(blocks=read.starts)


def _labels(file: Path, name: str) -> npt.NDArray[Any]:
    import pyarrow as pa

    targets = _column(file, name)
    if targets.null_count:
        row = targets.is_null().to_pylist().index(True)
        raise DataError(f"column {name!r} of {file.name} has no value in row {row}")
    if pa.types.is_dictionary(targets.type):
        targets = targets.cast(targets.type.value_type)
    return targets.to_numpy() if pa.types.is_integer(targets.type) else np.asarray(targets.to_pylist())


def _column(file: Path, name: str, group: int | None = None) -> Any:
    """A column of a file, or of one of its row groups."""
    import pyarrow as pa
    from pyarrow import parquet as pq

    try:
        with pq.ParquetFile(file) as opened:
            read = opened.read if group is None else functools.partial(opened.read_row_group, group)
            return read(columns=[name], use_threads=False).column(name)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file}: {str(error).splitlines()[0]}") from error


class ParquetImages:
    """Reads the encoded images of Parquet files, one row group at a time; a few row groups are kept in memory.

    Args:
        files: In their order.
        column: Of the images: bytes, or a struct with a field ``bytes``.

    Raises:
        DataError: A file cannot be read.
    """

    kept = MIXED
    """How many row groups are kept."""

    def __init__(self, files: Sequence[Path], column: str) -> None:
        self.files, self.column = list(files), column
        self._groups: list[tuple[int, int]] = []
        self._first: list[int] = []
        starts = [0]
        for number, file in enumerate(files):
            self._first.append(starts[-1])
            for group, rows in enumerate(_rows_of_groups(file)):
                self._groups.append((number, group))
                starts.append(starts[-1] + rows)
        self.starts = np.array(starts[:-1], np.int64)
        """The first row of each row group, of all files."""
        self._forget()

    def _forget(self) -> None:
        self._read: OrderedDict[int, Any] = OrderedDict()
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_read", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._forget()

    def __call__(self, index: int) -> tuple[bytes, str]:
        """The bytes of an image, and its row and file.

        Raises:
            DataError: There is no image in the row.
        """
        number = bisect_right(self.starts, index) - 1
        of_file = self._groups[number][0]
        file, row = self.files[of_file], index - self._first[of_file]
        value = self._row_group(number)[index - int(self.starts[number])].as_py()
        value = value["bytes"] if isinstance(value, dict) else value
        if value is None:
            raise DataError(f"column {self.column!r} of {file.name} has no value in row {row}")
        return value, f"row {row} of {file}"

    def _row_group(self, number: int) -> Any:
        with self._lock:
            found = self._read.pop(number, None)
            if found is None:
                file, group = self._groups[number]
                found = _column(self.files[file], self.column, group)
            self._read[number] = found
            while len(self._read) > self.kept:
                self._read.popitem(last=False)
            return found


def _rows_of_groups(file: Path) -> list[int]:
    import pyarrow as pa
    from pyarrow import parquet as pq

    try:
        metadata = pq.read_metadata(file)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file} is no Parquet file that can be read: {str(error).splitlines()[0]}") from error
    return [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
