"""Find a network: ``python -m raynas.launch [command] [options] [key=value ...]``.

    python -m raynas.launch                                        digits, on this machine, in minutes
    python -m raynas.launch --data cifar10 data.folder=~/data --space spaces.shufflenet:spos_32 limits.macs=20e6
    python -m raynas.launch --config run.yaml --address auto       the same on a cluster
    python -m raynas.launch --resume                               goes on with the newest run
    python -m raynas.launch retrain --resume --name my-run         one more step for a run that is there

This is the only place that turns names into objects.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import importlib
import inspect
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import ray
import torch
from torch import nn

from raynas import config as settings
from raynas.checkpoint import CheckpointError
from raynas.config import Config, ConfigError
from raynas.data import Dataset
from raynas.data import load as load_data
from raynas.display import View
from raynas.run import Run
from raynas.scoring import SLOT
from raynas.searchers import TPE, ArchitectureSearcher, Evolution, EvolutionSettings, RandomSearch
from raynas.training import TrainingDiverged

__all__ = ["COMMANDS", "connect", "main", "prepare", "resolve"]

COMMANDS = {
    "search": "everything: train the supernet, search, then what `after` lists (the default)",
    "train-supernet": "train the shared weights alone",
    "retrain": "train an architecture from scratch and evaluate it once on the test images",
    "export": "write an architecture as a plain PyTorch model",
    "report": "write a page about the run",
}
METHODS: dict[str, Callable[..., ArchitectureSearcher]] = {"random": RandomSearch, "evolution": Evolution, "tpe": TPE}
_FIXED = ("space", "space_args", "data", "train", "seed")
"""What the trained weights depend on: a resumed run keeps these."""


def resolve(path: str, what: str) -> Any:
    """Import ``package.module:name``.

    Raises:
        ConfigError: The form is wrong, or there is no such module or name.
    """
    module_name, colon, name = path.partition(":")
    if not colon or not module_name or not name:
        raise ConfigError(f"{what} {path!r} is not of the form package.module:name")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(f"{what} {path!r}: cannot import {module_name}: {error}") from None
    if not hasattr(module, name):
        legal = getattr(module, "__all__", None) or [n for n in vars(module) if not n.startswith("_")]
        raise ConfigError(f"{what} {path!r}: {module_name} has no {name!r}; it has: {', '.join(legal)}")
    return getattr(module, name)


def build_space(config: Config, data: Dataset) -> nn.Module:
    """Call the space's function with its arguments; classes and channels come from the data if it takes them."""
    function = resolve(config.space, "space")
    torch.manual_seed(config.seed)
    try:
        takes = inspect.signature(function).parameters
        known = {"num_classes": data.classes, "in_channels": data.image_shape[0]}
        arguments = {name: value for name, value in known.items() if name in takes} | config.space_args
        unknown = [name for name in arguments if name not in takes]
        if unknown and not any(p.kind is p.VAR_KEYWORD for p in takes.values()):
            raise ConfigError(f"{config.space} has no argument {unknown[0]!r}; legal ones: {', '.join(takes)}")
        space = function(**arguments)
    except TypeError as error:
        raise ConfigError(f"space {config.space!r} cannot be built: {error}") from None
    if not isinstance(space, nn.Module):
        raise ConfigError(f"space {config.space!r} returned {type(space).__name__}, not an nn.Module")
    return space


def build_searcher(config: Config) -> Callable[..., ArchitectureSearcher]:
    """The searcher's class with its settings."""
    method, given = config.search.method, config.search.method_args
    if ":" not in method and method not in METHODS:
        raise ConfigError(f"unknown search.method {method!r}; legal ones: {', '.join(METHODS)}, or package.module:Class")
    make = METHODS[method] if method in METHODS else resolve(method, "search.method")
    takes = EvolutionSettings if make is Evolution else make
    legal = [name for name in inspect.signature(takes).parameters if name not in ("space", "seed", "metric", "mode")]
    unknown = [name for name in given if name not in legal]
    if unknown:
        raise ConfigError(f"search.method_args: {method} has no {unknown[0]!r}; legal ones: {', '.join(legal)}")
    if make is Evolution:
        return functools.partial(Evolution, settings=EvolutionSettings(**given))
    return functools.partial(make, **given)


