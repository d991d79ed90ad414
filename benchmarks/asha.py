"""What early stopping saves: the share of validation images, at equal quality of the winner.

    python benchmarks/ranking.py --data DATA --minutes 40 --storage runs
    python benchmarks/asha.py --slices runs/macro-40-fair-1-0/slices.parquet

Replays what a trained NAS-Bench-Macro supernet answered about random architectures, slice by slice, through Tune: the
same architectures in another random order for each seed, once with ASHA and once without. The winner's quality is its
accuracy in the public table.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from pathlib import Path
from random import Random
from typing import Any

import pyarrow.parquet as pq
import ray
from ray import tune

from raynas import architecture as arch
from raynas import results
from raynas.config.run import SearchConfig
from raynas.results.log import Log
from raynas.search_space.space import SearchSpace
from raynas.searchers import ArchitectureSearcher
from raynas.tune.callback import Recorder, RowDetails
from raynas.tune.experiment import run_search
from raynas.tune.resources import slots
from raynas.tune.spec import EvaluationSpec


class Listed(ArchitectureSearcher):
    """Proposes given architectures in a random order."""

    listed: tuple[dict[str, str], ...] = ()

    def propose(self) -> dict[str, str] | str | None:
        """The next one that was not proposed yet."""
        order = Random(self.seed).sample(self.listed, len(self.listed))
        return next((a for a in order if arch.key(a) not in self.history), self.FINISHED)


class Replay(tune.Trainable):
    """Answers one slice a step from what was recorded."""

    # What these methods do is said by tune.Trainable.
    def setup(self, config: dict[str, Any], correct: dict[str, list[float]], images: float) -> None:  # type: ignore[override]
        self.correct, self.images = correct, images
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.answers = self.correct[arch.key(new_config["architecture"])]
        return True

    def step(self) -> dict[str, Any]:
        made = self.iteration + 1
        return {"score": 100 * sum(self.answers[:made]) / (made * self.images), "done": made == len(self.answers)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--images", type=float, default=100.0, help="in a slice")
    flags = parser.parse_args()
    rows = pq.read_table(flags.slices).to_pylist()
    Listed.listed = tuple(json.loads(row["architecture"]) for row in rows)
    truth = {arch.key(a): row["truth"] for a, row in zip(Listed.listed, rows, strict=True)}
    correct = {arch.key(a): row["correct"] for a, row in zip(Listed.listed, rows, strict=True)}
    decisions = {name: sorted({a[name] for a in Listed.listed}) for name in Listed.listed[0]}
    fidelity = len(rows[0]["correct"])
    os.environ["RAY_AUTH_MODE"] = "disabled"
    ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    spec = EvaluationSpec(Replay, {"correct": correct, "images": flags.images}, slots(4), fidelity, concurrent=4)
    found: dict[str, list[tuple[float, float]]] = {"asha": [], "none": []}
    for seed in range(flags.seeds):
        for scheduler, measured in found.items():
            with tempfile.TemporaryDirectory() as folder, Log(folder) as log:
                recorder = Recorder(log, spec, RowDetails({}, lambda architecture: {}))
                settings = SearchConfig(num_samples=len(rows), scheduler=scheduler)
                run_search(Listed(SearchSpace(decisions), seed=seed), spec, settings, log, recorder)
                log.flush()
                table = results.read(folder)
                (winner,) = results.leaderboard(table, 1).to_pylist()
                used = sum(row["fidelity"] for row in results.latest(table).to_pylist())
            measured.append((truth[winner["key"]], used / (fidelity * len(rows))))
    for scheduler, measured in found.items():
        quality, share = zip(*measured, strict=True)
        spread = statistics.stdev(quality) if len(quality) > 1 else 0.0
        print(
            f"{scheduler}: winner's accuracy {statistics.mean(quality):.2f} (standard deviation {spread:.2f}, "
            f"{', '.join(f'{q:.2f}' for q in quality)}), {100 * statistics.mean(share):.1f} % of the validation images"
        )
    print(f"best of the {len(rows)}: {max(truth.values()):.2f}")
    ray.shutdown()


if __name__ == "__main__":
    main()
