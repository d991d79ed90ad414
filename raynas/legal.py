"""What settings may be: types that refuse everything else, with one line for each mistake."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field

from raynas.domains import all_as_data

__all__ = ["STRICT", "ConfigError", "Count", "Domains", "Duration", "NotNegative", "Place", "Positive", "Share"]

STRICT = ConfigDict(extra="forbid", validate_assignment=True)
Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Domains = Annotated[dict[str, Any], BeforeValidator(all_as_data)]


def _seconds(value: Any) -> Any:
    """A duration such as 90m, 2h or 1.5d in seconds; numbers are seconds."""
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    if isinstance(value, str) and value[-1:] in units:
        try:
            return float(value[:-1]) * units[value[-1]]
        except ValueError:
            raise ValueError("legal: seconds, or a number with s, m, h or d, e.g. 90m") from None
    return value


Duration = Annotated[float, BeforeValidator(_seconds), Field(gt=0)]


def _place(value: str) -> str:
    """Where latency is measured."""
    found = re.fullmatch(r"[\w./-]+(?::(\d*\.?\d+)|=[\w./-]+)", value)
    if value == "local" or (found and (found[1] is None or float(found[1]) > 0)):
        return value
    raise ValueError("legal: local, a custom resource and how much of it (edge:1), or a node label (device=phone)")


Place = Annotated[str, AfterValidator(_place)]


class ConfigError(ValueError):
    """A setting that does not exist or has an illegal value; one line per mistake."""
