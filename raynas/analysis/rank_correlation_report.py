"""The report of the command ``rank``: rank correlation of logged scores with ground truth, with 95 % intervals.

:mod:`raynas.analysis.rank_correlation` compares two columns. This module makes the columns from a sample of
architectures (the score at each fidelity, every other metric of the log, every cost) and puts the results together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.stats import rankdata

from raynas.analysis.ground_truth import LEAST, GroundTruth
from raynas.analysis.rank_correlation import Agreement, compare
from raynas.evaluation.rank_aggregation import aggregate
from raynas.exceptions import ConfigError
from raynas.metrics import PERPLEXITY

__all__ = ["Rows", "Sample", "interval", "rank_agreement", "remarks", "scores_at", "sign"]

_BOOKKEEPING = ("images", "words", "seconds", "correct")
"""Metrics that do not measure quality, or that repeat another metric."""
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Sample:
    """Architectures with the results that were logged for each."""

    text: str
    """Where they come from, as a phrase for the report."""
    rows: Mapping[str, Rows]
    """Rows of the log by architecture key; ``metrics`` are dictionaries."""
    mode: str = "max"
    """``max`` if a high score is good, ``min`` if a low one is."""


def rank_agreement(
    sample: Sample,
    truth: GroundTruth,
    costs: Mapping[str, Mapping[str, float]],
    *,
    name: str = "The score",
    resamples: int = 1000,
) -> dict[str, Any]:
    """Rank correlation of a sample's scores with ground truth, beside that of costs and of chance.

    Args:
        sample: The scores, at all fidelities.
        truth: The ground truth.
        costs: By name and key: the baselines that a score must beat to be useful.
        name: What to call the score.
        resamples: Number of bootstrap resamples.

    Returns:
        ``score``, ``baselines`` and ``others`` (further metrics of the log, and all of them by rank), each as
        :class:`raynas.analysis.rank_correlation.Agreement`; ``fidelities``; ``sentence``, ``trustworthy``; ``points``
        for a scatter plot.

    Raises:
        ConfigError: Too few architectures have both scores.
    """
    last = max((row["fidelity"] or 0 for rows in sample.rows.values() for row in rows), default=0)
    fidelities = sorted({row["fidelity"] for rows in sample.rows.values() for row in rows if row["fidelity"]})
    by_fidelity = {fidelity: scores_at(sample, fidelity) for fidelity in fidelities}
    columns = by_fidelity.get(last, {"score": {}})
    names = [one for one in columns["score"] if one in truth.values]
    if len(names) < LEAST:
        raise ConfigError(
            f"{len(names)} architectures have both a full score and a true one ({truth.text}), a ranking needs {LEAST}"
        )
    target = [sign(truth.mode) * truth.values[one] for one in names]
    baselines = {cost: [known[one] for one in names] for cost, known in costs.items()}
    scores = {metric: [known[one] for one in names] for metric, known in columns.items() if set(names) <= set(known)}
    ranking = compare(scores["score"], target, baselines, name=name, resamples=resamples)
    others = _distinct(scores, baselines)
    if others:
        others["all, by rank"] = list(aggregate({"score": scores["score"], **others}))
    best = names[int(np.argmax(scores["score"]))]
    return {
        "sentence": ranking.sentence(),
        "trustworthy": ranking.trustworthy,
        "sample": sample.text,
        "truth": truth.text,
        "architectures": len(names),
        "top": ranking.top,
        "score": asdict(ranking.score),
        "baselines": [asdict(baseline) for baseline in ranking.baselines],
        "others": [asdict(compare(x, target, name=metric, resamples=200).score) for metric, x in others.items()],
        "fidelities": [
            {"fidelity": fidelity, "of": last, "architectures": len(both), **asdict(figures)}
            for fidelity, (both, figures) in _agreement_by_fidelity(by_fidelity, truth).items()
        ],
        "favourite": {"key": best, "place": truth.place(best)},
        "points": [[truth.values[one], sign(sample.mode) * columns["score"][one]] for one in names],
    }


def sign(mode: str) -> float:
    """The factor that makes high values good: 1 for ``max``, -1 for ``min``."""
    return 1.0 if mode == "max" else -1.0


def scores_at(sample: Sample, fidelity: int) -> dict[str, dict[str, float]]:
    """Score and other metrics at one fidelity, by name and key, with the sign that makes high values good."""
    found: dict[str, dict[str, float]] = {"score": {}}
    for name, rows in sample.rows.items():
        for row in rows:
            if row["fidelity"] != fidelity or row["status"] == "error" or row["score"] is None:
                continue
            values = {"score": sign(sample.mode) * row["score"]}
            values |= {
                n: -v if "loss" in n or n == PERPLEXITY.name else v
                for n, v in row["metrics"].items()
                if isinstance(v, (int, float)) and n not in (*_BOOKKEEPING, "score")
            }
            for metric, value in values.items():
                if math.isfinite(value):
                    found.setdefault(metric, {})[name] = float(value)
    return found


def _distinct(
    scores: Mapping[str, Sequence[float]], costs: Mapping[str, Sequence[float]]
) -> dict[str, Sequence[float]]:
    """The metrics that are not constant and order architectures otherwise than the score, the costs and each other."""
    kept: dict[str, Sequence[float]] = {}
    orders = [rankdata(values) for values in (scores["score"], *costs.values())]
    for metric, values in scores.items():
        own = rankdata(values)
        if np.ptp(own) > 0 and not any(np.array_equal(own, order) for order in orders):
            kept[metric] = values
            orders.append(own)
    return kept


def _agreement_by_fidelity(
    by_fidelity: Mapping[int, Mapping[str, Mapping[str, float]]], truth: GroundTruth
) -> dict[int, tuple[list[str], Agreement]]:
    """Rank correlation of the score at each fidelity; empty if there is only one."""
    found = {}
    for fidelity, columns in by_fidelity.items() if len(by_fidelity) > 1 else ():
        both = [name for name in columns["score"] if name in truth.values]
        if len(both) >= LEAST:
            values = [columns["score"][name] for name in both]
            target = [sign(truth.mode) * truth.values[name] for name in both]
            found[fidelity] = both, compare(values, target, name=f"fidelity {fidelity}", resamples=200).score
    return found


def interval(estimate: Mapping[str, float]) -> str:
    """An estimate with its 95 % interval as text."""
    return "{value:.2f} [{low:.2f}, {high:.2f}]".format(**estimate)


def remarks(found: Mapping[str, Any]) -> list[str]:
    """Sentences for the report: the ground truth, the sample, and the true rank of the winner."""
    lines = [f"Ground truth: {found['truth']}. Compared: architectures {found['sample']}."]
    if found["searched"]:
        row = found["searched"]
        lines.append(
            f"Among the {row['architectures']} that the search scored in full, a biased sample: tau "
            f"{interval(row['tau'])}."
        )
    for who, row in (
        ("The favourite of the sample", found["favourite"]),
        ("The winner of the search", found["winner"]),
    ):
        if row and row["place"]:
            place, everyone = row["place"]
            within = "among" if place <= math.ceil(everyone / 100) else "not among"
            lines.append(
                f"{who}, {row['key']}, is number {place:,} of all {everyone:,} in the table, {within} the best 1 %."
            )
    return lines
