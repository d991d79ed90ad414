"""Spaces without a network, as a user would write them in a package of their own."""

from __future__ import annotations

DECISIONS = {"a": ("x", "y", "z"), "b": ("p", "q", "r"), "c": ("s", "t", "u")}
MANY = {f"d{place}": ("a", "b", "c", "d") for place in range(4)}
NOT_TEXT = {"a": (3, 5), "b": ("p", "q")}
