"""What the alternation of training and search (NAO-WS) finds, beside random search with the very same supernet.

    python benchmarks/nao_ws.py --space nao --data DATA
    python benchmarks/nao_ws.py --space recurrent

For every seed a supernet is trained whose paths are those of a pool, renewed by NAO between rounds, and the search
begins with that pool. Random search then scores as many architectures with the same weights as NAO-WS has scored in
all, the rounds included. What each of them finds is scored on all validation data with the shared weights, and trained
by itself and asked the test data. ``nao``: convolution cells on CIFAR-10 (needs cifar10/ as parquet in the data
folder); ``recurrent``: recurrent cells on the help texts of Python.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import statistics
import tempfile
from pathlib import Path

import ray
from rich.console import Console

from raynas.config.run import Config, DataConfig, RetrainConfig, SearchConfig
from raynas.config.train import PoolConfig, TrainConfig
from raynas.distributed.connection import connect
from raynas.runs.display import View
from raynas.runs.factory import prepare
from raynas.runs.run import Run

WAYS = ("NAO-WS", "random, same supernet")


def settings(flags: argparse.Namespace, folder: Path, seed: int) -> Config:
    """NAO-WS of one seed."""
    pool = PoolConfig(size=flags.pool, every=flags.epochs / (flags.rounds + 1), rounds=flags.rounds)
    train = TrainConfig(epochs=flags.epochs, workers=1, pool=pool)
    search = SearchConfig(
        method="nao",
        method_args={"startup": flags.pool // 2, "retrain": flags.pool // 2},
        num_samples=flags.pool + flags.more,
        validation_images=flags.validation,
        bn_images=500,
        scheduler="none",
    )
    config = Config(
        train=train,
        search=search,
        retrain=RetrainConfig(epochs=flags.retrain_epochs),
        storage_path=str(folder),
        name=f"nao-{seed}",
        seed=seed,
    )
    if flags.space == "recurrent":
        return dataclasses.replace(
            config,
            space="spaces.recurrent:recurrent_small",
            space_args={"units": flags.width or 64},
            data=DataConfig(name="pydoc_topics", limit=flags.examples),
        )
    data = DataConfig(name="parquet", folder=str(flags.data / "cifar10"), limit=flags.examples, size=flags.size)
    train = dataclasses.replace(config.train, augment="crop_flip")
    return dataclasses.replace(
        config, space="spaces.nao:nao", space_args={"channels": flags.width or 4, "cells": 1}, data=data, train=train
    )


def by_chance(whole: Run, scored: int) -> Run:
    """Random search with the supernet of another run."""
    folder = Path(whole.config.storage_path)
    name = whole.folder.name.replace("nao", "random")
    shutil.copytree(whole.folder / "supernet", folder / name / "supernet")
    config = dataclasses.replace(
        whole.config,
        name=name,
        train=dataclasses.replace(whole.config.train, pool=PoolConfig()),
        search=dataclasses.replace(whole.config.search, method="random", method_args={}, num_samples=scored),
    )
    return prepare(config, view=View(Console(quiet=True)))  # type: ignore[no-any-return]


def outcome(run: Run) -> dict[str, float]:
    """What a search finds: the score with shared weights, and that of the test data after a training by itself."""
    best = run.search()[0]
    result = run.retrain(best["architecture"])
    run.close()
    return {"shared": best["final_score"], "alone": result[f"test_{run.task.metric.name}"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", choices=("nao", "recurrent"), required=True)
    parser.add_argument("--data", type=Path, help="the folder of cifar10/")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=float, default=12, help="of the supernet")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pool", type=int, default=40)
    parser.add_argument("--more", type=int, default=20, help="architectures that are scored beside the last pool")
    parser.add_argument("--examples", type=int, default=None, help="training images or words; default: all")
    parser.add_argument("--size", type=int, default=None, help="of the images in pixels; default: as they are")
    parser.add_argument("--validation", type=int, default=1000, help="images or words that a score takes")
    parser.add_argument("--retrain-epochs", type=float, default=5)
    parser.add_argument("--width", type=int, default=None, help="channels or units")
    flags = parser.parse_args()
    if flags.space == "nao" and flags.data is None:
        parser.error("--space nao needs --data")
    connect(Config())
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        for seed in flags.seeds:
            whole = prepare(settings(flags, Path(folder), seed), view=View(Console(quiet=True)))
            found[WAYS[0]].append(outcome(whole))
            scored = flags.rounds * flags.pool + flags.pool + flags.more
            found[WAYS[1]].append(outcome(by_chance(whole, scored)))
            rounds = json.loads((whole.folder / "supernet" / "rounds.json").read_text())["rounds"]
            told = ", ".join(f"{line['mean']:.2f}" for line in rounds)
            newest = ", ".join(f"{line[key]:.2f}" for line in rounds[1:] for key in ("mean of the last round's",))
            rows = ", ".join(f"{way} {row[-1]}" for way, row in found.items())
            print(f"seed {seed}: mean of the pool {told}; of those that were new {newest}; {rows}", flush=True)
    measure = whole.task.metric
    print(f"\n| {measure.name}, {scored} scored | shared weights, validation | trained alone, test |\n|---|---|---|")
    for way, each in found.items():
        cells = (f"{statistics.mean(row[name] for row in each):.2f}" for name in ("shared", "alone"))
        print(f"| {way} | {' | '.join(cells)} |")
    ray.shutdown()


if __name__ == "__main__":
    main()
