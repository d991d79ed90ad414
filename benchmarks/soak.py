"""Searches for many minutes, one after the other, while processes of theirs are killed at random moments.

    python -m benchmarks.soak --minutes 40 --kills 30 --data ../shared/data      before each release
    python -m benchmarks.soak --minutes 4 --kills 5 --data ../shared/data        to try it out; takes some minutes more

Three kinds of searches: with shared weights, from scratch, and from a table that takes its time. Each is first made
once undisturbed. A long one from the table then takes a quarter of the minutes: nothing may grow in it. After that the
kinds are made in turn, and kill -9 comes to the driver (which is then started again with --resume, as a person or a
scheduler would), to supernet actors, to trials, and to Ray's own raylet and GCS.

One Markdown table is printed. The exit code is 1 where a score was lost, entered twice, or is another one than
undisturbed (also on the leaderboard), or where something leaked: a process that outlives its
search, a folder that is left in the temporary folder, or memory, files, processes or threads that grow in the long
search. It is 3 where something else was not as it should be, for example a driver that hung; those are listed.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
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

from benchmarks.soak_processes import ENDS, VICTIMS, Sample, Seen, victims
from raynas import results
from raynas.tune.files import TUNE_LOG
from raynas.tune.trial import Candidate

ROOT = Path(__file__).resolve().parents[1]
LOOK = 2.0
"""Seconds between two samples."""
HANGS = 240.0
"""Seconds without a new file in the run's folder after which a driver counts as hanging."""
ENDING = 90.0
"""Seconds within which a driver must end after Ray has died under it."""
LONGEST = 10.0
"""Seconds within which all processes of a search must have ended after its driver."""
MOST = 4
"""Kills in one search."""
GROWTH = {"driver_mb": (1.2, 10), "all_mb": (1.2, 50), "files": (1.1, 10), "processes": (1.1, 2), "threads": (1.1, 10)}
"""What the long search may use at its end, compared with its middle: a factor, and more by a number."""
KINDS = ("shared weights", "from scratch", "table")
LONG = "table, long"


class SlowTable(Table):
    """Looks up as a Table does, in a twentieth of a second."""

    def advance(self, members: Sequence[Candidate], fidelity: int) -> None:
        """Look up the next scores."""
        time.sleep(0.05)
        super().advance(members, fidelity)


def searches(minutes: float, data: Path) -> dict[str, list[str]]:
    """The settings of each kind of search, by its name; the minutes make the long one longer."""
    common = ["after=[]", "search.method=random", "search.scheduler=none"]
    table = [
        *common, "--space", "spaces.nasbench201:DECISIONS", "search.trainable=benchmarks.soak:SlowTable",
        f"search.trainable_args.file={data / 'nasbench201_cifar10.parquet'}", "search.max_concurrent=1",
        "search.trainable_args.metric=cifar10_val_200",
    ]  # fmt: skip
    return {
        "shared weights": [
            *common, "train.epochs=4", "train.batch_size=64", "train.checkpoint_seconds=1", "train.workers=2",
            "train.cpus_per_worker=1", "search.replicas=2", "search.slices=4", "search.bn_images=256",
            "search.batch_size=64", "search.num_samples=16",
        ],
        "from scratch": [
            *common, "search.trainable=trainables.from_scratch:FromScratch", "search.epochs=4", "train.batch_size=64",
            "search.num_samples=8",
        ],
        "table": [*table, "search.num_samples=400"],
        LONG: [*table, f"search.num_samples={int(200 * minutes)}"],
    }  # fmt: skip


