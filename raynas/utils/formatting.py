"""Numbers as text."""

from __future__ import annotations

__all__ = ["quantity"]

_UNITS = {"latency_ms": "ms"}


def quantity(value: float) -> str:
    """A count as people write it: 322.9 M."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g} {unit}"
    return f"{value:.4g}"
