"""The base class of a task: batches, loss, metric, and what costs are counted with.

A task is the only part of the platform that knows what the data are. A data set names its task, ``data.task``. A task
of your own is a subclass of :class:`Task`, named by ``task="my_pkg.task:MyTask"`` in the data set that your loader
returns, and is checked by :class:`raynas.testing.task.TaskContract`.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from raynas.config.run import ExportConfig, SearchConfig
from raynas.config.train import Preset, TrainConfig
from raynas.data.dataset import Data
from raynas.data.order import RankInfo
from raynas.exceptions import ConfigError
from raynas.export.signature import Inputs, Signature
from raynas.metrics import Metric
from raynas.utils.imports import resolve

__all__ = ["RankInfo", "Task", "TrainLoader", "ValidationSlices", "task_of"]


class TrainLoader(abc.ABC):
    """The training batches of one rank, a function of the seed and the step; steps are asked for in their order."""

    examples: int
    """Examples of a step, over all ranks."""
    epoch_steps: int
    """Steps of an epoch."""

    @abc.abstractmethod
    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets of a step, on the device of the loader; of the step's examples this rank's share."""

    @property
    def waited(self) -> float:
        """Seconds in which :meth:`batch` waited for data since the loader was made."""
        return 0.0

    def close(self) -> None:  # noqa: B027 - most loaders have nothing to end
        """End what makes batches ahead; a batch that is asked for later starts it again."""

    def lr_scale(self, step: int) -> float:
        """A factor of the learning rate at this step."""
        return 1.0

    def forward(self, model: nn.Module, inputs: Tensor) -> Any:
        """The outputs of a network in training, as :meth:`loss` takes them."""
        return model(inputs)

    @abc.abstractmethod
    def loss(self, outputs: Any, targets: Tensor) -> Tensor:
        """The mean loss of a batch: a scalar with a gradient."""

    def state_dict(self) -> dict[str, Tensor]:
        """The tensors that a checkpoint needs besides the weights; none where a batch depends on its step alone."""
        return {}

    def load_state_dict(self, tensors: dict[str, Tensor]) -> None:
        """Go on from a checkpoint, which holds what :meth:`state_dict` returned among other tensors."""
        return


class ValidationSlices(abc.ABC):
    """The validation data in slices, on which architectures are scored one slice after the other.

    All architectures are scored on the same slices, in every process.
    """

    slices: int
    """How many there are."""

    @abc.abstractmethod
    def batches(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs and targets of slice ``number``, from 0, in consecutive batches."""

    def calibration(self) -> Iterator[Tensor]:
        """Batches of training inputs, of equal size, for BatchNorm statistics; none where no network has such."""
        return iter(())


class Task(abc.ABC):
    """What is learned: turns a data set into batches, losses and scores.

    Args:
        data: The data set; a task is made of it alone, in every process.
    """

    metric: Metric
    """The score of a network, its unit, and whether a high one is good."""
    presets: Sequence[Preset] = ("auto", "small")
    """The training presets that suit the task."""

    @abc.abstractmethod
    def __init__(self, data: Any) -> None:
        self.data = data

    @property
    def preset(self) -> Preset:
        """The training preset where none is given."""
        return self.presets[-1]

    @property
    @abc.abstractmethod
    def space_arguments(self) -> Mapping[str, int]:
        """Arguments that the builder of a space gets if it has parameters of these names, such as ``num_classes``."""

    def check(self, train: TrainConfig) -> None:
        """Check the data and the training settings before anything is started.

        Raises:
            ConfigError: No network can take the data, or a setting has no meaning for this task.
        """
        return

    def describe(self, train: TrainConfig) -> list[str]:
        """What is learned and what is done to the data in training, in a few lines for people.

        Args:
            train: The training settings.
        """
        return []

    @abc.abstractmethod
    def example(self, batch: int = 1, train: TrainConfig | None = None) -> Tensor:
        """A batch of inputs [batch, ...] on the CPU, with which costs and latency are measured.

        Args:
            batch: Number of examples.
            train: With these settings, of the size that inputs have in training.
        """

    @abc.abstractmethod
    def examples_per_epoch(self, train: TrainConfig) -> int:
        """How many of the units that ``train.batch_size`` counts an epoch has: images, sequences."""

    @abc.abstractmethod
    def train_loader(
        self, recipe: TrainConfig, seed: int, rank: RankInfo, device: torch.device, shared: bool
    ) -> TrainLoader:
        """The training batches of one rank.

        Args:
            recipe: Training settings, all of them set.
            seed: Decides everything drawn.
            rank: Of this process.
            device: Where batches are wanted.
            shared: Whether a supernet is trained, or one network.

        Raises:
            ValueError: There are too few examples for so many ranks.
        """

    @abc.abstractmethod
    def slices(self, settings: SearchConfig) -> int:
        """How many slices :meth:`validation_slices` has: ``settings.slices``, or fewer where the data are few."""

    @abc.abstractmethod
    def validation_slices(self, settings: SearchConfig, device: torch.device) -> ValidationSlices:
        """The validation data in slices."""

    @abc.abstractmethod
    def batches(self, split: Any, size: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs and targets of a whole split of the data, in consecutive batches of at most ``size`` examples."""

    @abc.abstractmethod
    def evaluate_batch(self, model: nn.Module, inputs: Tensor, targets: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Evaluate a network on one batch.

        Args:
            model: In evaluation mode.
            inputs: Of the batch.
            targets: Of the batch.
            state: What this method returned for the batch before; None for the first one.

        Returns:
            The number of correct answers and the summed loss as a tensor [2], and the state for the next batch.
        """

    def check_outputs(self, outputs: Any, examples: int, training: bool) -> None:
        """Check what a network returned for a batch, once before anything is trained.

        Args:
            outputs: As the loader or :meth:`evaluate_batch` gets them.
            examples: Of the batch.
            training: Whether the network is in training mode.

        Raises:
            ForwardError: The task cannot use them.
        """
        return

    @property
    def export_files(self) -> Mapping[str, Any]:
        """Data that an exported network needs to be used, by the names of JSON files."""
        return {}

    def export_model(self, network: nn.Module) -> tuple[nn.Module, tuple[Tensor, ...]]:
        """The module to export for a network, and an example of its arguments.

        Raises:
            ConfigError: The network cannot be exported.
        """
        return network, (self.example(2),)

    def export_signature(self, inputs: Inputs, settings: ExportConfig) -> Signature:
        """How the exported module is fed and what it answers, for the files that are written.

        Args:
            inputs: The example of :meth:`export_model`.
            settings: What the graphs of torch.export and ONNX take.
        """
        return Signature(inputs)


def task_of(data: Data) -> Task:
    """The task that a data set names.

    Raises:
        ConfigError: There is no such class, or it is no :class:`Task`.
    """
    kind = resolve(data.task, "data.task")
    if not (isinstance(kind, type) and issubclass(kind, Task)):
        raise ConfigError(f"data.task {data.task!r} is no task: make it a subclass of raynas.tasks.base.Task")
    return kind(data)
