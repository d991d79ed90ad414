"""``python -m raynas.launch doctor``: everything that a run needs, looked at before it is started.

Each check looks at facts and returns a :class:`CheckResult`: what was found, and what to do about it. What it would
take is checked on every node of the cluster (see :mod:`raynas.distributed.probe`).
"""

from __future__ import annotations

import dataclasses
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import ray
import torch

from raynas import architecture as arch
from raynas.cli.errors import BAD_INPUT, one_line, write_traceback
from raynas.config.run import Config
from raynas.costs.device import where
from raynas.costs.memory import training_memory
from raynas.distributed.connection import check_address, connect, requires_token
from raynas.distributed.placement import Placement, place_ranks
from raynas.distributed.probe import NodeFacts, probe_nodes
from raynas.exceptions import ConfigError
from raynas.nn.protocols import inspect_space
from raynas.runs.dry_run import run_one_architecture
from raynas.runs.factory import prepare
from raynas.runs.run import Run
from raynas.storage.object_store import remote
from raynas.tasks.base import task_of
from raynas.utils.formatting import counted

__all__ = [
    "CheckResult",
    "check_architecture",
    "check_clock",
    "check_entry",
    "check_gpus",
    "check_latency",
    "check_memory",
    "check_nodes",
    "check_settings",
    "check_space",
    "check_storage",
    "check_token",
    "check_versions",
    "doctor",
]

SKEW = 1.0
"""Seconds that clocks may differ."""
_GIB = 2.0**30


@dataclass(frozen=True)
class CheckResult:
    """One line of the doctor's."""

    name: str
    level: str
    """ok; warn: the run works, but not as it could; fail: it does not."""
    found: str
    advice: str = ""

    def __str__(self) -> str:
        return f"{self.level:4}  {self.name}: {self.found}" + (f". {self.advice}" if self.advice else "")


def check_settings(config: Config, trust: bool = False) -> tuple[CheckResult, Run | None]:
    """Whether settings, space and limits are legal and the data can be read: all that makes a run."""
    try:
        run: Run = prepare(config, trust=trust)
    except BAD_INPUT as error:
        return CheckResult("settings", "fail", one_line(error), "Mend what it names"), None
    except Exception as error:
        advice = f"This is a bug of RayNAS or of your own code; the traceback is in {write_traceback(error, None)}"
        return CheckResult("settings", "fail", f"{type(error).__name__}: {one_line(error)}", advice), None
    known = counted(arch.size(run.search_space.decisions), "architecture")
    if run.has_network:
        counts = ", ".join(f"{len(getattr(run.data, name))} {name}" for name in ("train", "validation", "test"))
        known += f"; data {run.data.name}: {counts} {run.data}"
    return CheckResult("settings", "ok", f"{known}; limits: {str(run.limits) or 'none'}"), run


def check_space(run: Run) -> CheckResult:
    """Which hooks the space defines; names that look like a misspelt one are a warning."""
    report = inspect_space(run.space)
    found = "; ".join(report.lines()[:2])
    return CheckResult("space", "warn" if report.warnings else "ok", found, "; ".join(report.warnings))


def check_token(environment: Mapping[str, str], home: Path) -> CheckResult:
    """Whether this program has a token, and whether it is this user's alone; the cluster: :func:`check_entry`."""
    if environment.get("RAY_AUTH_MODE", "token") != "token":
        return CheckResult(
            "token", "warn", "RAY_AUTH_MODE switches authentication off: who reaches the cluster runs code as you",
            "Set RAY_AUTH_MODE=token on all nodes",
        )  # fmt: skip
    if environment.get("RAY_AUTH_TOKEN"):
        return CheckResult("token", "ok", "in RAY_AUTH_TOKEN")
    named = environment.get("RAY_AUTH_TOKEN_PATH")
    path = Path(named or home / ".ray" / "auth_token")
    if named and not path.is_file():
        return CheckResult(
            "token", "fail", f"RAY_AUTH_TOKEN_PATH names {path}, which is no file", "Unset it, or put the token there"
        )
    if not path.exists():
        return CheckResult("token", "warn", f"there is none in {path} yet", "Make one: ray get-auth-token --generate")
    if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        return CheckResult("token", "warn", f"others may read {path}", f"chmod 600 {path}")
    return CheckResult("token", "ok", f"in {path}")


