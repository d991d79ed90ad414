"""Searches for many minutes, one after the other, while processes of theirs are killed at random moments.

    python benchmarks/soak.py --minutes 40 --kills 30 --data ../shared/data
    python benchmarks/soak.py --minutes 2 --kills 5 --data ../shared/data      to try it out

Three kinds of searches: with shared weights, from scratch, and from a table that takes its time. Each is first made
once undisturbed; the longest of these, from the table, takes a quarter of the minutes. After that they are made again
and again, and kill -9 comes to the driver (which a person starts again with --resume), to supernet actors, to trials,
and to Ray's own raylet and GCS. At least one search of each kind is disturbed and each kind of kill done, whatever the
minutes are.

Two Markdown tables are printed: what each search took at most (memory, open files, processes, threads: of all processes
that its driver has started), and what was lost. The exit code is 1 where anything was.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from raynas.trainables.table import Table

from raynas import results
from raynas.tune.files import TUNE_LOG
from raynas.tune.trial import Candidate

ROOT = Path(__file__).resolve().parents[1]
LOOK = 2.0
"""Seconds between two samples."""
HANGS = 240.0
"""Seconds without a sign of life in the run's folder after which a driver counts as hanging."""
KINDS = ("shared weights", "from scratch", "table")
ENDS = ("driver", "raylet", "gcs")
"""After which of the kills the driver must end."""
VICTIMS = {
    "driver": r" -m raynas\.launch ",
    "actor": r"^ray::(supernet|SupernetActor)",
    "trial": r"^ray::(?!IDLE|\w*Agent|supernet|SupernetActor|TemporaryActor)\w",
    "raylet": r"/raylet/raylet ",
    "gcs": r"/gcs_server ",
}
"""What to kill, by the command line of a process below the driver."""


class SlowTable(Table):
    """Looks up as a Table does, in a twentieth of a second."""

    def advance(self, members: Sequence[Candidate], fidelity: int) -> None:
        """Look up the next scores."""
        time.sleep(0.05)
        super().advance(members, fidelity)


def searches(minutes: float, data: Path) -> dict[str, list[str]]:
    """The settings of each kind of search, by its name; more minutes make them longer."""
    common = ["after=[]", "search.method=random", "search.scheduler=none"]
    times = max(minutes / 2, 1.0)
    return {
        "shared weights": [
            *common, f"train.epochs={4 * times:g}", "train.batch_size=64", "train.checkpoint_seconds=1",
            "train.workers=2", "train.cpus_per_worker=1", "search.replicas=2", f"search.num_samples={int(16 * times)}",
            "search.slices=4", "search.bn_images=256", "search.batch_size=64",
        ],
        "from scratch": [
            *common, "search.trainable=trainables.from_scratch:FromScratch", "search.epochs=2", "train.batch_size=64",
            "data.limit=800", f"search.num_samples={int(6 * times)}",
        ],
        "table": [
            *common, "--space", "spaces.nasbench201:DECISIONS", "search.trainable=benchmarks.soak:SlowTable",
            f"search.trainable_args.file={data / 'nasbench201_cifar10.parquet'}", "search.max_concurrent=1",
            "search.trainable_args.metric=cifar10_val_200", f"search.num_samples={int(400 * times)}",
        ],
    }  # fmt: skip


# Processes


def tree(root: int) -> dict[int, str]:
    """The processes that a process has started and theirs, itself included: command lines by id."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit():
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found = [root]
    for process in found:  # which grows meanwhile
        found += children.get(process, [])
    return {process: line for process in found if (line := command(process))}


def command(process: int) -> str:
    """The command line of a process; empty where it has ended."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


