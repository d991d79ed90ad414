"""What long searches cost the driver: CPU for each architecture, and report and resume of a long log.

    python benchmarks/load.py search --scored 50000
    python benchmarks/load.py searcher --scored 50000 --method regularized
    python benchmarks/load.py log --rows 50000

search: a table of 65,536 architectures (8 decisions of 4 options), searched in cohorts of 64 until so many are scored.
CPU milliseconds of this process for each architecture, in each tenth of the search, and the last tenth over the first.
searcher: the same for the searcher alone, without Ray, Tune and the log.
log: CPU seconds and peak memory above that of the imports, of a report about a log of so many rows, and of rebuilding
the searcher from it up to its next 64 proposals; each in a process of its own.
"""

from __future__ import annotations

import argparse
import itertools
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
from rich.console import Console

from raynas import prepare, results
from raynas.architecture import key
from raynas.config.loading import dump
from raynas.config.run import Config, SearchConfig
from raynas.report.page import write_report
from raynas.results.log import Log
from raynas.runs.display import View
from raynas.runs.factory import METHODS
from raynas.search_space.space import SearchSpace
from raynas.searchers import BatchSearcher
from raynas.tune.experiment import LoggedHistory

DECISIONS = {f"layer.{number}": tuple("abcd") for number in range(8)}
"""65,536 architectures."""
COHORT = 64


class Watch(View):
    """Shows nothing, and notes what this process has spent when it is told of progress."""

    def __init__(self) -> None:
        super().__init__(Console(quiet=True))
        self.points: list[tuple[int, float]] = []
        """Architectures scored, CPU seconds."""

    @contextmanager
    def search(self) -> Iterator[Any]:
        """Note."""
        yield lambda status: self.points.append((status.scored, time.process_time()))


def score(architecture: dict[str, str]) -> float:
    """A score with structure and noise, the same in every process."""
    return sum("abcd".index(option) for option in architecture.values()) / 8 + int(key(architecture)[:4], 16) / 2**16


def search(scored: int, method: str) -> None:
    """Search a table, and print what each tenth cost."""
    watch = Watch()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "scores.parquet"
        forms = [dict(zip(DECISIONS, options, strict=True)) for options in itertools.product(*DECISIONS.values())]
        columns: dict[str, Any] = {name: [form[name] for form in forms] for name in DECISIONS}
        pq.write_table(pa.table({**columns, "score": [score(form) for form in forms]}), file)
        del forms, columns
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        settings = SearchConfig(
            trainable="trainables.table:Table", trainable_args={"file": str(file), "metric": "score"}, method=method,
            num_samples=scored, cohort=COHORT, max_concurrent=1,
        )  # fmt: skip
        prepare(Config(search=settings, storage_path=folder, name="load"), space=DECISIONS, view=watch).search()
        ray.shutdown()
    show(watch.points, scored)


def searcher(scored: int, method: str) -> None:
    """Ask a searcher alone for cohorts, and print what each tenth cost."""
    cohort = BatchSearcher(METHODS[method](SearchSpace(DECISIONS), metric="score", mode="max"), COHORT, scored)
    points = [(0, time.process_time())]
    for number in itertools.count():
        suggestion = cohort.suggest(str(number))
        if not isinstance(suggestion, dict):
            break
        outcomes = [
            {"architecture": one, "score": score(one), "fidelity": 1, "status": "complete"}
            for one in suggestion["architectures"]
        ]
        cohort.on_trial_complete(str(number), {"outcomes": outcomes})
        points.append((points[-1][0] + len(outcomes), time.process_time()))
    show(points, points[-1][0])


def show(points: list[tuple[int, float]], scored: int) -> None:
    """CPU milliseconds for each architecture by tenths."""
    counts, spent = map(np.asarray, zip(*points, strict=True))
    # Start-up is over at the first point.
    marks = np.interp(np.linspace(counts[0], scored, 11), counts, spent)
    each = 1000 * np.diff(marks) / ((scored - counts[0]) / 10)
    print(f"{scored} architectures, ms of the driver for each, by tenths: {' '.join(f'{one:.3f}' for one in each)}")
    print(f"last tenth over the first: {each[-1] / each[0]:.2f}")


def log(rows: int, method: str) -> None:
    """Make the log of a search, and have other processes report about it and rebuild its searcher."""
    with tempfile.TemporaryDirectory() as folder:
        fill(Path(folder), rows, method)
        for what in ("report", "resume"):
            line = [sys.executable, __file__, what, "--folder", folder, "--method", method]
            print(subprocess.run(line, check=True, capture_output=True, text=True, env=os.environ).stdout.strip())


def fill(folder: Path, rows: int, method: str) -> None:
    """The folder of a search that ended after so many rows."""
    settings = SearchConfig(trainable="trainables.table:Table", trainable_args={"mode": "max"}, method=method)
    config = Config(
        search=settings, storage_path=str(folder.parent), name=folder.name, limits={"macs": (0, 10**9)},
        space="benchmarks.load:DECISIONS",
    )  # fmt: skip
    (folder / "config.yaml").write_text(dump(config), encoding="utf-8")
    made = METHODS[method](SearchSpace(DECISIONS), metric="score", mode="max")
    made.expect_in_flight(COHORT)
    with Log(folder / "scored.parquet", flush_seconds=3600) as written:
        for number in range(rows):
            suggestion = made.suggest(str(number))
            assert isinstance(suggestion, dict)
            one = suggestion["architecture"]
            made.on_trial_complete(str(number), {"score": score(one), "training_iteration": 1})
            origin = made.origins[key(one)]
            row = {"run": "load", "trial": f"{number // COHORT:08x}", "searcher": method, "architecture": one,
                   "status": "complete", "fidelity": 1, "max_fidelity": 1, "score": score(one), "seconds": 1.0,
                   "metrics": {"accuracy": score(one), "loss": -score(one)}, "macs": 10**6 + number,
                   "worker": f"127.0.0.1:{number % 8}", "origin": origin.how}  # fmt: skip
            written.append({**row, "parents": " ".join(origin.parents)})


def measured(what: str, work: Callable[[], Any]) -> None:
    """Print the CPU seconds and the peak of memory of some work."""
    before, begin = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    work()
    cpu, peak = time.process_time() - begin, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"{what}: {cpu:.1f} s of CPU, {(peak - before) * 1024 / 1e6:.0f} MB above the imports")


def resume(folder: Path, method: str) -> None:
    """Rebuild the searcher of a search from its log, and have it propose."""
    made = METHODS[method](SearchSpace(DECISIONS), metric="score", mode="max")
    made.expect_in_flight(COHORT)
    history = LoggedHistory(results.read(folder / "scored.parquet"), made.sampler.feasible)
    history.replay(made, None)
    assert isinstance(BatchSearcher(made, COHORT).suggest("next"), dict)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["search", "searcher", "log", "report", "resume"])
    parser.add_argument("--scored", type=int, default=50_000)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--method", default="evolution")
    parser.add_argument("--folder", type=Path, help="of report and resume: what log has made")
    flags = parser.parse_args()
    if flags.what in ("search", "searcher"):
        {"search": search, "searcher": searcher}[flags.what](flags.scored, flags.method)
    elif flags.what == "log":
        log(flags.rows, flags.method)
    elif flags.what == "report":
        measured("report", lambda: write_report(flags.folder))
    else:
        measured("resume", lambda: resume(flags.folder, flags.method))


if __name__ == "__main__":
    main()
