"""What settings may be: types that refuse everything else, with one line for each mistake."""

from __future__ import annotations

import re
import unicodedata
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field

from raynas.config.domains import all_as_data
from raynas.exceptions import ConfigError

__all__ = [
    "NAMING",
    "STRICT",
    "Count",
    "Domains",
    "Duration",
    "Name",
    "NotNegative",
    "Place",
    "Positive",
    "Share",
    "check_name",
    "is_component",
    "is_name",
    "legal_name",
]

STRICT = ConfigDict(extra="forbid", validate_assignment=True)
Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
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


Duration = Annotated[float, BeforeValidator(_seconds), Field(gt=0, allow_inf_nan=False)]


def _place(value: str) -> str:
    """Where latency is measured."""
    found = re.fullmatch(r"[\w./-]+(?::(\d*\.?\d+)|=[\w./-]+)", value)
    if value == "local" or (found and (found[1] is None or float(found[1]) > 0)):
        return value
    raise ValueError("legal: local, a custom resource and how much of it (edge:1), or a node label (device=phone)")


Place = Annotated[str, AfterValidator(_place)]


_MOST_BYTES = 200
NAMING = (
    "one component of a path is legal: no '/' or '\\', no control characters, no dot at its start, "
    f"at most {_MOST_BYTES} bytes"
)
"""What a name of a run may be."""


def is_component(text: str, most: int = 255) -> bool:
    """Whether a text is one plain component of a path: not empty, ``.`` or ``..``, nothing that ends or leaves it.

    Args:
        text: A name of a file, a folder or of a part of an object's key.
        most: Bytes in UTF-8.
    """
    if text in ("", ".", "..") or "/" in text or "\\" in text:
        return False
    # Cc: control characters, NUL among them; Cs: halves of characters, which UTF-8 does not have; Zl, Zp: line ends.
    if any(unicodedata.category(each) in ("Cc", "Cs", "Zl", "Zp") for each in text):
        return False
    return len(text.encode()) <= most


def is_name(text: str) -> bool:
    """Whether a text may be the name of a run, as for :func:`check_name`."""
    return is_component(text, _MOST_BYTES) and not text.startswith(".")


def check_name(name: str, what: str = "name") -> str:
    """Return the name of a run, which is one plain component of a path, wherever it comes from.

    Args:
        name: Any text; letters of all languages are legal.
        what: Where it comes from, for the message.

    Raises:
        ConfigError: It could lead out of the folder of the runs, or be no file's name.
    """
    if not is_name(name):
        shown = name if len(name) <= 80 else f"{name[:80]}..."
        raise ConfigError(f"{what} = {shown!r} is no name of a run: {NAMING}")
    return name


def legal_name(text: str) -> str:
    """A name of a run that looks like a text: what is not legal in it becomes a hyphen."""
    kept = "".join(each if is_component(each) or each == "." else "-" for each in text).lstrip(".")
    return kept.encode()[:_MOST_BYTES].decode(errors="ignore") or "run"


def _name(value: str) -> str:
    try:
        return check_name(value)
    except ConfigError:
        raise ValueError(NAMING) from None


Name = Annotated[str, AfterValidator(_name)]
