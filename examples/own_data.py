"""Search on your own images: any function that returns uint8 images [N, C, H, W] and integer labels [N].

python examples/own_data.py            about two minutes on two cores
python examples/own_data.py --smoke    the same steps, as small as possible
"""

from __future__ import annotations

import argparse

import numpy as np
import numpy.typing as npt

from raynas import Config, prepare
from raynas.config.run import smoke_test

Arrays = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]


def _stripes(count: int, seed: int) -> Arrays:
    """Images of 16 x 16 pixels with stripes in one of four directions, under noise."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 4, count)
    rows, columns = np.mgrid[0:16, 0:16]
    directions = np.stack([rows, columns, rows + columns, rows - columns])
    waves = 127 + 60 * np.sin(directions[labels] + generator.uniform(0, 6, (count, 1, 1)))
    noisy = waves + generator.normal(0, 60, waves.shape)
    return noisy.clip(0, 255).astype(np.uint8)[:, None], labels


def load() -> tuple[Arrays, Arrays]:
    """Training data, then test data. Read your own files here; RayNAS splits off the validation images itself."""
    return _stripes(2000, seed=0), _stripes(500, seed=1)


def main() -> None:
    """Train a supernet on these images and search it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="as small as possible")
    parser.add_argument("--storage-path", default="~/ray_results")
    given = parser.parse_args()

    config = Config(
        space="spaces.shufflenet:spos_small",
        data={"name": "own_data:load"},
        train={"epochs": 10},
        search={"num_samples": 60},
        storage_path=given.storage_path,
    )
    run = prepare(smoke_test(config) if given.smoke else config)
    try:
        for row in run.search():
            print(f"{row['final_score']:.2f}", row["architecture"])
    finally:
        run.close()


if __name__ == "__main__":
    main()
