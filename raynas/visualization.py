"""Plots of runs with matplotlib, for notebooks and papers: ``pip install 'raynas[plots]'``.

    from raynas import visualization
    visualization.plot_history(["runs/evolution", "runs/random"]).figure.savefig("history.pdf")

Every function takes a run, its folder or its URI in an object store (or several of them), draws into ``ax`` or into a
new figure, and returns the axes. ``report.html`` in the folder of a run shows more without matplotlib.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from raynas import results
from raynas.analysis.results import HasFolder, RunResults, load_run
from raynas.exceptions import ConfigError
from raynas.results.files import Ranking, read_json

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_fidelities", "plot_front", "plot_history", "plot_ranking"]

AnyRun = str | Path | HasFolder


def plot_history(runs: AnyRun | Sequence[AnyRun], ax: Axes | None = None) -> Axes:
    """The best score so far against the number of evaluated architectures, one line for each run.

    Scores of the highest fidelity of each run alone count.

    Raises:
        ConfigError: One of them is no run, or their scores do not compare.
    """
    several = runs if isinstance(runs, Sequence) and not isinstance(runs, str) else [runs]
    found = [_load(run) for run in several]
    objectives = {(run.objective.name, run.objective.mode) for run in found}
    if len(objectives) > 1:
        raise ConfigError(f"scores of these runs do not compare: {' and '.join(map(str, sorted(objectives)))}")
    ax = _axes(ax)
    for run in found:
        scores = _full_scores(run)
        best = np.fmax.accumulate(scores) if run.objective.mode == "max" else np.fmin.accumulate(scores)
        ax.step(np.arange(1, len(best) + 1), best, where="post", label=run.config.name)
    ax.set(xlabel="evaluated architectures", ylabel=f"best {_label(found[0])}" if found else "")
    if len(found) > 1:
        ax.legend()
    return ax


def plot_front(run: AnyRun, cost: str = "macs", ax: Axes | None = None) -> Axes:
    """Scores of full fidelity against a cost, with the Pareto front of both.

    Args:
        run: The run.
        cost: The name of a cost that the log holds.
        ax: Where to draw.

    Raises:
        ConfigError: It is no run, or the log holds no such cost; those that there are are named.
    """
    found = _load(run)
    if cost not in found.costs:
        raise ConfigError(f"the log of {found.folder} holds no cost {cost!r}; legal ones: {', '.join(found.costs)}")
    ax = _axes(ax)
    rows = [row for row in found.latest().to_pylist() if _is_full(row) and row[cost] is not None]
    ax.scatter([row[cost] for row in rows], [row["score"] for row in rows], s=12, alpha=0.5, label="evaluated")
    front = results.pareto(found.table, {"score": found.objective.mode, cost: "min"}).to_pylist()
    front = sorted((row[cost], row["score"]) for row in front)
    if front:
        ax.step(*zip(*front, strict=True), where="post", color="C1", marker="o", label="Pareto front")
    ax.set(xlabel=cost, ylabel=_label(found))
    ax.legend()
    return ax


def plot_fidelities(run: AnyRun, ax: Axes | None = None) -> Axes:
    """The score of each architecture against the fidelity: which were stopped early, and which reached the end.

    Raises:
        ConfigError: It is no run.
    """
    found = _load(run)
    ax = _axes(ax)
    lines: dict[str, dict[int, float]] = {}
    status: dict[str, str] = {}
    for row in found.table.to_pylist():
        status[row["key"]] = row["status"]
        if row["score"] is not None and row["fidelity"]:
            lines.setdefault(row["key"], {})[row["fidelity"]] = row["score"]
    kinds = (("stopped", "0.6", "stopped early"), ("running", "C2", "running"), ("complete", "C0", "complete"))
    for kind, color, label in kinds:
        shown = [sorted(line.items()) for key, line in lines.items() if status[key] == kind]
        for number, line in enumerate(shown):
            steps, scores = zip(*line, strict=True)
            text = f"{label} ({len(shown)})" if number == 0 else None
            ax.plot(steps, scores, color=color, marker=".", linewidth=0.8, alpha=0.7, label=text)
    ax.set(xlabel="fidelity", ylabel=_label(found))
    if lines:
        ax.legend()
    return ax


def plot_ranking(run: AnyRun, ax: Axes | None = None) -> Axes:
    """True scores against scores of the search, with Kendall's tau: what ``raynas rank`` has measured.

    Raises:
        ConfigError: It is no run, or ``raynas rank`` has not measured its scores.
    """
    found = _load(run)
    path = found.folder / "ranking.json"
    if not path.is_file():
        raise ConfigError(f"there is no {path}: run raynas rank --resume {found.folder} first")
    ranking: dict[str, Any] = read_json(path, Ranking, "run raynas rank once more")
    ax = _axes(ax)
    ax.scatter([point[0] for point in ranking["points"]], [point[1] for point in ranking["points"]], s=16)
    tau = ranking["score"]["tau"]
    ax.set_title(f"Kendall's tau {tau['value']:.2f}, 95 % interval {tau['low']:.2f} to {tau['high']:.2f}")
    ax.set(xlabel=_label(found), ylabel="true score")
    return ax


def _load(run: AnyRun) -> RunResults:
    return run if isinstance(run, RunResults) else load_run(run)


def _axes(ax: Axes | None) -> Axes:
    if ax is not None:
        return ax
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError("plots need matplotlib: pip install 'raynas[plots]'") from None
    from matplotlib import pyplot

    figure: Figure = pyplot.figure(layout="constrained")
    return figure.add_subplot()


def _label(run: RunResults) -> str:
    unit = run.objective.unit
    return f"{run.objective.name} ({unit})" if unit else run.objective.name


def _is_full(row: dict[str, Any]) -> bool:
    """Whether a row is a score of full fidelity."""
    score = row["score"]
    return score is not None and math.isfinite(score) and (row["fidelity"] or 0) >= (row["max_fidelity"] or 0)


def _full_scores(run: RunResults) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Scores of full fidelity in the order of evaluation; NaN for architectures that did not reach it."""
    rows = sorted(run.latest().to_pylist(), key=lambda row: row["time"])
    return np.array([row["score"] if _is_full(row) else math.nan for row in rows], np.float64)
