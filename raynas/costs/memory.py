"""How much memory a training step takes, counted before anything is trained."""

from __future__ import annotations

from random import Random

import torch
from torch import Tensor, nn

from raynas import architecture as arch
from raynas.architecture import Architecture
from raynas.costs.meta_device import on_meta
from raynas.nn.choice import decisions
from raynas.nn.subnet import derive

__all__ = ["kept_for_backward", "training_memory"]

_OPTIONS, _BEGIN = 130, 8
"""In spaces of more options than this trying each of them takes too long; elsewhere so many random paths will do."""


def kept_for_backward(network: nn.Module, example: Tensor) -> int:
    """Bytes that a forward pass of this example keeps for the backward pass, each storage counted once.

    Parameters do not count. Works on the meta device, where nothing is computed.
    """
    own = {parameter.untyped_storage()._cdata for parameter in network.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}  # held, so that no address is used twice

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        network(example)
    return sum(storage.nbytes() for storage in kept.values())


def training_memory(space: nn.Module, example: Tensor, batch: int, paths: int = 32, seed: int = 0) -> dict[str, int]:
    """Bytes that one worker needs to train a space in float32, by what they are for.

    Activations are those of the largest of some random paths, of which then every decision gets the option that takes
    most: in a chain that is the largest path. (In spaces of very many options only random ones are looked at.) They are
    counted on the meta device for two and three images and extrapolated to a batch. What libraries take for themselves
    (a CUDA context is some hundred MB, convolutions take work space) comes on top.

    Args:
        space: With its Choices.
        example: One image [1, C, H, W], or sequence [1, T].
        batch: How many of them a step on this worker.
        paths: How many random architectures are looked at.
        seed: Draws them.
    """
    parameters = sum(parameter.numel() * parameter.element_size() for parameter in space.parameters())
    buffers = sum(buffer.numel() * buffer.element_size() for buffer in space.buffers())
    shadow = on_meta(space).train()
    open_in_space, rng = decisions(shadow), Random(seed)

    def kept(architecture: Architecture, images: int = 2) -> int:
        batch = torch.empty(images, *example.shape[1:], dtype=example.dtype, device="meta")
        return kept_for_backward(derive(shadow, architecture).train(), batch)

    few_options = sum(map(len, open_in_space.values())) <= _OPTIONS
    drawn = [arch.sample(open_in_space, rng) for _ in range(paths if not few_options else min(paths, _BEGIN))]
    two, largest = max(((kept(form), form) for form in drawn), key=lambda pair: pair[0])
    for name, options in open_in_space.items() if few_options else ():
        others = [option for option in options if name in largest and option != largest[name]]
        changed = [arch.canonical(open_in_space, {**largest, name: option}) for option in others]
        two, largest = max([(two, largest), *((kept(form), form) for form in changed)], key=lambda pair: pair[0])
    most = two + (kept(largest, 3) - two) * (batch - 2)
    return {"weights": parameters + buffers, "gradients and momentum": 2 * parameters, "activations": most}
