"""The figures of the command ``rank``: the scores of a sample against the truth about it.

:mod:`raynas.analysis.rank_correlation` compares two columns. Here are the columns: the score at each fidelity, every
further metric of the log, what architectures cost; and what there is to say about them.
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
"""Metrics that say nothing of how good an architecture is, or what another one says."""
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Sample:
    """Architectures and what was reported of each."""

    text: str
    """Where they come from."""
    rows: Mapping[str, Rows]
    """Rows of a log by key; ``metrics`` are read."""
    mode: str = "max"
    """Whether a high score is good (max) or a low one (min)."""


def rank_agreement(
    sample: Sample,
    truth: GroundTruth,
    costs: Mapping[str, Mapping[str, float]],
    *,
    name: str = "The score",
    resamples: int = 1000,
) -> dict[str, Any]:
    """Compare the scores of a sample with the truth.

    Args:
        sample: The scores, at all fidelities.
        truth: The true ones.
        costs: By name and key: what a score must beat to be worth anything.
        name: What to call the score.
        resamples: Of the bootstrap.

    Returns:
        ``score``, ``baselines`` and ``others`` (further metrics of the log, and all of them by rank), each as
        :class:`raynas.analysis.rank_correlation.Agreement`; ``fidelities``; ``sentence``, ``trustworthy``; ``points``
        for a picture.

    Raises:
        ConfigError: Too few architectures have both scores.
    """
    last = max((row["fidelity"] or 0 for rows in sample.rows.values() for row in rows), default=0)
    told = sorted({row["fidelity"] for rows in sample.rows.values() for row in rows if row["fidelity"]})
    by_fidelity = {fidelity: scores_at(sample, fidelity) for fidelity in told}
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
            for fidelity, (both, figures) in _rungs(by_fidelity, truth).items()
        ],
        "favourite": {"key": best, "place": truth.place(best)},
        "points": [[truth.values[one], sign(sample.mode) * columns["score"][one]] for one in names],
    }


def sign(mode: str) -> float:
    """What to multiply by so that high is good."""
    return 1.0 if mode == "max" else -1.0


def scores_at(sample: Sample, fidelity: int) -> dict[str, dict[str, float]]:
    """Score and further metrics at one fidelity, by name and key; all such that high is good."""
    found: dict[str, dict[str, float]] = {"score": {}}
    for name, rows in sample.rows.items():
        for row in rows:
            if row["fidelity"] != fidelity or row["status"] == "error" or row["score"] is None:
                continue
            told = {"score": sign(sample.mode) * row["score"]}
            told |= {
                n: -v if "loss" in n or n == PERPLEXITY.name else v
                for n, v in row["metrics"].items()
                if isinstance(v, (int, float)) and n not in (*_BOOKKEEPING, "score")
            }
            for metric, value in told.items():
                if math.isfinite(value):
                    found.setdefault(metric, {})[name] = float(value)
    return found


def _distinct(
    scores: Mapping[str, Sequence[float]], costs: Mapping[str, Sequence[float]]
) -> dict[str, Sequence[float]]:
    """The metrics that say something, and something else than the score, the costs and one another."""
    kept: dict[str, Sequence[float]] = {}
    orders = [rankdata(values) for values in (scores["score"], *costs.values())]
    for metric, values in scores.items():
        own = rankdata(values)
        if np.ptp(own) > 0 and not any(np.array_equal(own, order) for order in orders):
            kept[metric] = values
            orders.append(own)
    return kept


def _rungs(
    by_fidelity: Mapping[int, Mapping[str, Mapping[str, float]]], truth: GroundTruth
) -> dict[int, tuple[list[str], Agreement]]:
    """How well the score ranks at each fidelity, where there are several."""
    found = {}
    for fidelity, columns in by_fidelity.items() if len(by_fidelity) > 1 else ():
        both = [name for name in columns["score"] if name in truth.values]
        if len(both) >= LEAST:
            values = [columns["score"][name] for name in both]
            target = [sign(truth.mode) * truth.values[name] for name in both]
            found[fidelity] = both, compare(values, target, name=f"fidelity {fidelity}", resamples=200).score
    return found


def interval(estimate: Mapping[str, float]) -> str:
    """An estimate as text."""
    return "{value:.2f} [{low:.2f}, {high:.2f}]".format(**estimate)


def remarks(found: Mapping[str, Any]) -> list[str]:
    """What there is to say besides: what is true, who was compared, where the winner stands."""
    told = [f"GroundTruth: {found['truth']}. Compared: architectures {found['sample']}."]
    if found["searched"]:
        row = found["searched"]
        told.append(
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
            told.append(
                f"{who}, {row['key']}, is number {place:,} of all {everyone:,} in the table, {within} the best 1 %."
            )
    return told
