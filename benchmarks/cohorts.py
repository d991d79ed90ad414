"""What a Tune trial costs where scores are free: architectures/s in cohorts against one trial each, on a table.

    python benchmarks/cohorts.py --data DATA

The whole path: random search, Tune, a trial that looks NAS-Bench-201 cells up, the log. Both ways take turns. Start-up
counts in neither: a rate is taken from the end of the first trial to the end of the last one.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import ray
from raynas.spaces.nasbench201 import DECISIONS
from rich.console import Console

from raynas import prepare, results
from raynas.config.run import Config, SearchConfig
from raynas.distributed.connection import connect
from raynas.runs.display import View


def rate(file: Path, cohort: int, trials: int, concurrent: int, seed: int) -> tuple[float, float]:
    """Architectures/s, and the milliseconds of this process that one of them takes."""
    search = SearchConfig(
        trainable="trainables.table:Table", trainable_args={"file": str(file), "metric": "cifar10_val_200"},
        method="random", num_samples=trials * cohort, cohort=cohort, max_concurrent=concurrent,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        run = prepare(
            Config(search=search, storage_path=folder, name="cohorts", seed=seed),
            space=DECISIONS,
            view=View(Console(quiet=True)),
        )
        begin = time.process_time()
        run.search()
        spent = time.process_time() - begin
        rows = results.read(run.folder / "scored.parquet").to_pylist()
    assert len(rows) == trials * cohort and all(row["status"] == "complete" for row in rows)
    ends: dict[str, float] = {}
    for row in rows:
        ends[row["trial"]] = row["time"].timestamp()
    span = max(ends.values()) - min(ends.values())
    return (len(rows) - cohort) / span, 1000 * spent / len(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="holds nasbench201_cifar10.parquet")
    parser.add_argument("--cohort", type=int, default=64)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--in-flight", type=int, default=1, help="trials at the same time")
    parser.add_argument("--repeats", type=int, default=3)
    flags = parser.parse_args()
    connect(Config())
    file = flags.data / "nasbench201_cifar10.parquet"
    found: dict[int, list[tuple[float, float]]] = {flags.cohort: [], 1: []}
    for seed in range(flags.repeats):
        for cohort, measured in found.items():
            measured.append(rate(file, cohort, flags.trials, flags.in_flight, seed))
    medians = {}
    for cohort, measured in found.items():
        rates, spent = zip(*measured, strict=True)
        medians[cohort] = statistics.median(rates)
        print(
            f"cohorts of {cohort}: {medians[cohort]:.1f} architectures/s (from {min(rates):.1f} to {max(rates):.1f}), "
            f"{statistics.median(spent):.2f} ms of the driver each"
        )
    ratios = [many[0] / one[0] for many, one in zip(*found.values(), strict=True)]
    print(f"ratio {medians[flags.cohort] / medians[1]:.1f} (pairs: {', '.join(f'{ratio:.1f}' for ratio in ratios)})")
    ray.shutdown()


if __name__ == "__main__":
    main()
