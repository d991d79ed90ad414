"""The best of a log, scored once more: leaderboard.json, pareto.json and graphs.json in the folder of a run."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raynas import results
from raynas.architecture import Architecture, key
from raynas.exceptions import ConfigError
from raynas.results.files import Front, read_json
from raynas.results.pareto_front import front_of
from raynas.runs.context import RunContext
from raynas.search_space.graph import graphs
from raynas.search_space.space import SearchSpace
from raynas.storage.atomic import write_json
from raynas.tune.spec import EvaluationSpec

__all__ = ["Leaderboard", "read_front", "write_leaderboard"]

_AGAIN = "run search once more, it writes it anew from the log"


@dataclass(frozen=True)
class Leaderboard:
    """Ranks what the log of a run holds."""

    folder: Path
    """Of the run."""
    search_space: SearchSpace
    costs_of: Callable[[Architecture], Mapping[str, float]]
    top: int
    """How many are scored once more."""

    def write(self, spec: EvaluationSpec, recommended: Sequence[Architecture] = ()) -> list[dict[str, Any]]:
        """The best of the log that keep the limits, scored once more on all validation images.

        What is recommended comes before what scored better: that may have been luck.
        With ``search.objectives`` the whole front is scored once more; those that are on it afterwards are returned by
        :meth:`front`.
        """
        top, objectives = self.top, self.search_space.objectives
        rows = self._candidates(spec.mode, None if objectives else top, list(map(key, recommended)))
        if not rows:
            raise RuntimeError(
                "no architecture has a score yet: all failed (see the column 'error' of the log), or time was short"
            )
        full = [row for row in rows if row["fidelity"] >= spec.max_fidelity]
        on_front = [full[place] for place in front_of(full, objectives, spec.mode)] if objectives else []
        chosen = list({row["key"]: row for row in (*rows[:top], *on_front)}.values())
        final = [row["score"] for row in chosen]
        if spec.rescore is not None:
            final = spec.rescore([row["architecture"] for row in chosen])
        for row, score in zip(chosen, final, strict=True):
            row["final_score"] = score
        if objectives:
            full = [row for row in chosen if row["fidelity"] >= spec.max_fidelity]
            places = front_of(full, objectives, spec.mode, "final_score")
            write_json(self.folder / "pareto.json", [full[place] for place in places])
        sign = -1 if spec.mode == "max" else 1
        costs = list(self.costs_of(chosen[0]["architecture"]))
        # Of equal scores the cheaper comes first.
        chosen.sort(key=lambda row: (sign * row["final_score"], *(row.get(name) or 0 for name in costs)))
        write_json(self.folder / "leaderboard.json", chosen[:top])
        write_json(
            self.folder / "graphs.json", graphs(self.search_space, [row["architecture"] for row in chosen[:top]])
        )
        return chosen[:top]

    def _candidates(self, mode: str, count: int | None, first: Sequence[str]) -> list[dict[str, Any]]:
        """``count`` of the log that keep the limits, with their costs: first those of some keys, then best first."""
        table = results.leaderboard(results.read(self.folder / "scored.parquet"), n=10**9, mode=mode)
        rows: list[dict[str, Any]] = []
        violation, places = self.search_space.violation, {name: place for place, name in enumerate(first)}
        for row in sorted(table.to_pylist(), key=lambda row: places.get(row["key"], len(first))):
            row["architecture"] = json.loads(row["architecture"])
            if violation is None or violation(row["architecture"]) == 0:
                kept = {name: row[name] for name in ("key", "architecture", "score", "fidelity")}
                rows.append(kept | dict(self.costs_of(row["architecture"])))
            if len(rows) == count:
                break
        return rows


def write_leaderboard(
    run: RunContext, spec: EvaluationSpec, recommended: Sequence[Architecture] = ()
) -> list[dict[str, Any]]:
    """Write the leaderboard of a run; see :meth:`Leaderboard.write`."""
    if not (run.folder / "config.yaml").exists():
        run.write_settings()  # somebody has deleted the folder meanwhile
    problem = run.problem
    return Leaderboard(run.folder, problem.search_space, problem.costs_of, run.config.search.top).write(
        spec, recommended
    )


def read_front(folder: Path) -> list[dict[str, Any]]:
    """The front of the last search, best score first: rows of the log with ``final_score``.

    Raises:
        ConfigError: Nothing was searched yet with ``search.objectives``.
    """
    path = folder / "pareto.json"
    if not path.exists():
        raise ConfigError(f"there is no front in {folder}: run search with search.objectives first")
    rows: list[dict[str, Any]] = read_json(path, Front, _AGAIN)
    return rows
