"""Checkpoints: tensors and a few plain values in one safetensors file each, written atomically.

A file carries a digest of its contents. One that was cut short or damaged is recognised, named, and the one before it
is used. Nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from raynas.patience import reason, remove_abandoned, replace_bytes
from raynas.removal import NotOwnedError, remove_file

__all__ = ["CheckpointError", "check_initial", "keep_initial", "latest", "newest", "read", "read_initial", "write"]

log = logging.getLogger(__name__)
_SUFFIX = ".safetensors"


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be written or read; the message names the file."""


def write(folder: Path, step: int, tensors: Mapping[str, Tensor], values: Mapping[str, Any], keep: int = 2) -> Path:
    """Write ``step-<step>.safetensors`` so that a reader sees all of it or nothing, then drop old ones.

    Args:
        folder: Made if it is not there.
        step: Number of the training step; the newest checkpoint is that of the highest number.
        tensors: On the CPU, contiguous.
        values: Anything that JSON can hold.
        keep: How many of the newest stay.

    Raises:
        CheckpointError: The disk is full or the folder cannot be written, and it stayed so for
            ``raynas.patience.PATIENCE``. Earlier checkpoints are untouched.
    """
    path = folder / f"step-{step:09d}{_SUFFIX}"
    _store(path, {"step": step, "values": dict(values)}, tensors)
    for old in sorted(folder.glob(f"step-*{_SUFFIX}"))[:-keep]:
        try:
            remove_file(old)
        except NotOwnedError as error:
            log.warning("%s: %s", old, error.strerror)
    remove_abandoned(folder)
    return path


def keep_initial(folder: Path, weights: Mapping[str, Tensor], name: str = "initial") -> None:
    """Keep the weights with which a training begins beside its checkpoints, in a file of this name.

    Raises:
        CheckpointError: The disk is full or the folder cannot be written.
    """
    _store(folder / f"{name}{_SUFFIX}", {"step": 0, "values": {}}, weights)


def read_initial(folder: Path, name: str = "initial") -> dict[str, Tensor]:
    """What :func:`keep_initial` wrote.

    Raises:
        CheckpointError: There is no such file, or it is damaged.
    """
    path = folder / f"{name}{_SUFFIX}"
    if not path.exists():
        raise CheckpointError(
            f"the supernet in {folder} was trained without keeping its initial weights, from which angles are "
            "measured: train it again in a new run (another --name)"
        )
    return read(path)[1]


def check_initial(folder: Path) -> None:
    """Refuse a training that began without keeping its initial weights; one that did not begin yet may keep them.

    Raises:
        CheckpointError: There are checkpoints, and the weights with which they began are missing or damaged.
    """
    if any(folder.glob(f"step-*{_SUFFIX}")):
        read_initial(folder)


def _store(path: Path, header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write one file so that a reader sees all of it or nothing."""
    described = {**header, "digest": _digest(tensors)}
    content = save(dict(tensors), {"raynas": json.dumps(described)})
    try:
        replace_bytes(path, content)
    except OSError as error:
        raise CheckpointError(f"cannot write the checkpoint {path}: {reason(error)}") from error


def read(path: Path) -> tuple[int, dict[str, Tensor], dict[str, Any]]:
    """Read one checkpoint: its step, tensors and values.

    Raises:
        CheckpointError: The file is cut short, damaged or not one of ours.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})["raynas"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise CheckpointError(f"the checkpoint {path} is damaged: {error}") from error
    if _digest(tensors) != header["digest"]:
        raise CheckpointError(f"the checkpoint {path} is damaged: its contents do not fit its digest")
    return header["step"], tensors, header["values"]


def latest(folder: Path) -> tuple[int, dict[str, Tensor], dict[str, Any]] | None:
    """The newest checkpoint that can be read, or None where there is none at all.

    A damaged one is named in a warning and the one before it is used.

    Raises:
        CheckpointError: There are checkpoints, but all of them are damaged.
    """
    files = sorted(folder.glob(f"step-*{_SUFFIX}"), reverse=True)
    problems = []
    for path in files:
        try:
            return read(path)
        except CheckpointError as error:
            problems.append(str(error))
            log.warning("%s; trying the one before it", error)
    if problems:
        raise CheckpointError("; ".join(problems) + f": no usable checkpoint is left in {folder}; delete it to restart")
    return None


def newest(folder: Path) -> int:
    """The step of the newest checkpoint by its name; 0 where there is none."""
    return max((int(path.stem.removeprefix("step-")) for path in folder.glob(f"step-*{_SUFFIX}")), default=0)


def _digest(tensors: Mapping[str, Tensor]) -> str:
    """A hash of names and bytes, independent of the order in which they are given."""
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
