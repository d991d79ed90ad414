"""Optimizers by name: what is not on the path does not move, a resumed training is the same."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import tiny

from raynas import Config, prepare
from raynas.config.train import TrainConfig
from raynas.exceptions import ConfigError
from raynas.nn.choice import decisions
from raynas.training.optimizers import OPTIMIZERS
from raynas.training.path_sampling import UniformPaths
from raynas.training.trainer import Trainer

RECIPE = TrainConfig(epochs=4, batch_size=32, lr=0.01)


def recipe(name: str, **arguments: Any) -> TrainConfig:
    return dataclasses.replace(RECIPE, optimizer=name, optimizer_args=arguments)


def trainer(name: str, **settings: Any) -> Trainer:
    torch.manual_seed(0)
    space = tiny.space(num_classes=4)
    settings = {"recipe": recipe(name), "paths": UniformPaths(decisions(space)), **settings}
    return Trainer(space, tiny.data(), **settings)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_what_is_not_on_the_path_does_not_move_by_a_bit(name: str) -> None:
    """Also after steps in which it was on the path, when the optimizer remembers it."""
    space = tiny.space(num_classes=4)
    one, other = ({decision: option for decision in decisions(space)} for option in ("k1", "k3"))
    training = trainer(name, paths=lambda step: [one if step < 6 else other])
    training.run(6)
    before = {k: v.clone() for k, v in training.model.state_dict().items()}
    training.run(12)
    after = training.model.state_dict()
    own = [k for k in before if ".k1." in k and "running" not in k and "num_batches" not in k]
    assert own and all(torch.equal(before[k], after[k]) for k in own)
    moved = [k for k in before if ".k3." in k and k.endswith("weight") and before[k].ndim > 1]
    assert moved and not any(torch.equal(before[k], after[k]) for k in moved)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_resumed_training_is_the_same(name: str) -> None:
    whole = trainer(name)
    whole.run(20)
    first = trainer(name)
    first.run(9)
    kept = first.state()
    rest = trainer(name)
    rest.load_state(kept, 9)
    rest.run(20)
    one, two = whole.state(), rest.state()
    assert one.keys() == two.keys()
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert name == "SGD" or any(key.startswith("optimizer/") for key in kept)


def test_arguments_reach_the_optimizer_and_norms_have_no_decay() -> None:
    training = trainer("AdamW", recipe=dataclasses.replace(recipe("AdamW", betas=[0.8, 0.9]), weight_decay=0.3))
    weights, norms = training.optimizer.param_groups
    assert isinstance(training.optimizer, torch.optim.AdamW) and weights["betas"] == (0.8, 0.9)
    assert weights["weight_decay"] == 0.3 and norms["weight_decay"] == 0.0


def test_a_checkpoint_of_sgd_has_the_names_of_earlier_versions() -> None:
    training = trainer("SGD")
    training.run(3)
    names = {name.partition("/")[0] for name in training.state()}
    assert names == {"model", "momentum"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimizer": "LBFGS"}, "train.optimizer = 'LBFGS' cannot be used: it evaluates the loss several times"),
        ({"optimizer": "Adm"}, "train.optimizer = 'Adm' cannot be used; legal ones: SGD, Adam, "),
        ({"optimizer": "AdamW"}, "train.optimizer = AdamW needs train.lr"),
        ({"optimizer": "AdamW", "lr": 1e-3, "momentum": 0.9}, "train.momentum is of SGD, and train.optimizer is AdamW"),
        ({"optimizer": "AdamW", "lr": 1e-3, "optimizer_args": {"beta": 1}}, "AdamW has no 'beta'; legal ones: betas, "),
        ({"optimizer_args": {"momentum": 0.5}}, "SGD has no 'momentum'"),
        ({"optimizer": "Adam", "lr": 1e-3, "optimizer_args": {"betas": [2, 0.9]}}, "Invalid beta parameter"),
    ],
)
def test_bad_settings_are_refused_before_anything_starts(
    settings: dict[str, Any], message: str, tmp_path: Path, no_ray: Any
) -> None:
    config = Config(storage_path=str(tmp_path), train=TrainConfig(**settings))
    with pytest.raises(ConfigError, match=message):
        prepare(config, space=tiny.space(num_classes=4), data=tiny.data())
