"""What may be searched of a space of networks, and what else a searcher may know of it."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from raynas.config.run import Config
from raynas.costs.counter import Costs
from raynas.costs.device import LatencyBenchmark
from raynas.costs.feasibility import check_satisfiable
from raynas.costs.latency import Latency, timed
from raynas.data.dataset import Data
from raynas.evaluation.proxies.evaluator import ZeroCostProxies, check_scores
from raynas.evaluation.proxies.filter import filtered
from raynas.exceptions import ConfigError
from raynas.runs.bad_input import validating
from raynas.search_space.constraints import COSTS, LATENCY, Limits, check_objectives, violation
from raynas.search_space.space import SearchSpace
from raynas.tasks.base import task_of

__all__ = ["NetworkSpace"]


class NetworkSpace:
    """The search space of a run, and what is asked of it.

    Args:
        config: The run's settings: limits, objectives, ``search.filter`` and ``latency``.
        space: The network with its Choices and initial weights.
        costs: What its architectures cost.
        data: What zero-cost scores see.

    Raises:
        ValueError: A limit, an objective or a score that is illegal; limits that nothing keeps.
    """

    def __init__(self, config: Config, space: nn.Module, costs: Costs, data: Data) -> None:
        self.config, self.space, self.costs, self.data = config, space, costs, data
        wanted = [name for name in (*config.limits, *config.search.objectives) if name == LATENCY]
        if wanted and config.latency.place is None:
            raise ConfigError(f"{LATENCY} is measured: say where, e.g. --latency-on local (see latency.place)")
        legal = COSTS if config.latency.place is None else (*COSTS, LATENCY)
        with validating():
            self.limits = Limits.parse(config.limits, legal)
            self.objectives = check_objectives(config.search.objectives, legal)
        self.counted = Limits({name: pair for name, pair in self.limits.bounds.items() if name != LATENCY})
        """The limits on what needs no measurement."""
        check_satisfiable(costs, self.counted)
        self._proxies = self._zero_cost_proxies()

    def latency(self, folder: Path) -> Latency | None:
        """What tells latency, if that is wanted; ``folder`` is that of the run."""
        settings = self.config.latency
        if settings.place is None:
            return None
        benchmark = LatencyBenchmark(self.space, task_of(self.data).example(settings.batch), settings)
        return Latency(self.costs, benchmark, folder / "latency.jsonl", self.limits)

    def search_space(self, latency: Latency | None = None) -> SearchSpace:
        """The search space; without latency the limits on it do not count."""
        costs, search, seed = self.costs, self.config.search, self.config.seed
        space = SearchSpace(
            costs.decisions, costs.canonical, violation(costs, self.counted), graph=costs.graph,
            costs=costs, objectives=self.objectives, notation=costs.notation,
        )  # fmt: skip
        if latency is not None:
            space = timed(space, costs, latency, self.limits)
        return space if self._proxies is None else filtered(space, self._proxies, search.filter, seed)

    def _zero_cost_proxies(self) -> ZeroCostProxies | None:
        """The zero-cost proxies of ``search.filter``; None without a filter."""
        settings = self.config.search.filter
        if settings.score is None:
            return None
        names = check_scores(settings.score, "search.filter.score")
        return ZeroCostProxies.of(self.space, self.costs, self.data, names, settings.images, self.config.seed)
