"""Find a network: ``python -m raynas.launch [command] [options] [key=value ...]``.

    python -m raynas.launch                                        digits, on this machine, in minutes
    python -m raynas.launch --data cifar10 data.folder=~/data --space spaces.shufflenet:spos_32 limits.macs=20e6
    python -m raynas.launch --space spaces.nasbench201:DECISIONS search.trainable=trainables.table:Table
        search.trainable_args.file=scores.parquet search.trainable_args.metric=accuracy     from a table, no network
    python -m raynas.launch --config run.yaml --address auto       the same on a cluster
    python -m raynas.launch --resume                               goes on with the newest run
    python -m raynas.launch --resume auto --name mine ...          starts it, or goes on: the same line every time
    python -m raynas.launch retrain --resume --name my-run         one more step for a run that is there

This is the only place that turns names into objects.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import inspect
import json
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from torch import nn

from raynas.cli.arguments import read_arguments
from raynas.cli.doctor import doctor
from raynas.config.loading import load
from raynas.config.run import Config, RetrainConfig, SearchConfig
from raynas.config.train import PoolConfig, ShrinkConfig
from raynas.config.trust import foreign, trusting
from raynas.config.types import legal_name
from raynas.data.dataset import Data
from raynas.data.dataset import load as load_data
from raynas.distributed import health as watch
from raynas.distributed.connection import LOOPBACK, Terminated, check_address, connect
from raynas.exceptions import ConfigError, LeaseLostError
from raynas.report.page import write_report
from raynas.runs.base import SearchRun
from raynas.runs.display import View
from raynas.runs.dry_run import dry_run
from raynas.runs.network import Run
from raynas.runs.rank import rank
from raynas.runs.tabular import tabular_run, tabular_space
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
from raynas.searchers.nao import NAO
from raynas.storage.locks import holding
from raynas.storage.object_store import open_mirror
from raynas.tasks.base import task_of
from raynas.training.trainer import dropping
from raynas.tune.plain import evaluator_of
from raynas.utils.imports import resolve

__all__ = ["audit", "connect", "main", "prepare", "resolve"]

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
        known = task_of(data).arguments
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
        raise ConfigError(f"space {config.space!r} cannot be built: {type(error).__name__}: {error}") from error
    if not isinstance(space, nn.Module):
        raise ConfigError(f"space {config.space!r} returned {type(space).__name__}, not an nn.Module")
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
    if make.Settings is not None:
        return functools.partial(make, settings=takes(**given))
    return functools.partial(make, **given)


def prepare(
    config: Config | str | Path | None = None,
    *,
    space: nn.Module | SearchSpace | Mapping[str, Sequence[str]] | None = None,
    data: Data | None = None,
    view: View | None = None,
    trust: bool = False,
) -> Any:
    """Turn settings into a run, without starting Ray. Whatever is wrong with them is said here.

    Args:
        config: Settings, or the YAML file that holds them; default: the digits example.
        space: Instead of what ``config.space`` names. A network, whose class must be importable on the workers; or
            decisions alone, for a trainable that needs no network: then there are no data either.
        data: Instead of what ``config.data`` names.
        view: Where progress is shown.
        trust: Whether to run code that is not RayNAS' own and named by a file alone: the YAML file, or the run of
            ``search.warm_start``. What settings made in Python name is run.

    Returns:
        A :class:`Run`; of decisions alone a :class:`raynas.runs.base.SearchRun`.

    Raises:
        ValueError: An illegal setting, data that cannot be read, limits that nothing keeps, or a file that names code
            which is not to be trusted.
    """
    with trusting(trust):
        return _prepare(config if isinstance(config, Config) else load(config, trust=trust), space, data, view)


def _prepare(config: Config, space: Any, data: Data | None, view: View | None) -> SearchRun:
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
        where = config.space.partition(":")[0].rpartition(".")[2] if space is None else "decisions"
        return tabular_run(_named(config, where, trainable.__name__.lower()), bare, searcher, trainable, view)
    data = data if data is not None else _load(config)
    space_args = config.retrain.space_args
    if space_args and isinstance(space, nn.Module):
        raise ConfigError("retrain.space_args needs a space by name: call retrain_in of the run instead")
    space = space if isinstance(space, nn.Module) else build_space(config, data)
    config = _named(config, type(space).__name__.lower(), data.name.replace(":", "."))
    run = Run(config, space, data, searcher, trainable, view)
    if space_args:
        run.retrain_in(build_space(dataclasses.replace(config, space_args=config.space_args | space_args), data))
    return run


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
        wanted.name, folder, validation=wanted.validation, seed=config.seed, limit=wanted.limit, size=wanted.size
    )


def _architecture(run: SearchRun, given: str | None) -> dict[str, str]:
    if given is None:
        return run.best()
    text = given if given.lstrip().startswith("{") else Path(given).read_text(encoding="utf-8")
    try:
        found = json.loads(text)
    except ValueError:
        raise ConfigError(f"--architecture {given!r} is neither JSON nor a file that holds it") from None
    if not isinstance(found, dict):
        raise ConfigError(f"--architecture {given!r} must hold an object: one option for each decision")
    return run.check(found)


def audit(run: SearchRun) -> Any:
    """The run that trains random architectures of the same space from scratch, to know the truth about them."""
    truth = run.config.truth
    if not isinstance(run, Run):
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
        storage_path=str(run.folder / "audit") if run.mirror is None else f"{run.place}/audit",
        name=f"epochs-{truth.epochs}",
        time_budget=None if truth.minutes is None else 60 * truth.minutes,
        budget_gpu_hours=None,
        retrain=RetrainConfig(),
    )
    trained = prepare(config, space=run.space, data=run.data, view=run.view)
    if run.shrinking is not None:
        trained.narrow(run.search_space.decisions)
    return trained


def execute(command: str, run: SearchRun, flags: argparse.Namespace) -> None:
    """Carry out one command; Ray is joined where it is needed."""
    after = list(run.config.after) if command == "search" else [command]
    dashboard = flags.dashboard_host or (LOOPBACK if flags.dashboard else None)
    if command in ("search", "train-supernet", "retrain"):
        run.check_folder()
        run.view.say(f"{command}: everything is kept in {run.place}")
        run.keep_settings()  # before Ray starts, which takes a while: a run that is killed meanwhile can go on
        connect(run.config, dashboard, flags.verbose)
    if command == "search":
        if isinstance(run, Run) and "retrain" in after:
            run.check_retraining()
        run.search()
        after = run.affordable(after)
    if command == "rank":
        join = functools.partial(connect, run.config, dashboard, flags.verbose)
        rank(run, join, functools.partial(audit, run))
        after = ["report"]
    if isinstance(run, Run):
        if command == "train-supernet":
            run.train_supernet()
        if "retrain" in after:
            run.retrain(_architecture(run, flags.architecture))
        if "export" in after:
            run.export(_architecture(run, flags.architecture))
    elif set(after) - {"report"}:
        run.view.say(f"no {' and no '.join(step for step in after if step != 'report')}: the space has no network")
    if "report" in after:
        run.view.say(f"report: {run.shown(run.report())}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, 1 (it failed), 2 (bad input), 130 or 143 (interrupted)."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # your own packages, also when started as a script
    run: SearchRun | None = None
    verbose = False
    try:
        command, config, flags = read_arguments(sys.argv[1:] if arguments is None else arguments)
        verbose = flags.verbose
        if command == "report":
            print(f"report: {_report(config.storage_path, str(config.name))}")
            return 0
        if command == "doctor":
            return doctor(config, functools.partial(prepare, trust=flags.trust), verbose)
        run = prepare(config, trust=flags.trust)
        if command not in ("search", "rank") and not isinstance(run, Run):
            legal = "search, rank, report"
            raise ConfigError(f"{command} needs a network, but {config.space} is bare decisions; legal: {legal}")
        if isinstance(run, Run) and command in ("retrain", "export"):
            run.trained(_architecture(run, flags.architecture), command)
        if flags.dry_run:
            dry_run(run)
            return 0
    except KeyboardInterrupt:
        return 130
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        return _failed(error, 2, verbose)
    begun, trust = run.begun, " --trust" if foreign(run.config) else ""
    try:
        with _alone(run) if command in ("search", "train-supernet", "retrain") else nullcontext():
            execute(command, run, flags)
        run.send()
    except KeyboardInterrupt as stop:
        print(f"\nstopped; go on with: python -m raynas.launch --resume {run.place}{trust}", file=sys.stderr)
        return 143 if isinstance(stop, Terminated) else 130
    except LeaseLostError as error:
        return _failed(error, 1, verbose)
    except Exception as error:
        # Whatever happened on the cluster: one line, where the work is if there is any, and the rest on request.
        refused = isinstance(error, ConfigError)
        died = None if refused else watch.lost()  # it may have been said in words of Ray that help nobody
        code = _failed(watch.ClusterLost(died) if died else error, 2 if refused else 1, verbose)
        if run.begun and not (refused and begun):
            print(
                f"what was computed is kept in {run.place}; go on with --resume{trust} (-v shows more)", file=sys.stderr
            )
        return code
    finally:
        if watch.found() is None:
            run.close()
        else:
            SearchRun.close(run)  # sends its files; what has died cannot be asked to end anything
    return 0


@contextmanager
def _alone(run: SearchRun) -> Iterator[None]:
    """Nobody else is at work in the folder of a run, from its settings to the end of the command."""
    run.check_folder()
    run.folder.mkdir(parents=True, exist_ok=True)
    with holding(run.folder):
        yield


def _report(storage_path: str, name: str) -> str:
    """Write the page of a run that is there; returns where it is kept."""
    mirror = open_mirror(storage_path, name)
    if mirror is None:
        return str(write_report(Path(storage_path).expanduser() / name))
    page = write_report(mirror.folder)
    mirror.push()
    return f"{mirror.uri}/{page.name}"


def _failed(error: BaseException, code: int, verbose: bool) -> int:
    """Say what went wrong in one line, or with where it happened."""
    if verbose:
        traceback.print_exception(error)
    text = " ".join(str(error).split()) or type(error).__name__
    print(f"error: {text[:2000]}", file=sys.stderr)
    return code


if __name__ == "__main__":
    watch.guard()
    watch.leave(main())
