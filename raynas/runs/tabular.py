"""Spaces that are data alone, decisions without a network, and the runs that search them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from raynas.config.run import Config
from raynas.exceptions import ConfigError, SpaceError
from raynas.runs.bad_input import validating
from raynas.runs.base import NoCosts, SearchRun
from raynas.runs.display import View
from raynas.search_space.constraints import Limits, check_objectives, violation
from raynas.search_space.space import SearchSpace
from raynas.searchers import ArchitectureSearcher
from raynas.tune.evaluator import Evaluator
from raynas.utils.imports import resolve

__all__ = ["tabular_run", "tabular_space"]


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


def tabular_run(
    config: Config,
    space: SearchSpace,
    searcher: Callable[..., ArchitectureSearcher],
    trainable: type[Evaluator],
    view: View | None,
) -> SearchRun:
    """A run over a space without a network; what its architectures cost is known by the trainable, if at all."""
    if config.search.filter.score is not None:
        raise ConfigError(f"search.filter needs a network, but {config.space} is bare decisions")
    if config.latency.place is not None:
        raise ConfigError(f"latency.place needs a network, but {config.space} is bare decisions")
    if trainable.traits.needs_network:
        raise ConfigError(f"{config.search.trainable} needs a network, but {config.space} is bare decisions")
    with validating():
        costs = trainable.costs(space.decisions, config) or NoCosts()
        limits = Limits.parse(config.limits, costs.profile())
        objectives = check_objectives(config.search.objectives, costs.profile())
    space = dataclasses.replace(space, violation=violation(costs, limits)) if limits.bounds else space
    space = dataclasses.replace(space, costs=costs, objectives=objectives)
    return SearchRun(config, space, costs, searcher, trainable, view)
