"""How well the latency of architectures is predicted from a few that were measured, on this machine.

    python benchmarks/latency.py --space spaces.shufflenet:spos_small --image 1 8 8

Measures 64 random architectures and a few that have every option once, as a search does at its start; then predicts as
many others before it measures them, too.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from pathlib import Path

import torch

from raynas.config.run import LatencyConfig
from raynas.costs.counter import Costs
from raynas.costs.device import Timing, time_network
from raynas.costs.latency import Latency
from raynas.nn.subnet import derive
from raynas.search_space.constraints import Limits
from raynas.utils.imports import resolve


class Here:
    """Measures in this process."""

    def __init__(self, space: torch.nn.Module, inputs: torch.Tensor, settings: LatencyConfig) -> None:
        self.space, self.inputs, self.settings = space, inputs, settings

    def name(self) -> str:
        return f"{self.inputs.device.type}, batch {len(self.inputs)}, {torch.get_num_threads()} threads"

    def measure(self, architecture: dict[str, str]) -> Timing:
        network = derive(self.space, architecture)
        return time_network(network, self.inputs, self.settings.warmup, self.settings.repeats)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--space", default="spaces.shufflenet:spos_small")
    parser.add_argument("--image", type=int, nargs=3, default=[1, 8, 8], help="channels, height, width")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args()
    torch.set_num_threads(1)
    space = resolve(flags.space, "space")(num_classes=10, in_channels=flags.image[0]).to(flags.device)
    inputs = torch.zeros(flags.batch, *flags.image, device=flags.device)
    costs = Costs(space, (inputs,))
    with tempfile.TemporaryDirectory() as folder:
        here = Here(space, inputs, LatencyConfig(place="local"))
        latency = Latency(costs, here, Path(folder, "latency.jsonl"), Limits())
        latency.calibrate(flags.seed, print)
        rng = random.Random(f"{flags.seed}/others")
        for _ in range(64):
            latency.measure(costs.sample(rng))
        print(latency.account())


if __name__ == "__main__":
    main()
