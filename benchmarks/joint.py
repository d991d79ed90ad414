"""What searching training settings together with the architecture is worth, on digits, at equal budgets.

    python benchmarks/joint.py                                     4 seeds, 40 architectures in each search
    python benchmarks/joint.py --seeds 1 --samples 6 --retrain-epochs 5    to see that it runs

The whole path, as a user has it: ``bayes`` proposes, every architecture is trained from scratch for a few epochs, weak
ones are stopped early, the winner is trained again, for as long and for longer, and looked at on the test images. Once
with the default settings, and once with learning rate, weight decay, label smoothing and strength of the augmentation
searched too. Each seed draws its own training images; both ways take turns.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import statistics
import tempfile
import time
from typing import Any

import ray
from ray import tune
from rich.console import Console

from raynas import Config, prepare
from raynas.config.run import RetrainConfig
from raynas.distributed.connection import connect
from raynas.runs.display import View
from raynas.search_space.joint import settings

DOMAINS = {
    "train.lr": tune.loguniform(1e-2, 1),
    "train.weight_decay": tune.loguniform(1e-5, 1e-2),
    "train.label_smoothing": tune.choice([0.0, 0.05, 0.1, 0.2]),
    "train.augment_strength": tune.choice([0, 1, 2]),
    "train.cutout": tune.choice([0, 2, 4]),
}
WAYS: dict[str, dict[str, Any]] = {"architecture": {}, "architecture and settings": DOMAINS}


def found(flags: argparse.Namespace, domains: dict[str, Any], seed: int) -> tuple[list[float], dict[str, Any]]:
    """Validation accuracy in the search, test accuracy after each further training, and the settings."""
    search = {
        "trainable": "trainables.from_scratch:FromScratch",
        "joint": domains,
        "num_samples": flags.samples,
        "epochs": flags.epochs,
        "top": 1,
    }
    train = {"workers": 1, "cpus_per_worker": 1}
    with tempfile.TemporaryDirectory() as folder:
        config = Config(
            data={"limit": flags.images}, train=train, search=search, storage_path=folder, name="joint", seed=seed
        )
        run = prepare(config, view=View(Console(quiet=True)))
        best = run.search()[0]
        accuracies = [best["final_score"]]
        for epochs in flags.retrain_epochs:
            again = prepare(dataclasses.replace(run.config, retrain=RetrainConfig(epochs=epochs)), view=run.view)
            accuracies.append(again.retrain(best["architecture"])["test_accuracy"])
    return accuracies, settings(best["architecture"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--samples", type=int, default=40, help="architectures of each search")
    parser.add_argument("--epochs", type=int, default=5, help="of training in the search")
    parser.add_argument("--retrain-epochs", type=float, nargs="+", default=[5, 20])
    parser.add_argument("--images", type=int, default=1000, help="training and validation images together")
    flags = parser.parse_args()
    connect(Config())
    measured: dict[str, list[list[float]]] = {way: [] for way in WAYS}
    for seed in range(flags.seeds):
        for way, domains in WAYS.items():
            begin = time.monotonic()
            accuracies, own = found(flags, domains, seed)
            measured[way].append(accuracies)
            told = "".join(f", {name} {value}" for name, value in own.items())
            spent = time.monotonic() - begin
            listed = ", ".join(f"{accuracy:.2f}" for accuracy in accuracies)
            print(f"seed {seed}, {way}: {listed} % ({spent:.0f} s){told}", flush=True)
    ray.shutdown()
    report(flags, measured)


def report(flags: argparse.Namespace, measured: dict[str, list[list[float]]]) -> None:
    """A row for each way, and the gain, seed by seed, with its standard error."""
    names = ["in the search, validation", *(f"trained for {epochs:g} epochs, test" for epochs in flags.retrain_epochs)]
    print(f"\n| searched | {' | '.join(names)} |\n|{'---|' * (len(names) + 1)}")
    for way, rows in measured.items():
        print(f"| {way} | {' | '.join(f'{statistics.mean(column):.2f}' for column in zip(*rows, strict=True))} |")
    cells = []
    for alone, both in zip(*(zip(*rows, strict=True) for rows in measured.values()), strict=True):
        gains = [b - a for a, b in zip(alone, both, strict=True)]
        error = statistics.stdev(gains) / math.sqrt(len(gains)) if len(gains) > 1 else math.nan
        cells.append(f"{statistics.mean(gains):+.2f} ± {error:.2f}")
    print(f"| gain, points | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
