"""The graphs of the best architectures of a run, for drawing: graphs.json in its folder.

    {"edges": [[0, 1], ...], "architectures": {key: [[0, 1, "nor_conv_3x3"], [1, 2, null], ...]}}

``edges`` are all that the space can have, whatever is chosen: they determine which nodes are inputs and which are
outputs. An architecture has those that it takes, see :data:`raynas.architecture.Graph`.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from raynas.architecture import Architecture, key, sample
from raynas.search_space.space import SearchSpace

__all__ = ["graphs"]

_SAMPLE = 200
"""Random architectures that show which edges there are."""


def graphs(space: SearchSpace, architectures: Sequence[Architecture]) -> dict[str, Any]:
    """Content of graphs.json for these architectures; empty where the space has no ``graph``."""
    if space.graph is None:
        return {}
    rng = Random("graphs")
    sampled = (space.form(sample(space.decisions, rng)) for _ in range(_SAMPLE))
    edges = {edge[:2] for form in (*sampled, *architectures) for edge in map(tuple, space.graph(form))}
    taken = {key(form): [list(edge) for edge in space.graph(form)] for form in architectures}
    return {"edges": sorted(map(list, edges)), "architectures": taken}
