"""One run on a cluster that has a bad day: it suffers every fault, one after the other; what each costs is measured.

:mod:`helpers.faults_page` makes a table of it.

The cluster is a head and two nodes with a pretended GPU each, in namespaces of their own. The run is slow as long as
a file `hold` is there, so each fault hits it in the middle. In the end it is compared with an undisturbed run.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen
from typing import Any

from helpers.isolated import Machine
from raynas import results
from raynas.training import checkpoint

REPOSITORY = Path(__file__).parents[2]
HEAD = "127.0.0.1:6379"
SETTINGS = {
    "RAY_AUTH_MODE": "disabled",
    "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY}/tests",
    "RAY_ADDRESS": HEAD,
}
QUICK = {
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_failure_threshold": "3",
    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "4",
}
"""Ray takes a node for lost, and one that must leave leaves, sooner than by default."""
SEARCHED, SLICES = 24, 16
RUN = f"""--space helpers.tiny:space --data helpers.tiny:arrays --name run after=[] search.method=random
search.scheduler=none train.epochs=3 train.batch_size=32
train.checkpoint_seconds=1000 search.num_samples={SEARCHED} search.slices={SLICES}
search.bn_images=256 search.validation_images=64 search.batch_size=32"""


@dataclass
class Fault:
    """One row of the table."""

    name: str
    """Short, for the test."""
    what: str
    done: str
    how: Callable[[BadDay], str]
    """Does it, and whatever a person or a cluster then does; returns what became of it."""
    phase: str
    seconds: float = float("nan")
    """Until the next scored architecture, or the next training steps."""
    outcome: str = ""


class Node:
    """A head, or a worker node with a GPU."""

    def __init__(self, machine: Machine, number: int, settings: Mapping[str, str]) -> None:
        self.machine, self.address = machine, f"127.0.0.{number}"
        start = ["ray", "start", "--block", "--disable-usage-stats", "--object-store-memory=80000000", "--num-cpus=1"]
        start += [f"--node-ip-address={self.address}"]
        if number == 1:
            start += ["--head", "--port=6379", "--include-dashboard=false"]
        else:
            start += [f"--address={HEAD}", "--num-gpus=1"]
        self.said = machine.folder / f"node-{number}.log"
        self._start = machine.start("sh", "-c", 'exec "$@" >"$0" 2>&1', self.said, *start, **SETTINGS, **settings)

    def ready(self) -> bool:
        """Whether it has joined."""
        assert self._start.poll() is None, self.said.read_text()
        return self.said.exists() and "Ray runtime started" in self.said.read_text()

    def starter(self) -> list[int]:
        """`ray start --block`, to which whoever wants the machine back sends SIGTERM."""
        found, wanted = self.machine.processes().items(), f" --node-ip-address={self.address}"
        return [p for p, (_, line) in found if " start --block " in line and f"{wanted} " in line]

    def raylet(self) -> list[int]:
        """Ray's own process on the node."""
        wanted = f"--node_ip_address={self.address} "
        return [p for p, (_, line) in self.machine.processes().items() if "raylet/raylet " in line and wanted in line]

    def all(self) -> list[int]:
        """The starter with all that it has started."""
        found, everything = self.starter(), self.machine.processes()
        for process in found:  # which grows meanwhile
            found += [child for child, (parent, _) in everything.items() if parent == process]
        return found


def kill(processes: Sequence[int], number: int = signal.SIGKILL) -> None:
    """Send a signal to them; some may be gone already."""
    assert processes, "there is nothing to kill"
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, number)


