"""What the folder of a run says about it: the facts behind its page.

An :class:`RunData` can be read from a run at any moment, also from one that was killed. Whatever is missing or broken
is named in ``RunData.notes``; nothing is filled in.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from raynas import results
from raynas.analysis.objective import objective_of
from raynas.architecture import Architecture
from raynas.architecture import key as key_of
from raynas.config.loading import read
from raynas.config.run import Config
from raynas.metrics import ACCURACY, Metric, Objective, retrained_by
from raynas.results.curves import Curve, read_curve
from raynas.results.files import DamagedError, Graphs, Journal, Leaderboard, Ranking, Result, TrainingRounds, read_json
from raynas.results.timing import Clock, read_clock
from raynas.search_space.constraints import COSTS, Limits
from raynas.search_space.joint import network, settings
from raynas.searchers.nao.diagnostics import common_fidelity, with_pool_scores
from raynas.utils.collection import without_collection

__all__ = ["RunData", "Scored", "read_run_data"]


@dataclass(frozen=True)
class Scored:
    """One architecture, as the log last saw it."""

    key: str
    architecture: Architecture
    status: str
    fidelity: int
    max_fidelity: int
    score: float
    """At the highest fidelity that it reached; NaN without any."""
    costs: Mapping[str, float]
    allowed: bool
    """Whether it keeps the limits of the run."""
    seconds: float
    """Of the search, pauses left out, when it was last reported."""
    spent: float
    """Computing seconds of the whole search at that moment, summed over the workers."""
    took: float
    """Computing seconds of its own; NaN where the log has none."""
    origin: str
    """How it came about: see :mod:`raynas.searchers.history`; empty where that is not known."""
    parents: tuple[str, ...]
    """The keys of those that it was made from."""
    error: str

    @property
    def full(self) -> bool:
        """Whether it has a score at the highest fidelity."""
        return math.isfinite(self.score) and self.fidelity >= self.max_fidelity


@dataclass(frozen=True)
class RunData:
    """Everything that the page shows."""

    folder: Path
    config: Config
    settings: dict[str, str]
    """The text of config.yaml and of the settings before it, by file name."""
    limits: Limits
    scored: list[Scored]
    """In the order in which their scoring ended."""
    hypervolumes: list[tuple[int, float]]
    """After so many architectures, that of the front so far; empty for a search without objectives."""
    best: list[dict[str, Any]]
    """Rows of leaderboard.json; before that is written the best of the log, without ``final_score``."""
    objective: Objective
    """What the score is, and whether a high one is good (max) or a low one (min)."""
    retrained: dict[str, dict[str, Any]]
    """The content of retrain/<key>/result.json by key."""
    training: Curve | None
    retraining: Curve | None
    """Of the winner."""
    clock: Clock
    ranking: dict[str, Any] | None
    """The content of ranking.json, if it is there."""
    graphs: Mapping[str, Any]
    """The content of graphs.json, see :mod:`raynas.search_space.graph`; empty where the space does not say how it is
    wired."""
    sample: list[Scored]
    """The random architectures that were scored beside the search: see :mod:`raynas.runs.phases.sample`."""
    learned: list[dict[str, Any]]
    """What the searcher tells of its model, see :mod:`raynas.searchers.nao.diagnostics`; empty where it has none."""
    pooled: list[dict[str, Any]]
    """What the searcher that renewed a pool in training told of its model, round by round."""
    notes: list[str]
    """What is missing, unfinished or broken: one sentence each."""

    @property
    def mode(self) -> str:
        """Whether a high score is good (max) or a low one (min)."""
        return self.objective.mode

    @property
    def metric(self) -> Metric | None:
        """The metric that the score is; None for any other score."""
        return self.objective.metric

    @property
    def costs(self) -> tuple[str, ...]:
        """The costs that the page is about: those of a network, or what else is known or limited."""
        known = dict.fromkeys(name for one in self.scored for name in one.costs)
        return tuple(known) or COSTS

    @cached_property
    def options(self) -> frozenset[str]:
        """All options of the network that were chosen in any architecture."""
        shown = chain((row["architecture"] for row in self.best), (one.architecture for one in self.scored))
        return frozenset(chain.from_iterable(self.parts(architecture)[0].values() for architecture in shown))

    def tested(self, key: str) -> tuple[Metric, dict[str, Any]]:
        """What an architecture was retrained to, and by which metric."""
        result = self.retrained.get(key, {})
        return retrained_by(result) or self.metric or ACCURACY, result

    def parts(self, architecture: Architecture) -> tuple[Architecture, dict[str, Any]]:
        """The network's part of an architecture, and the training settings that were searched with it."""
        joint = bool(self.config.search.joint)
        return (network(architecture), settings(architecture)) if joint else (architecture, {})


