"""How few evaluations a searcher needs: regret on public tables, all searchers side by side.

    python benchmarks/searchers.py --data DATA                                  30 seeds, one evaluation at a time
    python benchmarks/searchers.py --data DATA --searchers bayes --in-flight 8
    python benchmarks/searchers.py --data DATA --searchers bayes random --noise 0.3
    python benchmarks/searchers.py --data DATA --searchers bayes random --noise 0.3 --rescored 5
    python benchmarks/searchers.py --data DATA --searchers bayes optuna-gp --evaluations 100 --seeds 10
    python benchmarks/searchers.py --data DATA --searchers predictor reinforce random --shuffle
    python benchmarks/searchers.py --data DATA --tables nasbench201-validation
    python benchmarks/searchers.py --data DATA --searchers bayes --known 500    seconds of one core for a suggestion

Prints a table, writes every evaluation (Parquet) and a plot (PNG, if matplotlib is there) into ``--output``. ``DATA``
holds nasbench201_cifar10.parquet and nasbench_macro.parquet. On NAS-Bench-201 every cell counts as it stands, because
isomorphic cells were trained separately; the model of ``bayes`` still compares canonical forms. Where what is told is
not what counts, with noise for example, the regret is that of what the searcher recommends. Optuna's GP takes about a
second a suggestion: it runs only where it is named.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Generator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from heapq import nlargest
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import optuna
import pyarrow as pa
import pyarrow.parquet as pq
from threadpoolctl import threadpool_limits

from raynas.nn.space import graph
from raynas.search_space.space import SearchSpace
from raynas.searchers import (
    NSGA2,
    TPE,
    ArchitectureSearcher,
    Bayes,
    Evolution,
    EvolutionSettings,
    LocalSearch,
    Predictor,
    RandomSearch,
    RegularizedEvolution,
    Reinforce,
)
from raynas.searchers.nao.searcher import NAO
from raynas.spaces import nasbench201, nasbench_macro

OURS: dict[str, Callable[..., ArchitectureSearcher]] = {
    "random": RandomSearch,
    "bayes": Bayes,
    "evolution": partial(Evolution, settings=EvolutionSettings(population=20)),
    "local": LocalSearch,
    "nao": NAO,
    "nsga2": NSGA2,
    "predictor": Predictor,
    "regularized": RegularizedEvolution,
    "reinforce": Reinforce,
    "tpe": TPE,
}
OPTUNA: dict[str, Callable[[int], optuna.samplers.BaseSampler]] = {
    "optuna-tpe": lambda seed: optuna.samplers.TPESampler(seed=seed, multivariate=True),
    "optuna-gp": lambda seed: optuna.samplers.GPSampler(seed=seed),
}
SLOW = ("optuna-gp",)  # runs only where it is named
TABLES = ("nasbench201", "nasbench_macro", "nasbench201-validation")
LOOKS = (25, 50, 100, 200)


@dataclass(frozen=True)
class Task:
    """A table: what is searched, what a searcher is told, and what counts in the end."""

    space: SearchSpace
    name: Callable[[dict[str, str]], str]
    told: dict[str, float]
    counts: dict[str, float]


@cache
def task(data: Path, table: str) -> Task:
    if table.startswith("nasbench201"):
        told = "cifar10_val_200" if table.endswith("validation") else "cifar10_test_200"
        rows = pq.read_table(
            data / "nasbench201_cifar10.parquet", columns=list(dict.fromkeys(["arch", told, "cifar10_test_200"]))
        )
        space = SearchSpace(nasbench201.DECISIONS, alike=nasbench201.canonical_form, graph=nasbench201.graph)
        name: Callable[[dict[str, str]], str] = nasbench201.to_string
        columns = ("arch", told, "cifar10_test_200")
    else:
        rows = pq.read_table(data / "nasbench_macro.parquet", columns=["arch", "acc_mean"])
        chain = graph(nasbench_macro.nasbench_macro(channels=2, head=4))
        space = SearchSpace(nasbench_macro.DECISIONS, canonical=nasbench_macro.canonical_form, graph=chain)
        name, columns = nasbench_macro.to_string, ("arch", "acc_mean", "acc_mean")
    names, *values = (rows.column(column).to_pylist() for column in columns)
    known, counts = (dict(zip(names, each, strict=True)) for each in values)
    return Task(space, name, known, known if columns[1] == columns[2] else counts)


@dataclass(frozen=True)
class Job:
    """One run of one searcher."""

    data: Path
    table: str
    searcher: str
    seed: int
    evaluations: int
    in_flight: int
    noise: float
    rescored: int
    shuffle: bool


def play(job: Job) -> dict[str, Any]:
    """Run it; returns what counts of what would be chosen, by what the searcher was told, after each evaluation."""
    this = task(job.data, job.table)
    told, counts = this.told, this.counts
    if job.shuffle:
        values = Random(f"shuffle/{job.seed}").sample(list(told.values()), len(told))
        told = counts = dict(zip(told, values, strict=True))
    aim = max(counts.values())
    scores: list[float] = []
    heard: dict[str, float] = {}
    exact = told is counts and not job.noise
    begin = time.perf_counter()
    noise = np.random.default_rng(job.seed)
    searcher = None if job.searcher in OPTUNA else OURS[job.searcher](this.space, seed=job.seed, mode="max")
    ask = _optuna(job, this) if searcher is None else _ours(job, this, searcher)
    name: str | None = next(ask)
    while name is not None and len(scores) < job.evaluations:
        answer = told[name] + (job.noise * noise.standard_normal() if job.noise else 0.0)
        heard[name] = max(heard.get(name, -np.inf), answer)
        if exact and counts[name] >= aim:
            scores.append(aim)
            break  # the exact optimum: nothing is left to be found
        name = ask.send(answer)
        if searcher is None or exact:
            chosen = nlargest(job.rescored, heard, key=heard.__getitem__)
        else:
            chosen = list(map(this.name, searcher.recommend(job.rescored)))
        scores.append(max(map(counts.__getitem__, chosen)))
    seconds = (time.perf_counter() - begin) / len(scores)
    return {"table": job.table, "searcher": job.searcher, "seed": job.seed, "scores": scores, "seconds": seconds}


def _ours(job: Job, this: Task, searcher: ArchitectureSearcher) -> Generator[str | None, float, None]:
    """One of our searchers, with so many trials in flight, which complete in random order. None: all was tried."""
    searcher.expect_in_flight(job.in_flight)
    rng, flying, started = Random(job.seed), [], 0
    while True:
        while len(flying) < job.in_flight:
            suggestion = searcher.suggest(f"t{started}")
            if not isinstance(suggestion, dict):
                break
            flying.append((f"t{started}", suggestion["architecture"]))
            started += 1
        if not flying:
            break
        trial, architecture = flying.pop(rng.randrange(len(flying)))
        score = yield this.name(architecture)
        searcher.on_trial_complete(trial, {"score": score, "training_iteration": 1})
    yield None


def _optuna(job: Job, this: Task) -> Generator[str | None, float, None]:
    """A sampler of Optuna as its users have it: repeats count as evaluations."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    study = optuna.create_study(direction="maximize", sampler=OPTUNA[job.searcher](job.seed))
    while True:
        flying = [study.ask() for _ in range(job.in_flight)]
        for trial in flying:
            chosen = {d: trial.suggest_categorical(d, options) for d, options in this.space.decisions.items()}
            study.tell(trial, (yield this.name(chosen)))


