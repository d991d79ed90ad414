"""Errors of pydantic in one line each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["explain"]


def explain(mistake: Mapping[str, Any]) -> str:
    """Words one entry of ``ValidationError.errors()``: the setting, its value, and what would be legal."""
    message = mistake["msg"].removeprefix("Value error, ")
    where = ".".join(str(part) for part in mistake["loc"])
    value = f"setting {where} = {mistake['input']!r}: " if where else ""
    return f"{value}{message[0].lower()}{message[1:]}"