def check_entry(address: str) -> CheckResult:
    """Whether the cluster asks who comes: one that does not lets in who has a token, too.

    Args:
        address: host:port of its head.
    """
    try:
        asks = requires_token(address)
    except ConfigError:
        asks = None
    if asks:
        return CheckResult("entry", "ok", "the cluster asks for a token")
    advice = "Start every node with RAY_AUTH_MODE=token"
    if asks is None:
        return CheckResult("entry", "warn", f"{address} does not say whether it asks for a token", advice)
    return CheckResult("entry", "warn", "the cluster asks for no token: who reaches it runs code as you", advice)


def check_nodes(nodes: Sequence[NodeFacts]) -> CheckResult:
    """Whether every node answers."""
    silent = [f"{node.address} {node.error}" for node in nodes if node.error]
    if silent:
        return CheckResult("nodes", "fail", "; ".join(silent), "Install RayNAS there, free it, or take it out")
    gpus = sum(node.gpus for node in nodes)
    return CheckResult("nodes", "ok", f"{len(nodes)} of {len(nodes)} answer; {gpus:g} GPUs in all")


def check_versions(nodes: Sequence[NodeFacts]) -> CheckResult:
    """Whether all nodes run the same Ray and torch, and the same Python to its minor version."""
    wrong = []
    for what in ("ray", "torch", "python"):
        there = {node.address: getattr(node, what) for node in nodes if not node.error}
        kinds = {text.rpartition(".")[0] if what == "python" else text for text in there.values()}
        if len(kinds) > 1:
            wrong.append(f"{what}: " + ", ".join(f"{version or 'none'} on {node}" for node, version in there.items()))
    if wrong:
        return CheckResult("versions", "fail", "; ".join(wrong), "Install the same ones on all nodes")
    own = f"Ray {ray.__version__}, torch {torch.__version__}"
    return CheckResult("versions", "ok", f"{own} on all nodes")


def check_storage(nodes: Sequence[NodeFacts], folder: Path | str) -> CheckResult:
    """Whether all nodes share the folder of the runs, or reach the object store."""
    wrong = [f"{node.address} {node.storage}" for node in nodes if node.storage]
    if wrong:
        return CheckResult("storage", "fail", "; ".join(wrong), "Take a --storage-path that all nodes mount")
    return CheckResult("storage", "ok", f"all nodes see {folder} and write there")


def check_gpus(nodes: Sequence[NodeFacts]) -> CheckResult:
    """Whether the GPUs that Ray counts are there for torch, and those that are there are counted."""
    blind = [node.address for node in nodes if node.gpus and not node.cuda and not node.error]
    if blind:
        return CheckResult(
            "GPUs", "fail", f"Ray counts GPUs on {', '.join(blind)}, and torch finds none there",
            "Install a CUDA build of torch that fits the driver (nvidia-smi)",
        )  # fmt: skip
    spare = [
        f"{node.address} has {node.physical}, Ray counts {node.gpus:g}" for node in nodes if node.physical > node.gpus
    ]
    if spare:
        return CheckResult("GPUs", "warn", "; ".join(spare), "Start Ray there with --num-gpus")
    names = sorted({f"{node.cuda} ({node.gpu_memory / _GIB:.0f} GiB)" for node in nodes if node.cuda})
    return CheckResult("GPUs", "ok", ", ".join(names) or "none; everything runs on CPUs")


def check_latency(place: str) -> CheckResult:
    """Whether latency can be measured where the settings say."""
    try:
        where(place)
    except (ConfigError, RuntimeError) as error:
        return CheckResult("latency", "fail", str(error), "Start such a node, or name another place")
    return CheckResult("latency", "ok", f"it can be measured on {place}")


def check_clock(nodes: Sequence[NodeFacts]) -> CheckResult:
    """Whether the clocks agree."""
    worst = max((node for node in nodes if not node.error), key=lambda node: abs(node.skew), default=None)
    if worst is not None and abs(worst.skew) > SKEW:
        ahead = "ahead of" if worst.skew > 0 else "behind"
        return CheckResult(
            "clock", "warn", f"that of {worst.address} is {abs(worst.skew):.1f} s {ahead} this one's",
            "Switch NTP on: the times in files and logs of several nodes cannot be put in order",
        )  # fmt: skip
    return CheckResult("clock", "ok", f"within {0.0 if worst is None else abs(worst.skew):.2f} s of this one's")


