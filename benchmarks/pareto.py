"""How few evaluations a front needs: accuracy against FLOPs on public tables, all searchers side by side.

    python benchmarks/pareto.py --data DATA                                     10 seeds, one evaluation at a time
    python benchmarks/pareto.py --data DATA --searchers bayes --in-flight 8
    python benchmarks/pareto.py --data DATA --tables nasbench_macro --costs 2   parameters as a third objective

Prints the share of the true front's hypervolume that was found, in percent, mean and worst seed, and writes the share
after every evaluation (Parquet) into ``--output``. ``DATA`` holds nasbench201_cifar10.parquet and
nasbench_macro.parquet. The reference point is the corner of the true front: its worst accuracy and its largest costs.
What is worse than that adds nothing, so that the easy outer part of the volume does not make the shares look good.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import moocore
import numpy as np
import numpy.typing as npt
import optuna
import pyarrow as pa
import pyarrow.parquet as pq
from threadpoolctl import threadpool_limits

from raynas.nn.space import graph
from raynas.search_space.space import SearchSpace
from raynas.searchers import NSGA2, ArchitectureSearcher, Bayes, RandomSearch
from raynas.spaces import nasbench201, nasbench_macro

OURS: dict[str, Callable[..., ArchitectureSearcher]] = {"random": RandomSearch, "nsga2": NSGA2, "bayes": Bayes}
OPTUNA: dict[str, Callable[[int], optuna.samplers.BaseSampler]] = {
    "optuna-nsga2": lambda seed: optuna.samplers.NSGAIISampler(seed=seed),
    "optuna-tpe": lambda seed: optuna.samplers.TPESampler(seed=seed, multivariate=True),
}
COSTS = {"nasbench_macro": ("flops", "params"), "nasbench201": ("flops_m", "params_m")}
LOOKS = (50, 100, 200, 328)


@dataclass(frozen=True)
class Task:
    """A table: what is searched, and minus accuracy and the costs of every architecture."""

    space: SearchSpace
    name: Callable[[dict[str, str]], str]
    points: dict[str, npt.NDArray[np.float64]]
    corner: npt.NDArray[np.float64]

    def volume(self, points: npt.NDArray[np.float64]) -> float:
        """The hypervolume of a front."""
        return float(moocore.hypervolume(points, ref=self.corner))

    @property
    def whole(self) -> float:
        """That of the true front."""
        return self.volume(np.stack(list(self.points.values())))


@cache
def task(data: Path, table: str, costs: int) -> Task:
    names = COSTS[table][:costs]
    if table == "nasbench201":
        rows = pq.read_table(data / "nasbench201_cifar10.parquet", columns=["arch", "cifar10_test_200", *names])
        space = SearchSpace(nasbench201.DECISIONS, alike=nasbench201.canonical_form, graph=nasbench201.graph)
        name: Callable[[dict[str, str]], str] = nasbench201.to_string
    else:
        rows = pq.read_table(data / "nasbench_macro.parquet", columns=["arch", "acc_mean", *names])
        chain = graph(nasbench_macro.nasbench_macro(channels=2, head=4))
        space = SearchSpace(nasbench_macro.DECISIONS, canonical=nasbench_macro.canonical_form, graph=chain)
        name = nasbench_macro.to_string
    accuracy, *others = (np.asarray(column, float) for column in rows.columns[1:])
    points = np.column_stack([-accuracy, *others])
    known = dict(zip(rows.column("arch").to_pylist(), points, strict=True))

    def price(architecture: dict[str, str]) -> dict[str, float]:
        return dict(zip(names, known[name(architecture)][1:].tolist(), strict=True))

    space = SearchSpace(**{**vars(space), "costs": price, "objectives": names})
    return Task(space, name, known, points[moocore.is_nondominated(points)].max(0))


@dataclass(frozen=True)
class Job:
    """One run of one searcher."""

    data: Path
    table: str
    searcher: str
    seed: int
    evaluations: int
    in_flight: int
    costs: int


def play(job: Job) -> dict[str, Any]:
    """Run it; returns the share of the true front's hypervolume after each evaluation."""
    this = task(job.data, job.table, job.costs)
    ask = _optuna(job, this) if job.searcher in OPTUNA else _ours(job, this)
    points: list[npt.NDArray[np.float64]] = []
    begin = time.perf_counter()
    name = next(ask)
    while True:
        points.append(this.points[name])
        if len(points) == job.evaluations:
            break
        name = ask.send(points[-1])
    seconds = (time.perf_counter() - begin) / len(points)
    shares = [this.volume(np.stack(points[:count])) / this.whole for count in range(1, len(points) + 1)]
    return {"table": job.table, "searcher": job.searcher, "seed": job.seed, "shares": shares, "seconds": seconds}


