"""Reading the command line: flags, ``key=value`` settings, and the settings of a run that is gone on with."""

from __future__ import annotations

import argparse
import dataclasses
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from raynas import checkpoint
from raynas.config import Config, ConfigError, smoke_test
from raynas.config_file import load, read
from raynas.foreign import ForeignError
from raynas.presets import PRESETS
from raynas.storage import fetch, newest, remote

__all__ = ["COMMANDS", "OPERATION", "read_arguments", "refuse_changes"]

COMMANDS = {
    "search": "everything: train the supernet, search, then what `after` lists (the default)",
    "train-supernet": "train the shared weights alone",
    "retrain": "train an architecture from scratch and evaluate it once on the test images",
    "export": "write an architecture as a plain PyTorch model",
    "rank": "measure how far the scores may be trusted: against a table, or architectures trained from scratch",
    "report": "write a page about the run",
    "doctor": "check all that a run needs; each line says what to do",
}
OPERATION = (
    *("workers", "gpus_per_worker", "cpus_per_worker", "wait_minutes"),
    *("checkpoint_seconds", "keep_checkpoints", "max_failures"),
)
"""Settings of ``train`` that a resumed run may change: where it runs, not what it computes."""
_TOP = ("space", "address", "storage_path", "name", "seed", "time_budget", "budget_gpu_hours")
"""Settings without a group that have a flag."""
_SCORING = (
    "trainable", "trainable_args", "joint", "combine", "reference", "slices", "validation_images", "bn_images",
    "batch_size", "epochs",
)  # fmt: skip
"""What the scores depend on besides: where there are scores, these are kept too."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m raynas.launch",
        description="Search for a neural network with a shared supernet on Ray.",
        epilog="commands: " + "; ".join(f"{name}: {text}" for name, text in COMMANDS.items())
        + ". Any setting may be given as key=value, e.g. train.epochs=50 limits.macs=3e6.",
        allow_abbrev=False,
    )  # fmt: skip
    parser.add_argument("words", nargs="*", metavar="[command] [key=value ...]")
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
        "--resume", nargs="?", const="auto", metavar="FOLDER", help="go on with a run; default: the newest"
    )
    parser.add_argument("--architecture", help="for retrain and export: JSON, or a file; default: the winner")
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
    flags = _parser().parse_intermixed_args(arguments)
    words = list(flags.words)
    if flags.resume is not None and re.match(r"[\w.]+=", flags.resume) and not Path(flags.resume).exists():
        words.append(flags.resume)  # --resume key=value: the newest run, and a setting
        flags.resume = "auto"
    command = words.pop(0) if words and "=" not in words[0] else "search"
    if command not in COMMANDS:
        raise ConfigError(f"unknown command {command!r}; legal ones: {', '.join(COMMANDS)}")
    # Flags hold text, which stays text where a setting takes text; numbers are read by the settings' own types.
    named = {key: value for key, value in vars(flags).items() if value is not None and ("." in key or key in _TOP)}
    flags.trust |= command == "report"  # it runs nothing of what they name
    config = load(flags.config, words, named, trust=flags.trust)
    there = config.name is not None and _folder(config).exists()
    if (
        flags.resume is None
        and command in ("retrain", "export", "rank", "report")
        and (there or (config.name is None and flags.architecture is None) or command == "report")
    ):
        flags.resume = "auto"  # these go on with a run that is there
    if flags.resume is not None:
        return command, _resumed(flags, config, words, named), flags
    if there and not flags.dry_run and command != "doctor":
        place = f"{config.storage_path}/{config.name}"
        raise ConfigError(f"the run {place} is there already: add --resume to go on, or take another --name")
    return command, smoke_test(config) if flags.smoke_test else config, flags


def _folder(config: Config) -> Path:
    return fetch(config.storage_path, str(config.name))


def _resumed(flags: argparse.Namespace, config: Config, overrides: Sequence[str], values: Mapping[str, str]) -> Config:
    """The settings of the run to go on with, changed by what was given now."""
    storage, name = config.storage_path, config.name
    if flags.resume != "auto":
        folder = Path(flags.resume).expanduser()
        if remote(flags.resume):
            storage, _, name = flags.resume.rstrip("/").rpartition("/")
        elif folder.exists():
            storage, name = str(folder.parent), folder.name
        else:
            name = flags.resume
    elif name is None:
        name = newest(storage)
        if name is None:
            raise ConfigError(f"there is no run to resume in {storage}: run search first")
    folder = fetch(storage, name)
    kept = folder / "config.yaml"
    if not kept.exists():
        place = f"{storage}/{name}" if remote(storage) else folder
        raise ConfigError(f"there is no run to resume in {place}: it has no config.yaml")
    before, after = read(kept), load(flags.config or kept, overrides, values, trust=flags.trust)
    if after.train.preset == "auto":  # the data decided, and config.yaml says how
        after = dataclasses.replace(after, train=dataclasses.replace(after.train, preset=before.train.preset))
    after = smoke_test(after) if flags.smoke_test else after
    refuse_changes(folder, before, after)
    return dataclasses.replace(after, name=folder.name, storage_path=storage if remote(storage) else str(folder.parent))


def refuse_changes(folder: Path, before: Config, after: Config) -> None:
    """What weights and scores depend on must stay: else they would not belong together.

    Args:
        folder: Of the run.
        before: The settings it was made with.
        after: Those it is to go on with.

    Raises:
        ConfigError: There are weights or scores, and settings that they depend on differ; they are named.
    """
    scored = any((folder / "scored.parquet").glob("*.parquet"))
    changed = [name for name in ("space", "space_args", "seed") if getattr(before, name) != getattr(after, name)]
    for group, free in (("data", ("folder",)), ("train", OPERATION)):
        old, new = dataclasses.asdict(getattr(before, group)), dataclasses.asdict(getattr(after, group))
        changed += [f"{group}.{name}" for name in old if name not in free and old[name] != new[name]]
    trained = checkpoint.latest(folder / "supernet")
    if trained is not None and trained[0] != trained[2]["total"] and before.limits != after.limits:
        changed.append("limits (which paths are trained depends on them; finish the training first)")
    if changed and (scored or trained is not None):
        raise ConfigError(
            f"{', '.join(changed)} differ from the settings under which {folder} was trained and scored: "
            "leave them, or start a new run"
        )
    changed = [f"search.{name}" for name in _SCORING if getattr(before.search, name) != getattr(after.search, name)]
    if changed and scored:
        raise ConfigError(
            f"{', '.join(changed)} differ from the settings under which the architectures in {folder} were scored: "
            "the scores would not compare; leave them, or start a new run"
        )
