"""RLNAS against a public table: how well the angle ranks, with given and with random labels, and what its search finds.

    python benchmarks/rlnas.py --data DATA --channels 8 --space-args '{"cells": 2}'
    python benchmarks/rlnas.py --data DATA --channels 16 --space nasbench_macro

For every seed two supernets are trained on CIFAR-10, with the given and with random labels, each for ``--minutes`` of
this machine. Kendall's tau-b against the table: of the angle and of MACs over all architectures; of the accuracy on
validation images, with BatchNorm statistics recalibrated and as trained, and of its rank and the angle's added, over
``--architectures`` random ones. Then the accuracy in the table of what each search ends with, and how many
architectures/s the angle scores, beside a loop over the modules on every way through the network. With ``--storage``
supernets that are there already are not trained again. Needs cifar10/ (parquet) and the table in the data folder.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import ray
import torch
from scipy.stats import kendalltau, rankdata
from torch import Tensor, nn

from raynas import architecture as arch
from raynas import checkpoint, prepare
from raynas.angle import Angles
from raynas.choice import choices, decisions, wiring
from raynas.config import Config, DataConfig, SearchConfig, TrainConfig
from raynas.connection import connect
from raynas.display import View
from raynas.run import Run
from raynas.supernet import Supernet
from raynas.training import model_tensors
from spaces import nasbench201, nasbench_macro


@dataclass(frozen=True)
class Benchmark:
    """A space and its public table."""

    space: str
    width: str
    file: str
    truth: str
    macs: str
    name: Callable[[Mapping[str, str]], str]
    search: Mapping[str, int]


BENCHMARKS = {
    "nasbench201": Benchmark(
        "spaces.nasbench201:nasbench201", "channels", "nasbench201_cifar10.parquet", "cifar10_test_200", "flops_m",
        nasbench201.to_string, {"population": 100, "parents": 30},
    ),
    "nasbench_macro": Benchmark(
        "spaces.nasbench_macro:nasbench_macro", "channels", "nasbench_macro.parquet", "acc_mean", "flops",
        nasbench_macro.to_string, {"population": 50, "parents": 10},
    ),
}  # fmt: skip


class Quiet(View):
    """Shows nothing."""

    def say(self, text: str) -> None:
        """Not this either."""

    def leaderboard(self, rows: object, rescored: bool = True) -> None:
        """Nor this."""


def make(flags: argparse.Namespace, labels: str, seed: int) -> Run:
    """The run of one supernet; everything in it is decided by the flags."""
    known = BENCHMARKS[flags.space]
    space_args = {known.width: flags.channels} | json.loads(flags.space_args)
    config = Config(
        space=known.space,
        space_args=space_args,
        data=DataConfig(name="parquet", folder=str(flags.data / "cifar10"), validation=0.1),
        train=TrainConfig(
            minutes=flags.minutes, labels=labels, paths="uniform", lr=flags.lr, batch_size=flags.batch_size,
            label_smoothing=0.0, nesterov=True, clip=5.0,
        ),
        search=SearchConfig(
            trainable="trainables.angle:Angle", num_samples=20 * known.search["population"], cohort=64,
            method="evolution", method_args=dict(known.search), slices=1, validation_images=flags.images,
        ),
        storage_path=flags.storage,
        name=f"{flags.space}-{labels}-{seed}",
        seed=seed,
    )  # fmt: skip
    return prepare(config, view=Quiet())


def accuracies(run: Run, chosen: Sequence[arch.Architecture], bn_images: int) -> list[float]:
    """Percent of the validation images, with the shared weights."""
    settings = dataclasses.replace(run.config, search=dataclasses.replace(run.config.search, bn_images=bn_images))
    supernet = Supernet(run.space, run.search_data, settings, run.folder / "supernet")
    replicas = supernet.replicas()
    chunks = [list(chosen[start : start + 10]) for start in range(0, len(chosen), 10)]
    asked = [replicas[i % len(replicas)].evaluate.remote(chunk, 0) for i, chunk in enumerate(chunks)]
    answers = [answer for chunk in ray.get(asked) for answer in chunk]
    supernet.close()
    return [100 * answer["correct"] / answer["images"] for answer in answers]


def tau(scores: Any, truth: Any) -> float:
    """Kendall's tau-b."""
    return float(kendalltau(scores, truth).statistic)


def looped(run: Run, weights: Mapping[str, Tensor], architecture: Mapping[str, str]) -> Tensor:
    """The weight vector of an architecture, built module by module along every way."""
    ways: list[list[str]] = []
    edges = list(wiring(run.space) or ())
    open_ends: list[tuple[int, list[str]]] = [(min(edge[0] for edge in edges), [])]
    last = max(edge[1] for edge in edges)
    while open_ends:
        node, way = open_ends.pop()
        if node == last:
            ways.append(way)
        open_ends += [(t, [*way, n]) for s, t, n in edges if s == node and n is not None and architecture[n] != "none"]
    places: dict[str, list[Any]] = {}
    for name, choice in choices(run.space):
        places.setdefault(name, []).append(choice)
    names = {id(p): n for n, p in run.space.named_parameters()}
    inside = {id(p) for _, choice in choices(run.space) for p in choice.parameters()}
    norms = {id(p) for m in run.space.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters()}
    parts = [weights[n].flatten() for p, n in names.items() if p not in inside]
    for name in (name for way in ways for name in way):
        for choice in places[name]:
            module = choice.get_submodule(architecture[name])
            own = [weights[names[id(p)]].flatten() for p in module.parameters() if id(p) not in norms]
            width = next(m.out_channels for m in reversed(list(choice.modules())) if isinstance(m, nn.Conv2d))
            if architecture[name] == "avg_pool_3x3":
                own = [torch.full((9 * width,), 1 / 9)]
            elif architecture[name] == "identity" and not own:
                own = [torch.eye(width).flatten()]
            parts += own
    return torch.cat(parts) if ways else torch.zeros(1)


