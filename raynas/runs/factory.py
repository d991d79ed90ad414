"""From settings to runs: ``prepare`` is the only place that turns names into objects.

    with prepare("run.yaml") as run:
        run.search()

A space is a network with choices, or decisions alone, without a network.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from torch import nn

from raynas.architecture import Architecture, Decisions
from raynas.config.loading import load
from raynas.config.run import Config, RetrainConfig, SearchConfig
from raynas.config.train import PoolConfig, ShrinkConfig
from raynas.config.trust import trusting
from raynas.config.types import legal_name
from raynas.data.assembly import LoaderSettings
from raynas.data.dataset import Data
from raynas.data.loading import load as load_data
from raynas.distributed.connection import check_address
from raynas.exceptions import ConfigError
from raynas.nn.exclusion import exclude_options, without_options
from raynas.runs.display import View
from raynas.runs.problem import tabular_space
from raynas.runs.run import Run
from raynas.search_space.space import SearchSpace
from raynas.searchers import (
    NSGA2,
    TPE,
    ArchitectureSearcher,
    Bayes,
    Evolution,
    LocalSearch,
    Predictor,
    RandomSearch,
    RegularizedEvolution,
    Reinforce,
)
from raynas.searchers.nao.searcher import NAO
from raynas.tasks.base import task_of
from raynas.training.trainer import dropping
from raynas.tune.trainable_adapter import evaluator_of
from raynas.utils.imports import resolve
from raynas.utils.user_code import one_line_with_place, validating

__all__ = ["METHODS", "audit_run", "build_searcher", "build_space", "prepare"]

METHODS: dict[str, Callable[..., ArchitectureSearcher]] = {
    "random": RandomSearch,
    "evolution": Evolution,
    "tpe": TPE,
    "bayes": Bayes,
    "regularized": RegularizedEvolution,
    "local": LocalSearch,
    "nsga2": NSGA2,
    "reinforce": Reinforce,
    "predictor": Predictor,
    "nao": NAO,
}


def build_space(config: Config, data: Data) -> nn.Module:
    """Call the space's function with its arguments; classes and channels come from the data if it takes them."""
    function = resolve(config.space, "space")
    torch.manual_seed(config.seed)
    try:
        takes = inspect.signature(function).parameters
        known = task_of(data).space_arguments
        arguments = {name: value for name, value in known.items() if name in takes} | config.space_args
        unknown = [name for name in arguments if name not in takes]
        if unknown and not any(p.kind is p.VAR_KEYWORD for p in takes.values()):
            raise ConfigError(
                f"{config.space} has no argument {unknown[0]!r}; legal ones: {', '.join(takes) or 'none'}"
            )
        space = function(**arguments)
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(f"space {config.space!r} cannot be built: {one_line_with_place(error)}") from error
    if not isinstance(space, nn.Module):
        raise ConfigError(f"space {config.space!r} returned {type(space).__name__}, not an nn.Module")
    exclude_options(space, config.exclude)
    return space


def build_searcher(config: Config) -> Callable[..., ArchitectureSearcher]:
    """The searcher's class with its settings."""
    method, given = config.search.method, config.search.method_args
    if ":" not in method and method not in METHODS:
        raise ConfigError(
            f"unknown search.method {method!r}; legal ones: {', '.join(METHODS)}, or package.module:Class"
        )
    make: Any = METHODS.get(method) or resolve(method, "search.method")
    if ArchitectureSearcher not in getattr(make, "__mro__", ()):
        raise ConfigError(f"search.method {method!r} is no class of raynas.searchers.ArchitectureSearcher")
    takes = make.Settings or make
    legal = [name for name in inspect.signature(takes).parameters if name not in ("space", "seed", "metric", "mode")]
    unknown = [name for name in given if name not in legal]
    if unknown:
        raise ConfigError(f"search.method_args: {method} has no {unknown[0]!r}; legal ones: {', '.join(legal)}")
    if make.Settings is None:
        return functools.partial(make, **given)
    with validating("search.method_args"):
        return functools.partial(make, settings=takes(**given))


def prepare(
    config: Config | str | Path | None = None,
    *,
    space: nn.Module | SearchSpace | Mapping[str, Sequence[str]] | None = None,
    data: Data | None = None,
    view: View | None = None,
    trust: bool = False,
) -> Run:
    """Turn settings into a run, without starting Ray. Whatever is wrong with them is raised here.

    Args:
        config: Settings, or the YAML file that holds them; default: the digits example.
        space: Instead of what ``config.space`` names. A network, whose class must be importable on the workers; or
            decisions alone, for a trainable that needs no network: then there are no data either.
        data: Instead of what ``config.data`` names.
        view: Where progress is shown.
        trust: Whether to run code that is not RayNAS' own and named by a file alone: the YAML file, or the run of
            ``search.warm_start``. What settings made in Python name is run.

    Returns:
        A run; one of decisions alone has no training, retraining or export. What its folder on this machine holds is
        read. Use it as a context manager: ``with prepare(config) as run`` opens its storage and closes everything at
        the end.

    Raises:
        ValueError: An illegal setting, data that cannot be read, limits that nothing keeps, or a file that names code
            which is not to be trusted.
    """
    with trusting(trust):
        return _prepare(config if isinstance(config, Config) else load(config, trust=trust), space, data, view)


