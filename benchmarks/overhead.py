"""What the driver spends on each architecture as a search grows, and how busy it keeps many workers.

    python benchmarks/overhead.py growth --scored 10000
    python benchmarks/overhead.py workers --workers 64 --seconds 1 --scores 1280

growth: one search of a table of synthetic scores, in cohorts. CPU milliseconds of this process for each architecture,
start-up left out, and its memory, around 100, 1,000 and 10,000 scored.
workers: trials that only sleep. The share of their time in which they do, from when the last of them has begun until
the first has nothing left to do. Pretended processors, real processes: each takes about 100 MB.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
from ray import tune
from rich.console import Console

from raynas import prepare, results
from raynas.config.run import Config, SearchConfig
from raynas.runs.display import View
from raynas.runs.run import Run
from raynas.search_space.space import SearchSpace
from raynas.searchers import RandomSearch

DECISIONS = {f"layer.{number}": tuple("abcde") for number in range(7)}
"""78,125 architectures."""


class Watch(View):
    """Shows nothing, and notes what this process has spent when it is told of progress."""

    def __init__(self) -> None:
        super().__init__(Console(quiet=True))
        self.points: list[tuple[int, float, float]] = []
        """Architectures scored, CPU seconds, MB of memory."""

    @contextmanager
    def search(self) -> Iterator[Any]:
        """Note."""
        yield lambda status: self.points.append((status.scored, time.process_time(), memory()))


def memory() -> float:
    """MB of this process that are in memory."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def growth(scored: int, cohort: int, method: str) -> None:
    """Search a table, and print what its parts cost."""
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    watch = Watch()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "scores.parquet"
        forms = list(itertools.product(*DECISIONS.values()))
        columns: dict[str, Any] = dict(zip(DECISIONS, map(list, zip(*forms, strict=True)), strict=True))
        columns["score"] = np.random.default_rng(0).normal(size=len(forms))
        pq.write_table(pa.table(columns), file)
        search = SearchConfig(
            trainable="trainables.table:Table", trainable_args={"file": str(file), "metric": "score"}, method=method,
            num_samples=scored, cohort=cohort, max_concurrent=2,
        )  # fmt: skip
        run = prepare(Config(search=search, storage_path=folder, name="overhead"), space=DECISIONS, view=watch)
        run.search()
    counts, spent, kept = map(np.asarray, zip(*watch.points, strict=True))
    previous = None
    for mark in (mark for mark in (100, 1_000, 10_000) if mark <= scored):
        # At least so many that the clock's grain does not matter: from the first told point on, start-up is over.
        low, high = max(mark - max(mark // 2, 5 * cohort), counts[0]), min(mark + max(mark // 2, 5 * cohort), scored)
        cost = 1000 * float(np.interp(high, counts, spent) - np.interp(low, counts, spent)) / (high - low)
        change = "" if previous is None else f" ({100 * (cost / previous - 1):+.0f} %)"
        print(f"around {mark} ({low} to {high}): {cost:.3f} ms of the driver each{change}, "
              f"{float(np.interp(mark, counts, kept)):.0f} MB")  # fmt: skip
        previous = previous or cost
    grown = 1e6 * (kept[-1] - kept[0]) / max(counts[-1] - counts[0], 1)
    print(f"memory grows by {grown:.0f} bytes each")


class Sleeper(tune.Trainable):
    """A worker whose scoring takes a given time, and no processor."""

    def setup(self, config: dict[str, Any], seconds: float = 1.0) -> None:
        self.seconds = seconds
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.architecture = new_config["architecture"]
        return True

    def step(self) -> dict[str, Any]:
        begin = time.time()
        time.sleep(self.seconds)
        score = random.random()
        outcome = {
            "architecture": self.architecture, "score": score, "fidelity": 1, "status": "complete", "error": None,
            "seconds": time.time() - begin, "worker": str(os.getpid()), "metrics": {"begin": begin, "end": time.time()},
        }  # fmt: skip
        return {"score": score, "training_iteration": 1, "outcomes": [outcome], "done": True}

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        return {}

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        pass


def workers(count: int, seconds: float, scores: int) -> None:
    """Have so many workers sleep, and print how much of their time they did."""
    ray.init(num_cpus=count, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    with tempfile.TemporaryDirectory() as folder:
        search = SearchConfig(num_samples=scores, slices=1, scheduler="none", trainable_args={"seconds": seconds})
        config = Config(search=search, storage_path=folder, name="overhead")
        run = Run(config, SearchSpace(DECISIONS), None, RandomSearch, Sleeper, Watch())
        begin, cpu = time.monotonic(), time.process_time()
        run.search()
        took, cpu = time.monotonic() - begin, time.process_time() - cpu
        rows = results.read(run.folder / "scored.parquet").to_pylist()
    share, processes, window = busy_share(
        [(row["worker"], row["time"].timestamp(), row["seconds"]) for row in rows], count
    )
    print(f"{len(rows)} scores of {seconds:g} s by {count} workers ({processes} seen) in {took:.0f} s with start-up, "
          f"{1000 * cpu / len(rows):.1f} ms of the driver each")  # fmt: skip
    print(f"kept busy: {share:.3f} of the workers' time, in the {window:.0f} s in which all were up")


def busy_share(reports: Sequence[tuple[str, float, float]], count: int) -> tuple[float, int, float]:
    """Share of the workers' time in which they scored, number of processes, and seconds that were looked at.

    Args:
        reports: Worker, end and seconds of each score.
        count: How many workers there are.
    """
    first: dict[str, float] = {}
    for worker, end, seconds in reports:
        first[worker] = min(first.get(worker, end), end - seconds)
    begin = sorted(first.values())[min(count, len(first)) - 1]
    # The last scores are handed out one round before the end; behind that some have nothing to do.
    until = sorted(end - seconds for _, end, seconds in reports)[-count]
    busy = sum(max(min(end, until) - max(end - seconds, begin), 0.0) for _, end, seconds in reports)
    return busy / max((until - begin) * count, 1e-9), len(first), until - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["growth", "workers"])
    parser.add_argument("--scored", type=int, default=10_000)
    parser.add_argument("--cohort", type=int, default=64)
    parser.add_argument("--method", default="random")
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--scores", type=int, default=1280)
    flags = parser.parse_args()
    if flags.what == "growth":
        growth(flags.scored, flags.cohort, flags.method)
    else:
        workers(flags.workers, flags.seconds, flags.scores)
    ray.shutdown()


if __name__ == "__main__":
    main()