def rates(run: Run, angles: Angles, everything: Sequence[arch.Architecture], loops: int = 40) -> dict[str, float]:
    """Architectures/s of the table of options and of the loop, both on one core; the two must agree."""
    torch.set_num_threads(1)
    folder = run.folder / "supernet"
    saved = checkpoint.latest(folder)
    assert saved is not None
    states = checkpoint.read_initial(folder), model_tensors(saved[1])
    some = Random(0).sample(list(everything), loops)
    begin = time.perf_counter()
    slow = []
    for architecture in some:
        first, second = (looped(run, state, architecture).double() for state in states)
        cosine = first @ second / (first.norm() * second.norm()).clamp_min(1e-12)
        slow.append(float(torch.rad2deg(torch.arccos(cosine.clamp(-1, 1)))) if len(first) > 1 else 0.0)
    loop = loops / (time.perf_counter() - begin)
    np.testing.assert_allclose(angles(some), slow, atol=1e-3)
    begin = time.perf_counter()
    fast = run.angles()
    table = time.perf_counter() - begin
    begin = time.perf_counter()
    fast(everything)
    return {"table": len(everything) / (time.perf_counter() - begin), "seconds to read the table": table, "loop": loop}


def measure(flags: argparse.Namespace, seed: int, rows: Mapping[str, Any]) -> dict[str, float]:
    """All figures of one seed."""
    known, found = BENCHMARKS[flags.space], dict[str, float]()
    runs = {labels: make(flags, labels, seed) for labels in ("given", "random")}
    run = runs["given"]
    forms = {arch.key(form): form for form in map(run.costs.canonical, arch.enumerate_all(decisions(run.space)))}
    # One of those that are the same network: the others have its angle, but entries of their own in a cell table.
    everything = list(arch.enumerate_all(decisions(run.space)) if flags.space == "nasbench201" else forms.values())
    look = functools.partial(_column, rows, known, everything)
    truth, macs = look(known.truth), look(known.macs)
    found["tau, MACs"] = tau(macs, truth)
    found["found, MACs"] = float(truth[np.argmax(macs)])
    found["found, the best there is"] = float(truth.max())
    chosen = sorted(Random(seed).sample(range(len(everything)), flags.architectures))
    angles: dict[str, Any] = {}
    for labels, each in runs.items():
        winner = each.search()[0]["architecture"]
        angles[labels] = each.angles()(everything)
        found[f"tau, angle, {labels} labels"] = tau(angles[labels], truth)
        found[f"found, angle, {labels} labels"] = float(rows[known.name(winner)][known.truth])
        found[f"angle in the mean, {labels} labels"] = float(angles[labels].mean())
        each.close()
    sample = [run.costs.canonical(everything[i]) for i in chosen]
    for name, images in (("accuracy", 400), ("accuracy, BatchNorm as trained", 0)):
        scores = accuracies(run, sample, images)
        found[f"tau, {name}"] = tau(scores, truth[chosen])
        found[f"found, {name}"] = float(truth[chosen][np.argmax(scores)])
        for labels in runs if images else ():
            both = rankdata(scores) + rankdata(angles[labels][chosen])
            found[f"tau, accuracy and angle, {labels} labels"] = tau(both, truth[chosen])
            found[f"found, accuracy and angle, {labels} labels"] = float(truth[chosen][np.argmax(both)])
    found[f"found, the best of {flags.architectures}"] = float(truth[chosen].max())
    if seed == 0:
        found |= {f"architectures/s, {k}": v for k, v in rates(run, run.angles(), everything).items()}
    return found


def _column(rows: Mapping[str, Any], known: Benchmark, everything: Sequence[arch.Architecture], name: str) -> Any:
    return np.array([rows[known.name(architecture)][name] for architecture in everything], float)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--space", choices=BENCHMARKS, default="nasbench201")
    parser.add_argument("--minutes", type=float, default=4.0, help="of training, for each of the two supernets a seed")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--architectures", type=int, default=500, help="of which the accuracy is measured")
    parser.add_argument("--images", type=int, default=1000, help="validation images that an architecture answers")
    parser.add_argument("--channels", type=int, default=16, help="of the stem; the tables' own have 16 and 32")
    parser.add_argument("--space-args", default="{}", help="further arguments of the space, as JSON")
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--storage", default=None, help="keep the runs here; default: a temporary folder")
    flags = parser.parse_args()
    flags.storage = flags.storage or tempfile.mkdtemp()
    known = BENCHMARKS[flags.space]
    rows = {row["arch"]: row for row in pq.read_table(flags.data / known.file).to_pylist()}
    connect(Config())
    measured = []
    for seed in range(flags.seeds):
        begin = time.time()
        measured.append(measure(flags, seed, rows))
        print(f"seed {seed}: {time.time() - begin:.0f} s", flush=True)
    for name in measured[0]:
        values = [one[name] for one in measured if name in one]
        spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
        print(f"{name:50} {np.mean(values):.3f}{spread}")
    print(json.dumps(measured))
    ray.shutdown()


if __name__ == "__main__":
    main()
