"""What speaks for and against a model that generates architectures, round by round: plain data and its summary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np

from raynas.architecture import key

__all__ = ["common_fidelity", "judged", "pairwise_accuracy", "scored", "summary"]


def pairwise_accuracy(predicted: Sequence[float], true: Sequence[float]) -> float | None:
    """The share of pairs with different true scores that the predictions order alike; ties of these count half.

    None where no two true scores differ.
    """
    told, known = np.asarray(predicted, float), np.asarray(true, float)
    differ = known[:, None] > known[None]
    if not differ.any():
        return None
    gap = (told[:, None] - told[None])[differ]
    return float((gap > 0).mean() + 0.5 * (gap == 0).mean())


def common_fidelity(fidelities: Iterable[int]) -> int:
    """The highest of those that most have reached: what a scheduler let go on is not compared with what it stopped.

    Args:
        fidelities: Of every score, at least one.
    """
    reached = Counter(fidelities)
    return max(reached, key=lambda fidelity: (reached[fidelity], fidelity))


def scored(row: Mapping[str, Any], scores: Mapping[str, float]) -> dict[str, Any]:
    """A round in which the scores of what it generated are entered, as far as they are known, by key."""
    generated = [{**each, "score": scores.get(each["key"], each["score"])} for each in row["generated"]]
    return {**row, "generated": generated}


def judged(line: Mapping[str, Any], scores: Mapping[str, float]) -> dict[str, Any]:
    """A round of :class:`raynas.training.pool.Pool` with the finite scores that its members then got, by key.

    They have been trained since, and the weights are others: what they are to be compared with, ``pool``, is then the
    mean of those members that stayed, by the same weights.
    """
    new = {key(member) for member in line["new"]}
    stayed = [score for name, score in scores.items() if name not in new]
    learned = scored(line["learned"], scores)
    return {**line, "learned": {**learned, "pool": fmean(stayed)} if stayed else learned}


def summary(diagnostics: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One line for each round of :attr:`raynas.searchers.nao.NAO.diagnostics`.

    Args:
        diagnostics: As the searcher keeps it, or as read from its journal.

    Returns:
        Dictionaries with ``scores``, ``steps``, ``seconds``, ``bound``, ``reconstructed``, ``held_out``, ``pairwise``
        and ``pool`` as they are; ``generated``, how many of the generated have a score, ``predicted``, their mean
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
        predicted = fmean(told for told, _ in pairs) if pairs else None
        found = {"generated": len(pairs), "predicted": predicted, "mean": mean, "gain": gain, "ordered": ordered}
        lines.append({name: row[name] for name in copied} | found)
    return lines