@dataclass
class Usage:
    """What a search took at most."""

    driver_mb: float = 0.0
    tree_mb: float = 0.0
    files: int = 0
    processes: int = 0
    threads: int = 0

    def sample(self, root: int) -> None:
        """Look at the processes below a driver. Memory that several share is divided among them."""
        now = Usage()
        for process in tree(root):
            with contextlib.suppress(OSError, StopIteration):
                folder = Path(f"/proc/{process}")
                lines = (folder / "smaps_rollup").read_text().splitlines()
                megabytes = next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1000
                now.tree_mb += megabytes
                now.driver_mb += megabytes if process == root else 0.0
                now.files += len(os.listdir(folder / "fd"))
                now.threads += len(os.listdir(folder / "task"))
                now.processes += 1
        for name, value in vars(now).items():
            setattr(self, name, max(getattr(self, name), value))


# Searches


@dataclass
class Search:
    """One of them, from its first start to its end."""

    kind: str
    name: str
    line: list[str]
    storage: Path
    usage: Usage = field(default_factory=Usage)
    kills: list[str] = field(default_factory=list)
    seconds: float = 0.0
    lost: int = 0
    twice: int = 0
    different: int = 0
    faults: list[str] = field(default_factory=list)
    """What else went wrong, in words."""
    last_words: list[int] = field(default_factory=list)
    """How many lines a driver printed as errors after Ray had died under it."""

    @property
    def folder(self) -> Path:
        """Of the run."""
        return self.storage / self.name

    @property
    def said(self) -> Path:
        """What its drivers print."""
        return self.storage / f"{self.name}.log"

    def start(self) -> subprocess.Popen[bytes]:
        """Start the driver, or go on."""
        line = [sys.executable, "-m", "raynas.launch", "--storage-path", str(self.storage), "--name", self.name]
        resume = ["--resume"] if (self.folder / "config.yaml").exists() else []
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        environment = {**os.environ, "PYTHONPATH": path, "RAY_USAGE_STATS_ENABLED": "0"}
        with self.said.open("ab") as said:
            return subprocess.Popen(
                [*line, *self.line, *resume], env=environment, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=said,
                stderr=subprocess.STDOUT,
            )  # fmt: skip

    def rows(self) -> list[dict[str, Any]]:
        """The log as it is on the disk."""
        folder = self.folder / "scored.parquet"
        return results.read(folder).to_pylist() if folder.exists() else []

    def alive(self) -> float:
        """When something in its folder was last written."""
        return newest(self.folder, ("**/*",))

    def works(self, since: float) -> bool:
        """Whether it has trained or scored since then: a driver that only starts is no target yet."""
        kinds = ("supernet/training.jsonl", "scored.parquet/*.parquet", "in-flight/*/*.safetensors")
        return newest(self.folder, kinds) > since


def newest(folder: Path, kinds: Sequence[str]) -> float:
    """When the newest file of these kinds was written; some may go away meanwhile."""
    moments = [0.0]
    for path in itertools.chain.from_iterable(map(folder.glob, kinds)):
        with contextlib.suppress(OSError):
            moments.append(path.stat().st_mtime)
    return max(moments)


def scores(rows: Sequence[dict[str, Any]]) -> dict[tuple[str, int], float]:
    """By architecture and fidelity."""
    return {(row["key"], row["fidelity"]): row["score"] for row in rows}


