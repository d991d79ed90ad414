"""What the rows of a log say: who is best, who beats whom, who was still being scored.

Functions on Arrow tables with the columns of :data:`raynas.results.log.SCHEMA`; they are part of
:mod:`raynas.results.log`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa

__all__ = ["latest", "leaderboard", "pareto"]


def latest(table: pa.Table) -> pa.Table:
    """One row for each architecture: its score at the highest fidelity, the newest of equals.

    Architectures without any score keep their newest row.
    """
    best: dict[str, tuple[tuple[bool, int], int]] = {}
    columns = (table.column(name).to_pylist() for name in ("key", "fidelity", "score"))
    for index, (key, fidelity, score) in enumerate(zip(*columns, strict=True)):
        scored = score is not None and not math.isnan(score)
        rank = (scored, (fidelity or 0) if scored else 0)
        if key not in best or rank >= best[key][0]:
            best[key] = (rank, index)
    return table.take(pa.array([index for _, index in best.values()], pa.int64()))


def leaderboard(table: pa.Table, n: int = 10, mode: str = "max") -> pa.Table:
    """The best ``n`` architectures, best first; equal scores in the order of their keys.

    Scores of different fidelities do not compare: whatever was scored at a higher fidelity comes first.

    Args:
        table: Rows of a log.
        n: How many rows to return at most.
        mode: ``"max"`` where a high score is good, ``"min"`` where a low one is.

    Raises:
        ValueError: Another ``mode``.
    """
    sign = _sign("score", mode)
    rows = latest(table)
    score, fidelity = _numbers(rows, "score"), np.nan_to_num(_numbers(rows, "fidelity"))
    keys = np.array(rows.column("key").to_pylist(), np.str_)
    order = np.lexsort((keys, -sign * score, -fidelity))
    return rows.take(pa.array(order[np.isfinite(score[order])][:n]))


def pareto(table: pa.Table, objectives: Mapping[str, str]) -> pa.Table:
    """The architectures that no other one beats in every objective, best in the first objective first.

    Only full scores (``fidelity`` reached ``max_fidelity``) take part: the others would win by their noise.

    Args:
        table: Rows of a log.
        objectives: ``"max"`` or ``"min"`` by name; a numeric column, or an entry of ``metrics``. For example
            ``{"score": "max", "macs": "min"}``.

    Raises:
        ValueError: No objective, a mode other than these two, or a name that no row has a number for.
    """
    if not objectives:
        raise ValueError("pareto needs at least one objective, such as {'score': 'max', 'macs': 'min'}")
    rows = latest(table)
    full = _numbers(rows, "fidelity") >= np.nan_to_num(_numbers(rows, "max_fidelity"))
    rows = rows.filter(pa.array(full & np.isfinite(_numbers(rows, "score"))))
    costs = np.stack([-_sign(name, mode) * _numbers(rows, name) for name, mode in objectives.items()], axis=1)
    front: list[int] = []
    for index in np.lexsort(costs.T[::-1]):
        # Sorted by the first objective, then the second, ...: only those already on the front can beat this one.
        kept, own = costs[front], costs[index]
        beaten = ((kept <= own).all(axis=1) & (kept < own).any(axis=1)).any()
        if np.isfinite(own).all() and not beaten:
            front.append(int(index))
    return rows.take(pa.array(front, pa.int64()))


def _sign(name: str, mode: str) -> int:
    if mode not in ("max", "min"):
        raise ValueError(f"mode of {name!r} must be 'max' or 'min', not {mode!r}")
    return 1 if mode == "max" else -1


def _numbers(table: pa.Table, name: str) -> npt.NDArray[np.float64]:
    """A numeric column, or an entry of ``metrics``, as floats; NaN where a row has none."""
    numeric = [f.name for f in table.schema if pa.types.is_integer(f.type) or pa.types.is_floating(f.type)]
    if name in numeric:
        return np.asarray(table.column(name), np.float64)
    metrics = [json.loads(text or "{}") for text in table.column("metrics").to_pylist()]
    known = sorted({n for row in metrics for n, value in row.items() if isinstance(value, (int, float))})
    if name not in known and metrics:
        raise ValueError(f"no row has a number {name!r}; there are: {', '.join(numeric + known)}")
    return np.array([value if isinstance(value := row.get(name), (int, float)) else math.nan for row in metrics])
