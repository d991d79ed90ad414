"""Tensors in tuples, lists and dicts, as batches of examples have them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from torch import Tensor

__all__ = ["map_arrays", "map_tensors"]


def map_tensors(function: Callable[[Tensor], Any], value: Any) -> Any:
    """The same structure with a function applied to every tensor in it; other values stay as they are."""
    return _map(Tensor, function, value)


def map_arrays(function: Callable[[np.ndarray[Any, Any]], Any], value: Any) -> Any:
    """As :func:`map_tensors`, for numpy's arrays."""
    return _map(np.ndarray, function, value)


def _map(kind: type[Any], function: Callable[[Any], Any], value: Any) -> Any:
    if isinstance(value, kind):
        return function(value)
    if isinstance(value, Mapping):
        return {key: _map(kind, function, part) for key, part in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_map(kind, function, part) for part in value))
    if isinstance(value, (tuple, list)):
        return type(value)(_map(kind, function, part) for part in value)
    return value
