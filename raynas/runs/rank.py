"""The command ``rank``: how far the scores of a run may be trusted.

    python -m raynas.launch rank --resume RUN truth.table.file=scores.parquet truth.table.metric=accuracy
    python -m raynas.launch rank --resume RUN truth.epochs=20 truth.minutes=60

A random sample of the space is scored as the run scores, at every fidelity, and its order is compared with the true
one: that of a table, or of the accuracies after training from scratch. ``ranking.json`` in the run's folder keeps the
figures, the report shows them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.box import SIMPLE
from rich.table import Table

from raynas import results
from raynas.analysis.ground_truth import LEAST, GroundTruth, from_audit, from_retraining, from_table
from raynas.analysis.rank_correlation import compare
from raynas.analysis.rank_correlation_report import Rows, Sample, interval, rank_agreement, remarks, scores_at, sign
from raynas.architecture import Architecture, key
from raynas.distributed.connection import connect
from raynas.exceptions import ConfigError
from raynas.results.files import Front, read_or
from raynas.runs.display import View
from raynas.runs.factory import audit_run
from raynas.runs.phases.sample import ranks, score_sample
from raynas.runs.run import Run
from raynas.searchers.random import random_architectures
from raynas.storage.atomic import write_json
from raynas.tune.trial import BatchTrial

__all__ = ["rank"]

SAMPLE = 200
_NAMES = {"macs": "MACs"}


def rank(run: Run, dashboard: str | None = None, verbose: bool = False) -> dict[str, Any]:
    """Compare the scores of a run with the truth that ``truth`` names; print the figures and write ranking.json.

    Args:
        run: That has searched.
        dashboard: The host on which a Ray that is started here shows its dashboard; default: none.
        verbose: Show what Ray and the workers print.

    Returns:
        What ranking.json holds; see :func:`judge`.

    Raises:
        ConfigError: There are no scores, no truth, or too few architectures that have both.
    """
    folder, settings = run.folder / "scored.parquet", run.config.truth
    rows = results.read(folder).to_pylist() if folder.is_dir() else []
    if not rows:
        raise ConfigError(f"{run.folder} has no log of scores to judge: run search first")
    if settings.minutes is not None and settings.epochs is None:
        raise ConfigError("truth.minutes bounds an audit: say by truth.epochs, too, how long each is trained")
    if settings.table and settings.epochs is not None:
        raise ConfigError("truth.table and truth.epochs exclude each other: a table, or an audit")
    scored = {row["key"]: json.loads(row["architecture"]) for row in rows}
    if settings.epochs is not None:
        connect(run.config, dashboard, verbose)
        trained = audit_run(run)
        try:
            trained.search()
        finally:
            trained.close()
        truth = from_audit(trained.folder, settings.epochs)
        _enough(truth, truth.architectures, f"{trained.folder} was given too little time: the same command goes on")
        sample = _scored_sample(run, list(truth.architectures.values()))
    elif settings.table:
        drawn = _drawn(run, rows)
        board = [row["architecture"] for row in _leaderboard(run)]
        truth = from_table(run.decisions, settings, [*drawn, *scored.values(), *board])
        _enough(truth, map(key, drawn) if drawn else scored, f"the table is {settings.table.get('file')}")
        if drawn:
            connect(run.config, dashboard, verbose)
        sample = _scored_sample(run, drawn) if drawn else _searched(run, rows)
    else:
        truth = from_retraining(run.folder, scored)
        sample = _searched(run, rows)
    costs = _costs(run, truth)
    found = rank_agreement(sample, truth, costs, name=_name(run), resamples=settings.resamples)
    found |= {"searched": _among_searched(run, rows, truth, settings.resamples), "winner": _winner(run, truth)}
    write_json(run.folder / "ranking.json", found)
    _show(run.view, found)
    if not costs:
        run.view.say("beside chance alone, no costs are known: a table's are named by search.trainable_args.columns")
    return found


def _enough(truth: GroundTruth, names: Any, why: str) -> None:
    both = sum(name in truth.values for name in names)
    if both < LEAST:
        raise ConfigError(f"only {both} architectures have a true score, a ranking needs {LEAST}; {why}")


def _name(run: Run) -> str:
    config = run.config
    data = f" on {config.data.name}" if run.has_network else ""
    return f"The score of {config.search.trainable.partition(':')[2]} for {config.space}{data}"


def _leaderboard(run: Run) -> Rows:
    told = "the winner is left out"
    return list(read_or(run.folder / "leaderboard.json", Front, [], told))


# The sample.


def _drawn(run: Run, rows: Rows) -> list[Architecture]:
    """The random architectures that have to be scored; none where the log will do, or is all there shall be."""
    wanted = run.config.truth.sample
    if wanted is None and _is_random(run, rows):
        return []
    if wanted is None:
        wanted = SAMPLE if issubclass(run.context.evaluator, BatchTrial) else 0
    return random_architectures(run.search_space, wanted, run.config.seed)


def _is_random(run: Run, rows: Rows) -> bool:
    """Whether a log is a fair sample: all drawn by chance, none stopped early."""
    given = run.config.search.warm_start is not None or run.config.train.pool.size is not None
    drawn = not given and {row["searcher"] for row in rows} == {"random"}
    return drawn and all(row["status"] != "stopped" for row in rows)


def _scored_sample(run: Run, architectures: Sequence[Architecture]) -> Sample:
    spec = run.evaluation_spec()
    combined = ranks(run.context, spec)
    rows = score_sample(run.context, spec, architectures)
    if combined:
        for row in (row for told in rows.values() for row in told if row["status"] != "error"):
            row["score"] = combined[row["fidelity"]](row["metrics"])
    return Sample("drawn by chance from the space", rows, "max" if combined else spec.mode)


def _searched(run: Run, rows: Rows) -> Sample:
    """What the search itself has scored."""
    told: dict[str, Rows] = {}
    for row in rows:
        told.setdefault(row["key"], []).append({**row, "metrics": json.loads(row["metrics"] or "{}")})
    fair = _is_random(run, rows)
    text = "drawn by chance from the space" if fair else "chosen by the search, no fair sample of the space"
    return Sample(text, told, run.context.problem.objective.mode)


def _costs(run: Run, truth: GroundTruth) -> dict[str, dict[str, float]]:
    """What the architectures cost, by the name of the cost and their key; only costs that are known of all."""
    known = {name: run.context.problem.costs_of(truth.architectures[name]) for name in truth.values}
    names = {name for told in known.values() for name in told}
    return {
        _NAMES.get(name, name): {one: float(told[name]) for one, told in known.items()}
        for name in sorted(names)
        if all(math.isfinite(told.get(name, math.nan)) for told in known.values())
    }


# Besides the sample.


def _among_searched(run: Run, rows: Rows, truth: GroundTruth, resamples: int) -> dict[str, Any] | None:
    """The same for what the search scored in full; None where too few of it are known, or it is the sample itself."""
    sample = _searched(run, rows)
    last = max((row["fidelity"] or 0 for row in rows), default=0)
    scores = scores_at(sample, last)["score"]
    both = [name for name in scores if name in truth.values]
    if len(both) < LEAST or _is_random(run, rows):
        return None
    target = [sign(truth.mode) * truth.values[name] for name in both]
    if len(set(target)) == 1:
        return None
    ranking = compare([scores[name] for name in both], target, name="searched", resamples=resamples)
    return {"architectures": len(both), **asdict(ranking.score)}


def _winner(run: Run, truth: GroundTruth) -> dict[str, Any] | None:
    """The truth about the winner of the search, where it is known."""
    board = _leaderboard(run)
    if not board or board[0]["key"] not in truth.values:
        return None
    name = board[0]["key"]
    return {"key": name, "truth": truth.values[name], "place": truth.place(name)}


def _show(view: View, found: Mapping[str, Any]) -> None:
    """Print the figures as a table, and the verdict."""
    title = f"{found['architectures']} architectures {found['sample']}; 95 % intervals"
    table = Table(title=title, title_justify="left", box=SIMPLE, pad_edge=False)
    table.add_column("ranked by", no_wrap=True)
    for head in ("Kendall tau", "Spearman", "favourite", f"top {found['top']}"):
        table.add_column(head, justify="right", no_wrap=True)
    for row in (found["score"], *found["others"], *found["baselines"]):
        name = "the score" if row is found["score"] else row["name"]
        table.add_row(name, *map(interval, (row["tau"], row["spearman"])), f"{row['favourite']:g}",
                      f"{100 * row['overlap']:.0f} %")  # fmt: skip
    view.console.print(table)
    view.say("favourite: the true rank of the best by this score; top: which share of its top is truly there")
    for row in found["fidelities"]:
        view.say(f"at fidelity {row['fidelity']} of {row['of']}: tau {interval(row['tau'])}")
    for text in remarks(found):
        view.say(text)
    view.say(found["sentence"])
