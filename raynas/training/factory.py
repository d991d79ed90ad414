"""Makes the parts of a supernet training from the settings: its path sampler, and the rounds that change the paths."""

from __future__ import annotations

import functools
from collections.abc import Callable

from raynas import architecture as arch
from raynas.architecture import Architecture
from raynas.config.run import Config
from raynas.config.train import TrainConfig
from raynas.costs.counter import Costs
from raynas.evaluation.angle_statistics import AngleStatistics
from raynas.exceptions import ConfigError
from raynas.search_space.constraints import Limits
from raynas.searchers import ArchitectureSearcher
from raynas.training.path_sampling import (
    CellPaths,
    ConstrainedPaths,
    FairPaths,
    PathSampler,
    ProportionalPaths,
    UniformPaths,
)
from raynas.training.pool import Pool
from raynas.training.shrinking import Shrinking
from raynas.utils.formatting import counted

__all__ = ["make_pool", "make_shrinking", "path_sampler", "refuse_rounds"]


def path_sampler(config: Config, costs: Costs, limits: Limits) -> PathSampler:
    """Which paths the supernet trains; see ``train.paths``.

    Raises:
        ConfigError: MACs without an upper limit are to be sampled within it, or cells that the space does not repeat.
    """
    decisions, seed = costs.decisions, config.seed
    name = config.train.paths
    low, high = limits.bounds.get("macs", (None, None))
    if name == "fair":
        return FairPaths(decisions, seed)
    if name == "proportional":
        sizes = functools.partial(_cost, costs, "parameters")
        largest = costs.profile()["parameters"].maximum
        return ProportionalPaths(decisions, sizes, largest, seed=seed, canonical=costs.canonical)
    if name == "plain":
        return UniformPaths(decisions, seed)
    if name == "cells":
        return CellPaths(decisions, _repeated(costs), costs.complete, seed=seed)
    if name == "constrained" and high is None:
        raise ConfigError("train.paths = constrained needs an upper limit: set limits.macs")
    # Elsewhere the costs of every path that is drawn would need a forward pass.
    if name == "uniform" or high is None or (name == "auto" and not costs.additive):
        return UniformPaths(decisions, seed, costs.canonical)
    # The window that SPOS trains around its limit of 330 M: 290 to 360 M, cut to what the space has.
    profile = costs.profile()["macs"]
    low, high = max(profile.minimum, low or high * 290 / 330), min(profile.maximum, high * 360 / 330)
    if low >= high:
        return UniformPaths(decisions, seed, costs.canonical)
    macs = functools.partial(_cost, costs, "macs")
    return ConstrainedPaths(decisions, macs, (low, high), seed=seed, canonical=costs.canonical)


def _repeated(costs: Costs) -> dict[str, tuple[str, ...]]:
    """The places of every decision, in the order of the repetitions of the cell that they make up."""
    decisions, places = costs.decisions, costs.places
    repetitions = {len(found) for found in places.values()}
    everywhere = [place for found in places.values() for place in found]
    nested = any(arch.parent(decisions, name) for name in decisions) or len(set(everywhere)) < len(everywhere)
    if places.keys() != decisions.keys() or nested or len(repetitions) > 1 or repetitions == {1}:
        raise ConfigError(
            "train.paths = cells is of a space that repeats one cell, as spaces.nasbench201, and this one does not: "
            "set train.paths = uniform"
        )
    return places


def refuse_rounds(train: TrainConfig, trainable: str) -> None:
    """Refuse to change between rounds what a trainable does not train.

    Raises:
        ConfigError: ``train.pool`` or ``train.shrink`` is set.
    """
    for name, value in (("train.pool.size", train.pool.size), ("train.shrink.every", train.shrink.every)):
        if value is not None:
            raise ConfigError(f"{name} = {value:g} is of a supernet, and {trainable} trains none: leave it out")


def make_pool(config: Config, costs: Costs, searcher: Callable[..., ArchitectureSearcher], mode: str) -> Pool | None:
    """The pool of ``train.pool``, which renews the paths that are trained; None without one.

    Args:
        config: All settings.
        costs: Of the space.
        searcher: Makes the searcher that proposes new members.
        mode: min or max: the direction of a score.

    Raises:
        ConfigError: It would never do so, or something else decides which paths are trained.
    """
    train, settings = config.train.resolved(), config.train.pool
    if settings.size is None:
        return None
    assert train.epochs is not None
    if train.shrink.every is not None:
        raise ConfigError("train.shrink and train.pool exclude each other: leave out one of them")
    if train.paths not in ("auto", "proportional"):
        raise ConfigError(f"train.paths = {train.paths} is of a whole space; with train.pool: auto, proportional")
    if train.minutes is None and settings.every >= train.epochs:
        raise ConfigError(
            f"train.pool is renewed after {counted(settings.every, 'epoch')}, but train.epochs is {train.epochs:g}"
        )
    weight = functools.partial(_cost, costs, "parameters") if train.paths == "proportional" else _alike
    return Pool(searcher, weight, settings, config.seed, mode)


def make_shrinking(
    config: Config,
    costs: Costs,
    limits: Limits,
    angle_statistics: Callable[[], AngleStatistics],
    violation: Callable[[Architecture], float],
) -> Shrinking | None:
    """The shrinking of ``train.shrink``; None without one.

    Args:
        config: All settings.
        costs: Of the space.
        limits: Of these costs.
        angle_statistics: Makes the statistics from which angles are computed.
        violation: By how much an architecture breaks the limits.

    Raises:
        ConfigError: It would never do so, or a setting needs the whole space.
    """
    train, settings = config.train.resolved(), config.train.shrink
    if settings.every is None:
        return None
    first = settings.first or settings.every
    assert train.epochs is not None
    if train.minutes is None and first >= train.epochs:
        raise ConfigError(f"train.shrink begins after {counted(first, 'epoch')}, but train.epochs is {train.epochs:g}")
    search = config.search
    for name, used in (
        ("search.warm_start", search.warm_start is not None),
        ("search.filter", search.filter.score is not None),
    ):
        if used:
            raise ConfigError(f"{name} is of the whole space, and train.shrink drops options: leave out one of them")
    if arch.size(costs.decisions) <= settings.until:
        raise ConfigError(
            f"the space has {counted(arch.size(costs.decisions), 'architecture')}, and shrinking ends where "
            f"{settings.until:.3g} are left: lower train.shrink.until"
        )
    paths = functools.partial(path_sampler, config, costs, limits)
    return Shrinking(angle_statistics(), costs, violation, paths, settings, config.seed)


def _cost(costs: Costs, name: str, architecture: Architecture) -> float:
    return costs(architecture)[name]


def _alike(architecture: Architecture) -> float:
    return 1.0
