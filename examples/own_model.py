"""Search over your own model: mark layers with ``Choice``, set a budget, export the winner as plain PyTorch.

python examples/own_model.py            about two minutes on two cores
python examples/own_model.py --smoke    the same steps, as small as possible
"""

from __future__ import annotations

import argparse

from torch import nn

from raynas import Choice, Config, prepare
from raynas.config.run import smoke_test


def space(num_classes: int, in_channels: int, width: int = 16, blocks: int = 4) -> nn.Module:
    """A small convolutional network in which the kernel of each block is open.

    Args:
        num_classes: Filled from the data.
        in_channels: Filled from the data.
        width: Channels of each block.
        blocks: Number of blocks.

    Returns:
        The search space, a module that maps [N, in_channels, H, W] to logits [N, num_classes].
    """

    def block(kernel: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(width, width, kernel, padding="same"), nn.BatchNorm2d(width), nn.ReLU())

    stages = [Choice(k1=block(1), k3=block(3), k5=block(5), skip=nn.Identity()) for _ in range(blocks)]
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes))
    return nn.Sequential(nn.Conv2d(in_channels, width, 3, padding="same"), *stages, head)


def main() -> None:
    """Search, retrain the winner, export it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="as small as possible")
    parser.add_argument("--storage-path", default="~/ray_results")
    given = parser.parse_args()

    config = Config(
        space="own_model:space",  # by name, so that --resume finds it again
        data={"name": "digits"},
        limits={"parameters": 20e3},
        train={"epochs": 10},
        retrain={"epochs": 20},
        search={"num_samples": 60},
        formats=["safetensors"],
        storage_path=given.storage_path,
    )
    run = prepare(smoke_test(config) if given.smoke else config)
    try:
        best = run.search()[0]  # trains the supernet first
        print("winner:", best["architecture"], "score:", best["final_score"])
        run.retrain(best["architecture"])  # from scratch; the test images are used once, here
        run.export(best["architecture"])
        print("exported to", run.folder / "export")
    finally:
        run.close()


if __name__ == "__main__":
    main()