class BadDay:
    """The cluster, the run, and whoever looks after them.

    Args:
        folder: For everything.
        settings: Ray's own, of its nodes.
    """

    def __init__(self, folder: Path, settings: Mapping[str, str]) -> None:
        self.settings = settings
        self.machine = Machine(folder / "machine")
        self.storage = self.machine.home / "runs"
        self.storage.mkdir()
        self.machine.run("mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(self.storage))
        self.run = self.machine.path(self.storage) / "run"
        self.hold, self.said = self.machine.folder / "hold", self.machine.folder / "driver.log"
        self.hold.touch()
        self.nodes: list[Node] = []
        self._number = 1
        self.start()
        self.driver = self.launch()

    def close(self) -> None:
        """End all of it."""
        self.machine.close()

    def start(self) -> None:
        """Start the head and two nodes."""
        self.head = Node(self.machine, 1, self.settings)
        self.wait(self.head.ready)
        self.join()
        self.join()

    def join(self) -> None:
        """Another node joins. One after the other: two that start at the same moment take each other's ports."""
        self._number += 1
        self.nodes.append(Node(self.machine, self._number, self.settings))
        self.wait(self.nodes[-1].ready)

    def launch(self, *words: str) -> Popen[str]:
        """Start the run, or go on with it."""
        line = ["python", "-m", "raynas.launch", *RUN.split(), f"space_args.hold={self.hold}"]
        line += ["--storage-path", str(self.storage), "train.wait_minutes=2", "train.workers=2", "search.replicas=2"]
        return self.machine.start("sh", "-c", 'exec "$@" >>"$0" 2>&1', self.said, *line, *words, **SETTINGS)

    def resume(self) -> None:
        """Start the driver again."""
        self.driver = self.launch("--resume")

    def driver_process(self) -> list[int]:
        """The driver itself."""
        return [p for p, (_, line) in self.machine.processes().items() if " -m raynas.launch " in line]

    def actor(self, name: str) -> int:
        """The process of an actor: it writes its name into its output, a file that is called by its number inside."""
        logs = self.machine.path(Path("/tmp/ray")).glob("session_2*/logs/worker-*.out")
        inside = {path.stem.rpartition("-")[2] for path in logs if f":actor_name:{name}\n" in path.read_text()}
        for process in self.machine.processes():
            status = Path(f"/proc/{process}/status").read_text()
            if status.partition("NSpid:")[2].partition("\n")[0].split()[-1] in inside:
                return process
        raise AssertionError(f"there is no {name}")

    def node_of(self, name: str) -> Node:
        """The node on which an actor runs."""
        process = self.actor(name)
        return next(node for node in self.nodes if process in node.all())

    def wait(self, condition: Callable[[], Any], seconds: float = 150.0) -> None:
        """Wait until something is so.

        Raises:
            AssertionError: It did not become so; with what the driver has said.
        """
        deadline = time.monotonic() + seconds
        while not condition():
            said = self.said.read_text() if self.said.exists() else ""
            assert time.monotonic() < deadline, f"nothing happened for {seconds:g} s\n{said}"
            time.sleep(0.05)

    def steps(self) -> list[dict[str, Any]]:
        """The lines of the training curve."""
        curve = self.run / "supernet" / "training.jsonl"
        lines = curve.read_text().splitlines() if curve.exists() else []
        return [json.loads(line) for line in lines if line.strip()]

    def rows(self) -> list[dict[str, Any]]:
        """The rows of the log."""
        folder = self.run / "scored.parquet"
        return results.read(folder).to_pylist() if folder.exists() else []

    def latest(self, phase: str) -> float:
        """When the newest result was reported; 0 where there is none."""
        if phase == "training":
            return max((line["time"] for line in self.steps()), default=0.0)
        return max((row["time"].timestamp() for row in self.rows()), default=0.0)

    def suffer(self, fault: Fault) -> None:
        """Wait until the run is in the middle of it, do it, and measure how long it takes until the run goes on."""
        if fault.phase == "search" and not self.rows():
            self.hasten()
        now = time.time()
        self.wait(lambda: self.latest(fault.phase) > now)
        before, count = self.rows(), len(self.steps())
        self.begin = time.time()
        fault.outcome = fault.how(self)
        if fault.phase == "training":
            self.wait(lambda: any(line["time"] > self.begin + 0.5 for line in self.steps()[count:]))
            fault.seconds = time.time() - self.begin
        else:
            self.wait(lambda: self.latest("search") > self.begin + 0.5)
            after = [row["time"].timestamp() for row in self.rows()]
            fault.seconds = min(moment for moment in after if moment > self.begin) - self.begin
        self.check(before)

    def back(self, worker: str) -> float:
        """Wait until an actor that died scores again; returns the seconds."""
        begin = time.time()
        self.wait(lambda: any(r["worker"] == worker and r["time"].timestamp() > begin + 0.5 for r in self.rows()))
        return time.time() - begin

    def hasten(self) -> None:
        """Let it train to the end at full speed."""
        self.hold.unlink()
        self.wait(lambda: any(line["step"] == line["total"] for line in self.steps()))
        self.hold.touch()

    def check(self, before: list[dict[str, Any]]) -> None:
        """Nothing that was scored is lost, and nothing was scored twice."""
        rows = self.rows()
        assert [row for row in before if row not in rows] == []
        reports = Counter((row["key"], row["fidelity"]) for row in rows)
        assert max(reports.values(), default=1) == 1, reports
        assert all(row["status"] in ("running", "complete") for row in rows), rows

    def finish(self) -> None:
        """Let it run to its end, at its full speed."""
        self.hold.unlink()
        self.wait(lambda: (self.run / "leaderboard.json").exists())
        self.wait(lambda: self.driver.poll() is not None)
        assert self.driver.returncode == 0, self.said.read_text()


def undisturbed(folder: Path) -> Path:
    """The same run in this process without any fault; returns its folder."""
    import ray

    from raynas.config.loading import load
    from raynas.runs.factory import prepare

    words = [word for word in RUN.split() if "=" in word]
    settings = [f"storage_path={folder}", "name=run", "space=helpers.tiny:space", "data.name=helpers.tiny:arrays"]
    ray.shutdown()
    ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    run = prepare(load(None, [*settings, *words, "train.workers=2", "search.replicas=2"]))
    run.search()
    run.close()
    ray.shutdown()
    return run.folder


def compare(run: Path, reference: Path) -> None:
    """The same weights, the same scores, the same winner with the same score again."""
    weights = [checkpoint.latest(folder / "supernet") for folder in (run, reference)]
    assert weights[0] is not None and weights[1] is not None and weights[0][0] == weights[1][0]
    assert all((weights[0][1][name] == tensor).all() for name, tensor in weights[1][1].items())
    scores = [
        {(row["key"], row["fidelity"]): row["score"] for row in results.read(folder / "scored.parquet").to_pylist()}
        for folder in (run, reference)
    ]
    assert scores[0] == scores[1] and len(scores[0]) == SLICES * SEARCHED
    best = [json.loads((folder / "leaderboard.json").read_text()) for folder in (run, reference)]
    first, second = ([(row["key"], row["final_score"]) for row in rows] for rows in best)
    assert first == second, (first, second)


# The faults


def notice(day: BadDay) -> str:
    """SIGTERM to a node: it drains, and ends some seconds later."""
    node, kept = day.node_of("supernet-train-1"), checkpoint.newest(day.run / "supernet")
    begin = time.time()
    kill(node.starter(), signal.SIGTERM)
    day.wait(lambda: checkpoint.newest(day.run / "supernet") > kept)
    took = time.time() - begin
    day.join()
    day.wait(lambda: not node.raylet())
    day.begin = time.time()  # from now on something is missing
    return f"a checkpoint after {took:.1f} s; the node went, and training goes on from there on another"


def kill_rank(day: BadDay) -> str:
    """A training worker dies."""
    kill([day.actor("supernet-train-1")])
    return "the workers are started again, from the last checkpoint"


def lose_rank_0(day: BadDay) -> str:
    """The node where the ranks meet vanishes; another one joins."""
    kill(day.node_of("supernet-train-0").all())
    day.join()
    return "the same, on the node that came for it"


def fill(day: BadDay) -> str:
    """The storage takes nothing for three seconds, and until the run has said so."""
    ballast, said = f"{day.storage}/ballast", len(day.said.read_text())
    day.machine.run("sh", "-c", f"! cat /dev/zero >{ballast}")
    if not day.rows():
        # A training adds to one file, in whose last page may be room.
        curve = day.run / "supernet" / "training.jsonl"
        room = -curve.stat().st_size % os.sysconf("SC_PAGE_SIZE")
        with contextlib.suppress(OSError), curve.open("ab", buffering=0) as file:
            file.write(b" " * (room - 1) + b"\n" * (room > 0))
    time.sleep(3)
    day.wait(lambda: "the disk is full" in day.said.read_text()[said:])
    day.machine.run("rm", ballast)
    return "the run waited, and wrote what it had"


def kill_driver(day: BadDay) -> str:
    """The driver dies; a person goes on with the run."""
    kill(day.driver_process())
    day.resume()
    return "with `--resume` it went on"


def kill_trial(day: BadDay) -> str:
    """A thin trial dies."""
    kill([day.actor("SharedWeights")])
    return "Tune starts the trial again; what it had reported is not asked again"


def kill_replica(day: BadDay) -> str:
    """A replica dies."""
    kill([day.actor("supernet-1")])
    return f"Ray starts it again and repeats what it was asked; after {day.back('supernet-1'):.0f} s it scores again"


def lose_node(day: BadDay) -> str:
    """The raylet of a node dies; another node joins much later."""

    def open_ones() -> dict[str, int]:
        rows = day.rows()
        reports = Counter(row["key"] for row in rows)
        return {row["key"]: reports[row["key"]] for row in rows if row["worker"] == "supernet-0"}

    day.wait(lambda: any(count < SLICES for count in open_ones().values()))
    day.begin = time.time()
    asked = {key: count for key, count in open_ones().items() if count < SLICES}
    kill(day.node_of("supernet-0").raylet())
    day.wait(lambda: all(Counter(row["key"] for row in day.rows())[key] > asked[key] for key in asked))
    took = time.time() - day.begin
    day.join()
    day.back("supernet-0")
    return f"the others go on, and after {took:.0f} s answer what it was asked; a node that joins later scores, too"


def lose_head(day: BadDay) -> str:
    """The head is gone, the driver with it; a person starts the cluster and the run again."""
    kill(day.head.all() + day.driver_process())
    day.machine.run("ray", "stop", "--force", **SETTINGS)
    day.nodes.clear()
    day.start()
    day.resume()
    return "as after `ray up` and `--resume`"


FAULTS = [
    Fault("notice", "a node must leave", "SIGTERM to its `ray start --block`", notice, "training"),
    Fault("worker", "a training worker", "kill -9", kill_rank, "training"),
    Fault("rank-0", "the node of rank 0", "kill -9 of all on it, another joins", lose_rank_0, "training"),
    Fault("storage-in-training", "storage, in training", "full for 3 s", fill, "training"),
    Fault("driver-in-training", "the driver, in training", "kill -9, `--resume`", kill_driver, "training"),
    Fault("trial", "a thin trial", "kill -9", kill_trial, "search"),
    Fault("storage-in-search", "storage, in the search", "full for 3 s", fill, "search"),
    Fault("replica", "a supernet actor", "kill -9", kill_replica, "search"),
    Fault("node", "a worker node", "kill -9 of its raylet", lose_node, "search"),
    Fault("driver-in-search", "the driver, in the search", "kill -9, `--resume`", kill_driver, "search"),
    Fault("head", "the head", "kill -9 of all on it, start, `--resume`", lose_head, "search"),
]
