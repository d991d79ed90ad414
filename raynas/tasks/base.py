"""The seam between the platform and what its data are: images that are told apart, texts whose next word is predicted.

Nothing else knows how data become batches, what is lost on them, what a score is and whether a high one is good.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from raynas.config.run import SearchConfig
from raynas.config.train import Preset, TrainConfig
from raynas.data.dataset import Data
from raynas.data.text import TextData
from raynas.metrics import Metric
from raynas.tasks.classification import Images
from raynas.tasks.language_modeling import Language

__all__ = ["Task", "TrainLoader", "ValidationSlices", "task_of"]


class TrainLoader(Protocol):
    """What one rank trains on, a function of the seed and the step; steps are asked for in their order."""

    examples: int
    """Of a step, over all ranks."""
    epoch_steps: int

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets of a step."""

    def scale(self, step: int) -> float:
        """Of the learning rate, at this step."""

    def forward(self, model: nn.Module, inputs: Tensor) -> Any:
        """What a network in training says of the inputs."""

    def loss(self, outputs: Any, targets: Tensor) -> Tensor:
        """What is lost with that."""

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint needs besides the weights."""

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Go on with what :meth:`tensors` returned."""


class ValidationSlices(Protocol):
    """What architectures are scored on: slices of the validation data, the same for everyone."""

    slices: int

    def batches(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs and targets of a slice, from 0, in batches that follow one another."""

    def calibration(self) -> Iterator[Tensor]:
        """Equal batches of training inputs for BatchNorm statistics; none where there are no such."""


class Task(Protocol):
    """What is to be learned."""

    @property
    def metric(self) -> Metric:
        """What a score is."""

    @property
    def preset(self) -> Preset:
        """The recipe of training where nobody chose one."""

    @property
    def presets(self) -> Sequence[Preset]:
        """Those that mean something for it."""

    @property
    def arguments(self) -> Mapping[str, int]:
        """What a space is built for, by the names of its arguments."""

    def check(self, train: TrainConfig) -> None:
        """Refuse data that no network can take, or settings that mean nothing for them."""

    def example(self, batch: int = 1, train: TrainConfig | None = None) -> Tensor:
        """Inputs by which costs are counted; with ``train`` as long as they are in training."""

    def batched(self, train: TrainConfig) -> int:
        """How many there are in a pass of what ``train.batch_size`` counts."""

    def train_loader(
        self, recipe: TrainConfig, seed: int, rank: tuple[int, int], device: torch.device, shared: bool
    ) -> TrainLoader:
        """What one rank trains on: a supernet (``shared``), or one network."""

    def slices(self, settings: SearchConfig) -> int:
        """How many slices an exam has: all that is asked for, unless the data are too few."""

    def validation_slices(self, settings: SearchConfig, device: torch.device) -> ValidationSlices:
        """What architectures are scored on."""

    def batches(self, split: Any, size: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        """All of a split, in batches that follow one another."""

    def ask(self, model: nn.Module, inputs: Tensor, targets: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Right answers and summed loss as a tensor [2], and what to ask the next batch with; None at the beginning."""

    @property
    def belongings(self) -> Mapping[str, Any]:
        """What an exported network needs to be understood, by the names of JSON files."""

    def deployed(self, network: nn.Module) -> tuple[nn.Module, tuple[Tensor, ...]]:
        """What is exported of a network, and what it is called with."""


def task_of(data: Data) -> Task:
    """What is learned from data."""
    return Language(data) if isinstance(data, TextData) else Images(data)
