"""Numbers as text."""

from __future__ import annotations

__all__ = ["counted", "quantity"]

_UNITS = {"latency_ms": "ms"}


def quantity(value: float) -> str:
    """A count as people write it: 322.9 M."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g} {unit}"
    return f"{value:.4g}"


def counted(value: float, noun: str) -> str:
    """A number with what is counted: 1 epoch, 0.5 epochs, 4,096 architectures, 1.1e+12 architectures."""
    shown = f"{value:.3g}" if value >= 1e9 or value != int(value) else f"{int(value):,}"
    return f"{shown} {noun}" if value == 1 else f"{shown} {noun}s"