def check_memory(need: Mapping[str, int], where: Placement, nodes: Sequence[NodeFacts]) -> CheckResult:
    """Whether the largest path that was found fits into the memory of a worker.

    Args:
        need: Bytes by what they are for; see :func:`raynas.costs.memory.training_memory`.
        where: How many workers train, and what each takes.
        nodes: Where they may run.
    """
    there = [node for node in nodes if not node.error and (node.gpu_memory or not where.gpus)]
    if not there:
        return CheckResult("memory", "warn", "not known: no node says what it has", "Mend the lines above first")
    if where.gpus:
        free = min(node.gpu_memory * min(where.gpus, 1.0) for node in there)
    else:
        free = min(node.memory for node in there) / -(-where.count // len(there))
    total = sum(need.values())
    parts = ", ".join(f"{name} {_size(size)}" for name, size in need.items())
    found = f"a worker takes about {_size(total)} ({parts}) and has {_size(free)}"
    if total > 0.8 * free:
        return CheckResult(
            "memory", "fail" if total > free else "warn", found, "Lower train.batch_size, or add workers"
        )
    return CheckResult("memory", "ok", found)


def _size(count: float) -> str:
    return f"{count / _GIB:.1f} GiB" if count >= _GIB else f"{count / 2**20:.0f} MiB"


def check_architecture(run: Run) -> CheckResult:
    """Whether one architecture goes all the way, in this process."""
    name = "end to end"
    try:
        suggestion = run.searcher(metric="score", mode=run.context.problem.objective.mode).suggest("doctor")
        assert isinstance(suggestion, dict)
        chosen = suggestion["architecture"]
        if not run.has_network:
            return CheckResult(name, "ok", f"{arch.key(chosen)} {dict(run.costs(chosen))}; it has no network to try")
        return CheckResult(name, "ok", run_one_architecture(run, chosen)[0])
    except Exception as error:  # of the user's own modules, too
        return CheckResult(name, "fail", f"{type(error).__name__}: {' '.join(str(error).split())}", "See --dry-run -v")


def _memory(run: Run, nodes: Sequence[NodeFacts]) -> CheckResult:
    """Count, and compare with what there is."""
    recipe = dataclasses.replace(run.config.train.resolved(), wait_minutes=0)  # of the nodes that were visited
    try:
        where = place_ranks(recipe)
    except ConfigError as error:
        return CheckResult("memory", "fail", str(error), "Ask for fewer train.workers, or add nodes")
    batch = max(min(recipe.batch_size or 1, run.task.examples_per_epoch(recipe)) // where.count, 1)
    data = run.data if "retrain" in run.config.after else run.search_data
    need = training_memory(run.space, task_of(data).example(1, recipe), batch, seed=run.config.seed)
    return check_memory({**need, run.task.metric.examples: data.bytes}, where, nodes)


def doctor(config: Config, trust: bool = False, verbose: bool = False) -> int:
    """Print one line for each check; returns 0, or 1 where one failed.

    Args:
        config: The run's settings.
        trust: Whether to run code that a file names: see :func:`raynas.runs.factory.prepare`.
        verbose: Show what Ray prints.
    """
    failed = False

    def show(finding: CheckResult) -> None:
        nonlocal failed
        failed |= finding.level == "fail"
        print(finding, flush=True)

    settings, run = check_settings(config, trust)
    show(settings)
    if run is not None and run.has_network:
        show(check_space(run))
    show(check_token(os.environ, Path.home()))
    try:
        connect(config, verbose=verbose)
    except Exception as error:
        if not isinstance(error, (*BAD_INPUT, RuntimeError)):
            raise
        text = one_line(error)
        given = config.address or os.environ.get("RAY_ADDRESS")
        show(CheckResult("Ray", "fail", text, "Check --address, or start a cluster: ray start --head" if given else ""))
    else:
        joined = check_address(config)
        show(CheckResult("Ray", "ok", joined or "started here"))
        if joined is not None:
            show(check_entry(ray.get_runtime_context().gcs_address))
        for finding in _cluster(config, run):
            show(finding)
    if run is not None:
        show(check_architecture(run))
    return int(failed)


def _cluster(config: Config, run: Run | None) -> list[CheckResult]:
    """What the nodes say."""
    folder = config.storage_path if remote(config.storage_path) else Path(config.storage_path).expanduser()
    try:
        nodes = probe_nodes(folder)
    except OSError as error:
        return [
            CheckResult(
                "storage", "fail", f"cannot write into {folder}: {error.strerror}", "Take another --storage-path"
            )
        ]
    found = [
        check_nodes(nodes),
        check_versions(nodes),
        check_storage(nodes, folder),
        check_gpus(nodes),
        check_clock(nodes),
    ]
    if config.latency.place is not None:
        found.append(check_latency(config.latency.place))
    return [*found, _memory(run, nodes)] if run is not None and run.has_network else found
