"""For scale: how well one may choose by one noisy look at each architecture, with far more told than a searcher knows.

    python benchmarks/noise.py --data DATA

Of the ``--best`` architectures of a table each is foretold from the scores of all others without noise, by the model
of ``bayes`` with weights fitted on such scores. One look with noise at each is added, the two are weighed by their
errors, and the one of which most is expected is chosen. Prints what it falls short of the best there is, in the mean
over ``--draws`` of the noise. No bound: another model, or other weights, may do better. ``DATA`` as of searchers.py.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from searchers import TABLES, task
from threadpoolctl import threadpool_limits

from raynas.architecture import enumerate_all
from raynas.searchers import Bayes
from raynas.searchers.models.gp import GaussianProcess

FITTED = 400  # architectures on which the weights of the model are fitted


def chosen_by(data: Path, table: str, best: int, noise: float, draws: int) -> dict[str, float]:
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
    foretold = model.leave_one_out(targets) * deviation + mean
    wrong = float(np.sqrt(np.mean((foretold - scores)[: len(names) // 5] ** 2)))
    share = wrong**2 / (wrong**2 + noise**2)  # of the look; the rest is what was foretold
    looks = scores + noise * rng.standard_normal((draws, len(names)))
    chosen = (foretold + share * (looks - foretold)).argmax(1)
    return {
        "error of the model near the top": wrong,
        "regret, chosen by the model alone": float(scores.max() - scores[foretold.argmax()]),
        "regret, chosen by the look alone": float((scores.max() - scores[looks.argmax(1)]).mean()),
        "regret, chosen by both": float((scores.max() - scores[chosen]).mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=TABLES[:2])
    parser.add_argument("--best", type=int, nargs="+", default=[400, 1500, 3000])
    parser.add_argument("--noise", type=float, default=0.3, help="its deviation, in points of accuracy")
    parser.add_argument("--draws", type=int, default=2000)
    flags = parser.parse_args()
    for table in flags.tables:
        for best in flags.best:
            with threadpool_limits(1):
                found = chosen_by(flags.data, table, best, flags.noise, flags.draws)
            print(f"{table}, best {best}: {', '.join(f'{name} {value:.3f}' for name, value in found.items())}")


if __name__ == "__main__":
    main()
