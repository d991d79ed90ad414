"""The record of a run: one append-only log of everything that was scored, as a folder of Parquet files.

A :class:`Log` writes rows at once, or collected over some seconds where they come fast, as one new *part*: complete
under a temporary name, synced to the disk, then renamed. A part never changes, so anybody may read the folder while
the run is alive (:func:`read`, ``pandas.read_parquet(folder)``, DuckDB's ``'folder/*.parquet'``), and after a
``kill -9`` every row up to the last flush is there. One row is one report: an architecture at a fidelity.
"""

from __future__ import annotations

import atexit
import errno
import json
import logging
import math
import threading
import warnings
from collections.abc import Mapping, Set
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa

from raynas.architecture import key as key_of
from raynas.exceptions import ConfigError
from raynas.metrics import Objective
from raynas.results.parquet import Folder, is_cost, number_of, objective_in
from raynas.results.queries import latest, leaderboard, pareto
from raynas.results.row_checks import STATUSES, check_rows, check_scores
from raynas.storage.atomic import reason, write_with_retry
from raynas.utils.periods import PERIODS

__all__ = [
    "RESERVED",
    "SCHEMA",
    "SIMULATED",
    "STATUSES",
    "Log",
    "Meter",
    "compact",
    "cost_names",
    "latest",
    "leaderboard",
    "objective",
    "pareto",
    "read",
    "settings",
]

logger = logging.getLogger(__name__)

SIMULATED = "simulated"
"""The worker of scores whose seconds were told, by a table, and not spent."""


def _field(name: str, kind: pa.DataType, meaning: str, unit: str = "", cost: bool = False) -> pa.Field:
    notes = {"unit": unit} if unit else {}
    return pa.field(name, kind, metadata={"description": meaning, **notes, **({"cost": "yes"} if cost else {})})


SCHEMA: pa.Schema = pa.schema(
    [
        _field("run", pa.string(), "name of the run"),
        _field("trial", pa.string(), "Tune's id of the trial"),
        _field("key", pa.string(), "short name of the architecture: raynas.architecture.key"),
        _field("architecture", pa.string(), "the architecture as JSON: one option for each decision"),
        _field("searcher", pa.string(), "who proposed it"),
        _field(
            "origin",
            pa.string(),
            "how it came about: see raynas.searchers.history",
        ),
        _field("parents", pa.string(), "the keys of those that it was made from, separated by spaces"),
        _field("status", pa.string(), "running, stopped (early, by the scheduler), complete or error"),
        _field("fidelity", pa.int64(), "how far it was scored; 0 before the first score", "training_iteration"),
        _field("max_fidelity", pa.int64(), "the fidelity of a full score", "training_iteration"),
        _field("score", pa.float64(), "what the search optimises, at this fidelity"),
        _field("metrics", pa.string(), "every further figure of the report, as a JSON object"),
        _field("macs", pa.int64(), "multiply-accumulates of one example", "MAC", cost=True),
        _field("parameters", pa.int64(), "number of parameters", cost=True),
        _field("latency_ms", pa.float64(), "median of the measured ms of a batch; see latency.jsonl", "ms", cost=True),
        _field(
            "hypervolume",
            pa.float64(),
            "of the front so far, see raynas.results.pareto_front; none without search.objectives",
        ),
        _field("seconds", pa.float64(), "computing time of this score", "s"),
        _field("gpu_seconds", pa.float64(), "of these, times the GPUs that the worker holds", "s"),
        _field("worker", pa.string(), "where it was computed; simulated: its seconds were told, not spent"),
        _field("time", pa.timestamp("us", "UTC"), "when it was reported", "UTC"),
        _field("error", pa.string(), "what went wrong, in one line"),
    ]
)
"""The columns that every log has. Costs of other names have a column each, of floats, as soon as one is logged."""

RESERVED = frozenset({"costs", *(field.name for field in SCHEMA if not is_cost(field))})
"""Names that no cost has a column of."""
_TEXT, _REAL, _COUNT = _PLAIN = pa.string(), pa.float64(), pa.int64()
_KINDS = {field.name: next((kind for kind in _PLAIN if field.type == kind), field.type) for field in SCHEMA}
_JSON = json.JSONEncoder(separators=(",", ":"))
_SLOWEST_FLUSH = PERIODS.slowest_log


