"""Whether all nodes of a cluster can take part in a run: they see its folder, and they have its code."""

from __future__ import annotations

import importlib.util
import logging
import math
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raynas._compat import draining_nodes
from raynas.exceptions import ConfigError
from raynas.storage.atomic import replace_file
from raynas.storage.object_store import unusable
from raynas.storage.removal import own, remove_tree
from raynas.utils.periods import PERIODS

__all__ = ["TIMEOUT", "PreemptionNotice", "appears", "check_nodes", "last_line", "meeting_in"]

log = logging.getLogger(__name__)
TIMEOUT = 60.0
"""Seconds a node may take to start a process and answer."""
_LEAVING = PERIODS.leaving
"""Seconds between two checkpoints while a node is leaving."""


def check_nodes(storage: Path | str, modules: Iterable[str]) -> None:
    """Have a task on every node look for the code that is to run there, and write into the folder of the run.

    Whichever node computes them writes retrained networks and the weights of trials in flight. One that has neither
    processors nor GPUs to give, such as a device on which latency is measured, needs the code alone.

    Args:
        storage: The folder, which is there; or the URI of an object store, into which every node must be able to write.
        modules: What the nodes must be able to import.

    Raises:
        ConfigError: Some nodes lack a module or do not see the folder; it names them.
    """
    alive = [node for node in ray.nodes() if node["Alive"]]
    nodes = {node["NodeID"]: node["NodeManagerAddress"] for node in alive}
    idle = {node["NodeID"] for node in alive if not node["Resources"].keys() & {"CPU", "GPU"}}
    with meeting_in(storage) if isinstance(storage, Path) else nullcontext(storage) as meeting:
        visits = {node: None if node in idle else meeting for node in nodes}
        trouble = _ask(visits, sorted(set(modules) - {"__main__"}))
    there = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
    trouble = {node: text for node, text in trouble.items() if node in there}  # some may have left meanwhile
    if trouble:
        reasons = "; ".join(f"node {nodes[node]} {text}" for node, text in trouble.items())
        raise ConfigError(f"the cluster cannot share this run: {reasons} (see cluster/README.md)")


class PreemptionNotice:
    """Tells a training when to keep its weights at once: nodes have been told to leave (`ray drain-node`).

    A node that was started by `ray start --block` drains by itself on SIGTERM, which is how Kubernetes takes one away.
    """

    def __init__(self) -> None:
        self._known: set[str] = set()
        self._last = -math.inf

    def given(self) -> bool:
        """Whether a node is leaving since the last call; as long as it is there, once more every few seconds."""
        leaving = draining_nodes()
        news, self._known = leaving - self._known, leaving
        if news:
            log.warning("%d of the nodes must leave: a checkpoint is written at once", len(news))
        if not news and (not leaving or time.monotonic() - self._last < _LEAVING):
            return False
        self._last = time.monotonic()
        return True


@contextmanager
def meeting_in(folder: Path) -> Iterator[Path]:
    """A new folder in ``folder``, absolute, in which all nodes that share it leave a sign; removed in the end.

    Raises:
        OSError: This process itself cannot write there.
    """
    meeting = folder.absolute() / f".meeting-{uuid.uuid4().hex[:8]}"
    own(meeting)
    try:
        yield meeting
    finally:
        with suppress(OSError):
            remove_tree(meeting)


def appears(path: Path, seconds: float = 3.0) -> bool:
    """Whether a path is there; network file systems may show it a moment late."""
    deadline = time.monotonic() + seconds
    while not path.exists():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def last_line(error: RayError) -> str:
    """What an error of Ray is about: it ends a whole traceback."""
    return str(error).strip().splitlines()[-1].strip()


def _ask(meetings: Mapping[str, Path | str | None], modules: Sequence[str]) -> Mapping[str, str]:
    """What is wrong on which of the nodes: where they are to meet, if they must."""
    visits = {
        node: ray.remote(_visit)
        .options(num_cpus=0, max_retries=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False))
        .remote(meeting, node, modules)
        for node, meeting in meetings.items()
    }
    deadline, trouble = time.monotonic() + TIMEOUT, {}
    for node, visit in visits.items():
        answer, meeting = _outcome(visit, max(deadline - time.monotonic(), 0.0)), meetings[node]
        if answer is None and isinstance(meeting, Path) and not appears(meeting / node):
            answer = f"has a folder {meeting.parent} of its own: take a storage_path that all nodes mount"
        if answer is not None:
            trouble[node] = answer
    return trouble


def _visit(meeting: Path | str | None, name: str, modules: Sequence[str]) -> str | None:
    """What is wrong on this node, if anything."""
    for module in modules:
        if not _importable(module):
            return f"cannot import {module}: install it there, or ship it by ray job submit --working-dir"
    if not isinstance(meeting, Path):
        return None if meeting is None else unusable(meeting)
    if not appears(meeting):
        return f"does not see {meeting.parent} as the driver does: take a storage_path that all nodes mount"
    try:
        replace_file(meeting / name, lambda file: None)
    except OSError as error:
        return f"cannot write into {meeting.parent}: {error.strerror}"
    return None


def _importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of what it is a part of
        return False


def _outcome(visit: ray.ObjectRef[str | None], seconds: float) -> str | None:
    """What a node answered, or why it did not."""
    try:
        return ray.get(visit, timeout=seconds)
    except GetTimeoutError:
        return f"did not answer within {TIMEOUT:g} seconds"
    except RayError as error:
        # Where RayNAS is not installed, the task itself cannot be loaded.
        return f"cannot run a task of RayNAS ({last_line(error)}): is it installed there?"