def _ours(job: Job, this: Task) -> Iterator[str]:
    """One of our searchers, with so many trials in flight, which complete in random order."""
    searcher = OURS[job.searcher](this.space, seed=job.seed)
    searcher.expect_in_flight(job.in_flight)
    rng, flying, started = Random(job.seed), [], 0
    while True:
        while len(flying) < job.in_flight:
            suggestion: Any = searcher.suggest(f"t{started}")
            flying.append((f"t{started}", suggestion["architecture"]))
            started += 1
        trial, architecture = flying.pop(rng.randrange(len(flying)))
        point = yield this.name(architecture)
        searcher.on_trial_complete(trial, {"score": -point[0], "training_iteration": 1})


def _optuna(job: Job, this: Task) -> Iterator[str]:
    """A sampler of Optuna as its users have it: repeats count as evaluations."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    study = optuna.create_study(directions=["minimize"] * len(this.corner), sampler=OPTUNA[job.searcher](job.seed))
    while True:
        flying = [study.ask() for _ in range(job.in_flight)]
        for trial in flying:
            chosen = {d: trial.suggest_categorical(d, options) for d, options in this.space.decisions.items()}
            study.tell(trial, (yield this.name(chosen)).tolist())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tables", nargs="+", default=list(COSTS), choices=list(COSTS))
    parser.add_argument("--searchers", nargs="+", default=[*OURS, *OPTUNA], choices=[*OURS, *OPTUNA])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--evaluations", type=int, default=LOOKS[-1])
    parser.add_argument("--in-flight", type=int, default=1)
    parser.add_argument("--costs", type=int, default=1, choices=(1, 2), help="FLOPs, or FLOPs and parameters")
    parser.add_argument("--output", type=Path, default=Path("pareto"))
    flags = parser.parse_args()
    flags.output.mkdir(parents=True, exist_ok=True)
    jobs = [
        Job(flags.data, table, searcher, seed, flags.evaluations, flags.in_flight, flags.costs)
        for table in flags.tables
        for searcher in flags.searchers
        for seed in range(flags.seeds)
    ]
    rows: list[dict[str, Any]] = []
    looks = [look for look in LOOKS if look <= flags.evaluations]
    titles = ["table", "searcher", *(f"after {look}: mean, worst" for look in looks), "to 95 %, median", "ms"]
    print(f"| {' | '.join(titles)} |\n|{'---|' * len(titles)}", flush=True)
    with ProcessPoolExecutor(initializer=threadpool_limits, initargs=(1,)) as pool:
        for row in pool.map(play, jobs):
            rows.append(row)
            if len(rows) % flags.seeds == 0:
                shares = 100 * np.array([each["shares"] for each in rows[-flags.seeds :]])
                first = np.where(shares.max(1) >= 95, (shares >= 95).argmax(1) + 1, np.inf)
                cells = [f"{shares[:, look - 1].mean():.1f}, {shares[:, look - 1].min():.1f}" for look in looks]
                spent = 1000 * np.mean([each["seconds"] for each in rows[-flags.seeds :]])
                median = f"{np.median(first):g}".replace("inf", "-")
                print(f"| {' | '.join([row['table'], row['searcher'], *cells, median, f'{spent:.0f}'])} |", flush=True)
    pq.write_table(pa.Table.from_pylist(rows), flags.output / "shares.parquet")


if __name__ == "__main__":
    main()
