"""Every task of ours, and one that a user wrote, against the published contract."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from helpers import tiny
from raynas.spaces.recurrent import recurrent
from torch import Tensor, nn
from torch.nn import functional as F

from raynas.config.train import TrainConfig
from raynas.data.dataset import Data, Dataset, Split, from_arrays, to_arrays
from raynas.data.text import Text, TextData
from raynas.exceptions import ConfigError
from raynas.nn.choice import decisions
from raynas.nn.subnet import derive
from raynas.tasks.base import RankInfo, Task, task_of
from raynas.tasks.classification import Images, ImageTrainLoader
from raynas.testing.task import TaskContract
from raynas.training.trainer import Trainer


class FocalLoader(ImageTrainLoader):
    """Focal loss in place of cross-entropy."""

    def loss(self, outputs: Any, targets: Tensor) -> Tensor:
        losses = F.cross_entropy(outputs, targets, reduction="none")
        return ((1 - torch.exp(-losses)).square() * losses).mean()


class Focal(Images):
    """A task of a user: images with a loss of their own."""

    def train_loader(
        self, recipe: TrainConfig, seed: int, rank: RankInfo, device: torch.device, shared: bool
    ) -> FocalLoader:
        return FocalLoader(self.data, recipe, seed, rank, device, shared)


def network(space: nn.Module) -> nn.Module:
    return derive(space, {name: options[0] for name, options in decisions(space).items()})


class TestImages(TaskContract):
    def make_data(self) -> Data:
        return tiny.data(train=96, validation=48, test=16)

    def make_network(self, data: Data) -> nn.Module:
        return network(tiny.space(num_classes=data.classes))


class TestFocal(TestImages):
    def make_data(self) -> Data:
        return dataclasses.replace(tiny.data(train=96, validation=48, test=16), task=f"{__name__}:Focal")


class TestLanguage(TaskContract):
    batch_size = 4

    def make_data(self) -> Data:
        words = torch.randint(20, (1300,), generator=torch.Generator().manual_seed(0))
        parts = (Text(words[:1000]), Text(words[1000:1200]), Text(words[1200:]))
        return TextData("words", *parts, vocabulary=tuple(map(str, range(20))))

    def make_network(self, data: Data) -> nn.Module:
        return network(recurrent(data.classes, 4))

    def recipe(self) -> TrainConfig:
        return dataclasses.replace(super().recipe(), bptt=10)


def test_a_task_of_a_user_trains_with_its_own_loss() -> None:
    plain = tiny.data()
    data = from_arrays(to_arrays(dataclasses.replace(plain, task=f"{__name__}:Focal")))
    losses = []
    for each in (data, plain):
        torch.manual_seed(0)
        losses.append(Trainer(network(tiny.space(4)), each, TrainConfig(epochs=1, batch_size=32)).run(2).loss)
    assert losses[0] < 0.9 * losses[1]


def test_the_task_survives_what_is_made_of_a_data_set() -> None:
    data = dataclasses.replace(tiny.data(), task=f"{__name__}:Focal")
    for made in (data.to("cpu"), data.without_test(), data.resized(4)):
        assert isinstance(made, Dataset) and type(task_of(made)) is Focal


class Unfinished(Task):
    """Lacks everything."""

    def batches(self, split: Split, size: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        return iter(())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Split", "is no task: make it a subclass of raynas.tasks.base.Task"),
        ("Missing", r"data.task '.*:Missing': .* has no 'Missing'"),
    ],
)
def test_what_is_no_task_is_refused(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        task_of(dataclasses.replace(tiny.data(), task=f"{__name__}:{name}"))


def test_a_task_that_lacks_methods_is_refused() -> None:
    with pytest.raises(TypeError, match="abstract method"):
        task_of(dataclasses.replace(tiny.data(), task=f"{__name__}:Unfinished"))
