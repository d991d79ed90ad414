"""What may be searched of a space of networks: its decisions under the limits and the filter of a run."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from raynas.config import Config, ConfigError
from raynas.constraints import check_satisfiable
from raynas.costs import Costs
from raynas.data import Dataset
from raynas.filter import filtered
from raynas.latency import Latency, timed
from raynas.limits import COSTS, LATENCY, Limits, check_objectives, violation
from raynas.searchers import SearchSpace
from raynas.timing import Stopwatch
from raynas.untrained import Untrained, check_scores

__all__ = ["NetworkSpace"]


class NetworkSpace:
    """The search space of a run, and what is asked of it.

    Args:
        config: The run's settings.
        space: The network with its Choices.
        costs: What its architectures cost.
        data: For the filter.

    Raises:
        ValueError: A limit, an objective or a filter that is illegal; limits that nothing keeps.
    """

    def __init__(self, config: Config, space: nn.Module, costs: Costs, data: Dataset) -> None:
        self.config, self.space, self.costs, self.data = config, space, costs, data
        wanted = [name for name in (*config.limits, *config.search.objectives) if name == LATENCY]
        if wanted and config.latency.place is None:
            raise ConfigError(f"{LATENCY} is measured: say where, e.g. --latency-on local (see latency.place)")
        legal = COSTS if config.latency.place is None else (*COSTS, LATENCY)
        self.limits = Limits.parse(config.limits, legal)
        self.counted = Limits({name: pair for name, pair in self.limits.bounds.items() if name != LATENCY})
        """The limits on what needs no measurement."""
        self.objectives = check_objectives(config.search.objectives, legal)
        self._scores = () if config.search.filter.score is None else check_scores(
            config.search.filter.score, "search.filter.score"
        )  # fmt: skip
        check_satisfiable(costs, self.counted)

    def latency(self, folder: Path) -> Latency | None:
        """What tells latency, if that is wanted; ``folder`` is that of the run."""
        settings = self.config.latency
        if settings.place is None:
            return None
        stopwatch = Stopwatch(self.space, self.data.image_shape, settings)
        return Latency(self.costs, stopwatch, folder / "latency.jsonl", self.limits)

    def search_space(self, latency: Latency | None = None) -> SearchSpace:
        """The search space; without latency the limits on it do not count."""
        costs, settings = self.costs, self.config.search.filter
        space = SearchSpace(
            costs.decisions, costs.canonical, violation(costs, self.counted), graph=costs.graph,
            costs=costs, objectives=self.objectives,
        )  # fmt: skip
        if latency is not None:
            space = timed(space, costs, latency, self.limits)
        if not self._scores:
            return space
        untrained = Untrained.of(self.space, costs, self.data, self._scores, settings.images, self.config.seed)
        return filtered(space, untrained, settings, self.config.seed)
