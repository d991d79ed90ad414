"""Reading the command line: flags, ``key=value`` settings, and the settings of a run that is gone on with."""

from __future__ import annotations

import argparse
import dataclasses
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from raynas.config.loading import load, load_kept
from raynas.config.presets import PRESETS
from raynas.config.run import Config, smoke_test
from raynas.config.trust import ForeignError
from raynas.config.types import check_name
from raynas.exceptions import ConfigError
from raynas.runs.compatibility import begun, refuse_changes
from raynas.storage.object_store import fetch, newest, remote, split_uri

__all__ = ["COMMANDS", "is_key", "parser", "read_arguments"]

COMMANDS = {
    "search": "everything: train the supernet, search, then what `after` lists (the default)",
    "train-supernet": "train the shared weights alone",
    "retrain": "train an architecture from scratch and evaluate it once on the test images",
    "export": "write an architecture as a plain PyTorch model",
    "rank": "measure how far the scores may be trusted: against a table, or architectures trained from scratch",
    "report": "write a page about the run",
    "watch": "show the state of a run, from another terminal or machine, until it ends: raynas watch FOLDER",
    "doctor": "check all that a run needs; each line says what to do",
    "settings": "show the settings with their types, defaults and meaning: all, a group (train.pool) or one",
}
_NEWEST, _AUTO = "", "auto"
_TOP = ("space", "address", "storage_path", "name", "seed", "time_budget", "budget_gpu_hours")
"""Settings without a group that have a flag."""


