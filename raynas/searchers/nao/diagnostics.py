"""Diagnostics of NAO: how well each training round predicts and generates, as dictionaries, and a summary table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np

from raynas.architecture import key

__all__ = ["common_fidelity", "pairwise_accuracy", "scored", "summary", "with_pool_scores"]


def pairwise_accuracy(predicted: Sequence[float], true: Sequence[float]) -> float | None:
    """The share of pairs with different scores that the predictions order correctly; tied predictions count half.

    None where no two true scores differ.
    """
    forecasts, scores = np.asarray(predicted, float), np.asarray(true, float)
    differ = scores[:, None] > scores[None]
    if not differ.any():
        return None
    gap = (forecasts[:, None] - forecasts[None])[differ]
    return float((gap > 0).mean() + 0.5 * (gap == 0).mean())


def common_fidelity(fidelities: Iterable[int]) -> int:
    """The most frequent fidelity, the highest one of several.

    Args:
        fidelities: Of every score, at least one.
    """
    reached = Counter(fidelities)
    return max(reached, key=lambda fidelity: (reached[fidelity], fidelity))


def scored(row: Mapping[str, Any], scores: Mapping[str, float]) -> dict[str, Any]:
    """A round with the scores of its generated architectures, given by key, added."""
    generated = [{**each, "score": scores.get(each["key"], each["score"])} for each in row["generated"]]
    return {**row, "generated": generated}


def with_pool_scores(line: Mapping[str, Any], scores: Mapping[str, float]) -> dict[str, Any]:
    """A round of :class:`raynas.training.pool.Pool` with the finite scores that its members then got, by key.

    The supernet was trained since, so ``pool`` becomes the mean score of the other members by the same weights.
    """
    new = {key(member) for member in line["new"]}
    kept = [score for name, score in scores.items() if name not in new]
    learned = scored(line["learned"], scores)
    return {**line, "learned": {**learned, "pool": fmean(kept)} if kept else learned}


def summary(diagnostics: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One line for each round of :attr:`raynas.searchers.nao.searcher.NAO.diagnostics`.

    Args:
        diagnostics: From the searcher, or as read from its journal.

    Returns:
        Dictionaries with ``scores``, ``steps``, ``seconds``, ``bound``, ``reconstructed``, ``held_out``, ``pairwise``
        and ``pool`` unchanged; ``generated``, the number of scored proposals, ``predicted``, their mean
        prediction, ``mean``, their mean score, ``gain``, by how much it is better than the pool's, and ``ordered``,
        the share of their pairs that the predictions order rightly. None where there is nothing to take it from.
    """
    copied = ("scores", "steps", "seconds", "bound", "reconstructed", "held_out", "pairwise", "pool")
    lines = []
    for row in diagnostics:
        sign = -1.0 if row["mode"] == "min" else 1.0
        pairs = [(g["predicted"], g["score"]) for g in row["generated"] if g["score"] is not None]
        mean = float(np.mean([score for _, score in pairs])) if pairs else None
        gain = None if mean is None else sign * (mean - row["pool"])
        ordered = pairwise_accuracy([p for p, _ in pairs], [sign * score for _, score in pairs])
        predicted = fmean(forecast for forecast, _ in pairs) if pairs else None
        figures = {"generated": len(pairs), "predicted": predicted, "mean": mean, "gain": gain, "ordered": ordered}
        lines.append({name: row[name] for name in copied} | figures)
    return lines
