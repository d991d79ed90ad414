"""Use a RayNAS searcher in an ordinary Ray Tune program, without anything else of RayNAS.

python examples/plain_tune.py            14 trials
python examples/plain_tune.py --smoke    4 trials
"""

from __future__ import annotations

import argparse
import tempfile
from typing import Any

from ray import tune

from raynas.search_space.space import SearchSpace
from raynas.searchers import Bayes

SPACE = SearchSpace({"depth": ("2", "4", "6"), "width": ("16", "32", "64"), "activation": ("relu", "gelu")})
"""18 architectures. Options are text; turn them into numbers where you build the model."""


def train(config: dict[str, Any]) -> None:
    """A trial: build and train a model for ``config["architecture"]`` here. This one computes a made-up score."""
    architecture = config["architecture"]
    depth, width = int(architecture["depth"]), int(architecture["width"])
    bonus = 0.5 if architecture["activation"] == "gelu" else 0.0
    tune.report({"score": 90 + bonus - (depth - 4) ** 2 / 4 - (width - 32) ** 2 / 500})


def main() -> None:
    """Run Tune and print the best architecture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="as small as possible")
    given = parser.parse_args()

    searcher = Bayes(SPACE, seed=0, metric="score", mode="max")
    with tempfile.TemporaryDirectory() as folder:
        grid = tune.Tuner(
            train,
            # The searcher remembers trials in flight, so let several run at once.
            tune_config=tune.TuneConfig(
                search_alg=searcher, num_samples=4 if given.smoke else 16, max_concurrent_trials=2
            ),
            run_config=tune.RunConfig(storage_path=folder, verbose=0),
        ).fit()
        best = grid.get_best_result(metric="score", mode="max")
        print(f"best of {len(grid)}: {best.metrics['score']:.2f}", best.config["architecture"])


if __name__ == "__main__":
    main()