def prepare(
    config: Config | str | Path | None = None,
    *,
    space: nn.Module | None = None,
    data: Dataset | None = None,
    view: View | None = None,
) -> Run:
    """Turn settings into a run, without starting Ray. Whatever is wrong with them is said here.

    Args:
        config: Settings, or the YAML file that holds them; default: the digits example.
        space: Instead of what ``config.space`` names. Its class must be importable on the workers.
        data: Instead of what ``config.data`` names.
        view: Where progress is shown.

    Raises:
        ValueError: An illegal setting, data that cannot be read, limits that nothing keeps.
    """
    config = config if isinstance(config, Config) else settings.load(config)
    if "://" in config.storage_path:
        raise ConfigError(f"storage_path {config.storage_path!r} must be a folder that all machines see")
    trainable = resolve(config.search.trainable, "search.trainable")
    searcher = build_searcher(config)
    data = data if data is not None else _load(config)
    space = space if space is not None else build_space(config, data)
    if config.name is None:
        parts = (type(space).__name__.lower(), data.name.replace(":", "."), f"{datetime.now():%Y%m%d-%H%M%S}")
        config = dataclasses.replace(config, name="-".join(parts))
    return Run(config, space, data, searcher, trainable, view)


def _load(config: Config) -> Dataset:
    wanted = config.data
    if ":" in wanted.name:
        resolve(wanted.name, "data")
    folder = None if wanted.folder is None else Path(wanted.folder).expanduser()
    return load_data(
        wanted.name, folder, validation=wanted.validation, seed=config.seed, limit=wanted.limit, size=wanted.size
    )


def connect(config: Config, dashboard: bool = False, verbose: bool = False) -> None:
    """Join the Ray cluster at ``config.address`` or ``$RAY_ADDRESS``, or start Ray on this machine."""
    if ray.is_initialized():
        return
    address = config.address or os.environ.get("RAY_ADDRESS")
    logging_level = logging.INFO if verbose else logging.ERROR
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if address:
        ray.init(address=address, log_to_driver=verbose, logging_level=logging_level)
    else:
        ray.init(
            resources={SLOT: 1.0}, include_dashboard=dashboard, log_to_driver=verbose, logging_level=logging_level
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m raynas.launch",
        description="Search for a neural network with a shared supernet on Ray.",
        epilog="commands: " + "; ".join(f"{name}: {text}" for name, text in COMMANDS.items())
        + ". Any setting may be given as key=value, e.g. train.epochs=50 limits.macs=3e6.",
        allow_abbrev=False,
    )  # fmt: skip
    parser.add_argument("words", nargs="*", metavar="[command] [key=value ...]")
    parser.add_argument("--config", help="YAML file with settings")
    for flag, key, text in (
        ("--space", "space", "package.module:function that returns the space"),
        ("--data", "data.name", "name of a data set, or package.module:function"),
        ("--address", "address", "Ray cluster; default: $RAY_ADDRESS, else this machine"),
        ("--storage-path", "storage_path", "where runs are kept"),
        ("--name", "name", "the run's folder below the storage path"),
        ("--num-samples", "search.num_samples", "architectures to score in all"),
        ("--max-concurrent", "search.max_concurrent", "trials in flight"),
        ("--seed", "seed", "decides everything that is drawn"),
    ):
        parser.add_argument(flag, dest=key, help=f"{text} ({key})")
    parser.add_argument("--resume", nargs="?", const="auto", metavar="FOLDER", help="go on with a run; default: the newest")
    parser.add_argument("--architecture", help="for retrain and export: JSON, or a file; default: the winner")
    parser.add_argument("--smoke-test", action="store_true", help="the same run, as small as it can be")
    parser.add_argument("--dry-run", action="store_true", help="check everything, run one architecture, start nothing")
    parser.add_argument("--dashboard", action="store_true", help="start Ray's dashboard too (127.0.0.1:8265)")
    parser.add_argument("-v", "--verbose", action="store_true", help="show what Ray and the workers print")
    return parser


