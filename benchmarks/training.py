"""What single-path supernet training costs: images/s against plain training of the same subnets, side by side.

    python benchmarks/training.py

Both loops are the same trainer, on the same images. One trains a new random path of the space at every step; the other
trains stand-alone copies of those same subnets, the same number of steps each. The rounds alternate, so that the
machine's ups and downs meet both; the ratio is that of the summed times.
"""

from __future__ import annotations

import argparse
import copy
import statistics

import torch
from raynas.spaces.nasbench_macro import nasbench_macro
from raynas.spaces.shufflenet import spos_32, spos_small

from raynas.config.train import TrainConfig
from raynas.data.dataset import Dataset, Split
from raynas.nn.choice import decisions
from raynas.nn.subnet import derive
from raynas.training.path_sampling import UniformPaths
from raynas.training.trainer import Trainer


def images(channels: int, size: int) -> Dataset:
    """Noise: what is in the images does not change how long they take."""
    generator = torch.Generator().manual_seed(0)

    def split(count: int) -> Split:
        inputs = torch.randint(0, 256, (count, channels, size, size), generator=generator, dtype=torch.uint8)
        return Split(inputs, torch.randint(0, 10, (count,), generator=generator))

    return Dataset("noise", split(2048), split(64), split(64), 10, (0.5,) * channels, (0.25,) * channels)


def measure(name: str, rounds: int, steps: int) -> None:
    space, data, batch = {
        "spos_32": (spos_32(num_classes=10), images(3, 32), 64),
        "nasbench_macro": (nasbench_macro(), images(3, 32), 64),
        "spos_small": (spos_small(num_classes=10, in_channels=1), images(1, 8), 128),
    }[name]
    recipe = TrainConfig(batch_size=batch, epochs=1000, lr=0.01)
    sampler = UniformPaths(decisions(space), seed=1)
    # Affine parameters of BatchNorm are trained in both, so that both do the same arithmetic.
    recipe.affine = True
    supernet = Trainer(copy.deepcopy(space), data, recipe, sampler)
    supernet.run(3)
    ratios, total = [], [0.0, 0.0]
    for _ in range(rounds):
        paths = [sampler(supernet.step + i)[0] for i in range(steps)]
        alone = 0.0
        for path in paths:
            single = Trainer(copy.deepcopy(derive(space, path)), data, recipe)
            single.run(1)  # the first step of a new network allocates its memory and momentum
            alone += single.run(2).seconds
        shared = sum(supernet.run(supernet.step + 1).seconds for _ in paths)
        ratios.append(alone / shared)
        total[0] += alone
        total[1] += shared
    done = rounds * steps * batch
    print(
        f"{name}: supernet {done / total[1]:.1f} images/s, stand-alone {done / total[0]:.1f} images/s, "
        f"ratio {total[0] / total[1]:.3f} (rounds: median {statistics.median(ratios):.3f}, "
        f"{min(ratios):.3f} to {max(ratios):.3f})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    flags = parser.parse_args()
    torch.set_num_threads(flags.threads)
    for name in ("spos_32", "nasbench_macro", "spos_small"):
        measure(name, flags.rounds, flags.steps)


if __name__ == "__main__":
    main()
