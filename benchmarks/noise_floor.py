"""How well anyone could choose by one noisy look at each architecture of a public table.

    python benchmarks/noise_floor.py --data DATA

More is given than a searcher can know: of the ``--best`` architectures of the table every one is foretold from the
scores of all others without noise, by the model of ``bayes`` with weights fitted on such scores. One look with noise at
each of them is added, both are weighed by how far they are wrong, and the one of which most is expected is chosen.
Prints what it falls short of the best there is, in the mean over ``--draws`` of the noise. ``DATA`` as of searchers.py.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from searchers import TABLES, task
from threadpoolctl import threadpool_limits

from raynas.architecture import enumerate_all
from raynas.searchers import Bayes
from raynas.searchers.gaussian import GaussianProcess

FITTED = 400  # architectures on which the weights of the model are fitted


def floor(data: Path, table: str, best: int, noise: float, draws: int) -> dict[str, float]:
    """The figures of one table, by name; in points of accuracy."""
    this, rng = task(data, table), np.random.default_rng(0)
    searcher = Bayes(this.space, mode="max")
    forms = {this.name(form): form for form in map(this.space.form, enumerate_all(this.space.decisions))}
    names = sorted(forms, key=lambda name: -this.counts[name])[:best]
    scores = np.array([this.counts[name] for name in names])
    features = searcher.encoder([forms[name] for name in names])
    mean, deviation = float(scores.mean()), float(scores.std())
    targets = (scores - mean) / deviation
    model = GaussianProcess(searcher.encoder.blocks, structured=True)
    some = rng.choice(len(names), min(FITTED, len(names)), replace=False).tolist()
    model.fit(features[some], targets[some], np.ones(len(some)))
    model.condition(features, targets, np.ones(len(names)))
    foretold = model.left_out(targets) * deviation + mean
    wrong = float(np.std((foretold - scores)[: best // 5]))
    share = wrong**2 / (wrong**2 + noise**2)  # of the look; the rest is what was foretold
    looks = scores + noise * rng.standard_normal((draws, len(names)))
    chosen = (foretold + share * (looks - foretold)).argmax(1)
    return {
        "how far the model is wrong near the top": wrong,
        "regret, chosen by the model alone": float(scores.max() - scores[foretold.argmax()]),
        "regret, chosen by the look alone": float((scores.max() - scores[looks.argmax(1)]).mean()),
        "regret, chosen by both": float((scores.max() - scores[chosen]).mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=TABLES[:2])
    parser.add_argument("--best", type=int, default=1500)
    parser.add_argument("--noise", type=float, default=0.3, help="its deviation, in points of accuracy")
    parser.add_argument("--draws", type=int, default=2000)
    flags = parser.parse_args()
    for table in flags.tables:
        with threadpool_limits(1):
            found = floor(flags.data, table, flags.best, flags.noise, flags.draws)
        for name, value in found.items():
            print(f"{table}: {name} {value:.3f}")


if __name__ == "__main__":
    main()