def _prepare(config: Config, space: Any, data: Data | None, view: View | None) -> Run:
    check_address(config)
    trainable = evaluator_of(resolve(config.search.trainable, "search.trainable"), config)
    if config.search.method == "auto":
        method = "bayes" if config.search.objectives else trainable.traits.default_searcher
        config = dataclasses.replace(config, search=dataclasses.replace(config.search, method=method))
    searcher = build_searcher(config)
    bare = resolve(config.space, "space") if space is None else space
    if isinstance(bare, Mapping):
        bare = tabular_space(config, bare)
    if isinstance(bare, SearchSpace):
        bare = _without(bare, config.exclude)
        where = config.space.partition(":")[0].rpartition(".")[2] if space is None else "decisions"
        return Run(_named(config, where, trainable.__name__.lower()), bare, None, searcher, trainable, view).load()
    data = data if data is not None else _load(config)
    space_args = config.retrain.space_args
    if space_args and isinstance(space, nn.Module):
        raise ConfigError("retrain.space_args needs a space by name: call retrain_in of the run instead")
    if not isinstance(space, nn.Module):
        space = build_space(config, data)
    elif config.exclude:
        space = copy.deepcopy(space)
        exclude_options(space, config.exclude)
    config = _named(config, type(space).__name__.lower(), data.name.replace(":", "."))
    run = Run(config, space, data, searcher, trainable, view)
    if space_args:
        run.retrain_in(build_space(dataclasses.replace(config, space_args=config.space_args | space_args), data))
    return run.load()


def _without(space: SearchSpace, excluded: Sequence[str]) -> SearchSpace:
    """A space that is data alone, without some of its options."""
    if not excluded:
        return space
    left = without_options(space.decisions, excluded)
    own = None if space.canonical is None else functools.partial(_canonical_within, space.canonical, left)
    return dataclasses.replace(space, decisions=left, canonical=own)


def _canonical_within(
    canonical: Callable[[Architecture], Architecture], decisions: Decisions, architecture: Architecture
) -> Architecture:
    """The form that the space gives, unless it has an option that was excluded."""
    form = canonical(architecture)
    return form if all(option in decisions.get(name, ()) for name, option in form.items()) else architecture


def _named(config: Config, *parts: str) -> Config:
    if config.name is not None:
        return config
    return dataclasses.replace(config, name=legal_name(f"{'-'.join(parts)[:50]}-{datetime.now():%Y%m%d-%H%M%S}"))


def _load(config: Config) -> Data:
    wanted = config.data
    if ":" in wanted.name:
        resolve(wanted.name, "data")
    folder = None if wanted.folder is None else Path(wanted.folder).expanduser()
    return load_data(
        wanted.name, folder, validation=wanted.validation, seed=config.seed, limit=wanted.limit, size=wanted.size,
        label=wanted.label, image=wanted.image,
        loader=LoaderSettings(
            wanted.loader, wanted.workers, wanted.prefetch, wanted.channels, wanted.skip_unreadable,
            config.search.bn_images,
        ),
    )  # fmt: skip


def audit_run(run: Run) -> Run:
    """The run that trains random architectures of the same space from scratch, to know how good they are."""
    truth = run.config.truth
    if not run.has_network:
        raise ConfigError(f"truth.epochs needs a network to train, but {run.config.space} is bare decisions")
    search = SearchConfig(
        trainable="trainables.from_scratch:FromScratch",
        method="random",
        scheduler="none",
        joint=run.config.search.joint,
        filter=run.config.search.filter,
        epochs=truth.epochs or 1,
        num_samples=truth.architectures,
        replicas=run.config.search.replicas,
        max_concurrent=run.config.search.max_concurrent,
    )
    config = dataclasses.replace(
        run.config,
        data=dataclasses.replace(run.config.data, search_size=None),
        search=search,
        train=dataclasses.replace(
            run.config.train,
            shrink=ShrinkConfig(),
            pool=PoolConfig(),
            drop_path=run.config.train.drop_path if dropping(run.space) else None,
        ),
        storage_path=f"{run.place}/audit",
        name=f"epochs-{truth.epochs}",
        time_budget=None if truth.minutes is None else 60 * truth.minutes,
        budget_gpu_hours=None,
        retrain=RetrainConfig(),
    )
    trained = prepare(config, space=run.space, data=run.data, view=run.view)
    if run.context.supernet is not None and run.context.supernet.shrinking is not None:
        trained.context.problem.narrow(run.search_space.decisions)
    return trained
