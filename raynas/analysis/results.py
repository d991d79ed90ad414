"""The results of a run, for notebooks and programs: ``load_run``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from raynas import results
from raynas.analysis.objective import objective_of
from raynas.config.loading import read
from raynas.config.run import Config
from raynas.exceptions import ConfigError
from raynas.metrics import Objective
from raynas.results.files import Front, Leaderboard, read_json
from raynas.storage.object_store import fetch, remote, split_uri

__all__ = ["RunResults", "load_run"]

_CURE = "run search once more, it writes it anew from the log"


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


def load_run(folder: str | Path) -> RunResults:
    """Read the results of a run; it may still be running. No code that its settings name is run.

    Args:
        folder: Of the run, or its URI in an object store.

    Raises:
        ConfigError: It is no run, a file in it is damaged, or an earlier version of RayNAS wrote the log and it is not
            known whether high scores are good.
    """
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
