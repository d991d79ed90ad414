"""What searching training settings together with the architecture is worth, on digits, at equal budgets.

    python benchmarks/joint.py                                     about 10 minutes on two cores
    python benchmarks/joint.py --seeds 1 --samples 6               to see that it runs

The whole path, as a user has it: ``bayes`` proposes, every architecture is trained from scratch for a few epochs, weak
ones are stopped early, the winner is trained again for longer and looked at once on the test images. Once with the
default settings, and once with learning rate, weight decay, label smoothing and strength of the augmentation searched
too. Each seed draws its own training images; both ways take turns.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
import time
from typing import Any

import ray
from ray import tune

from raynas import Config, prepare
from raynas.connection import connect
from raynas.display import View
from raynas.joint import settings

DOMAINS = {
    "train.lr": tune.loguniform(1e-2, 1),
    "train.weight_decay": tune.loguniform(1e-5, 1e-2),
    "train.label_smoothing": tune.choice([0.0, 0.05, 0.1, 0.2]),
    "train.augment_strength": tune.choice([0, 1, 2]),
    "train.cutout": tune.choice([0, 2, 4]),
}
WAYS: dict[str, dict[str, Any]] = {"architecture": {}, "architecture and settings": DOMAINS}


class Quiet(View):
    """Shows nothing."""

    def say(self, text: str) -> None:
        """Not this either."""

    def leaderboard(self, rows: object, rescored: bool = True) -> None:
        """Nor this."""


def found(flags: argparse.Namespace, domains: dict[str, Any], seed: int) -> tuple[float, float, dict[str, Any]]:
    """Validation accuracy in the search, test accuracy after the second training, and the settings."""
    search = {
        "trainable": "trainables.from_scratch:FromScratch",
        "joint": domains,
        "num_samples": flags.samples,
        "epochs": flags.epochs,
        "top": 1,
    }
    train = {"epochs": flags.retrain_epochs, "workers": 1, "cpus_per_worker": 1}
    with tempfile.TemporaryDirectory() as folder:
        config = Config(
            data={"limit": flags.images}, train=train, search=search, storage_path=folder, name="joint", seed=seed
        )
        run = prepare(config, view=Quiet())
        best = run.search()[0]
        result = run.retrain(best["architecture"])
        run.close()
    return best["final_score"], result["test_accuracy"], settings(best["architecture"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--samples", type=int, default=40, help="architectures of each search")
    parser.add_argument("--epochs", type=int, default=5, help="of training in the search")
    parser.add_argument("--retrain-epochs", type=float, default=20)
    parser.add_argument("--images", type=int, default=1000, help="training and validation images together")
    flags = parser.parse_args()
    connect(Config())
    measured: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    for seed in range(flags.seeds):
        for way, domains in WAYS.items():
            begin = time.monotonic()
            score, test, own = found(flags, domains, seed)
            measured[way].append((score, test))
            told = "".join(f", {name} {value}" for name, value in own.items())
            spent = time.monotonic() - begin
            print(f"seed {seed}, {way}: search {score:.2f} %, test {test:.2f} % ({spent:.0f} s){told}", flush=True)
    print("\n| searched | validation accuracy in the search | test accuracy after retraining |\n|---|---|---|")
    for way, pairs in measured.items():
        print(f"| {way} | {' | '.join(f'{statistics.mean(column):.2f}' for column in zip(*pairs, strict=True))} |")
    for name, column in (("validation", 0), ("test", 1)):
        alone, both = ([pair[column] for pair in pairs] for pairs in measured.values())
        gains = [b - a for a, b in zip(alone, both, strict=True)]
        error = statistics.stdev(gains) / math.sqrt(len(gains)) if len(gains) > 1 else math.nan
        print(f"gain in {name} accuracy: {statistics.mean(gains):+.2f} points (standard error {error:.2f})")
    ray.shutdown()


if __name__ == "__main__":
    main()
