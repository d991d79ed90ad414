"""Refusing settings of searchers in one way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["check_counts", "check_numbers", "check_ranges"]


def check_counts(settings: Any, least: Mapping[str, int]) -> None:
    """Make sure that these attributes are whole numbers, none below its least.

    Raises:
        ValueError: Names the first that is not, and the legal ones.
    """
    for name, low in least.items():
        value = getattr(settings, name)
        if not isinstance(value, int) or value < low:
            raise ValueError(f"{name} is {value!r}; legal: a whole number, {low} or more")


def check_numbers(settings: Any, names: Iterable[str]) -> None:
    """Make sure that these attributes are numbers, before anybody compares them.

    Raises:
        ValueError: Names the first that is not.
    """
    for name in names:
        value = getattr(settings, name)
        if not isinstance(value, (int, float)):
            raise ValueError(f"{name} is {value!r}; legal: a number")


def check_ranges(settings: Any, legal: Mapping[str, tuple[bool, str]]) -> None:
    """Make sure of whatever is said of these attributes: whether it holds, and which values are legal.

    Raises:
        ValueError: Names the first of which it does not hold.
    """
    for name, (holds, values) in legal.items():
        if not holds:
            raise ValueError(f"{name} is {getattr(settings, name)!r}; legal: {values}")
