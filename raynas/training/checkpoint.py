"""Checkpoints: tensors and a few plain values in one safetensors file each, written atomically.

A file carries a digest of its tensors and one of its step and values. One that was cut short, damaged or edited is
recognised, named, and the one before it is used. :func:`read_header` reads step and values alone, without the tensors:
the digest of the tensors is checked when they are loaded. Nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from raynas.exceptions import CheckpointError, NotOwnedError
from raynas.storage.atomic import reason, remove_abandoned, replace_by_draft, write_with_retry
from raynas.storage.removal import remove_file

__all__ = [
    "check_fit",
    "check_initial",
    "keep_initial",
    "latest",
    "latest_header",
    "newest",
    "read",
    "read_header",
    "read_initial",
    "write",
]

log = logging.getLogger(__name__)
_SUFFIX = ".safetensors"
_NAME = re.compile(r"step-(\d{9,18})\.safetensors")
T = TypeVar("T")


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
            ``raynas.storage.atomic.RETRY_SECONDS``. Earlier checkpoints are untouched.
    """
    path = folder / f"step-{step:09d}{_SUFFIX}"
    _store(path, {"step": step, "values": dict(values)}, tensors)
    for old in (*_files(folder)[keep:], *folder.glob(".tmp??????")):  # the latter: of a writer that was killed
        try:
            remove_file(old)
        except NotOwnedError as error:
            log.warning("%s: %s", old, error.strerror)
    remove_abandoned(folder)
    return path


def _files(folder: Path) -> list[Path]:
    """The checkpoints of a folder by their names, newest first; files with other names are somebody else's."""
    found = [path for path in folder.glob(f"step-*{_SUFFIX}") if _NAME.fullmatch(path.name)]
    return sorted(found, key=_step, reverse=True)


def _step(path: Path) -> int:
    return int(path.stem.removeprefix("step-"))


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
    if _files(folder):
        read_initial(folder)


