"""What the nodes of a cluster are like: a task on each of them reports what a run would find there."""

from __future__ import annotations

import importlib
import importlib.util
import platform
import time
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raynas.distributed.nodes import TIMEOUT, appears, last_line, meeting_in
from raynas.storage.atomic import replace_file
from raynas.storage.object_store import unusable

__all__ = ["NodeFacts", "probe_nodes"]


@dataclass(frozen=True)
class NodeFacts:
    """One node, as a process on it sees it."""

    address: str
    python: str = ""
    ray: str = ""
    torch: str = ""
    gpus: float = 0.0
    """As Ray counts them."""
    physical: int = 0
    """As the driver of the system counts them."""
    cuda: str = ""
    """What torch says of a GPU that Ray gave it: its name; empty if it finds none."""
    gpu_memory: int = 0
    """Bytes of that GPU."""
    memory: int = 0
    """Bytes of main memory that are left."""
    skew: float = 0.0
    """Seconds that its clock is ahead of this process's."""
    storage: str = ""
    """What is wrong with the storage there."""
    error: str = ""
    """Why it did not answer; the rest is unknown then."""


class Visitor:
    """A process on a node that looks around."""

    def look(self, meeting: Path | str | None, node: str) -> dict[str, Any]:
        """All that needs no GPU."""
        physical = Path("/proc/driver/nvidia/gpus")
        spec = importlib.util.find_spec("torch")
        return {
            "python": platform.python_version(),
            "ray": ray.__version__,
            "torch": importlib.import_module("torch.version").__version__ if spec else "",
            "physical": len(list(physical.iterdir())) if physical.is_dir() else 0,
            "memory": _available(),
            "storage": _share(meeting, node),
        }

    def now(self) -> float:
        """The clock of the node."""
        return time.time()


def _available() -> int:
    """Bytes that processes can still take, the system's caches included."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))


def _share(meeting: Path | str | None, node: str) -> str:
    """What keeps a node from sharing a folder, if anything: it must see what the driver made, and write itself."""
    if meeting is None:
        return ""
    if isinstance(meeting, str):
        return unusable(meeting) or ""
    if not appears(meeting):
        return f"does not see {meeting.parent} as this machine does"
    try:
        replace_file(meeting / node, lambda file: file.write(node.encode()))
    except OSError as error:
        return f"cannot write into {meeting.parent}: {error.strerror}"
    return ""


def _gpu() -> tuple[str, int]:
    """Name and bytes of the GPU that Ray gave to this process, as torch finds it."""
    torch = importlib.import_module("torch")
    if not torch.cuda.is_available():
        return "", 0
    found = torch.cuda.get_device_properties(0)
    return str(found.name), int(found.total_memory)


def probe_nodes(storage: Path | str) -> list[NodeFacts]:
    """Visit all nodes of the cluster that this process has joined.

    Args:
        storage: A folder that all nodes should see; one for the meeting is made in it, and removed. Or the URI of an
            object store.

    Raises:
        OSError: This process itself cannot write there.
    """
    if isinstance(storage, Path):
        storage.mkdir(parents=True, exist_ok=True)
    with meeting_in(storage) if isinstance(storage, Path) else nullcontext(storage) as meeting:
        nodes = [node for node in ray.nodes() if node["Alive"]]
        # A node without processors only measures latency: it keeps nothing.
        visits = [
            _visit(node["NodeID"], meeting if node["Resources"].keys() & {"CPU", "GPU"} else None) for node in nodes
        ]
        deadline = time.monotonic() + TIMEOUT
        return [_facts(node, *visit, deadline) for node, visit in zip(nodes, visits, strict=True)]


def _visit(node: str, meeting: Path | str | None) -> tuple[Any, Any]:
    there = NodeAffinitySchedulingStrategy(node, soft=False)
    visitor: Any = ray.remote(Visitor).options(num_cpus=0, scheduling_strategy=there).remote()
    return visitor, visitor.look.remote(meeting, node)


def _facts(node: dict[str, Any], visitor: Any, look: Any, deadline: float) -> NodeFacts:
    gpus = float(node["Resources"].get("GPU", 0.0))
    facts = NodeFacts(node["NodeManagerAddress"], gpus=gpus)
    try:
        facts = replace(facts, **ray.get(look, timeout=max(deadline - time.monotonic(), 1.0)))
        sent = time.time()
        there = ray.get(visitor.now.remote(), timeout=10)
        facts = replace(facts, skew=there - (sent + time.time()) / 2)
        # Of a container only Ray knows the bounds.
        facts = replace(facts, memory=int(min(facts.memory, node["Resources"].get("memory", facts.memory))))
    except GetTimeoutError:
        return replace(facts, error=f"did not answer within {TIMEOUT:g} seconds")
    except RayError as error:
        return replace(facts, error=f"cannot run RayNAS: {last_line(error)}")
    finally:
        ray.kill(visitor)
    return _with_gpu(facts, node["NodeID"]) if gpus else facts


def _with_gpu(facts: NodeFacts, node: str) -> NodeFacts:
    there = NodeAffinitySchedulingStrategy(node, soft=False)
    task = ray.remote(_gpu).options(num_cpus=0, num_gpus=min(facts.gpus, 1.0), scheduling_strategy=there, max_retries=0)
    answer = task.remote()
    try:
        name, memory = ray.get(answer, timeout=TIMEOUT)
        return replace(facts, cuda=name, gpu_memory=memory)
    except GetTimeoutError:
        ray.cancel(answer, force=True)
        return replace(facts, error="its GPUs are in use by others")
    except RayError as error:
        return replace(facts, error=f"torch fails there: {last_line(error)}")
