"""How well scores without training rank: random cells of NAS-Bench-201 and networks of NAS-Bench-Macro.

    python benchmarks/zero_cost.py --data DATA
    python benchmarks/zero_cost.py --data DATA --architectures 100 --images 16 --spaces 201      in some minutes

Every score of trainables/zero_cost.py and the combined ones, MACs and parameters beside them, against the public tables
(test accuracy after 200 epochs on CIFAR-10; mean accuracy of three runs): Kendall's tau with 95 % intervals. In one
process, without Ray. Needs cifar10/ (parquet), nasbench201_cifar10.parquet and nasbench_macro.parquet in the data
folder.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn

from raynas import architecture as arch
from raynas.analysis.rank_correlation import compare
from raynas.costs.counter import Costs
from raynas.data.dataset import Dataset
from raynas.data.loading import load
from raynas.evaluation.proxies.az_nas import SCORES, az_nas, blocks
from raynas.evaluation.proxies.scores import PROXIES
from raynas.evaluation.rank_aggregation import aggregate
from raynas.nn.subnet import derive
from raynas.spaces import nasbench201, nasbench_macro
from raynas.tasks.classification import to_input

Columns = dict[str, list[float]]
COMBINED = {
    "az_nas": SCORES,
    "naswot, zico, synflow": ("naswot", "zico", "synflow"),
    "az_nas, naswot, zico": (*SCORES, "naswot", "zico"),
}


def measure(
    space: nn.Module, architectures: list[arch.Architecture], batch: tuple[Tensor, Tensor]
) -> dict[str, list[float]]:
    """Every score of every architecture; prints how long each kind of score took."""
    inputs, targets = batch
    costs, names = Costs(space, (inputs[:1],)), blocks(space)
    columns: Columns = {}
    seconds: dict[str, float] = {}
    for architecture in architectures:
        network = derive(space, architecture)
        told = {"MACs": float(costs(architecture)["macs"]), "parameters": float(costs(architecture)["parameters"])}
        for name, proxy in PROXIES.items():
            begin = time.perf_counter()
            told[name] = proxy(network, inputs, targets)
            seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - begin
        begin = time.perf_counter()
        told |= az_nas(network, names, inputs, told["MACs"])
        seconds["az_nas"] = seconds.get("az_nas", 0.0) + time.perf_counter() - begin
        for name, value in told.items():
            columns.setdefault(name, []).append(value)
    for name, spent in seconds.items():
        print(f"{name:12} {len(architectures) / spent:6.1f} architectures/s")
    return columns


def report(title: str, columns: Columns, truth: list[float]) -> None:
    """Print tau of each score and of each combination."""
    columns = dict(columns)
    for name, parts in COMBINED.items():
        columns[name] = list(aggregate({part: columns[part] for part in parts}))
    columns["all of them"] = list(aggregate({name: columns[name] for name in (*PROXIES, *SCORES)}))
    ranking = compare(columns.pop("az_nas"), truth, columns, name="az_nas")
    print(f"\n{title}: {len(truth)} architectures")
    for one in sorted((ranking.score, *ranking.baselines), key=lambda agreement: -agreement.tau.value):
        print(f"{one.name:24} tau {one.tau}  favourite {one.favourite:g}, top {one.overlap:.0%}")


def draw(
    canonical: Callable[[arch.Architecture], arch.Architecture], decisions: arch.Decisions, count: int, seed: int
) -> list[arch.Architecture]:
    """Distinct random architectures."""
    rng, chosen = Random(seed), {}
    while len(chosen) < count:
        architecture = canonical(arch.sample(decisions, rng))
        chosen[arch.key(architecture)] = architecture
    return list(chosen.values())


def images(data: Dataset, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """A normalised batch of training images."""
    chosen = torch.from_numpy(np.random.default_rng(seed).permutation(len(data.train))[:count])
    return to_input(data.train.inputs[chosen], data), data.train.targets[chosen]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--architectures", type=int, default=500)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--spaces", nargs="+", default=["201", "macro"], choices=["201", "macro"])
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args()
    data = load("parquet", flags.data / "cifar10", limit=2000)
    batch = images(data, flags.images, flags.seed)
    torch.manual_seed(flags.seed)
    if "201" in flags.spaces:
        rows = pq.read_table(flags.data / "nasbench201_cifar10.parquet", columns=["arch", "cifar10_test_200"])
        table = dict(zip(*(rows.column(i).to_pylist() for i in range(2)), strict=True))
        drawn = draw(dict, nasbench201.DECISIONS, flags.architectures, flags.seed)
        truth = [table[nasbench201.to_string(architecture)] for architecture in drawn]
        report("NAS-Bench-201, CIFAR-10", measure(nasbench201.nasbench201(), drawn, batch), truth)
    if "macro" in flags.spaces:
        rows = pq.read_table(flags.data / "nasbench_macro.parquet", columns=["arch", "acc_mean"])
        table = dict(zip(*(rows.column(i).to_pylist() for i in range(2)), strict=True))
        drawn = draw(nasbench_macro.canonical_form, nasbench_macro.DECISIONS, flags.architectures, flags.seed)
        truth = [table[nasbench_macro.to_string(architecture)] for architecture in drawn]
        report("NAS-Bench-Macro", measure(nasbench_macro.nasbench_macro(), drawn, batch), truth)


if __name__ == "__main__":
    main()