def read_arguments(arguments: Sequence[str]) -> tuple[str, Config, argparse.Namespace]:
    """The command, the settings and the flags of a command line.

    Raises:
        ConfigError: Something in it is illegal.
    """
    flags = _parser().parse_intermixed_args(arguments)
    words = list(flags.words)
    if flags.resume is not None and "=" in flags.resume and not Path(flags.resume).exists():
        words.append(flags.resume)  # --resume key=value: the newest run, and a setting
        flags.resume = "auto"
    command = words.pop(0) if words and "=" not in words[0] else "search"
    if command not in COMMANDS:
        raise ConfigError(f"unknown command {command!r}; legal ones: {', '.join(COMMANDS)}")
    named = [
        f"{key}={json.dumps(value) if key in ('name', 'address') else value}"
        for key, value in vars(flags).items() if "." in key or key in ("space", "address", "storage_path", "name", "seed")
        if value is not None
    ]  # fmt: skip
    config = settings.load(flags.config, [*named, *words])
    if flags.resume is not None:
        config = _resumed(flags.resume, config, flags.config, [*named, *words])
    elif config.name is not None and command == "search" and _folder(config).exists() and not flags.dry_run:
        raise ConfigError(f"the run {_folder(config)} is there already: add --resume to go on, or take another --name")
    return command, settings.smoke_test(config) if flags.smoke_test else config, flags


def _folder(config: Config) -> Path:
    return Path(config.storage_path).expanduser() / str(config.name)


def _resumed(wanted: str, config: Config, file: str | None, overrides: Sequence[str]) -> Config:
    """The settings of the run to go on with, changed by what was given now."""
    if wanted != "auto":
        folder = Path(wanted).expanduser()
    elif config.name is not None:
        folder = _folder(config)
    else:
        runs = sorted(Path(config.storage_path).expanduser().glob("*/config.yaml"), key=lambda p: p.stat().st_mtime)
        if not runs:
            raise ConfigError(f"there is no run to resume in {config.storage_path}")
        folder = runs[-1].parent
    kept = folder / "config.yaml"
    if not kept.exists():
        raise ConfigError(f"there is no run to resume in {folder}: it has no config.yaml")
    before = settings.load(kept)
    after = settings.load(file or kept, overrides)
    changed = [name for name in _FIXED if getattr(before, name) != getattr(after, name)]
    if changed and any((folder / "supernet").glob("step-*")):
        raise ConfigError(
            f"{', '.join(changed)} differ from the settings under which the weights in {folder} were trained: "
            "leave them, or start a new run"
        )
    return dataclasses.replace(after, name=folder.name, storage_path=str(folder.parent))


def _architecture(run: Run, given: str | None) -> dict[str, str]:
    if given is None:
        return run.best()
    text = Path(given).read_text(encoding="utf-8") if Path(given).is_file() else given
    try:
        found = json.loads(text)
    except ValueError:
        raise ConfigError(f"--architecture {given!r} is neither JSON nor a file that holds it") from None
    return run.check(found)


def execute(command: str, run: Run, flags: argparse.Namespace) -> None:
    """Carry out one command."""
    after = [command]
    if command == "search":
        run.search()
        after = list(run.config.after)
    elif command == "train-supernet":
        run.train_supernet()
    if "retrain" in after:
        run.retrain(_architecture(run, flags.architecture))
    if "export" in after:
        run.export(_architecture(run, flags.architecture))
    if "report" in after:
        run.view.say(f"report: {run.report()}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, 1 (it failed), 2 (bad input), 130 (interrupted)."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # your own packages, also when started as a script
    run: Run | None = None
    try:
        command, config, flags = read_arguments(sys.argv[1:] if arguments is None else arguments)
        run = prepare(config)
        if command in ("retrain", "export"):
            _architecture(run, flags.architecture)
    except (ValueError, CheckpointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if flags.dry_run:
        run.dry_run()
        return 0
    try:
        connect(run.config, flags.dashboard, flags.verbose)
        execute(command, run, flags)
    except KeyboardInterrupt:
        print(f"\nstopped; go on with: python -m raynas.launch --resume {run.folder}", file=sys.stderr)
        return 130
    except (ValueError, RuntimeError, OSError, TrainingDiverged) as error:
        print(f"error: {error}\nwhat was computed is kept in {run.folder}; go on with --resume", file=sys.stderr)
        return 1
    finally:
        run.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