@without_collection()
def read_run_data(folder: Path) -> RunData:
    """Read the folder of a run.

    Raises:
        ValueError: It is no run, or its settings cannot be read.
    """
    kept = folder / "config.yaml"
    if not kept.is_file():
        raise ValueError(f"{folder} is no folder of a run: it has no config.yaml")
    try:
        config = read(kept)
        # The run has checked what can be limited and minimised.
        known = dict.fromkeys(config.search.objectives, (None, None)) | config.limits
        limits = Limits.parse(known, known)
    except ValueError as error:
        raise ValueError(f"{kept} cannot be read: {error}") from None
    notes: list[str] = []
    table = _read_log(folder / "scored.parquet", notes)
    rows = _rows(table)
    clocks, clock = read_clock(rows)
    board = _read_board(folder / "leaderboard.json", rows, notes)
    objective = objective_of(folder / "scored.parquet", config, rows)
    scored = _scored(rows, clocks, limits, results.cost_names(table))
    sample = _read_log(folder / "sample", notes)
    drawn = _rows(sample)
    best = board or _best_of_log(scored, objective.mode, config.search.top)
    retrained = {path.parent.name: _read(path, Result, notes) for path in sorted(folder.glob("retrain/*/result.json"))}
    if best and not _keeps(limits, best[0]):
        notes.append("The leaderboard was made under other limits than those of config.yaml.")
    texts = [kept, *sorted(folder.glob("config-*.yaml"))]
    winner = [key_of(row["architecture"]) for row in best[:1]]
    curves = [(folder / "supernet", "supernet"), *((folder / "retrain" / key, "winner") for key in winner)]
    training = {what: read_curve(place / "training.jsonl", what, notes) for place, what in curves}
    journal, rounds = folder / "searcher.json", folder / "supernet" / "rounds.json"
    return RunData(
        folder=folder,
        config=config,
        settings={path.name: path.read_text(encoding="utf-8") for path in texts},
        limits=limits,
        scored=scored,
        hypervolumes=_hypervolumes(rows),
        best=best,
        objective=objective,
        retrained={key: result for key, result in retrained.items() if result is not None},
        training=training["supernet"],
        retraining=training.get("winner"),
        clock=clock,
        ranking=_read(folder / "ranking.json", Ranking, notes),
        graphs=_read(folder / "graphs.json", Graphs, notes) or {},
        learned=[row for row in _read(journal, Journal, notes) or [] if "mode" in row],
        pooled=_pooled(_read(rounds, TrainingRounds, notes), [] if config.search.combine else rows),
        sample=_scored(drawn, [(0.0, 0.0)] * len(drawn), limits, results.cost_names(sample)),
        notes=notes,
    )


def _read_log(folder: Path, notes: list[str]) -> pa.Table:
    if not folder.is_dir():
        return results.SCHEMA.empty_table()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        table = results.read(folder)
    notes += [str(warning.message) for warning in caught if warning.category is RuntimeWarning]
    return table


def _rows(table: pa.Table) -> list[dict[str, Any]]:
    """The rows of a log by time, without the columns that the page does not show."""
    unused = [name for name in ("run", "trial", "gpu_seconds") if name in table.column_names]
    order = np.argsort(table.column("time").cast(pa.int64()).to_numpy(), kind="stable")
    rows: list[dict[str, Any]] = table.drop_columns(unused).take(pa.array(order)).to_pylist()
    return rows


def _read(path: Path, shape: Any, notes: list[str]) -> Any:
    """What a file holds; None where it is not there, and where it is damaged, which is noted."""
    try:
        return read_json(path, shape, "it is left out.") if path.is_file() else None
    except DamagedError as error:
        notes.append(str(error))
        return None


