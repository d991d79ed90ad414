"""Rows of a log that cannot be: they are found when a log is read, named and left out, before anything is made of them.

The log of a run is read by many: a search that goes on, the page, the ranking, another run that starts with it. A file
may be damaged, edited or somebody else's. So whoever reads gets rows whose columns are what they are said to be.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import datetime, timezone

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from raynas.metrics import METRICS, Metric, scored_by
from raynas.results.parquet import is_cost

__all__ = ["MOST_FIDELITY", "STATUSES", "check_rows", "check_scores"]

STATUSES = ("running", "stopped", "complete", "error")
MOST_FIDELITY = 10**6
"""No architecture reports more often."""
_FIRST, _LAST = (
    pa.scalar(datetime(year, 1, 1, tzinfo=timezone.utc), pa.timestamp("us", "UTC")) for year in (1971, 2200)
)
_TEXT = r'"(?:[^"\\\x00-\x1f]|\\["\\/bfnrtu])*"'
_VALUE = rf"(?:{_TEXT}|-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?|true|false|null)"
_PLAUSIBLE = {"seconds": 0.0, "gpu_seconds": 0.0, "hypervolume": None}
"""Columns that may be unknown, and the least that they can be; so are those of costs, from 0 on."""
Mask = npt.NDArray[np.bool_]


def check_rows(table: pa.Table) -> tuple[pa.Table, list[str]]:
    """The rows of one part of a log that can be used, and what is wrong with the others.

    Args:
        table: With the columns of :data:`raynas.results.log.SCHEMA`, of its types.

    Returns:
        The rows that are left, of which values that cannot be are null, and one text for each kind of fault.
    """
    told: list[str] = []
    bad = np.zeros(len(table), bool)
    for mask, what in _faults(table):
        new = mask & ~bad
        if new.any():
            told.append(f"{_rows(new)} {what} and left out")
        bad |= mask
    plausible = {**_PLAUSIBLE, **{field.name: 0.0 for field in table.schema if is_cost(field)}}
    for name, least in plausible.items():
        values = np.asarray(table.column(name).cast(pa.float64()), np.float64)
        known = np.asarray(table.column(name).is_valid())
        wrong = known & ~bad & ~(np.isfinite(values) & (values >= (-np.inf if least is None else least)))
        if wrong.any():
            told.append(f"{_rows(wrong)} with an impossible {name!r}, which is taken as unknown")
            kept = pc.if_else(pa.array(~wrong), table.column(name), pa.scalar(None, table.schema.field(name).type))
            table = table.set_column(table.schema.get_field_index(name), table.schema.field(name), kept)
    return (table.filter(pa.array(~bad)) if bad.any() else table), told


def check_scores(table: pa.Table, metric: Metric | None = None) -> tuple[pa.Table, list[str]]:
    """The rows of a whole log; a score that its metric cannot have is none (NaN).

    Args:
        table: As :func:`check_rows` returned it.
        metric: What the scores are; default: what most of the first rows report.
    """
    scores = np.array(table.column("score"), np.float64)
    measure = metric or _measure(table)
    low, high = (-np.inf, np.inf) if measure is None else measure.span
    with np.errstate(invalid="ignore"):
        wrong = np.isinf(scores) | (scores < low) | (scores > high)
    if not wrong.any():
        return table, []
    keys = sorted(set(table.column("key").filter(pa.array(wrong)).to_pylist()))
    name = "a score" if measure is None else measure.name
    whose = ", ".join(keys[:5]) + " and others" * (len(keys) > 5)
    told = f"{scores[wrong][0]:g} is no {name}: such scores are taken as none; they are those of {whose}"
    kept = pa.array(np.where(wrong, np.nan, scores), mask=np.asarray(table.column("score").is_null()))
    return table.set_column(table.schema.get_field_index("score"), table.schema.field("score"), kept), [told]


def _measure(table: pa.Table) -> Metric | None:
    """What the scores are; most of a log's first rows tell it."""
    some = table.select(["metrics", "score"]).filter(pc.is_finite(table.column("score"))).slice(0, 100).to_pylist()
    found = [scored_by([row]) for row in some]
    counts = {measure.name: found.count(measure) for measure in METRICS}
    likely = max(METRICS, key=lambda measure: counts[measure.name])
    return likely if 2 * counts[likely.name] > len(some) else None


def _faults(table: pa.Table) -> Iterator[tuple[Mask, str]]:
    """Which rows have which fault."""

    def column(name: str) -> pa.ChunkedArray:
        return table.column(name)

    def where(condition: pa.ChunkedArray) -> Mask:
        return np.asarray(condition.fill_null(False), bool)

    fidelity, most, score = column("fidelity"), column("max_fidelity"), column("score")
    yield ~where(pc.not_equal(column("key"), "")), "without 'key' are damaged"
    yield (
        ~_objects(column("architecture"), _TEXT, lambda found: all(isinstance(v, str) for v in found.values())),
        ("without a legal 'architecture' are damaged"),
    )
    yield ~where(pc.is_in(column("status"), pa.array(STATUSES))), "without a legal 'status' are damaged"
    time = column("time")
    yield ~where(pc.and_(pc.greater(time, _FIRST), pc.less(time, _LAST))), "without a possible 'time' are damaged"
    beyond = where(pc.or_kleene(pc.less(fidelity, 0), pc.greater(fidelity, MOST_FIDELITY)))
    beyond |= where(pc.greater(fidelity, most)) | (np.asarray(fidelity.is_null()) & np.asarray(score.is_valid()))
    yield beyond, "with an impossible 'fidelity' are damaged"
    beyond = where(pc.or_kleene(pc.less(most, 0), pc.greater(most, MOST_FIDELITY)))
    yield beyond, "with an impossible 'max_fidelity' are damaged"
    metrics = column("metrics")
    none = np.asarray(metrics.is_null()) | where(pc.equal(metrics, ""))
    yield ~(none | _objects(metrics, _VALUE, lambda found: True)), "whose 'metrics' are no JSON object are damaged"


def _objects(column: pa.ChunkedArray, value: str, legal: Callable[[dict[str, object]], bool]) -> Mask:
    """Which texts are JSON objects. Nearly all are flat, which an expression tells fast; the others are parsed."""
    pair = rf"\s*{_TEXT}\s*:\s*{value}\s*"
    fine = np.array(pc.match_substring_regex(column, rf"^\{{(?:{pair}(?:,{pair})*|\s*)\}}$").fill_null(False), bool)
    for place in np.flatnonzero(~fine & np.asarray(column.is_valid())):
        try:
            found = json.loads(column[int(place)].as_py())
        except (ValueError, RecursionError):
            continue
        fine[place] = isinstance(found, dict) and legal(found)
    return fine


def _rows(mask: Mask) -> str:
    """Their numbers, from 1 on."""
    numbers = (np.flatnonzero(mask) + 1).tolist()
    some = ", ".join(map(str, numbers[:5]))
    more = f" and {len(numbers) - 5} more" if len(numbers) > 5 else ""
    return f"row{'s' * (len(numbers) > 1)} {some}{more}"