@dataclass
class Search:
    """One of them, from its first start to its end."""

    kind: str
    name: str
    settings: list[str]
    storage: Path
    temporary: Path
    planned: int = 0
    """How many kills it is to get."""
    kills: list[str] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    seen: Seen = field(default_factory=Seen)
    seconds: float = 0.0
    working: float = 0.0
    """Seconds from the first sign of work to the end."""
    lost: int = 0
    twice: int = 0
    different: int = 0
    leaked: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    """What else went wrong, in words."""

    @property
    def folder(self) -> Path:
        """Of the run."""
        return self.storage / self.name

    @property
    def output(self) -> Path:
        """What its drivers print."""
        return self.storage / f"{self.name}.log"

    def start(self) -> subprocess.Popen[bytes]:
        """Start the driver, or go on."""
        line = [sys.executable, "-m", "raynas.launch", "--storage-path", str(self.storage), "--name", self.name]
        resume = ["--resume"] if (self.folder / "config.yaml").exists() else []
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        environment = {**os.environ, "PYTHONPATH": path, "TMPDIR": str(self.temporary), "RAY_USAGE_STATS_ENABLED": "0"}
        with self.output.open("ab") as output:
            return subprocess.Popen(
                [*line, *self.settings, *resume], env=environment, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT,
            )  # fmt: skip

    def printed(self) -> list[str]:
        """The lines that its drivers printed, without those of the progress."""
        lines = self.output.read_text(encoding="utf-8", errors="replace").splitlines()
        return [line for line in lines if line.strip() and not line.startswith(("search:", "supernet:"))]

    def rows(self) -> list[dict[str, Any]]:
        """The log as it is on the disk."""
        folder = self.folder / "scored.parquet"
        return results.read(folder).to_pylist() if folder.exists() else []

    def leaders(self) -> list[float]:
        """The scores of the leaderboard, if there is one; of equal ones either may stand first."""
        path = self.folder / "leaderboard.json"
        rows = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
        return [row["final_score"] for row in rows]

    def works(self, since: float) -> bool:
        """Whether it has trained or scored since then: a driver that only starts is no target yet."""
        kinds = ("supernet/training.jsonl", "scored.parquet/*.parquet", "in-flight/*/*.safetensors")
        return newest(self.folder, kinds) > since

    def quarters(self, name: str) -> list[float]:
        """What was used after 25, 50, 75 and 100 % of its time; the processes that end it are not counted."""
        half = [sample.processes for sample in self.samples[len(self.samples) // 2 :]]
        usual = sorted(half)[len(half) // 2]
        last = max(place for place, sample in enumerate(self.samples) if sample.processes >= usual)
        return [getattr(self.samples[round(last * part / 4)], name) for part in (1, 2, 3, 4)]


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
        temporary: Folder for what they leave in the temporary folder; it has a short path.
        seed: Decides who is killed when.
    """

    def __init__(
        self, settings: dict[str, list[str]], minutes: float, kills: int, storage: Path, temporary: Path, seed: int
    ) -> None:
        self.settings, self.storage, self.temporary, self.rng = settings, storage, temporary, Random(seed)
        self.kinds = [kind for kind in settings if kind != LONG]
        self.end, self.latest = (time.monotonic() + 60 * part * minutes for part in (1, 2))
        self.kills = kills
        self.searches: list[Search] = []
        self.references: dict[str, Search] = {}
        self.wanted: list[str] = []

    def run(self) -> None:
        """Each kind undisturbed, then in turn with kills."""
        for kind in self.settings:
            self.references[kind] = self.search(kind, 0)
        self.check_growth(self.references[LONG])
        left = {kind: len(range(number, self.kills, len(self.kinds))) for number, kind in enumerate(self.kinds)}
        for kind in itertools.cycle(self.kinds):
            if time.monotonic() > self.latest and len(self.searches) > 2 * len(self.kinds):
                break  # each kind had kills, though fewer than wanted: the machine does other work
            if left[kind]:
                left[kind] -= len(self.search(kind, min(left[kind], MOST)).kills)
            elif not any(left.values()):
                if time.monotonic() > self.end:
                    break
                self.search(kind, 0)

    def search(self, kind: str, kills: int) -> Search:
        """One search, with so many kills."""
        name = f"{len(self.searches)}-{kind.replace(' ', '-').replace(',', '')}"
        search = Search(kind, name, self.settings[kind], self.storage, self.temporary, kills)
        self.searches.append(search)
        begin = time.time()
        for _ in range(3 + kills):
            if self.drive(search):
                break
        else:
            search.faults.append("it came to no end")
        search.seconds = time.time() - begin
        left = search.seen.wait(LONGEST)
        search.leaked += [f"{LONGEST:g} s after its end there was still {line[:60]}" for line in left.values()]
        search.seen.end(left)
        self.check(search)
        print(
            f"{name}: {search.seconds:.0f} s, kills: {', '.join(search.kills) or 'none'}, lost {search.lost}, twice "
            f"{search.twice}, different {search.different}; {'; '.join(search.leaked + search.faults) or 'all well'}",
            file=sys.stderr, flush=True,
        )  # fmt: skip
        return search

    def drive(self, search: Search) -> bool:
        """From a start of the driver to its end; returns whether the search is at its end."""
        driver, begin = search.start(), time.time()
        killed, since, due, fell = "", begin, 0.0, 0.0
        while driver.poll() is None:
            search.samples.append(Sample.take(driver.pid))
            search.seen.look(driver.pid)
            now = time.time()
            if not due and search.works(since):
                search.working = search.working or now
                due = now + (self.delay(search) if search.planned else 0.0)
            if not killed and due and now >= due and len(search.kills) < search.planned:
                killed, since, due, fell = self.kill(search, driver.pid), now, 0.0, now
            if now - max(newest(search.folder, ("**/*",)), begin) > HANGS:
                search.faults.append(f"a driver hung after a kill of: {', '.join(search.kills) or 'nothing'}")
                search.seen.end(search.seen.alive())
            if killed and now - fell > ENDING:
                search.faults.append(f"{ENDING:g} s after the kill of the {killed} the driver was still there")
                search.seen.end(search.seen.alive())
            with contextlib.suppress(subprocess.TimeoutExpired):
                driver.wait(LOOK)
        if killed in ("raylet", "gcs"):
            self.look_behind(search, killed)
        elif not killed and driver.returncode:
            search.faults.append(f"exit code {driver.returncode}: {(search.printed() or [''])[-1][:200]}")
        if not killed:
            search.working = time.time() - (search.working or time.time())
        return not killed

    def delay(self, search: Search) -> float:
        """Seconds until the next kill, so that work is left for those that come after it."""
        return self.rng.uniform(0.0, 0.7 * self.references[search.kind].working / search.planned)

    def kill(self, search: Search, driver: int) -> str:
        """Kill one process; returns what it was if the driver must end now, else nothing."""
        again = self.rng.sample(sorted(VICTIMS), len(VICTIMS))
        for what in [*self.wanted, *again]:  # each kind once before any comes twice, where there is one
            found = victims(driver, what)
            if found:
                break
        if what in self.wanted:
            self.wanted.remove(what)
        else:
            self.wanted += [each for each in again if each != what]
        before = scores(search.rows())
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.rng.choice(found), signal.SIGKILL)
        search.kills.append(what)
        after = scores(search.rows())
        search.lost += sum(after.get(place) != score for place, score in before.items())
        return what if what in ENDS else ""

    def look_behind(self, search: Search, killed: str) -> None:
        """When Ray has died the driver ends all that is left of it, and prints what has died and how to go on."""
        left = search.seen.wait(LONGEST).values()
        search.leaked += [f"{LONGEST:g} s after the death of the {killed} there was still {line[:60]}" for line in left]
        last = list(itertools.takewhile(lambda line: not line.startswith("error:"), reversed(search.printed())))
        if len(last) > 1:
            search.faults.append(f"{len(last) + 1} lines after the death of the {killed}")

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
        if reference is None:
            number = int(search.settings[-1].partition("num_samples=")[2] or 0)
            search.lost += max(number - len({row["key"] for row in rows}), 0)
        else:
            theirs, ours = scores(reference.rows()), scores(rows)
            search.lost += len(theirs.keys() - ours.keys())
            search.different += sum(ours[place] != theirs.get(place) for place in ours)
            pairs = itertools.zip_longest(search.leaders(), reference.leaders())
            search.different += sum(first != second for first, second in pairs)

    def check_growth(self, search: Search) -> None:
        """Nothing may grow from the middle of a long search to its end."""
        for name, (factor, more) in GROWTH.items():
            _, middle, _, end = search.quarters(name)
            if end > max(factor * middle, middle + more):
                search.leaked.append(f"{name} grew from {middle:.0f} to {end:.0f}")

    def table(self) -> Iterator[str]:
        """What was killed, what was lost, and what was used."""
        names, titles = list(VICTIMS), ["driver MB", "MB of all", "files", "processes", "threads"]
        cells = ["searches", "seconds", *(f"{name} killed" for name in names), "lost", "twice", "different", "leaked"]
        yield "| " + " | ".join([*cells, *(f"{title} at 25 / 50 / 75 / 100 %" for title in titles)]) + " |"
        yield "|---" * (len(cells) + len(titles)) + "|"
        rows = [([self.references[kind]], kind) for kind in self.settings]
        rest = [search for search in self.searches if self.references[search.kind] is not search]
        rows += [([s for s in rest if s.kind == kind], f"{kind}, killed") for kind in self.kinds]
        rows += [(self.searches, "all")]
        for of, title in ((of, title) for of, title in rows if of):
            counts = Counter(itertools.chain.from_iterable(search.kills for search in of))
            faults = [sum(getattr(s, name) for s in of) for name in ("lost", "twice", "different")]
            numbers = [f"{sum(s.seconds for s in of):.0f}", *(counts[name] for name in names), *faults]
            numbers.append(sum(len(s.leaked) for s in of))
            used = []
            for name in Sample._fields:
                most = max(max((getattr(sample, name) for sample in s.samples), default=0) for s in of)
                parts = of[0].quarters(name) if len(of) == 1 and not counts else []
                used.append(" / ".join(f"{part:.0f}" for part in parts) or f"at most {most:.0f}")
            yield f"| {len(of)} {title} | " + " | ".join(map(str, [*numbers, *used])) + " |"

    def remains(self) -> list[str]:
        """The names of what drivers have left in the temporary folder."""
        kinds = ("rn-*", ".rn-*", "raynas-tune-*/*")
        return sorted(path.name for kind in kinds for path in self.temporary.glob(kind))


def main() -> int:
    """Run, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=40.0)
    parser.add_argument("--kills", type=int, default=30)
    data = Path(os.environ.get("RAYNAS_DATA", ROOT.parent / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=data, help="folder of the table (nasbench201_cifar10.parquet)")
    parser.add_argument("--storage", type=Path, help="keep the runs there; default: a temporary folder")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="searches to make")
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak") as scratch:
        storage, temporary = flags.storage or Path(scratch) / "runs", Path(scratch) / "t"
        for folder in (storage, temporary):
            folder.mkdir(parents=True, exist_ok=True)
        settings = searches(flags.minutes, flags.data.resolve())
        settings = {kind: settings[kind] for kind in (*flags.kinds, LONG)}
        soak = Soak(settings, flags.minutes, flags.kills, storage.resolve(), temporary, flags.seed)
        soak.run()
        print("\n".join(soak.table()))
        leaked = [f"{s.name}: {fault}" for s in soak.searches for fault in s.leaked] + soak.remains()
        faults = [f"{s.name}: {fault}" for s in soak.searches for fault in s.faults]
        print(f"\nLeaked: {'; '.join(leaked) or 'nothing'}.\nOther faults: {'; '.join(faults) or 'none'}.")
    if leaked or any(s.lost or s.twice or s.different for s in soak.searches):
        return 1
    return 3 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
