"""Whether zero-cost scores help ``bayes``: evaluations to the best of some random cells of NAS-Bench-201.

    python benchmarks/features.py --data DATA                                          about 15 minutes on one core
    python benchmarks/features.py --data DATA --size 500 --images 16 --seeds 5         in a few minutes

``--size`` random cells are all that may be searched, and ``--scores`` of each of them are computed once and kept in
``--output``. Searches see the test accuracy after 200 epochs on CIFAR-10: without features; with them, for the 50
candidates a suggestion that promise most; with those of all candidates; and with those of other cells, in random order,
which tell nothing. In one process, without Ray. Needs cifar10/ (parquet) and nasbench201_cifar10.parquet in the data
folder.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from pathlib import Path
from random import Random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from scipy.stats import kendalltau

from raynas import architecture as arch
from raynas.costs.counter import Costs
from raynas.data.dataset import load
from raynas.evaluation.proxies.evaluator import ZeroCostProxies
from raynas.evaluation.proxies.features import Foretelling
from raynas.search_space.space import SearchSpace
from raynas.searchers import Bayes, BayesSettings, RandomSearch
from raynas.spaces import nasbench201

KINDS = ("random", "without", "shortlist", "all", "shuffled")
LOOKS = (10, 20, 30, 50)
Cells = dict[str, arch.Architecture]


def draw(size: int) -> Cells:
    """Distinct random cells by key."""
    rng, cells = Random(0), Cells()
    while len(cells) < size:
        cell = arch.sample(nasbench201.DECISIONS, rng)
        cells[arch.key(cell)] = cell
    return cells


def measure(flags: argparse.Namespace, cells: Cells) -> dict[str, dict[str, float]]:
    """The zero-cost scores of all cells by key, from the file where they are kept."""
    path = flags.output / f"{'-'.join(flags.scores)}-{flags.images}-{flags.size}.parquet"
    if not path.exists():
        torch.manual_seed(0)
        torch.set_num_threads(1)
        space, data = nasbench201.nasbench201(), load("parquet", flags.data / "cifar10", limit=2000)
        costs = Costs(space, (torch.zeros(1, 3, 32, 32),))
        proxies = ZeroCostProxies.of(space, costs, data, flags.scores, flags.images, seed=0)
        begin = time.process_time()
        rows = [{"key": name, **proxies.measure(cell)} for name, cell in cells.items()]
        print(f"{(time.process_time() - begin) / len(rows):.2f} s for the scores of one cell", flush=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows), path)
    return {row.pop("key"): row for row in pq.read_table(path).to_pylist()}


def space_of(cells: Cells, told: dict[str, dict[str, float]], kind: str, seed: int) -> SearchSpace:
    """Where a search of this kind looks, and what it knows."""
    space = SearchSpace(
        nasbench201.DECISIONS,
        violation=lambda cell: float(arch.key(cell) not in cells),
        alike=nasbench201.canonical_form,
        graph=nasbench201.graph,
    )
    if kind in ("random", "without"):
        return space
    names = list(cells)
    if kind == "shuffled":
        names = Random(f"shuffled/{seed}").sample(names, len(names))
    own = dict(zip(cells, names, strict=True))
    sample = Random(f"sample/{seed}").sample(list(cells.values()), 50)
    features = Foretelling(lambda cell: told[own[arch.key(cell)]], lambda: sample)
    return dataclasses.replace(space, features=features)


def play(space: SearchSpace, kind: str, seed: int, truth: dict[str, float], evaluations: int) -> list[float]:
    """The best score so far after each evaluation, up to the best of all cells."""
    shortlist = len(truth) if kind == "all" else 50
    if kind == "random":
        searcher = RandomSearch(space, seed=seed)
    else:
        searcher = Bayes(space, settings=BayesSettings(shortlist=shortlist), seed=seed)
    best: list[float] = []
    while len(best) < evaluations and (not best or best[-1] < max(truth.values())):
        cell = searcher.suggest(str(len(best)))["architecture"]
        score = truth[arch.key(cell)]
        searcher.on_trial_complete(str(len(best)), {"score": score, "training_iteration": 1})
        best.append(max(score, best[-1]) if best else score)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--size", type=int, default=1000)
    parser.add_argument("--scores", nargs="+", default=["naswot", "synflow"])
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--evaluations", type=int, default=60)
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    parser.add_argument("--output", type=Path, default=Path("features"), help="folder in which the scores are kept")
    flags = parser.parse_args()
    cells = draw(flags.size)
    table = pq.read_table(flags.data / "nasbench201_cifar10.parquet", columns=["arch", "cifar10_test_200"])
    accuracy = dict(zip(*(table.column(i).to_pylist() for i in range(2)), strict=True))
    truth = {name: accuracy[nasbench201.to_string(cell)] for name, cell in cells.items()}
    told = measure(flags, cells)
    for score in next(iter(told.values())):
        tau = kendalltau([told[name][score] for name in cells], list(truth.values())).statistic
        print(f"{score}: Kendall's tau {tau:.2f} over the {flags.size} cells")
    looks = [look for look in LOOKS if look <= flags.evaluations]
    print(f"| features | mean regret after {'/'.join(map(str, looks))} | evaluations to the best, median and worst |")
    print("|---|---|---|", flush=True)
    for kind in flags.kinds:
        runs = [
            play(space_of(cells, told, kind, seed), kind, seed, truth, flags.evaluations) for seed in range(flags.seeds)
        ]
        aim = max(truth.values())
        regrets = aim - np.array([[run[min(look, len(run)) - 1] for look in looks] for run in runs])
        error = regrets.std(0) / np.sqrt(len(runs))
        found = [len(run) if run[-1] >= aim else np.inf for run in runs]
        cell = " / ".join(f"{mean:.2f}±{e:.2f}" for mean, e in zip(regrets.mean(0), error, strict=True))
        print(f"| {kind} | {cell} | {np.median(found):g}, {max(found):g} |".replace("inf", "-"), flush=True)


if __name__ == "__main__":
    main()
