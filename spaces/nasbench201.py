"""The cell space of NAS-Bench-201: one cell of four nodes and six edges, repeated through a small residual network.

Dong and Yang, "NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture Search", ICLR 2020. Every edge
is one decision with five options, and all cells of the network follow the same six decisions.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from raynas.nn.choice import Choice

__all__ = [
    "DECISIONS",
    "Cell",
    "NasBench201",
    "canonical_form",
    "from_string",
    "graph",
    "is_connected",
    "nasbench201",
    "to_string",
]

OPTIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
# Source and target node of every edge. The output of a node is the sum of its incoming edges.
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
DECISIONS: dict[str, tuple[str, ...]] = {f"edge_{i}": OPTIONS for i in range(len(EDGES))}


class Zero(nn.Module):
    """No connection: zeros of the input's shape."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)


def _relu_conv_bn(inputs: int, outputs: int, kernel: int, stride: int, affine: bool) -> nn.Sequential:
    # The ReLU is not in place: its input may be a node that other edges read, too.
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs, affine=affine),
    )


class Cell(nn.Module):
    """The searched cell. Maps [N, channels, H, W] to the same shape."""

    def __init__(self, channels: int, affine: bool = True) -> None:
        super().__init__()
        self.edges = nn.ModuleList(
            Choice(
                none=Zero(),
                skip_connect=nn.Identity(),
                nor_conv_1x1=_relu_conv_bn(channels, channels, 1, 1, affine),
                nor_conv_3x3=_relu_conv_bn(channels, channels, 3, 1, affine),
                avg_pool_3x3=nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False),
                decision=decision,
            )
            for decision in DECISIONS
        )

    def forward(self, x: Tensor) -> Tensor:
        edges = self.edges
        first = edges[0](x)
        second = edges[1](x) + edges[2](first)
        return edges[3](x) + edges[4](first) + edges[5](second)


class Residual(nn.Module):
    """Halves the resolution between two stages. Maps [N, inputs, H, W] to [N, outputs, H / 2, W / 2]."""

    def __init__(self, inputs: int, outputs: int, affine: bool = True) -> None:
        super().__init__()
        self.transform = nn.Sequential(
            _relu_conv_bn(inputs, outputs, 3, 2, affine), _relu_conv_bn(outputs, outputs, 3, 1, affine)
        )
        self.shortcut = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(inputs, outputs, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.transform(x)


class NasBench201(nn.Module):
    """Stem, three stages of cells with a residual block between them, head.

    Maps images [N, in_channels, H, W] to logits [N, num_classes].
    """

    def __init__(self, num_classes: int, in_channels: int, channels: int, cells: int, affine: bool = True) -> None:
        super().__init__()
        self.affine = affine
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels, affine=affine)
        )
        widths = (channels, 2 * channels, 4 * channels)
        layers: list[nn.Module] = []
        for stage, width in enumerate(widths):
            if stage > 0:
                layers.append(Residual(widths[stage - 1], width, affine))
            layers.extend(Cell(width, affine) for _ in range(cells))
        self.cells = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.BatchNorm2d(widths[-1], affine=affine), nn.ReLU(inplace=True))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(widths[-1], num_classes)  # all weights begin as PyTorch's own, as in the benchmark

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(self.cells(self.stem(x)))
        return self.classifier(torch.flatten(self.pool(x), 1))

    def canonical_form(self, architecture: Mapping[str, str]) -> dict[str, str]:
        """See :func:`canonical_form`."""
        return canonical_form(architecture, self.affine)

    def graph(self, architecture: Mapping[str, str]) -> list[tuple[int, int, str | None]]:
        """See :func:`graph`."""
        return graph(architecture)

    def topology(self) -> list[tuple[int, int, str | None]]:
        """The decisions between the nodes of a cell."""
        return [(source, target, decision) for (source, target), decision in zip(EDGES, DECISIONS, strict=True)]

    def complete(self, architecture: Mapping[str, str]) -> bool:
        """Whether every node has an input: the cells that RLNAS trains."""
        fed = {target for (_, target), name in zip(EDGES, DECISIONS, strict=True) if architecture[name] != "none"}
        return len(fed) == 3

    def surrogate_norm(self, option: str, channels: int) -> float | None:
        """The surrogate weight norm of an option without weights in an angle, as in RLNAS; None: no path."""
        return {"none": None, "skip_connect": 0.0, "avg_pool_3x3": channels / 9}[option]


