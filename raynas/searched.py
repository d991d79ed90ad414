"""Where a run over networks searches: its decisions within its limits, and what else a searcher may know of them."""

from __future__ import annotations

from torch import nn

from raynas.config import Config, FeaturesConfig, FilterConfig
from raynas.constraints import check_satisfiable
from raynas.costs import Costs
from raynas.data import Data
from raynas.filter import filtered
from raynas.foretelling import foretold
from raynas.limits import Limits, check_objectives, violation
from raynas.searchers import SearchSpace
from raynas.untrained import Untrained, check_scores

__all__ = ["searched"]


def searched(config: Config, space: nn.Module, costs: Costs, data: Data) -> SearchSpace:
    """The architectures of a space that a run may propose, as data and functions.

    Args:
        config: Limits, objectives, ``search.filter`` and ``search.features``.
        space: With its initial weights.
        costs: Of the same space.
        data: Tells zero-cost scores what they see.

    Raises:
        InfeasibleError: No architecture keeps the limits.
        ConfigError: An objective or a score is unknown.
    """
    limits, search, seed = Limits.parse(config.limits), config.search, config.seed
    check_satisfiable(costs, limits)
    found = SearchSpace(
        costs.decisions, costs.canonical, violation(costs, limits), graph=costs.graph,
        costs=costs, objectives=check_objectives(search.objectives), notation=costs.notation,
    )  # fmt: skip

    def untrained(settings: FilterConfig | FeaturesConfig, name: str) -> Untrained:
        names = check_scores(settings.score or [], f"search.{name}.score")
        return Untrained.of(space, costs, data, names, settings.images, seed)

    if search.filter.score is not None:
        found = filtered(found, untrained(search.filter, "filter"), search.filter, seed)
    if search.features.score is not None:
        found = foretold(found, untrained(search.features, "features"), search.features, seed)
    return found