def _pooled(state: Mapping[str, Any] | None, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What the searcher that renewed a pool told of its model; the last round is judged by what the search scored.

    That is at the highest fidelity at which most were scored: those that went on are no fair sample of the pool.
    """
    rounds = [line for line in (state or {}).get("rounds", []) if "mode" in (line.get("learned") or ())]
    if state and rounds:
        members = {key_of(member) for member in state["members"]}
        scores_at: dict[int, dict[str, float]] = {}
        for row in rows:
            if row["key"] in members and row["score"] is not None and math.isfinite(row["score"]):
                scores_at.setdefault(row["fidelity"], {})[row["key"]] = row["score"]
        if scores_at:
            common = common_fidelity(fidelity for fidelity, scores in scores_at.items() for _ in scores)
            rounds[-1] = with_pool_scores(rounds[-1], scores_at[common])
    return [line["learned"] for line in rounds]


def _read_board(path: Path, rows: list[dict[str, Any]], notes: list[str]) -> list[dict[str, Any]]:
    """The leaderboard, if it is there; says where the log knows more than it does."""
    if not path.is_file():
        if rows:
            notes.append("The search has not ended: there is no leaderboard yet. What is shown as best is preliminary.")
        return []
    board: list[dict[str, Any]] | None = _read(path, Leaderboard, notes)
    if board is None:
        return []
    written = path.stat().st_mtime
    later = {row["key"] for row in rows if row["time"].timestamp() > written + 1.0}
    if later:
        notes.append(f"The leaderboard is older than the scores of {len(later)} architectures and does not know them.")
    return board


def _scored(
    rows: Sequence[Mapping[str, Any]],
    clocks: Sequence[tuple[float, float]],
    limits: Limits,
    costs_in_log: Sequence[str],
) -> list[Scored]:
    last: dict[str, tuple[Mapping[str, Any], tuple[float, float]]] = {}
    score: dict[str, tuple[int, float]] = {}
    origins: dict[str, tuple[str, tuple[str, ...]]] = {}
    for row, clock in zip(rows, clocks, strict=True):
        last.pop(row["key"], None)  # the order is that of the last rows
        last[row["key"]] = (row, clock)
        if row["origin"] is not None:  # of one that was in flight when a run was interrupted the first row knows
            origins.setdefault(row["key"], (row["origin"], tuple((row["parents"] or "").split())))
        fidelity = row["fidelity"] or 0
        if row["score"] is not None and math.isfinite(row["score"]) and fidelity >= score.get(row["key"], (0, 0.0))[0]:
            score[row["key"]] = (fidelity, row["score"])
    found, parse = [], json.JSONDecoder().decode
    costs_in_log = [name for name in costs_in_log if any(row[name] is not None for row in rows)]
    for key, (row, (seconds, spent)) in last.items():
        fidelity, value = score.get(key, (row["fidelity"] or 0, math.nan))
        costs = _costs(limits, row, costs_in_log)
        origin, parents = origins.get(key, ("random" if row["searcher"] == "random" else "", ()))
        found.append(
            Scored(
                key=key,
                architecture=parse(row["architecture"]),
                status=row["status"],
                fidelity=fidelity,
                max_fidelity=row["max_fidelity"] or fidelity,
                score=value,
                costs=costs,
                allowed=_allowed(limits, costs),
                seconds=seconds,
                spent=spent,
                took=math.nan if row["seconds"] is None else row["seconds"],
                origin=origin,
                parents=parents,
                error=row["error"] or "",
            )
        )
    return found


def _hypervolumes(rows: Sequence[Mapping[str, Any]]) -> list[tuple[int, float]]:
    ended: set[str] = set()
    found = []
    for row in rows:
        ended |= {row["key"]} if row["status"] != "running" else set()
        if row["hypervolume"] is not None:
            found.append((len(ended), row["hypervolume"]))
    return found


def _keeps(limits: Limits, row: Mapping[str, Any]) -> bool:
    """Whether an architecture keeps the limits; one whose costs nobody noted cannot be said to break them."""
    return _allowed(limits, _costs(limits, row))


def _allowed(limits: Limits, known: Mapping[str, float]) -> bool:
    if not limits.bounds.keys() <= known.keys():
        limits = Limits({name: pair for name, pair in limits.bounds.items() if name in known})
    return limits.violation(known) == 0.0


def _costs(limits: Limits, row: Mapping[str, Any], names: Sequence[str] = ()) -> dict[str, float]:
    """What is known of the costs: those with a column, and limited ones that earlier versions kept in the metrics."""
    absent = [name for name in limits.bounds if row.get(name) is None]
    metrics = json.loads(row.get("metrics") or "{}") if absent else {}
    found = {name: row.get(name) for name in (*names, *limits.bounds)} | {name: metrics.get(name) for name in absent}
    return {name: value for name, value in found.items() if isinstance(value, (int, float))}


def _best_of_log(scored: Sequence[Scored], mode: str, top: int) -> list[dict[str, Any]]:
    sign = 1.0 if mode == "max" else -1.0
    able = [one for one in scored if one.allowed and math.isfinite(one.score)]
    able.sort(key=lambda one: (-one.fidelity, -sign * one.score))
    return [
        {"key": one.key, "architecture": one.architecture, "score": one.score, "fidelity": one.fidelity, **one.costs}
        for one in able[:top]
    ]
