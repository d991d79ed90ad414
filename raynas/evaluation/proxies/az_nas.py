"""The four scores of AZ-NAS: what they see is how features change from block to block of an untrained network.

Lee and Ham, "AZ-NAS: Assembling Zero-Cost Proxies for Network Architecture Search", CVPR 2024. They are ranked together
by :mod:`raynas.evaluation.rank_aggregation`. Data-free: the images are noise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from raynas.evaluation.proxies.scores import LOWEST, prepared
from raynas.exceptions import SpaceError
from raynas.nn.choice import Choice

__all__ = ["SCORES", "az_nas", "blocks"]

SCORES = ("expressivity", "progressivity", "trainability", "complexity")
_TINY = 1e-8


def blocks(space: nn.Module) -> list[str]:
    """The names of the blocks that follow one another in a space, in the order of its modules.

    Parts of the space itself, and of each ``nn.Sequential`` and ``nn.ModuleList`` that contains a Choice, as long as
    what contains Choices is such a list again. What comes after the last of them, the head, is no block.
    """
    found: list[str] = []
    end = 0
    for name, child in space.named_children():
        searched = any(isinstance(module, Choice) for module in child.modules())
        if isinstance(child, (nn.Sequential, nn.ModuleList)) and searched:
            found += [f"{name}.{inner}" for inner in blocks(child)]
        else:
            found.append(name)
        end = len(found) if searched else end
    return found[:end]


def az_nas(network: nn.Module, names: Sequence[str], inputs: Tensor, macs: float) -> dict[str, float]:
    """All four scores of a network.

    Args:
        network: With initial weights; not changed.
        names: Its blocks: those whose output is a feature map count. One that passes its input on is none.
        inputs: Of which the shape alone counts: [N, C, H, W].
        macs: What the network costs.

    Returns:
        - ``expressivity``: entropy of the principal components of the features of a block, summed over the blocks.
        - ``progressivity``: by how much it grows at least from one block to the next.
        - ``trainability``: how near the Jacobian of a block is to keeping the size of gradients, mean over the blocks.
        - ``complexity``: the MACs.

    Raises:
        SpaceError: Fewer than two blocks have feature maps.
    """
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(inputs.shape, generator=generator).to(inputs.device)
    features, outputs = _features(prepared(network), names, noise)
    if bool((outputs == outputs[:1]).all()):
        return dict.fromkeys(SCORES, LOWEST)
    if len(features) < 2:
        raise SpaceError(f"az_nas needs two blocks in a row with feature maps, this network has {len(features)}")
    entropies = [_entropy(feature.detach()) for feature in features]
    jacobians = [_trainability(before, after, generator) for before, after in pairwise(features)]
    return {
        "expressivity": sum(entropies),
        "progressivity": min(after - before for before, after in pairwise(entropies)),
        "trainability": max(sum(jacobians) / len(jacobians), LOWEST),
        "complexity": macs,
    }


def _features(network: nn.Module, names: Sequence[str], inputs: Tensor) -> tuple[list[Tensor], Tensor]:
    """The feature maps of the blocks in the order in which they are computed, and the network's outputs."""
    features: list[Tensor] = []

    def keep(module: nn.Module, given: object, output: object) -> None:
        # A block that passes its input on returns what the block before it returned.
        if isinstance(output, Tensor) and output.ndim == 4 and not any(output is seen for seen in features):
            features.append(output)

    handles = [network.get_submodule(name).register_forward_hook(keep) for name in names]
    outputs = network(inputs)
    for handle in handles:
        handle.remove()
    return features, outputs.detach()


def _rows(feature: Tensor) -> Tensor:
    """One row for each place of each image: [N * H * W, C]."""
    return feature.permute(0, 2, 3, 1).reshape(-1, feature.shape[1])


def _entropy(feature: Tensor) -> float:
    """How evenly the variance of features [N, C, H, W] is spread over their principal components: 0 to log C."""
    rows = _rows(feature).double()
    rows = rows - rows.mean(0)
    variances = torch.linalg.eigvalsh(rows.T @ rows / len(rows)).clamp(min=0.0)
    shares = variances / variances.sum().clamp(min=_TINY)
    return float(-(shares * torch.log(shares + _TINY)).sum())


def _trainability(before: Tensor, after: Tensor, generator: torch.Generator) -> float:
    """At most 0, where the largest singular value of the Jacobian between two feature maps is 1.

    The Jacobian is estimated from one random vector of signs that goes backwards through the block.
    """
    signs = torch.randint(2, after.shape, generator=generator).to(after) * 2 - 1
    found = None
    if after.requires_grad and before.requires_grad:
        found = torch.autograd.grad(after, before, signs, retain_graph=True, allow_unused=True)[0]
    if found is None:
        return LOWEST
    stride = -(-before.shape[2] // after.shape[2])
    if stride > 1:
        room = [stride * own - other for own, other in zip(after.shape[:1:-1], before.shape[:1:-1], strict=True)]
        found = F.pixel_unshuffle(F.pad(found, (0, room[0], 0, room[1])), stride)
    rows, columns = _rows(found), _rows(signs)
    largest = float(torch.linalg.matrix_norm(rows.T @ columns / len(columns), ord=2))
    return 2.0 - largest - 1.0 / (largest + 1e-6) if math.isfinite(largest) else LOWEST
