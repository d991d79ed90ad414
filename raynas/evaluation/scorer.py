"""Evaluates subnets with shared weights: BatchNorm statistics of their own, then held-out data.

The statistics that a supernet gathers in training belong to no single path. Without recalibration the scores do not
rank at all: on NAS-Bench-201 Kendall's tau falls from 0.54 to 0.04.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from raynas import architecture as arch
from raynas.config.run import SearchConfig
from raynas.data.dataset import Data
from raynas.nn.subnet import derive
from raynas.tasks.base import task_of

__all__ = ["Scorer", "Tally", "recalibrate", "tally"]

Tally = dict[str, float]
"""``correct`` and ``images``, or ``words`` (counts), and ``loss`` (summed over them)."""


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
def tally(model: nn.Module, split: Any, data: Data, batch_size: int = 250) -> Tally:
    """Evaluate a network that has BatchNorm statistics of its own on all of a split.

    Args:
        model: On its device; in evaluation mode during the call, in its former mode afterwards.
        split: Of ``data``.
        data: Of which ``split`` is; names the task.
        batch_size: How many at once.
    """
    device, task = next(model.parameters()).device, task_of(data)
    was_training = model.training
    model.eval()
    totals, state, examples = torch.zeros(2, device=device), None, 0
    for inputs, targets in task.batches(split, batch_size, device):
        answer, state = task.evaluate_batch(model, inputs, targets, state)
        totals += answer
        examples += targets.numel()
    model.train(was_training)
    correct, loss = totals.tolist()
    return {"correct": correct, task.metric.examples: float(examples), "loss": loss}


class Scorer:
    """Scores architectures of one trained space, slice by slice of the validation data.

    All architectures are evaluated on the same data in the same order, with the same training data for their BatchNorm
    statistics: a score depends on the weights and the architecture only.

    Args:
        space: The trained space, already on its device.
        data: ``data.validation`` is scored, ``data.train`` recalibrates.
        settings: ``slices``, ``validation_images``, ``bn_images`` and ``batch_size``.
        bfloat16: Compute under bfloat16 autocast.
    """

    remembered = 256
    """How many recalibrated subnets are cached, oldest dropped first. They own their statistics and nothing else."""

    def __init__(self, space: nn.Module, data: Data, settings: SearchConfig, bfloat16: bool = False) -> None:
        self.space, self.bfloat16 = space, bfloat16
        self.device = next(space.parameters()).device
        self.task = task_of(data)
        self.held_out = self.task.validation_slices(settings, self.device)
        self.slices = self.held_out.slices
        self._ready: OrderedDict[str, nn.Module] = OrderedDict()

    def score(self, architectures: Sequence[Mapping[str, str]], number: int) -> list[Tally]:
        """Evaluate each of the architectures on one slice of the validation data.

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
            totals, examples = torch.zeros(len(subnets), 2, device=self.device), 0
            states: list[Any] = [None] * len(subnets)
            for inputs, targets in self.held_out.batches(number):
                examples += targets.numel()
                for i, subnet in enumerate(subnets):
                    answer, states[i] = self.task.evaluate_batch(subnet, inputs, targets, states[i])
                    totals[i] += answer
        counted = {self.task.metric.examples: float(examples)}
        return [{"correct": c, **counted, "loss": loss} for c, loss in totals.tolist()]

    def network(self, architecture: Mapping[str, str]) -> nn.Module:
        """The recalibrated network of an architecture, with weights of its own."""
        with torch.no_grad():
            return copy.deepcopy(self._subnets([architecture])[0])

    def _subnets(self, architectures: Sequence[Mapping[str, str]]) -> list[nn.Module]:
        """The recalibrated networks, from the cache where they are there."""
        names = [arch.key(architecture) for architecture in architectures]
        subnets = {name: self._ready.pop(name) for name in dict.fromkeys(names) if name in self._ready}
        missing = {
            name: derive(self.space, a) for name, a in zip(names, architectures, strict=True) if name not in subnets
        }
        if missing:
            recalibrate(list(missing.values()), self.held_out.calibration())
        self._ready.update(subnets | missing)
        result = [self._ready[name] for name in names]
        while len(self._ready) > self.remembered:
            self._ready.popitem(last=False)
        return result
