"""Ground truth for ``rank``: true scores from a table, from an audit that trains architectures, or from retraining."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from raynas import results
from raynas.architecture import Architecture, Decisions, key
from raynas.config.run import TruthConfig
from raynas.evaluation.tabular import Layout, ScoreTable
from raynas.exceptions import ConfigError
from raynas.metrics import ACCURACY, retrained_by, scored_by
from raynas.results.files import Result, read_or
from raynas.utils.formatting import counted

__all__ = ["LEAST", "GroundTruth", "from_audit", "from_retraining", "from_table"]

log = logging.getLogger(__name__)
LEAST = 10
"""Rank correlation is computed if at least so many architectures have both scores."""


@dataclass(frozen=True)
class GroundTruth:
    """True scores of architectures, by key."""

    text: str
    """Where it comes from."""
    values: Mapping[str, float]
    """By the key of the architecture."""
    architectures: Mapping[str, Architecture]
    """By key."""
    mode: str = "max"
    """Whether high is good (max) or low (min)."""
    everyone: npt.NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    """The values of the whole table; empty without a table."""

    def place(self, name: str) -> tuple[int, int] | None:
        """The rank of an architecture among everyone, 1 is the best, and how many those are; None if not known."""
        if name not in self.values or not len(self.everyone):
            return None
        value = self.values[name]
        better = self.everyone > value if self.mode == "max" else self.everyone < value
        return 1 + int(better.sum()), len(self.everyone)


def from_table(decisions: Decisions, settings: TruthConfig, architectures: Iterable[Architecture]) -> GroundTruth:
    """Look architectures up in the table that ``truth.table`` names; those that it lacks are left out.

    Raises:
        ConfigError: A setting of the table is wrong.
        TableError: The table cannot be used.
    """
    try:
        layout = Layout.parse(settings.table)
    except ConfigError as error:
        raise ConfigError(str(error).replace("search.trainable_args", "truth.table")) from None
    # Only the last fidelity is the truth.
    layout = dataclasses.replace(layout, fidelities=[], cost=None, columns=[])
    table = ScoreTable.open(decisions, layout)
    known = {key(architecture): architecture for architecture in architectures}
    rows = table.find(list(known.values())).tolist() if known else []
    scores = table.scores[:, -1]
    values = {name: float(scores[row]) for name, row in zip(known, rows, strict=True) if row >= 0}
    return GroundTruth(f"column {layout.metric!r} of {table.name}", values, known, layout.mode, scores)


def from_audit(folder: Path, epochs: int) -> GroundTruth:
    """The validation scores of the architectures that the audit run in ``folder`` has trained from scratch."""
    rows = results.read(folder / "scored.parquet").to_pylist()
    ended = {row["key"]: row for row in rows if row["status"] == "complete"}
    objective = results.objective(folder / "scored.parquet") or scored_by(rows) or ACCURACY
    text = f"validation {objective.name} after {counted(epochs, 'epoch')} from scratch"
    return GroundTruth(
        text,
        {name: row["score"] for name, row in ended.items()},
        {name: json.loads(row["architecture"]) for name, row in ended.items()},
        objective.mode,
    )


def from_retraining(folder: Path, scored: Mapping[str, Architecture]) -> GroundTruth:
    """The test scores of those architectures that the run in ``folder`` has retrained.

    Raises:
        ConfigError: They are too few.
    """
    found: dict[str, float] = {}
    metric = ACCURACY
    for path in sorted(folder.glob("retrain/*/result.json")):
        result: dict[str, Any] = read_or(path, Result, {}, "it is left out")
        own = retrained_by(result)
        if own is None:
            log.warning("%s has no result on the test images and is left out", path)
        if path.parent.name in scored and own is not None and math.isfinite(result[f"test_{own.name}"]):
            metric = own
            found[path.parent.name] = float(result[f"test_{own.name}"])
    if len(found) < LEAST:
        raise ConfigError(
            f"{len(found)} of the architectures that {folder} has scored were retrained, a ranking needs {LEAST}: name "
            "a table (truth.table.file=... truth.table.metric=...), or have some trained by itself (truth.epochs=...)"
        )
    kept = {name: scored[name] for name in found}
    return GroundTruth(f"test {metric.name} after retraining", found, kept, metric.mode)
