"""What a warm start saves, and what it costs where the other search has nothing to tell: regret on public tables.

    python benchmarks/warm_start.py --data DATA
    python benchmarks/warm_start.py --data DATA --searchers regularized predictor local --evaluations 100

For each seed the source is another set of ``--size`` random architectures with their scores in another column of the
table: a related one, that one with noise, a loosely related one (how large they are), and the related one in random
order, from which nothing can be learned. The first three evaluations of a warm start are the best of the source.
``DATA`` holds nasbench201_cifar10.parquet and nasbench_macro.parquet.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random

import numpy as np
import pyarrow.parquet as pq
from searchers import OURS, Task, task
from threadpoolctl import threadpool_limits

from raynas.searchers import RandomSearch

TABLES = {
    "nasbench201": ("nasbench201_cifar10.parquet", "cifar10_val_200", "flops_m"),
    "nasbench_macro": ("nasbench_macro.parquet", "acc_run0", "flops"),
}
"""File, related column, loosely related one. Searched is what benchmarks/searchers.py searches."""
SOURCES = ("none", "related", "noisy", "loose", "shuffled")
NOISE = 2.0  # points
LOOKS = (10, 20, 50, 100)


@dataclass(frozen=True)
class Job:
    """One run of one searcher."""

    data: Path
    table: str
    searcher: str
    source: str
    seed: int
    evaluations: int
    size: int


@cache
def columns(data: Path, table: str) -> dict[str, dict[str, float]]:
    """The related column and the loosely related one: scores by the architecture's name."""
    file, related, loose = TABLES[table]
    rows = pq.read_table(data / file, columns=["arch", related, loose]).to_pydict()
    return {name: dict(zip(rows["arch"], rows[name], strict=True)) for name in (related, loose)}


def source(job: Job, this: Task) -> list[tuple[dict[str, str], float]]:
    """Random architectures and what the other search heard of them."""
    _, related, loose = TABLES[job.table]
    told = columns(job.data, job.table)[loose if job.source == "loose" else related]
    drawn = RandomSearch(this.space, seed=1_000_000 + job.seed, mode="max")
    architectures = [drawn.suggest(f"t{number}")["architecture"] for number in range(job.size)]
    scores = [told[this.name(architecture)] for architecture in architectures]
    if job.source == "noisy":
        scores = (np.array(scores) + NOISE * np.random.default_rng(job.seed).standard_normal(job.size)).tolist()
    if job.source == "shuffled":
        Random(job.seed).shuffle(scores)
    return list(zip(architectures, scores, strict=True))


def play(job: Job) -> list[float]:
    """The best score so far after each evaluation, up to the optimum."""
    this = task(job.data, job.table)
    searcher = OURS[job.searcher](this.space, seed=job.seed, mode="max")
    if job.source != "none":
        searcher.warm_start(source(job, this))
    best: list[float] = []
    while len(best) < job.evaluations and (not best or best[-1] < max(this.told.values())):
        architecture = searcher.suggest(f"t{len(best)}")["architecture"]
        score = this.told[this.name(architecture)]
        searcher.on_trial_complete(f"t{len(best)}", {"score": score, "training_iteration": 1})
        best.append(max(score, best[-1]) if best else score)
    return best


def summary(runs: list[list[float]], aim: float, evaluations: int) -> list[str]:
    """Regret with its standard error, shares that found the optimum, evaluations until then."""
    looks = [look for look in LOOKS if look <= evaluations]
    regrets = aim - np.array([[run[min(look, len(run)) - 1] for look in looks] for run in runs])
    error = regrets.std(0) / np.sqrt(len(runs))
    found = [len(run) if run[-1] >= aim else np.inf for run in runs]
    return [
        " / ".join(f"{mean:.2f}±{e:.2f}" for mean, e in zip(regrets.mean(0), error, strict=True)),
        " / ".join(f"{np.mean(np.array(found) <= look):.2f}" for look in looks),
        f"{np.median(found):g}, worst {max(found):g}".replace("inf", "-"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tables", nargs="+", default=list(TABLES), choices=TABLES)
    parser.add_argument("--searchers", nargs="+", default=["bayes"], choices=OURS)
    parser.add_argument("--sources", nargs="+", default=list(SOURCES), choices=SOURCES)
    parser.add_argument("--size", type=int, default=200, help="architectures in the source")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--evaluations", type=int, default=50)
    parser.add_argument("--workers", type=int)
    flags = parser.parse_args()
    looks = "/".join(str(look) for look in LOOKS if look <= flags.evaluations)
    print(f"| table | searcher | source | mean regret at {looks} | optimum by {looks} | evaluations to it, median |")
    print("|---|---|---|---|---|---|", flush=True)
    with ProcessPoolExecutor(flags.workers, initializer=threadpool_limits, initargs=(1,)) as pool:
        for table in flags.tables:
            for searcher in flags.searchers:
                for kind in flags.sources:
                    jobs = [
                        Job(flags.data, table, searcher, kind, seed, flags.evaluations, flags.size)
                        for seed in range(flags.seeds)
                    ]
                    cells = summary(
                        list(pool.map(play, jobs)), max(task(flags.data, table).told.values()), flags.evaluations
                    )
                    print(f"| {' | '.join([table, searcher, kind, *cells])} |", flush=True)


if __name__ == "__main__":
    main()