def suggestion(data: Path, table: str, searcher: str, known: int, suggestions: int = 25) -> list[float]:
    """Seconds of one core for each of some suggestions, by a searcher that knows so many random scores."""
    this = task(data, table)
    asked = OURS[searcher](this.space, seed=0, mode="max")
    for number in range(known):
        architecture = asked.planned(number)
        assert architecture is not None
        asked.add_evaluated_point({"architecture": architecture}, this.told[this.name(architecture)])
    took = []
    with threadpool_limits(1):
        for number in range(suggestions):
            begin = time.process_time()
            proposed: Any = asked.suggest(f"t{number}")
            took.append(time.process_time() - begin)
            score = this.told[this.name(proposed["architecture"])]
            asked.on_trial_complete(f"t{number}", {"score": score, "training_iteration": 1})
    return took


def summary(rows: list[dict[str, Any]], aim: float, evaluations: int) -> list[str]:
    """One line of the table: the cells for one searcher on one table."""
    best = np.full((len(rows), evaluations), np.nan)
    first = []
    for row, scores in zip(best, (r["scores"] for r in rows), strict=True):
        row[: len(scores)] = scores
        row[len(scores) :] = row[len(scores) - 1]
        hits = np.flatnonzero(row >= aim)
        first.append(hits[0] + 1 if len(hits) else np.inf)
    looks = [look for look in LOOKS if look <= evaluations]
    regret = " / ".join(f"{aim - best[:, look - 1].mean():.3f}" for look in looks)
    shares = " / ".join(f"{np.mean(np.array(first) <= look):.2f}" for look in (50, 80, 100) if look <= evaluations)
    found = f"{np.median(first):g}, worst {max(first):g}".replace("inf", "-")
    return [regret, shares, found, f"{1000 * np.mean([row['seconds'] for row in rows]):.0f}"]