def parser() -> argparse.ArgumentParser:
    """The flags of all commands."""
    parser = argparse.ArgumentParser(
        prog="raynas",
        usage="raynas [command] [flags] [key=value ...]",
        description="Search for a neural network with a shared supernet on Ray. The same as python -m raynas.launch.",
        epilog="\n".join(
            [
                "commands:",
                *(f"  {name:<15} {text}" for name, text in COMMANDS.items()),
                "",
                "Any setting may be given as key=value, for example train.epochs=50 limits.macs=3e6.",
                "raynas COMMAND --help shows the settings of a command, raynas settings all of them.",
            ]
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("words", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("--version", action="store_true", help="print the version")
    parser.add_argument("--config", help=f"YAML file with settings, or {', '.join(PRESETS)}")
    for flag, key, text in (
        ("--space", "space", "package.module:name of a function that returns the space, or of decisions alone"),
        ("--data", "data.name", "name of a data set, or package.module:function"),
        ("--address", "address", "Ray cluster; default: $RAY_ADDRESS, else this machine"),
        ("--storage-path", "storage_path", "where runs are kept"),
        ("--name", "name", "the run's folder below the storage path"),
        ("--num-samples", "search.num_samples", "architectures to score in all"),
        ("--max-concurrent", "search.max_concurrent", "trials in flight"),
        ("--seed", "seed", "decides all that is drawn; in parallel it also counts whose score comes first"),
        (
            "--latency-on",
            "latency.place",
            "where latency is measured: local, edge:1 (a resource), device=phone (a label)",
        ),
        ("--time-budget", "time_budget", "training and search end within it: seconds, 90m, 2h"),
        ("--budget-gpu-hours", "budget_gpu_hours", "they end within so many hours of GPUs"),
    ):
        parser.add_argument(flag, dest=key, help=f"{text} ({key})")
    parser.add_argument(
        "--resume",
        nargs="?",
        const=_NEWEST,
        metavar="FOLDER",
        help="go on with a run; default: the newest; auto: start the run of this --name, or go on if it is there",
    )
    parser.add_argument("--architecture", help="for retrain and export: a key, JSON, or a file; default: the winner")
    parser.add_argument("--smoke-test", action="store_true", help="the same run, as small as it can be")
    parser.add_argument("--dry-run", action="store_true", help="check everything, run one architecture, start nothing")
    parser.add_argument("--dashboard", action="store_true", help="start Ray's dashboard too (127.0.0.1:8265)")
    parser.add_argument(
        "--dashboard-host", metavar="HOST", help="start it on another address; it asks for a token there"
    )
    parser.add_argument(
        "--trust",
        action="store_true",
        help="run code that the settings file or the run's folder names: settings are code",
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="show what Ray and the workers print")
    return parser


def read_arguments(arguments: Sequence[str]) -> tuple[str, Config, argparse.Namespace]:
    """The command, the settings and the flags of a command line.

    Raises:
        ConfigError: Something in it is illegal, or a file names code that this command line does not.
    """
    try:
        return _read_arguments(arguments)
    except ForeignError as error:
        line = shlex.join(["python", "-m", "raynas.launch", *arguments, "--trust"])
        raise ForeignError(f"{error}; that is: {line}") from None


def _read_arguments(arguments: Sequence[str]) -> tuple[str, Config, argparse.Namespace]:
    flags = parser().parse_intermixed_args(arguments)
    words = list(flags.words)
    if flags.resume is not None and re.match(r"[\w.]+=", flags.resume) and not Path(flags.resume).exists():
        words.append(flags.resume)  # --resume key=value: the newest run, and a setting
        flags.resume = _NEWEST
    command = words.pop(0) if words and "=" not in words[0] else "search"
    if command not in COMMANDS:
        raise ConfigError(f"unknown command {command!r}; legal ones: {', '.join(COMMANDS)}")
    if command == "watch" and words and "=" not in words[0]:
        flags.resume = words.pop(0)
    # Flags hold text, which stays text where a setting takes text; numbers are read by the settings' own types.
    named = {key: value for key, value in vars(flags).items() if value is not None and ("." in key or key in _TOP)}
    reads = command in ("report", "watch")
    flags.trust |= reads  # these run nothing of what the files name
    config = load(flags.config, words, named, trust=flags.trust)
    there = config.name is not None and _is_there(_folder(config))
    if flags.resume == _AUTO and not Path(_AUTO).exists():
        if config.name is None:
            raise ConfigError("--resume auto needs --name: by it the same command line finds its run again")
        if not (_folder(config) / "config.yaml").exists():
            return command, smoke_test(config) if flags.smoke_test else config, flags
        flags.resume = _NEWEST  # of this name
    if (
        flags.resume is None
        and command in ("retrain", "export", "rank", "report", "watch")
        and (there or (config.name is None and _of_a_run(flags.architecture)) or reads)
    ):
        flags.resume = _NEWEST  # these go on with a run that is there
    if flags.resume is not None:
        return command, _resumed(flags, config, words, named), flags
    if there and not flags.dry_run and command != "doctor":
        place = f"{config.storage_path}/{config.name}"
        raise ConfigError(f"the run {place} is there already: add --resume to go on, or take another --name")
    return command, smoke_test(config) if flags.smoke_test else config, flags


def is_key(text: str) -> bool:
    """Whether a text is the key of an architecture or the beginning of one, and no file."""
    return re.fullmatch(r"[0-9a-f]{4,16}", text) is not None and not Path(text).exists()


def _of_a_run(architecture: str | None) -> bool:
    """Whether ``--architecture`` only has a meaning for a run that is there."""
    return architecture is None or is_key(architecture)


def _is_there(folder: Path) -> bool:
    """Whether a run of this folder must not be started anew. One that ended before anything was computed may be."""
    return folder.exists() and (begun(folder) or not (folder / "config.yaml").exists())


def _folder(config: Config) -> Path:
    return fetch(config.storage_path, str(config.name))


def _resumed(flags: argparse.Namespace, config: Config, overrides: Sequence[str], values: Mapping[str, str]) -> Config:
    """The settings of the run to go on with, changed by what was given now."""
    storage, name = config.storage_path, config.name
    if flags.resume != _NEWEST:
        folder = Path(flags.resume).expanduser()
        if remote(flags.resume):
            storage, name = split_uri(flags.resume)
        elif _exists(folder):
            folder = folder if folder.name not in ("", "..") else folder.resolve()
            storage, name = str(folder.parent), folder.name
        else:
            name = flags.resume
        shown = flags.resume if flags.resume.isprintable() else ascii(flags.resume)
        check_name(name, f"there is no run to resume in {shown}: --resume")
    elif name is None:
        name = newest(storage)
        if name is None:
            raise ConfigError(f"there is no run to resume in {storage}: run search first")
    folder = fetch(storage, name)
    kept = folder / "config.yaml"
    if not kept.exists():
        place = f"{storage}/{name}" if remote(storage) else folder
        raise ConfigError(
            f"there is no run to resume in {place}: it has no config.yaml (--resume auto with --name starts it)"
        )
    before, after = load_kept(kept), load(flags.config or kept, overrides, values, trust=flags.trust)
    if after.train.preset == "auto":  # the data decided, and config.yaml says how
        after = dataclasses.replace(after, train=dataclasses.replace(after.train, preset=before.train.preset))
    after = smoke_test(after) if flags.smoke_test else after
    refuse_changes(folder, before, after)
    return dataclasses.replace(after, name=folder.name, storage_path=storage if remote(storage) else str(folder.parent))


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that is too long, or holds a NUL
        return False
