"""Weight angle: the angle between the initial and the trained weights of an architecture, a metric without data.

The weights of an architecture form one long vector. Its direction changes in training, and more so in networks that
learn faster (ABS, Hu et al., ECCV 2020; RLNAS, Zhang et al., CVPR 2021). The vector holds the fixed parts of the
network once, and for every path from an input to an output the operations on that path: an operation on three paths is
counted three times. An operation without weights has a constant in their place; one that carries nothing cuts the paths
through it. Without such constants the angle does not change if all weights are scaled by a positive number.

The vector is never built. The angle needs three sums over the two vectors, their product and their squares, and each is
a sum over the operations, weighted by the number of paths through them.
:class:`raynas.evaluation.angle_statistics.AngleStatistics` computes the sums of each operation once; this module
computes the angles of thousands of architectures from them, and imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from graphlib import TopologicalSorter
from typing import Any

import numpy as np
import numpy.typing as npt

from raynas import architecture as arch
from raynas.architecture import Decisions, Graph
from raynas.exceptions import AngleError
from raynas.search_space.encoding import Codes

__all__ = ["Angles"]

Array = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Angles:
    """The angle of every architecture of a space, between two states of its weights.

    Args:
        decisions: The options of the Choices; those of the space, where it is not searched in other terms.
        topology: Where they lie between input and output; see :func:`raynas.nn.space.topology`. Each of them is there,
            or is nested in one that is.
        fixed: Product and squares of the two weight vectors of the fixed parts: [3].
        products: The same of each option: [number of decisions, 1 + most options, 3], the options from place 1 on.
        carries: Whether it carries anything: [number of decisions, 1 + most options].
        choose: Maps an architecture to the option of every Choice, where the space is searched in other terms.
    """

    decisions: Decisions
    topology: Graph
    fixed: Array
    products: Array
    carries: Flags
    choose: Callable[[Mapping[str, str]], Mapping[str, str]] | None = None

    @cached_property
    def codes(self) -> Codes:
        """Architectures as places in ``products``."""
        return Codes(self.decisions)

    def __call__(self, architectures: Iterable[Mapping[str, str]]) -> Array:
        """The angles of N architectures in degrees, 0 to 180: [N]. Where an output is cut off it is 0.

        Raises:
            ArchitectureError: The space does not contain one of them.
        """
        return np.degrees(np.arccos(self.cosines(architectures)))

    def cosines(self, architectures: Iterable[Mapping[str, str]]) -> Array:
        """The cosines of these angles: [N], from -1 to 1."""
        codes = self.codes.encode(architectures if self.choose is None else map(self.choose, architectures))
        ways, connected = self._ways(codes)
        chosen = self.products[np.arange(codes.shape[1]), codes]
        product, first, second = (self.fixed + np.einsum("nd,ndk->nk", ways, chosen)).T
        if not np.isfinite(product).all():
            raise AngleError("the weights of the supernet are not all finite numbers: train it again, at a lower rate")
        length = np.sqrt(first * second)
        # Rounding may exceed 1; weights that are all zero have no direction to turn from.
        cosines = np.divide(product, length, out=np.ones_like(product), where=length > 0)
        clamped: Array = np.clip(cosines, -1.0, 1.0)
        # No path through the network: nothing of it learns.
        return np.where(connected, clamped, 1.0)

    def _ways(self, codes: npt.NDArray[Any]) -> tuple[Array, Flags]:
        """The number of paths through each decision, [N, D], and whether all outputs are reached, [N]."""
        column = {name: number for number, name in enumerate(self.decisions)}
        leads = [
            np.ones(len(codes)) if name is None else self.carries[column[name], codes[:, column[name]]].astype(float)
            for _, _, name in self.topology
        ]
        # Paths from the inputs to a node, and from a node to the outputs.
        before, after = (self._reaching(leads, backwards) for backwards in (False, True))
        ways = np.zeros(codes.shape)
        for (source, target, name), lead in zip(self.topology, leads, strict=True):
            if name is not None:
                ways[:, column[name]] += before[source] * lead * after[target]
        for name in sorted(self.decisions, key=lambda name: name.count(".")):
            above = arch.parent(self.decisions, name)
            if above is not None:
                ways[:, column[name]] += ways[:, column[above[0]]]
        outputs = {target for _, target, _ in self.topology} - {source for source, _, _ in self.topology}
        return ways, np.all([before[node] > 0 for node in outputs], axis=0)

    def _reaching(self, leads: list[Array], backwards: bool) -> dict[int, Array]:
        """The number of paths from the start (or the end) of the topology to each node: [N] each."""
        edges = [((t, s) if backwards else (s, t), lead) for (s, t, _), lead in zip(self.topology, leads, strict=True)]
        order: TopologicalSorter[int] = TopologicalSorter()
        for (source, target), _ in edges:
            order.add(target, source)
        found: dict[int, Array] = {}
        for node in order.static_order():
            entering = [found[source] * lead for (source, target), lead in edges if target == node]
            found[node] = np.sum(entering, axis=0) if entering else np.ones_like(leads[0])
        return found