def draw(path: Path, rows: list[dict[str, Any]], aims: dict[str, float], evaluations: int) -> None:
    """Mean regret against evaluations, a panel for each table."""
    try:
        from matplotlib import pyplot
    except ImportError:
        print("no plot: matplotlib is not installed")
        return
    figure, panels = pyplot.subplots(1, len(aims), figsize=(6 * len(aims), 4), squeeze=False)
    for panel, (table, aim) in zip(panels[0], aims.items(), strict=True):
        for searcher in dict.fromkeys(row["searcher"] for row in rows):
            curves = [r["scores"] for r in rows if (r["table"], r["searcher"]) == (table, searcher)]
            regret = aim - np.mean([s + [s[-1]] * (evaluations - len(s)) for s in curves], axis=0)
            panel.plot(range(1, evaluations + 1), np.maximum(regret, 1e-3), label=searcher)
        panel.set(title=table, xlabel="evaluations", ylabel="mean regret (accuracy points)", yscale="log")
    panels[0][0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tables", nargs="+", default=list(TABLES[:2]), choices=TABLES)
    parser.add_argument(
        "--searchers",
        nargs="+",
        default=[name for name in (*OURS, *OPTUNA) if name not in SLOW],
        choices=[*OURS, *OPTUNA],
    )
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--first-seed", type=int, default=0, help="the priors of bayes were chosen with 0 to 11")
    parser.add_argument("--evaluations", type=int, default=200)
    parser.add_argument("--in-flight", type=int, default=1)
    parser.add_argument("--noise", type=float, default=0.0, help="standard deviation added to what is told, in points")
    parser.add_argument("--rescored", type=int, default=1, help="so many of the best are scored again, without noise")
    parser.add_argument("--shuffle", action="store_true", help="the table's scores in random order: nothing to learn")
    parser.add_argument("--known", type=int, help="measure suggestions of our searchers after so many scores instead")
    parser.add_argument("--output", type=Path, default=Path("searchers"))
    flags = parser.parse_args()
    if flags.known is not None:
        for table in flags.tables:
            for searcher in (name for name in flags.searchers if name in OURS):
                took = suggestion(flags.data, table, searcher, flags.known)
                print(f"{table}, {searcher}: {np.mean(took):.3f} s in the mean, {max(took):.3f} s at most", flush=True)
        return
    flags.output.mkdir(parents=True, exist_ok=True)
    run = {name: getattr(flags, name) for name in ("evaluations", "in_flight", "noise", "rescored", "shuffle")}
    jobs = [
        Job(flags.data, table, searcher, seed, **run)
        for table in flags.tables
        for searcher in flags.searchers
        for seed in range(flags.first_seed, flags.first_seed + flags.seeds)
    ]
    rows: list[dict[str, Any]] = []
    aims = {table: max(task(flags.data, table).counts.values()) for table in flags.tables}
    looks = "/".join(str(look) for look in LOOKS if look <= flags.evaluations)
    print(f"| table | searcher | mean regret at {looks} | optimum by 50/80/100 | evaluations to it, median | ms |")
    print("|---|---|---|---|---|---|", flush=True)
    with ProcessPoolExecutor(initializer=threadpool_limits, initargs=(1,)) as pool:
        for row in pool.map(play, jobs):
            rows.append(row)
            if len(rows) % flags.seeds == 0:
                cells = summary(rows[-flags.seeds :], aims[row["table"]], flags.evaluations)
                print(f"| {' | '.join([row['table'], row['searcher'], *cells])} |", flush=True)
                pq.write_table(pa.Table.from_pylist(rows), flags.output / "evaluations.parquet")
    draw(flags.output / "regret.png", rows, aims, flags.evaluations)


if __name__ == "__main__":
    main()
