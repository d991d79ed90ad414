"""What a run searches: the search space, its costs and limits, the objective, and the searcher that starts on it.

A space of networks counts its own costs. A space that is data alone, decisions by name without a network, has the costs
that the evaluator knows, for example from a table.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from raynas.architecture import Architecture, Decisions
from raynas.config.run import Config
from raynas.costs.latency import Latency
from raynas.exceptions import ConfigError, InfeasibleError, SpaceError, UnsatisfiableError
from raynas.metrics import Metric, Objective
from raynas.results.log import RESERVED
from raynas.runs.network_space import NetworkSpace
from raynas.runs.warm_start import Source
from raynas.search_space.constraints import LATENCY, Limits, Profile, check_objectives, violation
from raynas.search_space.joint import joined
from raynas.search_space.space import SearchSpace
from raynas.searchers import ArchitectureSearcher
from raynas.searchers.random import random_architectures
from raynas.tune.evaluator import CostModel, Evaluator
from raynas.tune.trial import BatchTrial
from raynas.utils.imports import resolve
from raynas.utils.user_code import validating

__all__ = ["NoCosts", "SearchProblem", "check_combination", "tabular_space"]

log = logging.getLogger(__name__)


class NoCosts:
    """The cost model where no costs are known."""

    def __call__(self, architecture: Mapping[str, str], /) -> dict[str, float]:
        """No costs."""
        return {}

    def profile(self) -> dict[str, Profile]:
        """No ranges."""
        return {}

    def __str__(self) -> str:
        return "no costs are known"


class SearchProblem:
    """What a run searches, and how a searcher starts on it.

    Args:
        config: The settings of the run.
        space: The space of networks, or a space that is data alone.
        searcher: Makes the searcher of a SearchSpace, ``seed``, ``metric`` and ``mode``; its class will do.
        evaluator: Knows the objective, and the costs of a space that is data alone.

    Raises:
        ValueError: A limit, an objective or a setting of the searcher is illegal.
    """

    def __init__(
        self,
        config: Config,
        space: NetworkSpace | SearchSpace,
        searcher: Callable[..., ArchitectureSearcher],
        evaluator: type[Evaluator],
    ) -> None:
        self._config, self._make, self._evaluator = config, searcher, evaluator
        self._networks = space if isinstance(space, NetworkSpace) else None
        self.costs: CostModel
        if isinstance(space, NetworkSpace):
            self.costs, self.limits, plain = space.costs, space.limits, space.search_space()
        else:
            self.costs, self.limits, plain = _with_costs(config, space, evaluator)
        self.search_space = self._joined(plain)
        """What may be proposed, within the limits; a training that shrinks the space leaves less of it."""
        self.decisions: Decisions = self.search_space.decisions
        """All decisions that were open at first."""
        self.latency: Latency | None = None
        """The latency model, with ``latency.place``; None before :meth:`load`."""
        self.source: Source | None = None
        """What a warm start begins with; None before :meth:`load`."""
        self.first: list[Architecture] = []
        """What a searcher proposes first: the pool that a training has left."""
        with validating():
            self.searcher()
        check_combination(evaluator, config)

    def _joined(self, space: SearchSpace) -> SearchSpace:
        """The space with the training settings that are searched, too: see ``search.joint``."""
        return joined(space, self._config.search, self._evaluator.traits.searches_hyperparameters)

    def load(self, folder: Path) -> None:
        """Read what a warm start begins with, and the latencies that are measured already.

        Raises:
            ConfigError: The run that ``search.warm_start`` names cannot be used.
        """
        if self._networks is not None:
            self.latency = self._networks.latency(folder)
            if self.latency is not None and self.latency.ready:
                self.search_space = self._joined(self._networks.search_space(self.latency))
        if self._config.search.warm_start is not None:
            self.source = Source.of(self._config, folder, self.search_space, self.objective.mode)
            with validating():
                self.searcher()

    @property
    def metric(self) -> Metric | None:
        """The metric of the task; None where there is no network."""
        return None if self._networks is None else self._networks.task.metric

    @property
    def objective(self) -> Objective:
        """What a score of this run is, and whether a high one is good (max) or a low one (min)."""
        return Objective("combined rank") if self._config.search.combine else self.evaluator_objective

    @property
    def evaluator_objective(self) -> Objective:
        """What the evaluator itself scores by, before metrics are combined."""
        return self._evaluator.objective(self._config, self.metric)

    def costs_of(self, architecture: Architecture) -> Mapping[str, float]:
        """The costs of an architecture by name."""
        return (self.search_space.costs or self.costs)(architecture)

    def profile(self) -> Mapping[str, Profile]:
        """The range of each cost over the space."""
        known = dict(self.costs.profile())
        return known if self.latency is None or not self.latency.ready else known | {LATENCY: self.latency.profile()}

    def violation(self, architecture: Architecture) -> float:
        """By how much an architecture breaks the limits of now: those on latency count once some are measured."""
        return 0.0 if self.search_space.violation is None else self.search_space.violation(architecture)

    def narrow(self, decisions: Decisions) -> None:
        """Search among these options alone."""
        assert self._networks is not None
        self._networks.costs.narrow(decisions)
        self.search_space = dataclasses.replace(self.search_space, decisions=decisions)

    def calibrate_latency(self, folder: Path, say: Callable[[str], None]) -> None:
        """Measure some architectures for the latency model, and from then on search within the limits on latency.

        Raises:
            ConfigError: The cluster has no such device.
            InfeasibleError: By prediction no architecture meets the limits.
        """
        assert self.latency is not None and self._networks is not None
        self.latency.calibrate(self._config.seed, say)
        self.search_space = self._joined(self._networks.search_space(self.latency))
        try:
            random_architectures(self.search_space, 1, self._config.seed)
        except UnsatisfiableError:
            ranges = "; ".join(f"{name}: {profile}" for name, profile in self.profile().items())
            raise InfeasibleError(f"no architecture was found with {self.limits}; {ranges}") from None

    def searcher(self, journal: Path | None = None, **keywords: Any) -> ArchitectureSearcher:
        """A fresh searcher of the space as it is now.

        Args:
            journal: The file for the diagnostics of a searcher that has a model.
            keywords: ``metric`` and ``mode``.
        """
        if self.first:
            keywords["points_to_evaluate"] = self.first
        if journal is not None and "journal" in inspect.signature(self._make).parameters:
            keywords["journal"] = journal
        return self._fresh(self.search_space, **keywords)

    def searcher_between_rounds(self, **keywords: Any) -> ArchitectureSearcher:
        """A searcher for a round of the training, in which no latency is measured."""
        return self._fresh(dataclasses.replace(self.search_space, measure=None), **keywords)

    def _fresh(self, space: SearchSpace, **keywords: Any) -> ArchitectureSearcher:
        make = functools.partial(self._make, space, seed=self._config.seed)
        return (make if self.source is None else self.source.warm(make))(**keywords)


def check_combination(evaluator: type[Evaluator], config: Config) -> None:
    """Refuse to combine metrics that the evaluator does not report; called before anything is started.

    Raises:
        ConfigError: It names the metric or the weight.
    """
    search = config.search
    if not search.combine:
        return
    weights = search.combine.values()
    if not all(map(math.isfinite, weights)) or not any(weights):
        raise ConfigError(f"search.combine = {dict(search.combine)}; legal: finite weights, some of them not 0")
    if not issubclass(evaluator, BatchTrial):
        raise ConfigError(
            f"search.combine: {search.trainable} has one score; legal for trainables that report metrics in cohorts, "
            "such as trainables.zero_cost:ZeroCost"
        )
    known = evaluator.combinable_metrics(config)
    unknown = [name for name in search.combine if known is not None and name not in known]
    if known is not None and unknown:
        raise ConfigError(
            f"search.combine: {search.trainable} reports no {unknown[0]!r}; legal ones: {', '.join(known)}"
        )


# Spaces that are data alone.


def tabular_space(config: Config, decisions: Mapping[str, Any]) -> SearchSpace:
    """A space that is data alone. ``space_args`` may name functions of it: canonical, alike, graph; or a notation.

    Without ``graph`` searchers compare decisions alone; :func:`raynas.architecture.chain` is that of decisions which
    follow one another.
    """
    for name, options in decisions.items():
        if isinstance(options, str) or not all(isinstance(o, str) for o in (name, *options)):
            raise ConfigError(f"space {config.space!r}: decision {name!r} must be text, its options a list of texts")
    legal = ("canonical", "alike", "graph", "notation")
    unknown = [name for name in config.space_args if name not in legal]
    if unknown:
        raise ConfigError(f"{config.space} has no argument {unknown[0]!r}; legal ones: {', '.join(legal)}")
    functions = {name: resolve(path, f"space_args.{name}") for name, path in config.space_args.items()}
    try:
        return SearchSpace({name: tuple(options) for name, options in decisions.items()}, **functions)
    except SpaceError as error:
        raise SpaceError(f"space {config.space!r}: {error}") from None


def _with_costs(
    config: Config, space: SearchSpace, evaluator: type[Evaluator]
) -> tuple[CostModel, Limits, SearchSpace]:
    """The costs that the evaluator knows of the space, the limits on them, and the space with both."""
    for setting, used in (
        ("search.filter", config.search.filter.score is not None),
        ("latency.place", config.latency.place is not None),
        (config.search.trainable, evaluator.traits.needs_network),
    ):
        if used:
            raise ConfigError(f"{setting} needs a network, but {config.space} is bare decisions")
    with validating():
        costs = evaluator.costs(space.decisions, config) or NoCosts()
        limits = Limits.parse(config.limits, costs.profile())
        objectives = check_objectives(config.search.objectives, costs.profile())
    hidden = sorted(set(costs.profile()) & RESERVED)
    if hidden:
        log.warning("the cost %r has no column in the log, which has another column of that name: rename it", hidden[0])
    if limits.bounds:
        space = dataclasses.replace(space, violation=violation(costs, limits))
    return costs, limits, dataclasses.replace(space, costs=costs, objectives=objectives)
