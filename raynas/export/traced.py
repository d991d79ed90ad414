"""The graph of a network as torch.export finds it, prepared to be written as Python code.

For a ``forward`` that symbolic tracing cannot follow, because it looks at shapes: torch.export runs it with one shape,
in which the batch alone is open, and what is left are calls of torch's operators, ``torch.ops.aten``.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from raynas.exceptions import CodegenError
from raynas.export.failures import explanation, open_length, quiet

__all__ = ["any_batch", "traced_graph"]


def any_batch(inputs: tuple[Tensor, ...]) -> tuple[dict[int, Any], ...]:
    """That the first dimension of every input is one and the same number, whatever it is."""
    batch = torch.export.Dim("batch")
    return tuple({0: batch} for _ in inputs)


def traced_graph(network: nn.Module, inputs: tuple[Tensor, ...]) -> fx.GraphModule:
    """The graph of a network for inputs of these shapes and any batch.

    Args:
        network: In eval mode.
        inputs: With a batch of at least 2.

    Returns:
        A module with a graph of calls of ``torch.ops``, whose output is as the network returns it.

    Raises:
        CodegenError: torch.export cannot follow the network either.
    """
    try:
        with open_length(network), quiet():
            program = torch.export.export(network, inputs, dynamic_shapes=any_batch(inputs))
            module = program.module()
    except Exception as error:  # the exporter documents no common class
        raise CodegenError(explanation(error, network)) from error
    assert isinstance(module, fx.GraphModule)
    graph = module.graph
    for node in reversed(list(graph.nodes)):
        if node.op == "call_module" and not node.users:  # checks of the inputs
            graph.erase_node(node)
    for node in list(graph.nodes):
        stack = node.meta.get("nn_module_stack", {}).values()
        node.meta["nn_module_stack"] = {str(path): kind for path, kind in stack if not str(path).startswith("_empty")}
        if _idle(node):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
        elif node.op == "call_function" and node.target is operator.getitem and not node.users:
            graph.erase_node(node)
        elif node.op == "output":
            (found,) = node.args
            assert module._out_spec is not None
            node.args = (pytree.tree_unflatten(list(found), module._out_spec),)
    return module


def _idle(node: fx.Node) -> bool:
    """Whether a call returns its first argument: dropout in evaluation, a slice of everything."""
    aten = torch.ops.aten
    if node.target is aten.dropout.default:
        return len(node.args) == 3 and node.args[2] is False
    return node.target is aten.slice.Tensor and node.args[2:] == (0, 2**63 - 1)