class Soak:
    """All of it.

    Args:
        settings: Of each kind of search.
        minutes: How long further searches begin.
        kills: How many processes are killed.
        storage: Folder for the runs.
        seed: Decides who is killed when.
    """

    def __init__(self, settings: dict[str, list[str]], minutes: float, kills: int, storage: Path, seed: int) -> None:
        self.settings, self.storage, self.rng = settings, storage, Random(seed)
        self.begin, self.end = time.monotonic(), time.monotonic() + 60 * minutes
        self.searches: list[Search] = []
        self.references: dict[str, Search] = {}
        self.count, self.due = kills, list[float]()
        self.wanted: list[str] = []
        self.left_over: list[int] = []

    def run(self) -> None:
        """Each kind undisturbed, then disturbed ones in turns."""
        for kind in self.settings:
            self.references[kind] = self.search(kind)
        now = time.monotonic()
        each = max(self.end - now, 45.0 * self.count) / max(self.count, 1)
        self.due = [now + each * (number + self.rng.random()) for number in range(self.count)]
        kinds = itertools.cycle(self.settings)
        while time.monotonic() < self.end or self.due or len(self.searches) < 2 * len(self.settings):
            self.search(next(kinds))

    def search(self, kind: str) -> Search:
        """One search with whatever befalls it."""
        name = f"{len(self.searches)}-{kind.replace(' ', '-')}"
        search = Search(kind, name, self.settings[kind], self.storage)
        self.searches.append(search)
        begin = time.monotonic()
        for _ in range(3 + self.count):
            if self.drive(search):
                break
        else:
            search.faults.append("it came to no end")
        search.seconds = time.monotonic() - begin
        self.check(search)
        told = f"{search.name}: {search.seconds:.0f} s, kills: {', '.join(search.kills) or 'none'}"
        print(f"{told}; {'; '.join(search.faults) or 'all well'}", file=sys.stderr, flush=True)
        return search

    def drive(self, search: Search) -> bool:
        """From a start of the driver to its end; returns whether the search is at its end."""
        driver, begin = search.start(), time.time()
        killed, seen = "", dict[int, str]()
        while driver.poll() is None:
            search.usage.sample(driver.pid)
            seen |= tree(driver.pid)
            due = not killed and self.due and time.monotonic() >= self.due[0]
            if due and search.kind in self.references and search.works(begin):
                kill = self.kill(search, driver.pid)
                killed = kill if kill in ENDS else ""
                fell = time.time()
            if time.time() - max(search.alive(), begin) > HANGS:
                search.faults.append(f"a driver hung after a kill of: {killed or 'nothing'}")
                self.clear(seen)
            if killed and time.time() - fell > 90:
                search.faults.append(f"90 s after the kill of the {killed} the driver was still there")
                self.clear(seen)
            with contextlib.suppress(subprocess.TimeoutExpired):
                driver.wait(LOOK)
        if killed:
            self.look_behind(search, killed, seen)
        elif driver.returncode:
            search.faults.append(f"exit code {driver.returncode}: {self.tail(search)}")
            return True
        return not killed

    def kill(self, search: Search, driver: int) -> str:
        """Kill one process; returns what it was, or nothing where there was none."""
        if not self.wanted:
            self.wanted = self.rng.sample(sorted(VICTIMS), len(VICTIMS))
        processes = tree(driver)
        for what in self.wanted:
            found = [process for process, line in processes.items() if re.search(VICTIMS[what], line)]
            if what == "driver":
                found = [driver]
            if found:
                before = scores(search.rows())
                victim = self.rng.choice(found)
                os.kill(victim, signal.SIGKILL)
                self.due.pop(0)
                self.wanted.remove(what)
                search.kills.append(what)
                self.before = before
                after = scores(search.rows())
                search.lost += sum(after.get(place) != score for place, score in before.items())
                return what
        return ""

    def look_behind(self, search: Search, killed: str, seen: dict[int, str]) -> None:
        """Which processes outlive their driver by ten seconds; what it said when Ray had died under it."""
        time.sleep(10)
        left = [process for process, line in seen.items() if command(process) == line]
        self.left_over.append(len(left))
        if left:
            search.faults.append(f"10 s after the end {len(left)} processes were there: {seen[left[0]][:60]}")
        if killed != "driver":
            text = search.said.read_text(encoding="utf-8", errors="replace")
            usual = ("search:", "supernet:")
            words = [line for line in text.splitlines() if line.strip() and not line.startswith(usual)]
            told = list(itertools.takewhile(lambda line: not line.startswith("error:"), reversed(words)))
            search.last_words.append(len(told) + 1)
            if len(told) > 1:
                search.faults.append(f"{len(told) + 1} lines after the death of the {killed}")

    def clear(self, processes: dict[int, str]) -> None:
        """End what a driver of ours has started."""
        for process, line in processes.items():
            if command(process) == line:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)

    def tail(self, search: Search) -> str:
        """The last line that it printed."""
        return (search.said.read_text(encoding="utf-8", errors="replace").strip().splitlines() or [""])[-1][:200]

    def check(self, search: Search) -> None:
        """Compare with the undisturbed one."""
        rows = search.rows()
        search.twice = sum(count - 1 for count in Counter((row["key"], row["fidelity"]) for row in rows).values())
        path = search.folder / TUNE_LOG
        if path.exists():
            errors = [line for line in path.read_text(encoding="utf-8").splitlines() if " ERROR " in line]
            own = [line for line in errors if "Trial task failed for" not in line and "Could not re-use" not in line]
            search.faults += [line[:200] for line in own[:1]]
        reference = self.references.get(search.kind)
        if reference is not None:
            theirs, ours = scores(reference.rows()), scores(rows)
            search.lost += len(theirs.keys() - ours.keys())
            search.different = sum(ours[place] != theirs.get(place) for place in ours)
            best = [json.loads((s.folder / "leaderboard.json").read_text()) if (s.folder / "leaderboard.json").exists()
                    else [] for s in (search, reference)]  # fmt: skip
            first, second = ([(row["key"], row["final_score"]) for row in rows] for rows in best)
            if first != second:
                search.faults.append("the leaderboard is another one")

    def tables(self) -> Iterator[str]:
        """The two tables."""
        yield "| search | seconds | scores | kills | driver MB | all MB | open files | processes | threads |"
        yield "|---|---|---|---|---|---|---|---|---|"
        for search in self.searches:
            used = search.usage
            kills = ", ".join(f"{count} {kind}" for kind, count in sorted(Counter(search.kills).items()))
            yield (
                f"| {search.kind} | {search.seconds:.0f} | {len(scores(search.rows()))} | {kills or 'none'} | "
                f"{used.driver_mb:.0f} | {used.tree_mb:.0f} | {used.files} | {used.processes} | {used.threads} |"
            )
        yield ""
        yield "| searches | kills | scores lost | entered twice | other than undisturbed | other faults |"
        yield "|---|---|---|---|---|---|"
        for kind in self.settings:
            of = [s for s in self.searches if s.kind == kind]
            kills = Counter(itertools.chain.from_iterable(s.kills for s in of))
            told = ", ".join(f"{count} {what}" for what, count in sorted(kills.items()))
            sums = [sum(getattr(s, name) for s in of) for name in ("lost", "twice", "different")]
            faults = "; ".join(fault for s in of for fault in s.faults) or "none"
            yield f"| {len(of)} {kind} | {told or 'none'} | {sums[0]} | {sums[1]} | {sums[2]} | {faults} |"
        scratch = Path(tempfile.gettempdir()) / f"raynas-tune-{os.getuid()}"
        yield ""
        yield f"Tune's scratch folders in the temporary folder at the end: {len(list(scratch.glob('*')))}."

    @property
    def failed(self) -> bool:
        """Whether anything was lost."""
        return any(s.lost or s.twice or s.different or s.faults for s in self.searches)


def main() -> int:
    """Run, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=40.0)
    parser.add_argument("--kills", type=int, default=30)
    data = Path(os.environ.get("RAYNAS_DATA", ROOT.parent / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=data, help="folder of the table (nasbench201_cifar10.parquet)")
    parser.add_argument("--storage", type=Path, help="keep the runs there; default: a temporary folder")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="searches to make")
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="raynas-soak-") as scratch:
        storage = flags.storage or Path(scratch)
        storage.mkdir(parents=True, exist_ok=True)
        settings = searches(flags.minutes, flags.data.resolve())
        soak = Soak({kind: settings[kind] for kind in flags.kinds}, flags.minutes, flags.kills, storage, flags.seed)
        soak.run()
        print("\n".join(soak.tables()))
    return int(soak.failed)


if __name__ == "__main__":
    sys.exit(main())
