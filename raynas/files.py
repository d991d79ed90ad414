"""Writing values such that a reader sees all of them or what was there before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from raynas.patience import replace_text

__all__ = ["write_json"]


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON; the folder is there.

    Raises:
        OSError: As :func:`raynas.patience.patiently`.
    """
    replace_text(path, json.dumps(value, indent=2))
