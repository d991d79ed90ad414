"""A copy of a space without its weights, for counting."""

from __future__ import annotations

import copy
from itertools import chain
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

__all__ = ["on_meta"]


def on_meta(space: nn.Module) -> nn.Module:
    """A copy on PyTorch's meta device, where nothing is computed.

    Parameters that several modules share stay shared, which ``space.to("meta")`` would undo.
    """
    made: dict[int, Any] = {}
    for tensor in chain(space.parameters(), space.buffers()):
        if not is_lazy(tensor):
            empty = torch.empty_like(tensor, device="meta", requires_grad=False)
            parameter = isinstance(tensor, nn.Parameter)
            made[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if parameter else empty
    return copy.deepcopy(space, made)
