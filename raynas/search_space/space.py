"""The search space as data and functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from raynas import architecture as arch
from raynas.architecture import Architecture, Decisions, Graph, Notation
from raynas.exceptions import SpaceError

__all__ = ["SearchSpace"]


@dataclass(frozen=True)
class SearchSpace:
    """The architectures a searcher may propose, as data and functions.

    Args:
        decisions: Every decision by name, with its options; nested ones by their names.
        canonical: Maps an architecture to the one form of all that describe the same network. Nothing is proposed
            twice in this form. Without it only decisions under unchosen options are dropped.
        violation: The constraint: 0 where an architecture meets it, else by how much it is missed (any unit;
            smaller is closer). Infinity says only that it is missed.
        alike: Maps an architecture to what a model of the scores compares instead of it: one form for all that
            score about the same, although each of them may be proposed. By default the architecture itself.
        graph: The operations of an architecture that lie between input and output of the network, for models that
            know about structure; see :data:`raynas.architecture.Graph`.
        costs: What an architecture costs, by name: known before it is scored, exact unless there is ``measure``.
        objectives: Names of costs that are minimised beside the score.
        ordered: The decisions whose options are levels of a number, so that neighbours score alike.
        notation: How its architectures are written as sequences; by default one word for each decision.
        measure: Called with an architecture before it is proposed: from then on its costs and its violation are exact,
            which were predicted before. Where it turns out to miss the constraint another one is proposed.

    Raises:
        SpaceError: No decision, or one without options or with the same option twice; objectives without costs.
    """

    decisions: Decisions
    canonical: Callable[[Architecture], Architecture] | None = None
    violation: Callable[[Architecture], float] | None = None
    alike: Callable[[Architecture], Architecture] | None = None
    graph: Callable[[Architecture], Graph] | None = None
    costs: Callable[[Architecture], Mapping[str, float]] | None = None
    objectives: tuple[str, ...] = ()
    ordered: frozenset[str] = frozenset()
    notation: Notation | None = None
    measure: Callable[[Architecture], None] | None = None

    def __post_init__(self) -> None:
        if not self.decisions:
            raise SpaceError("a search space needs at least one decision, got none")
        for name, options in self.decisions.items():
            if not options or len(set(options)) < len(options):
                raise SpaceError(f"decision {name!r} needs distinct options, got {tuple(options)}")
        if self.objectives and self.costs is None:
            raise SpaceError(f"objectives {', '.join(self.objectives)} need costs, got none")

    def form(self, architecture: Mapping[str, str]) -> Architecture:
        """The canonical form of an architecture.

        Raises:
            ArchitectureError: The space does not contain it; the legal decisions or options are named.
        """
        form = arch.canonical(self.decisions, architecture)
        return form if self.canonical is None else arch.canonical(self.decisions, self.canonical(form))
