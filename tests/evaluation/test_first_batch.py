"""What a space returns is checked with the first examples; errors name options, module, file and line."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
import torch
from helpers import tiny
from torch import Tensor, nn

from raynas.config.run import Config
from raynas.config.train import TrainConfig
from raynas.costs.counter import Costs
from raynas.evaluation.first_batch import check_first_batch
from raynas.exceptions import ForwardError, SpaceError
from raynas.nn.choice import Choice
from raynas.report.page import _described
from raynas.runs.factory import prepare
from raynas.runs.network_space import NetworkSpace
from raynas.runs.preflight import preflight
from raynas.tasks.classification import Images


class Base(nn.Module):
    def __init__(self, **options: nn.Module) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.block = Choice(options or {"a": nn.Conv2d(8, 8, 3, padding=1), "b": nn.Identity()})
        self.other = Choice(a=nn.Identity(), b=nn.Conv2d(8, 8, 1))
        self.head = nn.Linear(8, 4)

    def features(self, x: Tensor) -> Tensor:
        return self.other(self.block(self.norm(self.stem(x)))).mean((2, 3))

    def forward(self, x: Tensor) -> Any:
        return self.head(self.features(x))


class Logarithm(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.log(-x.abs() - 1)


class Broken(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if self.training and not x.is_meta:
            raise KeyError("left")  # only in training
        return x


class Detached(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.is_meta:
            return x
        x.retain_grad() if x.requires_grad else None
        y = x.clone()
        y.register_hook(_refuse) if y.requires_grad else None
        return y


def _refuse(gradient: Tensor) -> Tensor:
    raise RuntimeError("no gradient here")


class DictOut(Base):
    def forward(self, x: Tensor) -> Any:
        return {"logits": super().forward(x)}


class LogitsAndFeatures(Base):
    def forward(self, x: Tensor) -> Any:
        x = self.features(x)
        return self.head(x), x


class AuxiliaryFeatures(Base):
    def forward(self, x: Tensor) -> Any:
        x = self.features(x)
        return (self.head(x), x[:, :2]) if self.training else self.head(x)


class Pixels(Base):
    def forward(self, x: Tensor) -> Any:
        return self.head(self.norm(self.stem(x)).permute(0, 2, 3, 1))


class NothingToTrain(Base):
    def __init__(self) -> None:
        super().__init__()
        self.requires_grad_(False)


class Lazy(Base):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.LazyConv2d(8, 3, padding=1)


def check(space: nn.Module) -> None:
    task = Images(tiny.data())
    costs = Costs(space, (task.example(),))
    costs.classes()
    check_first_batch(space, costs, task, TrainConfig(), 0)


HERE = r"test_first_batch\.py, line \d+"


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (DictOut(), "forward of DictOut returns a dict with 'logits': return the logits, a tensor"),
        (LogitsAndFeatures(), "in evaluation forward returns a tuple of 2: return the logits alone"),
        (AuxiliaryFeatures(), r"output 1 of a tuple, the logits of an auxiliary classifier, has the shape \[8, 2\]"),
        (Pixels(), r"forward has the shape \[8, 8, 8, 4\] for 8 images: needed are logits \[N, classes\]"),
        (NothingToTrain(), "NothingToTrain has nothing to train: none of its parameters requires a gradient"),
        (Lazy(), r"stem is a LazyConv2d, .*give its input size, as to nn\.Conv2d"),
        (
            Base(same=nn.Conv2d(8, 8, 1), wider=nn.Conv2d(8, 16, 1)),
            rf"Base with block=wider \(with block=same it works\) fails in (other|head) .*{HERE}: return self\.",
        ),
        (
            Base(good=nn.Identity(), log=Logarithm()),
            r"Base with block=log \(with block=good it works\) gives NaN .* first in block \(Logarithm\)",
        ),
        (Base(log=Logarithm(), bad=Logarithm()), r"the architecture block=.*, other=. of Base gives NaN or infinity"),
        (
            Base(good=nn.Identity(), broken=Broken()),
            rf"Base with block=broken \(with block=good it works\) fails in block \(Broken\), .*{HERE}: "
            r"raise KeyError\(\"left\"\)  # only in training: KeyError: 'left'",
        ),
        (Base(a=Detached(), b=Detached()), r"of Base fails .*RuntimeError: no gradient here"),
    ],
)
def test_what_a_space_does_wrong_is_said_once_with_its_place(space: nn.Module, message: str) -> None:
    with pytest.raises(SpaceError, match=message) as caught:
        check(space)
    assert "\n" not in str(caught.value)


def test_a_space_that_works_is_as_it_was() -> None:
    space = Base()
    before, state = copy.deepcopy(space.state_dict()), torch.get_rng_state()
    check(space)
    assert all(torch.equal(value, before[name]) for name, value in space.state_dict().items())
    assert all(parameter.grad is None for parameter in space.parameters()) and space.training
    assert torch.equal(torch.get_rng_state(), state)


class ByValue(Base):
    def forward(self, x: Tensor) -> Any:
        x = self.features(x)
        if not x.is_meta and x.sum() > 1e9:
            return self.head(x * 2)
        return self.head(x)


def test_what_will_fail_at_the_end_is_said_at_the_start(tmp_path: Any) -> None:
    for space, message in (
        (Base(), "export: an untrained architecture was written and checked as safetensors"),
        (
            ByValue(),
            f"export will fail after the search: safetensors cannot express ByValue: .*{HERE}: if not x.is_meta",
        ),
    ):
        config = Config(formats=["safetensors"], storage_path=str(tmp_path), name="run")
        networks, said = NetworkSpace(config, space, tiny.data()), []
        preflight(networks, networks.config, ["export"], {"block": "a", "other": "a"}, said.append)
        assert any(line.startswith("augmentation of training images: cut") for line in said)
        assert re.search(message, said[-1])
    with pytest.raises(ForwardError, match=r"the space does not run on images of shape \[1, 8, 8\]: Base with block="):
        NetworkSpace(config, Base(a=nn.Identity(), b=nn.Conv2d(8, 9, 1)), tiny.data())


def test_what_is_done_to_the_data_is_kept_for_the_report(tmp_path: Any) -> None:
    config = Config(storage_path=str(tmp_path), name="run")
    prepare(config, space=Base(), data=tiny.data()).context.write_settings()
    notes = _described(tmp_path / "run")
    assert notes[0] == "Classes: 4 (0, 1, 2, 3)." and "not mirrored (train.augment=auto" in notes[2]
    assert _described(tmp_path / "nowhere") == []


class Features(Base):
    def forward(self, x: Tensor) -> Any:
        x = self.features(x)
        return self.head(x), x


@pytest.mark.parametrize("method", ["search", "train_supernet"])
def test_a_program_learns_it_before_ray_starts(method: str, tmp_path: Any, no_ray: Any) -> None:
    run = prepare(Config(storage_path=str(tmp_path), name="run"), space=Features(), data=tiny.data())
    with pytest.raises(ForwardError, match="in evaluation forward returns a tuple of 2: return the logits alone"):
        getattr(run, method)()
    assert not (tmp_path / "run").exists()