def _store(path: Path, header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write one file so that a reader sees all of it or nothing. The tensors go to the disk without another copy."""
    described = {**header, "digest": _digest(tensors), "header_digest": _header_digest(header)}

    def write() -> None:
        replace_by_draft(path, lambda draft: _save(tensors, draft, {"raynas": json.dumps(described)}))

    try:
        write_with_retry(write, f"the checkpoint {path}")
    except OSError as error:
        raise CheckpointError(f"cannot write the checkpoint {path}: {reason(error)}") from error


def _save(tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    """As ``save_file``, which writes a ``.tmp??????`` and renames it, with an ``OSError`` where the storage refuses."""
    try:
        save_file(dict(tensors), path, metadata)
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1]))) from error


def read_header(path: Path) -> tuple[int, dict[str, Any]]:
    """Read the step and the values of one checkpoint; its tensors are not read.

    Raises:
        CheckpointError: The file is cut short, damaged or not one of ours.
    """
    header = _opened(path, lambda file: _header(path, file))
    return header["step"], header["values"]


def read(path: Path) -> tuple[int, dict[str, Tensor], dict[str, Any]]:
    """Read one checkpoint: its step, tensors and values.

    Raises:
        CheckpointError: The file is cut short, damaged or not one of ours.
    """

    def everything(file: Any) -> tuple[dict[str, Any], dict[str, Tensor]]:
        return _header(path, file), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict

    header, tensors = _opened(path, everything)
    if _digest(tensors) != header["digest"]:
        raise CheckpointError(f"the checkpoint {path} is damaged: its contents do not fit its digest")
    return header["step"], tensors, header["values"]


def _opened(path: Path, use: Callable[[Any], T]) -> T:
    """What ``use`` makes of an open file."""
    try:
        with safe_open(path, framework="pt") as file:
            return use(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"the checkpoint {path} is damaged: {error}") from error


def _header(path: Path, file: Any) -> dict[str, Any]:
    """What an open file says of itself, checked.

    Raises:
        ValueError: Something is missing, or of another type.
    """
    text = (file.metadata() or {}).get("raynas")
    if text is None:
        raise ValueError("it has no metadata of RayNAS")
    header: dict[str, Any] = json.loads(text)
    types = {"step": int, "values": dict, "digest": str}
    for name, kind in types.items():
        if not isinstance(header, dict) or type(header.get(name)) is not kind:
            raise ValueError(f"its metadata have no {name!r} of type {kind.__name__}")
    if header.get("header_digest", _header_digest(header)) != _header_digest(header):
        raise ValueError("its step or values do not fit their digest")  # older files have none
    if _NAME.fullmatch(path.name) and header["step"] != _step(path):
        raise ValueError(f"it is of step {header['step']}")
    wrong = [name for name, value in header["values"].items() if not _KNOWN.get(name, _anything)(value)]
    if wrong:
        raise ValueError(f"its metadata have an illegal {wrong[0]!r}: {str(header['values'][wrong[0]])[:60]}")
    if header["values"].get("total", header["step"]) < header["step"]:
        raise ValueError(f"it is of step {header['step']} of {header['values']['total']}")
    return header


def _anything(value: Any) -> bool:
    return True


def _is_count(value: Any) -> bool:
    return type(value) is int and value > 0


def _is_duration(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < math.inf


def _is_losses(value: Any) -> bool:
    return isinstance(value, list) and all(type(each) in (int, float) for each in value)


def _is_mapping(value: Any) -> bool:
    return isinstance(value, dict)


_KNOWN: dict[str, Callable[[Any], bool]] = {
    "total": _is_count,
    "seconds": _is_duration,
    "losses": _is_losses,
    "rounds": _is_mapping,
    "settings": _is_mapping,
}
"""What values of these names must be."""


def latest(folder: Path, needs: Sequence[str] = ()) -> tuple[int, dict[str, Tensor], dict[str, Any]] | None:
    """The newest checkpoint that can be read, or None where there is none at all.

    A damaged one is named in a warning and the one before it is used.

    Args:
        folder: Need not be there.
        needs: Names of values without which a checkpoint is of no use.

    Raises:
        CheckpointError: There are checkpoints, but all of them are damaged.
    """
    found: tuple[int, dict[str, Tensor], dict[str, Any]] | None = _newest_of(folder, read, needs)
    return found


def latest_header(folder: Path, needs: Sequence[str] = ()) -> tuple[int, dict[str, Any]] | None:
    """Step and values of the newest checkpoint, as :func:`latest`, without its tensors.

    Raises:
        CheckpointError: There are checkpoints, but all of them are damaged.
    """
    found: tuple[int, dict[str, Any]] | None = _newest_of(folder, read_header, needs)
    return found


def _newest_of(folder: Path, use: Callable[[Path], Any], needs: Sequence[str]) -> Any:
    problems = []
    for path in _files(folder):
        try:
            found = use(path)
            missing = [name for name in needs if name not in found[-1]]
            if missing:
                raise CheckpointError(f"the checkpoint {path} is damaged: its metadata have no {missing[0]!r}")
            return found
        except CheckpointError as error:
            problems.append(str(error))
            log.warning("%s; trying the one before it", error)
    if problems:
        raise CheckpointError("; ".join(problems) + f": no usable checkpoint is left in {folder}; delete it to restart")
    return None


def check_fit(folder: Path, tensors: Mapping[str, Tensor], model: Mapping[str, Tensor]) -> None:
    """Refuse weights that are not those of a model.

    Args:
        folder: Where they come from.
        tensors: By name.
        model: Its ``state_dict``.

    Raises:
        CheckpointError: A tensor is missing, too many, or of another shape.
    """
    shapes = [{name: tuple(tensor.shape) for name, tensor in each.items()} for each in (tensors, model)]
    wrong = sorted(name for name in {**shapes[0], **shapes[1]} if shapes[0].get(name) != shapes[1].get(name))
    if wrong:
        told = " but ".join(str(shape.get(wrong[0], "nothing")) for shape in shapes)
        raise CheckpointError(
            f"the checkpoint in {folder} is of another network: {wrong[0]} is {told} is wanted; {len(wrong)} tensors "
            "differ; take the space that it was made with, or start a new run"
        )


def newest(folder: Path) -> int:
    """The step of the newest checkpoint by its name; 0 where there is none."""
    return max(map(_step, _files(folder)), default=0)


def _header_digest(header: Mapping[str, Any]) -> str:
    """A hash of step and values."""
    told = json.dumps([header["step"], header["values"]], sort_keys=True)
    return hashlib.blake2b(told.encode(), digest_size=16).hexdigest()


def _digest(tensors: Mapping[str, Tensor]) -> str:
    """A hash of names and bytes, independent of the order in which they are given."""
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