def nasbench201(
    num_classes: int = 10, in_channels: int = 3, channels: int = 16, cells: int = 5, affine: bool = True
) -> NasBench201:
    """The space of the benchmark; by default for CIFAR-10.

    Args:
        num_classes: Number of classes.
        in_channels: Channels of the images.
        channels: Width of the first stage; it doubles twice.
        cells: Cells of each of the three stages.
        affine: Whether the BatchNorms have learnable parameters.
    """
    return NasBench201(num_classes, in_channels, channels, cells, affine)


def _nonzero_nodes(architecture: Mapping[str, str], affine: bool) -> set[int]:
    """The nodes whose value is not zero for every input. A BatchNorm's bias turns zeros into a constant."""
    nodes = {0}
    for (source, target), decision in zip(EDGES, DECISIONS, strict=True):
        if _carries(architecture[decision], source in nodes, affine):
            nodes.add(target)
    return nodes


def _carries(option: str, nonzero: bool, affine: bool) -> bool:
    return option != "none" and (nonzero or (affine and option.startswith("nor_conv")))


def is_connected(architecture: Mapping[str, str]) -> bool:
    """Whether the output of the cell depends on its input. In 341 of the 15,625 cells it does not."""
    return 3 in _nonzero_nodes(architecture, affine=False)


def canonical_form(architecture: Mapping[str, str], affine: bool = True) -> dict[str, str]:
    """The architecture without its dead edges: those that add nothing to the output become "none".

    An edge is dead if its value never reaches the output, or is always zero. Only networks that are equal with shared
    weights are merged: cells of the same shape with the weights of different edges are not. A convolution of zeros is
    dead only without learnable BatchNorm parameters: with them it adds a learned constant.
    """
    nonzero = _nonzero_nodes(architecture, affine)
    used = {3}
    form = dict(architecture)
    for (source, target), decision in reversed(list(zip(EDGES, DECISIONS, strict=True))):
        if target in used and _carries(architecture[decision], source in nonzero, affine):
            used.add(source)
        else:
            form[decision] = "none"
    return form


def graph(architecture: Mapping[str, str]) -> list[tuple[int, int, str | None]]:
    """The operations of the cell as edges between its nodes; see :data:`raynas.architecture.Graph`."""
    return [
        (source, target, None if architecture[decision] == "skip_connect" else architecture[decision])
        for (source, target), decision in zip(EDGES, DECISIONS, strict=True)
        if architecture[decision] != "none"
    ]


def to_string(architecture: Mapping[str, str]) -> str:
    """The architecture in the notation of the benchmark, ``"|op~0|+|op~0|op~1|+|op~0|op~1|op~2|"``."""
    nodes: dict[int, str] = {}
    for (source, target), decision in zip(EDGES, DECISIONS, strict=True):
        nodes[target] = nodes.get(target, "|") + f"{architecture[decision]}~{source}|"
    return "+".join(nodes.values())


def from_string(text: str) -> dict[str, str]:
    """The architecture that the benchmark writes as ``text``; the inverse of :func:`to_string`.

    Raises:
        ValueError: The text is not in that notation, or names an unknown operation.
    """
    parts = [part for part in text.replace("+", "|").split("|") if part]
    options = [part.partition("~")[0] for part in parts]
    unknown = [option for option in options if option not in OPTIONS]
    if unknown:
        raise ValueError(f"unknown operation {unknown[0]!r} in {text!r}; legal ones: {', '.join(OPTIONS)}")
    architecture = dict(zip(DECISIONS, options, strict=False))
    if len(options) != len(DECISIONS) or to_string(architecture) != text:
        raise ValueError(f"{text!r} is not a NAS-Bench-201 cell: expected |op~0|+|op~0|op~1|+|op~0|op~1|op~2|")
    return architecture
