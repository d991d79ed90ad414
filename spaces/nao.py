"""The convolution cells of NAO and ENAS: a normal and a reduction cell of five nodes that add up two operations each.

Luo et al., "Neural Architecture Optimization", NeurIPS 2018; Pham et al., "Efficient Neural Architecture Search via
Parameter Sharing", ICML 2018. Architectures are described in :mod:`raynas.spaces.nao_genotype`. In a supernet weights
belong to an edge and an operation, and a 1x1 convolution with weights for each node that may be unread brings the
output of a cell to one width. A network by itself has no such convolution: its cells return the unread nodes side by
side.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from raynas.spaces.layers import AuxiliaryHead, DropPath, FactorizedReduce, Nothing, operation
from raynas.spaces.nao_genotype import (
    DECISIONS,
    NODES,
    OPTIONS,
    canonical_form,
    choose,
    edge,
    from_words,
    graph,
    outlet,
    respell,
    to_words,
    topology,
)
from torch import Tensor, nn

from raynas.architecture import Notation
from raynas.nn.choice import Choice

__all__ = ["DECISIONS", "Cell", "Layout", "Nao", "canonical_form", "graph", "nao"]

_WIDTHS = tuple(range(1, len(NODES) + 2))
"""How many nodes may be the output of a cell."""


@dataclass(frozen=True)
class Layout:
    """The size of a network, and whether it is a supernet."""

    channels: int
    """Of every node of the first cells; the two reduction cells double them."""
    cells: int
    """Normal cells before, between and after the two reduction cells: N in the papers."""
    evaluation: bool = False
    """As it is trained by itself: a cell returns its unread nodes side by side."""
    auxiliary: bool = False
    """A second classifier behind the second reduction cell: in training, forward returns the logits of both."""
    dropout: float = 0.0
    """Of what the classifier sees."""


@dataclass(frozen=True)
class Source:
    """What a cell reads."""

    channels: int
    """Of every node that the output consists of."""
    cell: str | None
    """The kind of cell whose unread nodes it is; None for one map of so many channels."""
    halvings: int
    """How often its resolution was halved."""


def _any_width(source: Source, make: functools.partial[nn.Module]) -> nn.Module:
    """A module for the channels of a source, ``make(channels)``; a Choice where they depend on the architecture."""
    if source.cell is None:
        return make(source.channels)
    return Choice({str(n): make(n * source.channels) for n in _WIDTHS}, decision=f"{source.cell}.width")


def _fit(inputs: int, channels: int, halve: bool) -> nn.Module:
    """Bring the output of an earlier cell to the size of a cell's nodes, where it has another one."""
    if halve:
        return FactorizedReduce(inputs, channels)
    if inputs == channels:
        return nn.Identity()
    return nn.Sequential(nn.ReLU(), nn.Conv2d(inputs, channels, 1, bias=False), nn.BatchNorm2d(channels))


def _edge(kind: str, node: int, place: int, source: int, channels: int) -> Choice:
    stride = 2 if kind == "reduction" and source < 2 else 1
    # Pools have no BatchNorm, not in a supernet either.
    options = {option: operation(option, channels, stride, evaluation=True) for option in OPTIONS}
    if stride == 2:
        options["skip_connect"] = FactorizedReduce(channels, channels, relu=False)
    return Choice({"none": Nothing(), **options}, decision=edge(kind, node, place, source))


class Node(nn.Module):
    """The sum of the edges that are taken, zero if none is. Maps the nodes before it, [N, C, H, W] each, to one more.

    An architecture takes two, which are dropped ``dropped`` times as often as paths are.
    """

    def __init__(self, kind: str, node: int, channels: int, dropped: float) -> None:
        super().__init__()
        self.stride = 2 if kind == "reduction" else 1
        self.first = nn.ModuleList(_edge(kind, node, 1, source, channels) for source in range(node))
        self.second = nn.ModuleList(_edge(kind, node, 2, source, channels) for source in range(node))
        self.drop = DropPath(dropped)

    def forward(self, nodes: Sequence[Tensor]) -> Tensor:
        both = (*zip(self.first, nodes, strict=True), *zip(self.second, nodes, strict=True))
        taken = [self.drop(edge(x)) for edge, x in both if not isinstance(edge, Nothing)]
        return functools.reduce(operator.add, taken or [nodes[0][:, :, :: self.stride, :: self.stride] * 0])


class Unread(nn.Module):
    """What the output of a cell takes from a node: with ``weights``, in a supernet, its part of a convolution.

    Maps [N, inputs, H, W] to [N, inputs, H, W], or half of the resolution.
    """

    def __init__(self, channels: int, halve: bool, weights: bool) -> None:
        super().__init__()
        self.halve = FactorizedReduce(channels, channels, relu=False) if halve else nn.Identity()
        conv = nn.Conv2d(channels, channels, 1, bias=False)
        self.conv = nn.Sequential(nn.ReLU(), conv) if weights else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.halve(x))


