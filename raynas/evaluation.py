"""Scoring subnets with shared weights: BatchNorm statistics of their own, then held-out images.

The statistics that a supernet gathers in training belong to no single path. Without recalibration the scores do not
rank at all: on NAS-Bench-201 Kendall's tau falls from 0.54 to 0.04.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from raynas import architecture as arch
from raynas.choice import derive
from raynas.config import SearchConfig
from raynas.data import Dataset, Split
from raynas.training import to_input

__all__ = ["Scorer", "Tally", "recalibrate", "tally"]

Tally = dict[str, float]
"""``correct`` and ``images`` (counts) and ``loss`` (summed over the images)."""


@torch.no_grad()
def recalibrate(subnets: Sequence[nn.Module], batches: Iterable[Tensor]) -> None:
    """Compute the BatchNorm statistics of subnets anew, as plain averages over batches of training images.

    Every batch counts the same (``momentum=None``), so all images matter, not only the last ones. Everything else in
    the networks runs as in evaluation. The subnets are in evaluation mode afterwards.

    Args:
        subnets: What ``derive`` returned: their statistics are their own.
        batches: Normalised training images. Without any batch the statistics stay as they are.
    """
    layers = []
    for subnet in subnets:
        subnet.eval()
        layers += [module for module in subnet.modules() if isinstance(module, _BatchNorm)]
    for number, batch in enumerate(batches):
        for layer in layers if number == 0 else ():
            layer.reset_running_stats()
            layer.momentum = None
            layer.train()
        for subnet in subnets:
            subnet(batch)
    for layer in layers:
        layer.eval()


@torch.no_grad()
def tally(model: nn.Module, images: Split, data: Dataset, batch_size: int = 250) -> Tally:
    """Answer images with a network that has BatchNorm statistics of its own.

    Args:
        model: On its device; in evaluation mode during the call, in its former mode afterwards.
        images: Which to answer.
        data: Tells how to normalise them.
        batch_size: How many at once.
    """
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    totals = torch.zeros(2, device=device)
    for inputs, targets in zip(images.inputs.split(batch_size), images.targets.split(batch_size), strict=True):
        totals += _correct_and_loss(model(to_input(inputs.to(device), data)), targets.to(device))
    model.train(was_training)
    correct, loss = totals.tolist()
    return {"correct": correct, "images": float(len(images)), "loss": loss}


def _correct_and_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Right answers and summed loss of a batch, as two numbers on its device."""
    loss = F.cross_entropy(outputs.float(), targets, reduction="sum")
    return torch.stack([(outputs.argmax(1) == targets).sum().float(), loss])


class Scorer:
    """Scores architectures of one trained space, slice by slice of the validation images.

    All architectures see the same images in the same order, and the same training images for their BatchNorm
    statistics: a score depends on the weights and the architecture alone.

    Args:
        space: The trained space, already on its device.
        data: ``data.validation`` is scored, ``data.train`` recalibrates.
        settings: ``slices``, ``validation_images``, ``bn_images`` and ``batch_size``.
        bfloat16: Compute under bfloat16 autocast.
    """

    remembered = 256
    """How many recalibrated subnets are kept, oldest dropped first. They own their statistics and nothing else."""

    def __init__(self, space: nn.Module, data: Dataset, settings: SearchConfig, bfloat16: bool = False) -> None:
        self.space, self.data, self.batch_size, self.bfloat16 = space, data, settings.batch_size, bfloat16
        self.device = next(space.parameters()).device
        images = min(settings.validation_images or len(data.validation), len(data.validation))
        self.slices = max(min(settings.slices, images), 1)
        # In an order of our own: data may come sorted by class, and every slice must be a fair sample.
        generator = torch.Generator().manual_seed(0)
        order = torch.randperm(len(data.validation), generator=generator)[:images]
        self.inputs = data.validation.inputs[order].to(self.device)
        self.targets = data.validation.targets[order].to(self.device)
        chosen = torch.randperm(len(data.train), generator=generator)[: settings.bn_images]
        self.calibration = data.train.inputs[chosen].to(self.device)
        self._ready: OrderedDict[str, nn.Module] = OrderedDict()

    def score(self, architectures: Sequence[Mapping[str, str]], number: int) -> list[Tally]:
        """Answer one slice of the validation images with each of the architectures.

        Args:
            architectures: Recalibrated at their first slice.
            number: Which slice, from 0.

        Raises:
            ArchitectureError: The space does not contain one of them.
            ValueError: There is no such slice.
        """
        if not 0 <= number < self.slices:
            raise ValueError(f"there is no slice {number}; legal ones: 0 to {self.slices - 1}")
        with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            subnets = self._subnets(architectures)
            images = len(self.inputs)
            first, last = images * number // self.slices, images * (number + 1) // self.slices
            totals = torch.zeros(len(subnets), 2, device=self.device)
            for start in range(first, last, self.batch_size):
                rows = slice(start, min(start + self.batch_size, last))
                inputs, targets = to_input(self.inputs[rows], self.data), self.targets[rows]
                for i, subnet in enumerate(subnets):
                    totals[i] += _correct_and_loss(subnet(inputs), targets)
        return [{"correct": c, "images": float(last - first), "loss": loss} for c, loss in totals.tolist()]

    def network(self, architecture: Mapping[str, str]) -> nn.Module:
        """The recalibrated network of an architecture, with weights of its own."""
        with torch.no_grad():
            return copy.deepcopy(self._subnets([architecture])[0])

    def _subnets(self, architectures: Sequence[Mapping[str, str]]) -> list[nn.Module]:
        """The recalibrated networks, from memory where they are still there."""
        names = [arch.key(architecture) for architecture in architectures]
        subnets = {name: self._ready.pop(name) for name in dict.fromkeys(names) if name in self._ready}
        missing = {
            name: derive(self.space, a) for name, a in zip(names, architectures, strict=True) if name not in subnets
        }
        if missing:
            # Equal batches: each counts the same.
            count = -(-len(self.calibration) // self.batch_size)
            chunks = self.calibration.tensor_split(count) if count else ()
            batches = (to_input(chunk, self.data) for chunk in chunks)
            recalibrate(list(missing.values()), batches)
        self._ready.update(subnets | missing)
        result = [self._ready[name] for name in names]
        while len(self._ready) > self.remembered:
            self._ready.popitem(last=False)
        return result
