"""Search a table of scores: no network, no data, thousands of architectures a second.

python examples/table_search.py --storage-path runs            a table of 4,096 architectures
python examples/table_search.py --storage-path runs --smoke    the same steps, as small as possible
"""

from __future__ import annotations

import argparse
from itertools import pairwise, product
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from raynas import Config, prepare

OPTIONS = ("skip", "k3", "k5", "k7")
DECISIONS = {f"block{number}": OPTIONS for number in range(6)}
"""A space may be decisions alone: their names, and the options of each."""


def write_table(file: Path) -> None:
    """Write a made-up benchmark: a column for each decision, the score, and a cost."""
    rows = []
    for options in product(OPTIONS, repeat=len(DECISIONS)):
        sizes = [OPTIONS.index(option) for option in options]
        accuracy = 70 + sum(size * (5 - size) * (1 + place / 6) / 2 for place, size in enumerate(sizes))
        accuracy -= 1.5 * sum(a == b == 0 for a, b in pairwise(sizes))
        rows.append({**dict(zip(DECISIONS, options, strict=True)), "accuracy": accuracy, "cost": float(sum(sizes))})
    pq.write_table(pa.Table.from_pylist(rows), file)


def main() -> None:
    """Make the table, search it, write the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="as small as possible")
    parser.add_argument("--storage-path", type=Path, required=True)
    given = parser.parse_args()

    given.storage_path.mkdir(parents=True, exist_ok=True)
    file = given.storage_path.resolve() / "scores.parquet"
    write_table(file)
    config = Config(
        space="table_search:DECISIONS",  # by name, so that --resume finds it again
        search={
            "trainable": "trainables.table:Table",
            "trainable_args": {"file": str(file), "metric": "accuracy", "columns": ["cost"]},
            "method": "evolution" if given.smoke else "bayes",
            "num_samples": 24 if given.smoke else 150,
            "cohort": 8,  # a lookup takes microseconds: eight architectures share a trial
        },
        limits={"cost": 12},
        name="table",
        storage_path=str(given.storage_path.resolve()),
    )
    run = prepare(config)
    try:
        best = run.search()[0]
        print(f"winner: {best['score']:.2f}", best["architecture"])
        print("report:", run.report())
    finally:
        run.close()


if __name__ == "__main__":
    main()