class Cell(nn.Module):
    """Five nodes; those that no node reads, inputs among them, are the output.

    Maps the outputs of the two cells before it to [N, channels, H, W], as a network by itself to [N, unread * channels,
    H, W]. A reduction cell halves the resolution.

    Args:
        kind: "normal" or "reduction".
        sources: What it reads.
        channels: Of every node.
        evaluation: See :class:`Layout`.
        dropped: Of the drop path rate.
    """

    def __init__(
        self, kind: str, sources: tuple[Source, Source], channels: int, evaluation: bool, dropped: float
    ) -> None:
        super().__init__()
        first, second = sources
        halve = first.halvings < second.halvings
        self.first = _any_width(first, functools.partial(_fit, channels=channels, halve=halve))
        self.second = _any_width(second, functools.partial(_fit, channels=channels, halve=False))
        self.nodes = nn.ModuleList(Node(kind, node, channels, dropped) for node in NODES)
        reduces = kind == "reduction"
        self.outlets = nn.ModuleList(
            Choice(
                read=Nothing(), unread=Unread(channels, reduces and node < 2, not evaluation),
                decision=outlet(kind, node),
            )
            for node in (0, 1, *NODES)
        )  # fmt: skip
        self.norm = None if evaluation else nn.BatchNorm2d(channels)

    def forward(self, before_last: Tensor, last: Tensor) -> Tensor:
        values = [self.first(before_last), self.second(last)]
        for node in self.nodes:
            values.append(node(values))
        loose = [take(x) for take, x in zip(self.outlets, values, strict=True) if not isinstance(take, Nothing)]
        loose = loose or [values[-1] * 0]
        # A convolution of maps side by side is the sum of those of each.
        return torch.cat(loose, dim=1) if self.norm is None else self.norm(functools.reduce(operator.add, loose))


class Nao(nn.Module):
    """Stem, cells, classifier. Maps images [N, in_channels, H, W] to logits [N, num_classes].

    In training, a network with an auxiliary classifier returns a tuple: its logits and those of the auxiliary one.

    Raises:
        ValueError: No cells.
    """

    searched = DECISIONS
    topology = staticmethod(topology)

    def __init__(self, layout: Layout, num_classes: int, in_channels: int) -> None:
        super().__init__()
        if layout.cells < 1:
            raise ValueError(f"cells is {layout.cells}: at least 1 is needed before, between and after the reductions")
        self.evaluation = layout.evaluation
        channels, total = layout.channels, 3 * layout.cells + 2
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, 3 * channels, 3, padding=1, bias=False), nn.BatchNorm2d(3 * channels)
        )
        reductions = (layout.cells, 2 * layout.cells + 1)
        sources = (Source(3 * channels, None, 0),) * 2
        self.cells = nn.ModuleList()
        for index in range(total):
            kind, halvings = "normal", sources[1].halvings
            if index in reductions:
                kind, halvings, channels = "reduction", halvings + 1, 2 * channels
            self.cells.append(Cell(kind, sources, channels, layout.evaluation, (index + 1) / total))
            made = Source(channels, kind if layout.evaluation else None, halvings)
            sources = (sources[1], made)
            if index == reductions[1]:
                head = functools.partial(AuxiliaryHead, num_classes=num_classes, imagenet=False)
                self.auxiliary = _any_width(made, head) if layout.auxiliary else None
        self.auxiliary_after = reductions[1]
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(layout.dropout)
        self.classifier = _any_width(sources[1], functools.partial(nn.Linear, out_features=num_classes))
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.kaiming_normal_(parameter)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        before_last = last = self.stem(x)
        auxiliary = None
        for index, cell in enumerate(self.cells):
            before_last, last = last, cell(before_last, last)
            if self.training and self.auxiliary is not None and index == self.auxiliary_after:
                auxiliary = self.auxiliary(last)
        logits = self.classifier(self.dropout(torch.flatten(self.pool(last), 1)))
        return logits if auxiliary is None else (logits, auxiliary)

    def choose(self, architecture: Mapping[str, str]) -> dict[str, str]:
        """See :func:`raynas.spaces.nao_genotype.choose`."""
        return choose(architecture, self.evaluation)

    def canonical_form(self, architecture: Mapping[str, str]) -> dict[str, str]:
        """See :func:`raynas.spaces.nao_genotype.canonical_form`."""
        return canonical_form(architecture)

    def graph(self, architecture: Mapping[str, str]) -> list[tuple[int, int, str | None]]:
        """See :func:`raynas.spaces.nao_genotype.graph`."""
        return graph(architecture)

    def sequence_encoding(self) -> Notation:
        """The sequence of 40 that NAO reads and writes, in which the operations of a node may be exchanged."""
        return Notation(tuple(DECISIONS.values()), to_words, from_words, respell)

    def surrogate_norm(self, option: str, channels: int) -> float | None:
        """The squared length of what stands for an option without weights in an angle, as in the space of DARTS."""
        constants = {"none": None, "read": None, "skip_connect": float(channels)}
        return constants.get(option, channels / 9)


def nao(
    num_classes: int = 10,
    in_channels: int = 3,
    channels: int = 20,
    cells: int = 2,
    evaluation: bool = False,
    auxiliary: bool = False,
) -> Nao:
    """The space for images of 32 pixels.

    A found architecture is trained by itself with ``channels=36, cells=6, evaluation=True, auxiliary=True``, and then
    has the dropout of the paper, too.
    """
    dropout = 0.4 if evaluation else 0.0
    return Nao(Layout(channels, cells, evaluation, auxiliary, dropout), num_classes, in_channels)
