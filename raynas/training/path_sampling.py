"""Which paths of a space a training step takes.

A sampler is a function of only the step number, ``sampler(step) -> [architecture, ...]``: all ranks of a
data-parallel run draw the same paths without communication, and a resumed run continues as if it had never
stopped. A step trains its paths one after the other and updates the weights once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from raynas import architecture as arch
from raynas.architecture import Architecture, Decisions

__all__ = ["CellPaths", "ConstrainedPaths", "FairPaths", "PathSampler", "ProportionalPaths", "UniformPaths"]

PathSampler = Callable[[int], list[Architecture]]


@dataclass(frozen=True)
class UniformPaths:
    """One path a step, every decision uniform (single path one-shot, Guo et al., ECCV 2020).

    Where several architectures are the same network, ``canonical`` makes them train the same weights: those that
    are scored later.
    """

    decisions: Decisions
    seed: int = 0
    canonical: Callable[[Architecture], Architecture] | None = None

    def __call__(self, step: int) -> list[Architecture]:
        """The paths of a step."""
        path = arch.sample(self.decisions, Random(f"{self.seed}/uniform/{step}"))
        return [path if self.canonical is None else self.canonical(path)]


@dataclass(frozen=True)
class ConstrainedPaths:
    """One path a step, uniform over MACs between two bounds: the default of SPOS where MACs are limited.

    One of ``bins`` equally wide intervals is drawn, then paths until one lies in it. After ``attempts`` misses the
    nearest path found is taken, so that rare intervals do not hold up the training.
    """

    decisions: Decisions
    macs: Callable[[Architecture], float]
    window: tuple[float, float]
    bins: int = 7
    attempts: int = 500
    seed: int = 0
    canonical: Callable[[Architecture], Architecture] | None = None

    def __call__(self, step: int) -> list[Architecture]:
        """The paths of a step."""
        rng = Random(f"{self.seed}/constrained/{step}")
        width = (self.window[1] - self.window[0]) / self.bins
        low = self.window[0] + width * rng.randrange(self.bins)
        best, best_miss = None, float("inf")
        for _ in range(self.attempts):
            path = arch.sample(self.decisions, rng)
            cost = self.macs(path)
            miss = max(low - cost, cost - (low + width), 0.0)
            if best is None or miss < best_miss:
                best, best_miss = path, miss
            if miss == 0.0:
                break
        assert best is not None
        return [best if self.canonical is None else self.canonical(best)]


@dataclass(frozen=True)
class ProportionalPaths:
    """One path a step, each with a chance in proportion to its size: the larger ones need more training (NAO-V2).

    Uniform paths are drawn and kept with a chance of their size as a share of ``largest``; of those that are larger
    still none is refused. After ``attempts`` refusals the last one is taken.
    """

    decisions: Decisions
    parameters: Callable[[Architecture], float]
    largest: float
    attempts: int = 500
    seed: int = 0
    canonical: Callable[[Architecture], Architecture] | None = None

    def __call__(self, step: int) -> list[Architecture]:
        """The paths of a step."""
        rng = Random(f"{self.seed}/proportional/{step}")
        path: Architecture = {}
        for _ in range(self.attempts):
            path = arch.sample(self.decisions, rng)
            path = path if self.canonical is None else self.canonical(path)
            if rng.random() * self.largest <= self.parameters(path):
                break
        return [path]


@dataclass(frozen=True)
class CellPaths:
    """One path a step, in which every repetition of a cell draws its own architecture (RLNAS on NAS-Bench-201).

    The path names the places of the Choices, not the decisions that they share.

    Args:
        decisions: Of the cell, as of the space.
        places: Where the Choices of each decision stand, one for every repetition.
        complete: What a cell that is drawn must be; others are drawn again.
        attempts: After so many the last one is taken.
        seed: Of all draws.
    """

    decisions: Decisions
    places: Mapping[str, Sequence[str]]
    complete: Callable[[Architecture], bool]
    attempts: int = 500
    seed: int = 0

    def __call__(self, step: int) -> list[Architecture]:
        """The paths of a step."""
        rng = Random(f"{self.seed}/cells/{step}")
        path: Architecture = {}
        for repetition in zip(*self.places.values(), strict=True):
            cell = self._draw(rng)
            path |= {place: cell[name] for name, place in zip(self.places, repetition, strict=True)}
        return [path]

    def _draw(self, rng: Random) -> Architecture:
        for _ in range(self.attempts):
            cell = arch.sample(self.decisions, rng)
            if self.complete(cell):
                break
        return cell


@dataclass(frozen=True)
class FairPaths:
    """As many paths a step as the widest decision has options, every option once (strict fairness, FairNAS).

    Chu et al., ICCV 2021. A decision with fewer options works through random orders of them without a break, so
    that at no time one of its options is ahead of another by more than one visit.
    """

    decisions: Decisions
    seed: int = 0

    def __call__(self, step: int) -> list[Architecture]:
        """The paths of a step."""
        paths = max(len(options) for options in self.decisions.values())
        drawn = {name: self._visits(name, step * paths, paths) for name in self.decisions}
        return [arch.canonical(self.decisions, {name: drawn[name][i] for name in drawn}) for i in range(paths)]

    def _visits(self, name: str, start: int, count: int) -> list[str]:
        """Entries ``start`` to ``start + count`` of a decision's endless sequence of random orders."""
        options = self.decisions[name]
        visits: list[str] = []
        for order in range(start // len(options), (start + count - 1) // len(options) + 1):
            visits += Random(f"{self.seed}/fair/{name}/{order}").sample(list(options), len(options))
        skip = start % len(options)
        return visits[skip : skip + count]
