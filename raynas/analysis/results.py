"""The results of a run, for notebooks and programs: ``load_run``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
import pyarrow as pa

from raynas import results
from raynas.analysis.objective import objective_of
from raynas.config.loading import read
from raynas.config.run import Config
from raynas.exceptions import ConfigError
from raynas.metrics import Objective
from raynas.results.files import Front, Leaderboard, read_json
from raynas.storage.object_store import fetch, remote, split_uri

__all__ = ["HasFolder", "RunResults", "compare", "load_run"]

_CURE = "run search once more, it writes it anew from the log"
_STATUSES = {"stopped": "stopped", "failed": "error"}
"""Statuses of the log that are counted, by the name of the column."""


class HasFolder(Protocol):
    """A :class:`raynas.Run` or a :class:`RunResults`."""

    @property
    def folder(self) -> Path:
        """Where its files are on this machine."""


@dataclass(frozen=True)
class RunResults:
    """What a run has found."""

    folder: Path
    """Where its files are on this machine."""
    config: Config
    objective: Objective
    """What the score is, and whether a high one is good (``mode`` is max) or a low one (min)."""
    table: pa.Table
    """The log: one row for each architecture and fidelity, with a column for each cost; ``table.to_pandas()``."""
    leaderboard: list[dict[str, Any]]
    """The best architectures, scored once more, best first; empty before the search has ended."""
    front: list[dict[str, Any]]
    """The Pareto front, best score first; empty without ``search.objectives``."""

    @property
    def costs(self) -> tuple[str, ...]:
        """The names of the costs that the log knows."""
        known = results.cost_names(self.table)
        return tuple(name for name in known if self.table.column(name).null_count < len(self.table))

    def latest(self) -> pa.Table:
        """One row for each architecture: its score at the highest fidelity."""
        return results.latest(self.table)

    def architectures(self) -> pd.DataFrame:
        """One row for each architecture, indexed by its key, in the order in which they were evaluated.

        Columns: ``status``, ``fidelity``, ``score``, ``final_score`` (on all validation data, of the leaderboard's
        architectures), each cost, each metric, ``seconds``, and each decision of the space by its name: the option, or
        None where it is not part of the architecture.
        """
        rows = self.latest().to_pylist()
        final = {row["key"]: row.get("final_score") for row in self.leaderboard}
        data = [
            {
                "key": row["key"],
                **{name: row[name] for name in ("status", "fidelity", "score")},
                "final_score": final.get(row["key"]),
                **{name: row[name] for name in self.costs},
                **json.loads(row["metrics"] or "{}"),
                "seconds": row["seconds"],
                **json.loads(row["architecture"]),
            }
            for row in sorted(rows, key=lambda row: row["time"])
        ]
        return pd.DataFrame(data, columns=None if data else ["key"]).set_index("key")


def compare(runs: Sequence[str | Path | HasFolder]) -> pd.DataFrame:
    """What several runs have found, one row each.

    Columns: ``name``, ``method``, ``evaluated`` (architectures), ``stopped`` (early), ``failed``, ``objective``,
    ``mode``, ``best_score`` (of the highest fidelity), ``final_score`` (of the winner, on all validation data),
    ``best_key``, ``seconds`` (of computing, over all workers) and each cost of the best architecture.

    Args:
        runs: Folders of runs or their URIs in an object store, or runs.

    Raises:
        ConfigError: One of them is no run.
    """
    return pd.DataFrame([_summary(load_run(run)) for run in runs])


def _summary(run: RunResults) -> dict[str, Any]:
    rows = run.latest().to_pylist()
    best = results.leaderboard(run.table, 1, run.objective.mode).to_pylist()
    winner = run.leaderboard[0] if run.leaderboard else {}
    return {
        "name": run.config.name,
        "method": run.config.search.method,
        "evaluated": len(rows),
        **{name: sum(row["status"] == status for row in rows) for name, status in _STATUSES.items()},
        "objective": run.objective.name,
        "mode": run.objective.mode,
        "best_score": best[0]["score"] if best else None,
        "final_score": winner.get("final_score"),
        "best_key": winner.get("key") or (best[0]["key"] if best else None),
        "seconds": sum(row["seconds"] or 0.0 for row in rows),
        **{name: (winner or best[0])[name] for name in run.costs if winner or best},
    }


def load_run(folder: str | Path | HasFolder) -> RunResults:
    """Read the results of a run; it may still be running. No code that its settings name is run.

    Args:
        folder: Of the run, or its URI in an object store; or the run itself.

    Raises:
        ConfigError: It is no run, a file in it is damaged, or an earlier version of RayNAS wrote the log and it is not
            known whether high scores are good.
    """
    if not isinstance(folder, (str, Path)):
        folder = folder.folder
    place = fetch(*split_uri(str(folder))) if remote(str(folder)) else Path(folder).expanduser()
    kept, log = place / "config.yaml", place / "scored.parquet"
    if not kept.is_file():
        raise ConfigError(f"{folder} is no folder of a run: it has no config.yaml")
    config = read(kept)
    table = results.read(log) if log.is_dir() else results.SCHEMA.empty_table()
    board, front = place / "leaderboard.json", place / "pareto.json"
    return RunResults(
        folder=place,
        config=config,
        objective=objective_of(log, config, table.select(["metrics", "score"]).to_pylist()),
        table=table,
        leaderboard=read_json(board, Leaderboard, _CURE) if board.is_file() else [],
        front=read_json(front, Front, _CURE) if front.is_file() else [],
    )
