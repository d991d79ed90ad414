"""Find the front of score against MACs, here with zero-cost scores: nothing is trained.

python examples/pareto_front.py            about a minute on two cores
python examples/pareto_front.py --smoke    the same steps, as small as possible
"""

from __future__ import annotations

import argparse

from raynas import Config, prepare


def main() -> None:
    """Search with two objectives and print the front."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="as small as possible")
    parser.add_argument("--storage-path", default="~/ray_results")
    given = parser.parse_args()

    config = Config(
        space="spaces.shufflenet:spos_small",
        data={"name": "digits"},
        search={
            "trainable": "trainables.zero_cost:ZeroCost",
            "trainable_args": {"score": "naswot"},
            "objectives": ["macs"],  # minimised, beside the score
            "method": "nsga2",
            "method_args": {"population": 4 if given.smoke else 20},
            "num_samples": 8 if given.smoke else 100,
        },
        storage_path=given.storage_path,
    )
    run = prepare(config)
    try:
        run.search()
        for row in run.front():  # also in pareto.json
            print(f"score {row['score']:.2f}, {row['macs'] / 1e3:.0f} thousand MACs", row["architecture"])
    finally:
        run.close()


if __name__ == "__main__":
    main()
