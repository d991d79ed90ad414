"""Scores of another search, from which a searcher makes a warm start."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence

from raynas.architecture import key
from raynas.search_space.space import SearchSpace
from raynas.searchers.history import Entry, SearchHistory

__all__ = ["Scores", "digest", "read_source"]


Scores = float | Mapping[int, float]
"""One score, or the scores by fidelity."""


def read_source(space: SearchSpace, pairs: Iterable[tuple[Mapping[str, str], Scores]]) -> tuple[Entry, ...]:
    """Architectures in their canonical form with their finite scores by fidelity; those without any are left out.

    Raises:
        ArchitectureError: The space does not contain one of them.
        ValueError: There is no finite score.
    """
    history = SearchHistory()
    for architecture, scores in pairs:
        by_fidelity = scores if isinstance(scores, Mapping) else {1: scores}
        history.replay(space.form(architecture), by_fidelity, failed=False)
    entries = tuple(entry for entry in history.values() if entry.status == "done")
    if not entries:
        raise ValueError("the source of a warm start holds no finite score")
    return entries


def digest(entries: Sequence[Entry]) -> str:
    """A short name of a source: equal for equal architectures and scores in the same order."""
    rows = [[key(entry.architecture), sorted(entry.scores.items())] for entry in entries]
    return hashlib.blake2b(json.dumps(rows).encode(), digest_size=8).hexdigest()
