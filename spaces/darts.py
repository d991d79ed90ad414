"""The cell space of DARTS: a normal and a reduction cell of four nodes, each of which adds up two operations.

Liu et al., "DARTS: Differentiable Architecture Search", ICLR 2019; RLNAS (Zhang et al., CVPR 2021) searches it with
one path at a time. Architectures are described in :mod:`raynas.spaces.darts_genotype`; the weights of a supernet belong
to an edge and an operation. :func:`darts` is for images of 32 pixels, :func:`darts_imagenet` for images of 224.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from raynas.spaces.darts_genotype import DECISIONS, NODES, OPTIONS, canonical_form, choose, edge, graph, topology
from raynas.spaces.layers import AuxiliaryHead, DropPath, FactorizedReduce, Nothing, operation
from torch import Tensor, nn

from raynas.nn.choice import Choice

__all__ = ["DECISIONS", "Cell", "Darts", "Layout", "canonical_form", "darts", "darts_imagenet", "graph"]


def _conv(inputs: int, outputs: int) -> nn.Sequential:
    # Here and below the ReLU is not in place: its input is a node that other operations read, too.
    return nn.Sequential(nn.ReLU(), nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))


class Node(nn.Module):
    """The sum of the edges that are taken, zero if none is. Maps the nodes before it, [N, C, H, W] each, to one more.

    Args:
        edges: From each of the nodes before it, or a Choice of what the edge does.
        stride: Of the edges from the inputs of the cell.
    """

    def __init__(self, edges: Iterable[nn.Module], stride: int) -> None:
        super().__init__()
        self.edges = nn.ModuleList(edges)
        self.stride = stride
        self.drop = DropPath()

    def forward(self, nodes: Sequence[Tensor]) -> Tensor:
        taken = [self._edge(e, x) for e, x in zip(self.edges, nodes, strict=True) if not isinstance(e, Nothing)]
        return functools.reduce(operator.add, taken or [nodes[0][:, :, :: self.stride, :: self.stride] * 0])

    def _edge(self, edge: nn.Module, x: Tensor) -> Tensor:
        # A path without operations is never dropped: the network stays connected.
        return edge(x) if isinstance(edge, nn.Identity) else self.drop(edge(x))


def _node(cell: str, node: int, channels: int, evaluation: bool) -> Node:
    """A node whose edges are Choices."""
    stride = 2 if cell == "reduction" else 1
    edges = []
    for source in range(node):
        steps = stride if source < 2 else 1
        options = {option: operation(option, channels, steps, evaluation) for option in OPTIONS}
        edges.append(Choice({"none": Nothing(), **options}, decision=edge(cell, source, node)))
    return Node(edges, stride)


class Cell(nn.Module):
    """Four nodes, whose values together are the output. A reduction cell halves the resolution of its inputs.

    Maps two maps [N, C, H, W] of ``inputs`` channels to [N, 4 * channels, H, W], or [N, 4 * channels, H / 2, W / 2].

    Args:
        kind: "normal" or "reduction".
        inputs: Channels of the two inputs.
        channels: Of every node.
        after_reduction: Whether the first input has twice the resolution of the second.
        evaluation: Without BatchNorm after the pools.
    """

    def __init__(
        self, kind: str, inputs: tuple[int, int], channels: int, after_reduction: bool, evaluation: bool
    ) -> None:
        super().__init__()
        self.first = FactorizedReduce(inputs[0], channels) if after_reduction else _conv(inputs[0], channels)
        self.second = _conv(inputs[1], channels)
        self.nodes = nn.ModuleList(_node(kind, node, channels, evaluation) for node in NODES)

    def forward(self, before_last: Tensor, last: Tensor) -> Tensor:
        values = [self.first(before_last), self.second(last)]
        for node in self.nodes:
            values.append(node(values))
        return torch.cat(values[2:], dim=1)


@dataclass(frozen=True)
class Layout:
    """The size and the surroundings of a network of cells."""

    channels: int
    """Of every node of the first cells; the two reduction cells double them."""
    cells: int
    imagenet: bool = False
    """Three convolutions before the first cell reduce the resolution eightfold."""
    evaluation: bool = False
    """As it is trained by itself: without the BatchNorm that pools have in a supernet."""
    auxiliary: bool = False
    """A second classifier behind the second reduction cell: in training, forward returns the logits of both."""


class Darts(nn.Module):
    """Stem, cells, classifier. Maps images [N, in_channels, H, W] to logits [N, num_classes].

    In training, a network with an auxiliary classifier returns a tuple: its logits and those of the auxiliary one.

    Raises:
        ValueError: Fewer than three cells.
    """

    searched = DECISIONS
    choose = staticmethod(choose)
    topology = staticmethod(topology)

    def __init__(self, layout: Layout, num_classes: int, in_channels: int) -> None:
        super().__init__()
        if layout.cells < 3:
            raise ValueError(f"cells is {layout.cells}: at least 3 are needed, two of them reduce the resolution")
        channels = layout.channels
        width = channels if layout.imagenet else 3 * channels
        self.stem = _imagenet_stem(in_channels, channels) if layout.imagenet else _conv3(in_channels, width, 1)
        # Of ImageNet's stem the first cell sees the last layer, and what goes into it.
        self.reduce = nn.Sequential(nn.ReLU(), *_conv3(width, width, 2)) if layout.imagenet else nn.Identity()
        reductions = (layout.cells // 3, 2 * layout.cells // 3)
        self.cells = nn.ModuleList()
        inputs, after_reduction = (width, width), layout.imagenet
        for index in range(layout.cells):
            kind = "reduction" if index in reductions else "normal"
            channels *= 2 if kind == "reduction" else 1
            self.cells.append(Cell(kind, inputs, channels, after_reduction, layout.evaluation))
            inputs, after_reduction = (inputs[1], len(NODES) * channels), kind == "reduction"
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(inputs[1], num_classes)
        self.auxiliary = AuxiliaryHead(inputs[1], num_classes, layout.imagenet) if layout.auxiliary else None
        self.auxiliary_after = reductions[1]

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        x = self.stem(x)
        before_last, last = x, self.reduce(x)
        auxiliary = None
        for index, cell in enumerate(self.cells):
            before_last, last = last, cell(before_last, last)
            if self.training and self.auxiliary is not None and index == self.auxiliary_after:
                auxiliary = self.auxiliary(last)
        logits = self.classifier(torch.flatten(self.pool(last), 1))
        return logits if auxiliary is None else (logits, auxiliary)

    def canonical_form(self, architecture: Mapping[str, str]) -> dict[str, str]:
        """See :func:`canonical_form`."""
        return canonical_form(architecture)

    def graph(self, architecture: Mapping[str, str]) -> list[tuple[int, int, str | None]]:
        """See :func:`graph`."""
        return graph(architecture)

    def surrogate_norm(self, option: str, channels: int) -> float | None:
        """The squared length of what stands for an option without weights in an angle, as in RLNAS.

        A skip connection is a unit matrix, a pool the numbers 1/9 for every channel and pixel; an edge that is not
        taken carries nothing.
        """
        pool = channels / 9
        return {"none": None, "skip_connect": float(channels), "max_pool_3x3": pool, "avg_pool_3x3": pool}[option]


def _conv3(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False), nn.BatchNorm2d(outputs))


def _imagenet_stem(in_channels: int, channels: int) -> nn.Sequential:
    half = channels // 2
    return nn.Sequential(*_conv3(in_channels, half, 2), nn.ReLU(inplace=True), *_conv3(half, channels, 2))


def darts(
    num_classes: int = 10,
    in_channels: int = 3,
    channels: int = 16,
    cells: int = 8,
    evaluation: bool = False,
    auxiliary: bool = False,
) -> Darts:
    """The space for images of 32 pixels, by default in the size of the papers' supernet.

    A found architecture is trained by itself with ``channels=36, cells=20, evaluation=True, auxiliary=True``.
    """
    return Darts(Layout(channels, cells, False, evaluation, auxiliary), num_classes, in_channels)


def darts_imagenet(
    num_classes: int = 1000,
    in_channels: int = 3,
    channels: int = 48,
    cells: int = 14,
    evaluation: bool = False,
    auxiliary: bool = False,
) -> Darts:
    """The space for images of 224 pixels; a supernet and a network by itself have the same size."""
    return Darts(Layout(channels, cells, True, evaluation, auxiliary), num_classes, in_channels)
