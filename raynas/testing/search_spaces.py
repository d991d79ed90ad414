"""Search spaces on which searchers are tested, and a score for their architectures."""

from __future__ import annotations

import hashlib

from raynas.architecture import Architecture
from raynas.search_space.space import SearchSpace

__all__ = ["CHAIN", "NESTED", "PRICED", "RARE", "SMALL", "preference"]

CHAIN = SearchSpace({f"block{i}": ("a", "b", "c", "d") for i in range(6)})
"""4,096 architectures, all different."""

NESTED = SearchSpace(
    {
        "depth": ("1", "2", "3"),
        **{f"depth.{d}.kernel{i}": ("3", "5", "7") for d in "123" for i in range(int(d))},
        "depth.3.kernel2.7.width": ("narrow", "wide"),
    }
)
"""A depth, and under each depth as many kernels; under one of these a width: 48 architectures."""

SMALL = SearchSpace(
    {"a": ("x", "y", "z"), "b": ("p", "q"), "c": ("1", "2", "3")},
    canonical=lambda a: {**a, "c": "1"} if a["a"] == "z" else a,
    violation=lambda a: 0.5 if a["c"] == "3" else 0.0,
)
"""18 architectures, 14 networks (under "z", "c" does not matter), 10 of them feasible."""

RARE = SearchSpace(
    {f"block{i}": ("0", "1", "2", "3") for i in range(10)},
    violation=lambda a: max(0, sum(map(int, a.values())) - 4) / 4,
)
"""Of a million architectures one in a thousand is feasible."""


def preference(architecture: Architecture) -> float:
    """A made-up score: every option of every decision adds a fixed amount; the same in every process."""
    digests = (hashlib.blake2b(f"{n}={o}".encode(), digest_size=4).digest() for n, o in architecture.items())
    return sum(int.from_bytes(digest, "big") / 2**32 for digest in digests)


PRICED = SearchSpace(
    CHAIN.decisions,
    costs=lambda a: {"price": sum(preference({name: option}) ** 3 for name, option in a.items())},
    objectives=("price",),
)
"""CHAIN with a price: what scores well is dear, some of it more than the rest."""
