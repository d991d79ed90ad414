"""Zero-cost scores: how good a network will be, from its initial weights and one or two batches of images.

Each is a function of an ordinary network, a batch of normalised images [N, C, H, W] and their labels [N]; none changes
the network. BatchNorm layers normalise by the batch, everything else runs as in evaluation. High is good. A network
whose output does not depend on its input, a cell whose paths are all cut, has the score ``LOWEST``.

The weights that scores speak of are the parameters of more than one dimension: those of convolutions and linear layers.
"""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["LOWEST", "PROXIES", "activates", "grad_norm", "naswot", "prepared", "snip", "synflow", "zico"]

LOWEST = math.log(sys.float_info.min)
"""About -708."""
_NORMS = (_BatchNorm, _InstanceNorm, nn.GroupNorm, nn.LayerNorm)
_ACTIVATIONS = frozenset(
    ["relu", "hardtanh", "leaky_relu", "prelu_kernel", "elu", "gelu", "silu", "mish", "hardswish", "threshold"]
)  # as they are called inside PyTorch: hardtanh is ReLU6, too


def prepared(network: nn.Module) -> nn.Module:
    """A copy that computes as all scores want it: BatchNorm by the batch, no dropout."""
    network = copy.deepcopy(network).eval()
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.train()
    return network


def _weights(network: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in network.parameters() if parameter.ndim > 1]


def _blind(outputs: Tensor) -> bool:
    """Whether the answers to all images are the same."""
    return bool((outputs == outputs[:1]).all())


def synflow(network: nn.Module, inputs: Tensor, targets: Tensor) -> float:
    """Synaptic flow (Tanaka et al., "Pruning neural networks without any data ...", NeurIPS 2020), its logarithm.

    The sum over all weights of |w dR/dw|, where R is the sum of the outputs to an image of ones when all parameters are
    taken by their absolute value. Needs no data: of ``inputs`` the shape alone counts. In double precision, because R
    is a product over all layers, and without normalisation layers, which would undo it.
    """
    network = copy.deepcopy(network).double().eval()
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, _NORMS):
                setattr(module, name, nn.Identity())
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.abs_()
    weights = _weights(network)
    image = torch.ones_like(inputs[:1], dtype=torch.float64).requires_grad_()
    seen, *found = _gradients(network(image).sum(), [image, *weights])
    if not seen.any():
        return LOWEST
    flow = sum(float((w.detach() * g).abs().sum()) for w, g in zip(weights, found, strict=True))
    return math.log(min(max(flow, sys.float_info.min), sys.float_info.max))


def naswot(network: nn.Module, inputs: Tensor, targets: Tensor) -> float:
    """NASWOT (Mellor et al., "Neural architecture search without training", ICML 2021).

    The logarithm of the determinant of the matrix that counts, for each pair of images, the activations (ReLU and its
    relatives, as modules or as functions) on whose sign the two agree. The determinant is a whole number; where it is
    0, as in a network without activations, so is the score.
    """
    with torch.no_grad(), _Patterns() as patterns:
        outputs = prepared(network)(inputs)
    if _blind(outputs):
        return LOWEST
    if patterns.agreements is None:
        return 0.0
    sign, logarithm = torch.linalg.slogdet(patterns.agreements)
    return max(float(logarithm), 0.0) if sign > 0 else 0.0


class _Patterns(TorchDispatchMode):
    """Counts, for each pair of examples, on which activations they agree: [N, N]."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.agreements: Tensor | None = None

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func.overloadpacket.__name__.strip("_") in _ACTIVATIONS:  # with a trailing one: in place
            signs = torch.where(args[0].detach().flatten(1) > 0, 1.0, -1.0)
            # Agreements less disagreements, of which there are as many as activations.
            counts = ((signs @ signs.T).double() + signs.shape[1]) / 2
            self.agreements = counts if self.agreements is None else self.agreements + counts
        return func(*args, **(kwargs or {}))


def activates(network: nn.Module, inputs: Tensor) -> bool:
    """Whether :func:`naswot` finds an activation in a network."""
    with torch.no_grad(), _Patterns() as patterns:
        prepared(network)(inputs)
    return patterns.agreements is not None


def _gradients(value: Tensor, weights: Sequence[Tensor]) -> list[Tensor]:
    """The derivatives of a number; zeros where it does not depend on a weight."""
    if not value.requires_grad:
        return [torch.zeros_like(w) for w in weights]
    found = torch.autograd.grad(value, weights, allow_unused=True)
    return [torch.zeros_like(w) if g is None else g for w, g in zip(weights, found, strict=True)]


def _loss_gradients(network: nn.Module, inputs: Tensor, targets: Tensor) -> list[Tensor] | None:
    """Those of the cross-entropy of a prepared network; None where its answers are all the same."""
    outputs = network(inputs)
    return None if _blind(outputs) else _gradients(F.cross_entropy(outputs, targets), _weights(network))


def grad_norm(network: nn.Module, inputs: Tensor, targets: Tensor) -> float:
    """The Euclidean norms of the loss's gradients, summed over the weight tensors (Abdelfattah et al., ICLR 2021)."""
    found = _loss_gradients(prepared(network), inputs, targets)
    return LOWEST if found is None else sum(float(g.norm()) for g in found)


def snip(network: nn.Module, inputs: Tensor, targets: Tensor) -> float:
    """SNIP (Lee et al., ICLR 2019) as a score: the sum over all weights of |w dL/dw|."""
    network = prepared(network)
    found = _loss_gradients(network, inputs, targets)
    if found is None:
        return LOWEST
    return sum(float((w.detach() * g).abs().sum()) for w, g in zip(_weights(network), found, strict=True))


def zico(network: nn.Module, inputs: Tensor, targets: Tensor, batches: int = 2) -> float:
    """ZiCo (Li et al., "ZiCo: Zero-shot NAS via inverse coefficient of variation on gradients", ICLR 2023).

    For each weight the mean of its gradient's size over some batches, divided by the gradient's standard deviation;
    summed over a tensor; the logarithms of that summed over the tensors.

    Args:
        network: See above.
        inputs: They are split into batches: [N, C, H, W].
        targets: [N].
        batches: How many.
    """
    network = prepared(network)
    seen = []
    for few, labels in zip(inputs.tensor_split(batches), targets.tensor_split(batches), strict=True):
        found = _loss_gradients(network, few, labels)
        if found is None:
            return LOWEST
        seen.append(found)
    total = 0.0
    for gradients in zip(*seen, strict=True):
        stacked = torch.stack(gradients).double()
        spread = stacked.std(0, correction=0)
        moved = spread > 0
        ratio = float((stacked.abs().mean(0)[moved] / spread[moved]).sum())
        total += math.log(ratio) if ratio > 0 else 0.0
    return total


PROXIES: Mapping[str, Callable[[nn.Module, Tensor, Tensor], float]] = {
    "synflow": synflow,
    "naswot": naswot,
    "snip": snip,
    "grad_norm": grad_norm,
    "zico": zico,
}
"""By name."""