class Log:
    """Appends rows to the log in a folder; rows reach the disk by a timer, by :meth:`flush` and by :meth:`close`.

    Several logs, in several processes, may write to one folder. A pickled Log arrives as another writer of the same
    folder, without the rows that wait here. May be used from several threads.

    Args:
        folder: A local path, or the URI of a storage that pyarrow knows (``s3://bucket/run/log``). Made if missing.
        flush_seconds: The time between two parts: the first row after a longer pause is written at once. Grows with
            the number of parts up to 10 s, so that a run of many hours does not fill the folder with small files.
            ``math.inf``: rows wait for :meth:`flush` and :meth:`close`.
        settings: What the scores depend on, as JSON can hold it; kept in every part, see :func:`settings`.
        objective: What the scores are; kept in every part, see :func:`objective`.

    Raises:
        OSError: The folder cannot be made.
    """

    def __init__(
        self,
        folder: str | Path,
        flush_seconds: float = PERIODS.log,
        settings: Mapping[str, Any] | None = None,
        objective: Objective | None = None,
    ) -> None:
        if not flush_seconds > 0:
            raise ValueError(f"flush_seconds must be above 0, not {flush_seconds}")
        self.folder = str(folder)
        self._flush_seconds = flush_seconds
        self._settings = None if settings is None else dict(settings)
        self._objective = objective
        self._storage = Folder(folder, SCHEMA)
        self._storage.create()
        parts = self._storage.parts()
        self._costs = {name: _cost_field(name) for name in self._storage.cost_names() if name not in _KINDS}
        """The columns of costs that are not in the schema."""
        self._next = max(map(number_of, parts), default=-1) + 1
        self._count = len(parts)
        self._waiting: list[dict[str, Any]] = []
        self._rows_lock = threading.Lock()
        self._write_lock = threading.Lock()
        self._closing, self._arrived = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self._kept = False

    def append(self, row: Mapping[str, Any]) -> None:
        """Add one report.

        Args:
            row: Values by column; the columns are those of ``SCHEMA`` and may be left out, except ``architecture``
                and ``status``. ``architecture`` and ``metrics`` may be given as mappings; ``key`` then follows from
                the architecture. ``time`` is now, unless given. ``costs``, a mapping by name, is not a column itself:
                every cost has a column of its own.

        Raises:
            ValueError: An unknown column or status, a missing or unfit value, or a log that was closed.
        """
        with self._rows_lock:
            checked = _check(self._with_costs(row), {*_KINDS, *self._costs})
            if self._closing.is_set():
                raise ValueError(f"the log {self.folder} is closed: nothing can be appended")
            self._waiting.append(checked)
            self._arrived.set()
            if not self._kept:
                # Loads all that pyarrow needs for it: when Python exits, nothing can be loaded any more.
                pa.Table.from_pylist([checked], SCHEMA)
                atexit.register(self.close)
                self._kept = True
            if self._thread is None and math.isfinite(self._flush_seconds):
                self._thread = threading.Thread(target=self._flush_by_timer, name="raynas-log", daemon=True)
                self._thread.start()

    def _with_costs(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The row with a column for each cost; a cost of a new name gets a new column."""
        values = dict(row)
        for name, value in dict(values.pop("costs", None) or {}).items():
            if name in values or name in RESERVED:
                raise ValueError(f"a cost cannot be named {name!r}: the log has a column of that name")
            if name not in _KINDS and name not in self._costs:
                self._costs[name] = _cost_field(name)
            values[name] = value
        return values

    def flush(self) -> None:
        """Write the rows that wait as one new part.

        Raises:
            OSError: The storage refused (full, unreachable). The rows stay in memory for the next flush.
        """
        with self._write_lock:
            with self._rows_lock:
                rows = list(self._waiting)
            if not rows:
                return
            try:
                schema = pa.schema([*SCHEMA, *self._costs.values()], SCHEMA.metadata)
                table = pa.Table.from_pylist(rows, schema)
                self._storage.write(table, self._next, self._settings, self._objective)
            except OSError as error:
                raise OSError(
                    error.errno or errno.EIO,
                    f"cannot write to the log {self.folder}: {reason(error)}; {len(rows)} rows are kept in memory and "
                    "written as soon as it is possible",
                ) from error
            self._next += 1
            self._count += 1
            with self._rows_lock:
                del self._waiting[: len(rows)]

    def close(self, timeout: float | None = None) -> None:
        """Flush and stop the timer; a second close does nothing new.

        Args:
            timeout: Seconds for which storage that refuses is asked again; default:
                ``raynas.storage.atomic.RETRY_SECONDS``.

        Raises:
            OSError: As :meth:`flush`; call it again when there is room.
        """
        self._closing.set()
        self._arrived.set()
        atexit.unregister(self.close)
        if self._thread is not None:
            self._thread.join()
        write_with_retry(self.flush, f"the last rows of {self.folder}", timeout)

    def _flush_by_timer(self) -> None:
        failed = False
        while not self._closing.is_set():
            self._arrived.wait()
            self._arrived.clear()
            try:
                self.flush()
                if failed:
                    logger.warning("the log %s is complete again", self.folder)
                failed = False
            except OSError as error:
                if not failed:  # said once, not every second
                    logger.error("%s", error.strerror)
                failed = True
                self._arrived.set()
            self._closing.wait(max(self._flush_seconds, min(self._count / 20, _SLOWEST_FLUSH)))

    def __enter__(self) -> Log:
        """The log itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close, also after an error."""
        self.close()

    def __reduce__(self) -> tuple[type[Log], tuple[str, float, dict[str, Any] | None, Objective | None]]:
        """Pickle as another writer of the same folder."""
        return type(self), (self.folder, self._flush_seconds, self._settings, self._objective)


class Meter:
    """Tells what each report cost: ``seconds`` of a row counts all computing for its architecture so far."""

    def __init__(self) -> None:
        self._known: dict[str, float] = {}

    def took(self, row: Mapping[str, Any]) -> float:
        """Seconds since the report before it of the same architecture."""
        seconds, before = row.get("seconds") or 0.0, self._known.get(row["key"], 0.0)
        self._known[row["key"]] = seconds or before
        return seconds - before if seconds >= before else seconds  # less than before: it was scored anew


def read(folder: str | Path) -> pa.Table:
    """All rows of a log in the order they were flushed, also while others write to it.

    A part that cannot be read, or rows that cannot be, are named in a ``RuntimeWarning``, and the rest is returned.

    Raises:
        FileNotFoundError: There is no such folder.
    """
    tables, warned = [SCHEMA.empty_table()], []
    parts = Folder(folder, SCHEMA).load()
    for name, part in parts.items():
        rows, faults = check_rows(part)
        tables.append(rows)
        warned += [f"{folder}/{name}: {fault}" for fault in faults]
    known = [found for part in parts.values() if (found := objective_in(part.schema)) is not None]
    metric = known[-1].metric if known else None
    table, faults = check_scores(pa.concat_tables(tables, promote_options="default"), metric)
    for text in (*warned, *(f"{folder}: {fault}" for fault in faults)):
        warnings.warn(text, RuntimeWarning, stacklevel=2)
    return table


def compact(folder: str | Path, objective: Objective | None = None) -> int:
    """See :func:`raynas.results.parquet.compact`; what is no part of a log is left alone.

    Args:
        folder: Of the log.
        objective: What the scores are; written into the parts of earlier versions, which do not say so.
    """
    return Folder(folder, SCHEMA).compact(objective)


def cost_names(table: pa.Table) -> tuple[str, ...]:
    """The columns of a log that hold costs; some may be empty."""
    return tuple(field.name for field in table.schema if is_cost(field))


def settings(folder: str | Path) -> dict[str, dict[str, Any] | None]:
    """What the scores in each part of a log depend on, by the name of the part; None where it does not say so.

    Raises:
        FileNotFoundError: There is no such folder.
    """
    return Folder(folder, SCHEMA).settings()


def objective(folder: str | Path) -> Objective | None:
    """What the scores in a log are, and whether high ones are good; None for a log of an earlier version.

    Raises:
        ConfigError: Parts of the log contradict each other.
        FileNotFoundError: There is no such folder.
    """
    known = list({found: name for name, found in Folder(folder, SCHEMA).objectives().items() if found is not None})
    if len({found.mode for found in known}) > 1:
        told = " and ".join(f"{found.name} (to be {found.mode})" for found in known[:2])
        raise ConfigError(f"the parts of {folder} hold scores that do not compare: {told}; start a new run")
    return known[-1] if known else None


def _cost_field(name: str) -> pa.Field:
    return _field(name, pa.float64(), f"the cost {name} of the architecture", cost=True)


def _check(row: dict[str, Any], columns: Set[str]) -> dict[str, Any]:
    """The row as it will be stored, or a ValueError that names what is wrong with it."""
    values = row
    unknown = [name for name in values if name not in columns]
    if unknown:
        raise ValueError(f"the log has no column {unknown[0]!r}; its columns: {', '.join(_KINDS)}")
    if "key" not in values and isinstance(values.get("architecture"), Mapping):
        values["key"] = key_of(values["architecture"])
    for name in ("architecture", "metrics"):
        if isinstance(values.get(name), Mapping):
            values[name] = _to_json(values[name])
    if values.get("status") not in STATUSES:
        raise ValueError(f"status {values.get('status')!r} is unknown; legal ones: {', '.join(STATUSES)}")
    for name in ("key", "architecture"):
        if not values.get(name):
            raise ValueError(f"a row of the log needs its {name!r}")
    for name, value in values.items():
        kind = _KINDS.get(name, _REAL)
        if _surely_fits(value, kind):
            continue
        try:
            values[name] = pa.scalar(value, kind).as_py()
            fits = not pa.types.is_integer(kind) or values[name] == value
        except (pa.ArrowException, OverflowError):
            fits = False
        if not fits:
            raise ValueError(f"column {name!r} takes {kind}, not {value!r}")
    values.setdefault("time", datetime.now(timezone.utc))
    return values


def _surely_fits(value: Any, kind: pa.DataType) -> bool:
    """Whether a column takes a value as it is. Where that is not sure it is tried out, which takes longer."""
    if kind is _TEXT:
        return type(value) is str and value.isascii()
    if kind is _COUNT:
        return type(value) is int and 0 <= value < 2**63
    return kind is _REAL and type(value) is float


def _to_json(values: Mapping[str, Any]) -> str:
    """A flat mapping as JSON; numbers of other libraries become floats, and what is not finite null."""
    plain = {n: v if isinstance(v, (str, bool, int, type(None))) else _finite(v) for n, v in values.items()}
    return _JSON.encode(plain)


def _finite(value: Any) -> Any:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return str(value)
    return number if math.isfinite(number) else None
