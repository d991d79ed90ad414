"""Options that are left out of a space."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from helpers import tiny
from raynas.spaces.darts import darts
from raynas.spaces.nasbench201 import nasbench201
from torch import Tensor, nn

from raynas import Choice, Config, decisions, derive, prepare
from raynas.config.train import TrainConfig
from raynas.costs.counter import Costs
from raynas.exceptions import SpaceError, TrainingDiverged
from raynas.nn.exclusion import exclude_options
from raynas.nn.space import canonical
from raynas.training.path_sampling import UniformPaths
from raynas.training.trainer import Trainer


def test_an_option_and_its_weights_are_gone() -> None:
    space = tiny.space()
    name, options = next(iter(decisions(space).items()))
    before = sum(p.numel() for p in space.parameters())
    heavy = max(options, key=lambda o: sum(p.numel() for p in space.get_submodule(f"{name}.{o}").parameters()))
    exclude_options(space, [f"{name}={heavy}"])
    assert decisions(space)[name] == tuple(option for option in options if option != heavy)
    assert sum(p.numel() for p in space.parameters()) < before
    left = {decision: options[0] for decision, options in decisions(space).items()}
    derive(space, left)(torch.zeros(1, 1, 8, 8))


@pytest.mark.parametrize(
    ("excluded", "message"),
    [
        (["block"], "exclude: 'block' is no decision=option of the space; its decisions: "),
        (["nothing=a"], "'nothing=a' is no decision=option"),
        (["0=c"], "exclude: 0 has no option 'c'; legal ones: a, b"),
        (["0=a", "0=b"], "exclude: '0=b' leaves no option of 0"),
    ],
)
def test_what_cannot_be_excluded(excluded: list[str], message: str) -> None:
    space = nn.Sequential(Choice(a=nn.Identity(), b=nn.Flatten()))
    with pytest.raises(SpaceError, match=message):
        exclude_options(space, excluded)


def test_a_form_of_the_space_that_has_an_excluded_option_is_not_taken() -> None:
    space = nasbench201(num_classes=4, in_channels=1)
    whole = canonical(space, {name: options[0] for name, options in decisions(space).items()})
    assert "none" in whole.values()
    exclude_options(space, [f"{name}=none" for name in decisions(space)])
    for form in (canonical(space, architecture) for architecture in (dict.fromkeys(decisions(space), "skip_connect"),)):
        assert "none" not in form.values()
    costs = Costs(space, (torch.zeros(1, 1, 16, 16),))
    assert all("none" not in costs.canonical(dict.fromkeys(costs.decisions, o)).values() for o in ("nor_conv_1x1",))


def test_a_space_that_is_searched_in_other_terms() -> None:
    space = darts(cells=3, channels=4)
    name, options = next((name, options) for name, options in decisions(space).items() if len(options) > 1)
    exclude_options(space, [f"{name}={options[0]}"])
    assert decisions(space)[name] == options[1:]


def test_a_run_without_an_option(tmp_path: Path) -> None:
    def config(excluded: list[str], **settings: object) -> Config:
        return Config(storage_path=str(tmp_path), exclude=excluded, **settings)  # type: ignore[arg-type]

    space = tiny.space(num_classes=4)
    name, options = next(iter(decisions(space).items()))
    run = prepare(config([f"{name}={options[0]}"]), space=space, data=tiny.data())
    assert options[0] not in run.search_space.decisions[name] and options[0] in decisions(space)[name]
    bare = prepare(
        config(["a=x"], search={"trainable": "helpers.plain:Counting"}), space={"a": ("x", "y"), "b": ("x", "y")}
    )
    assert bare.search_space.decisions == {"a": ("y",), "b": ("x", "y")}


class Poisoned(nn.Module):
    """Gives NaN."""

    def forward(self, x: Tensor) -> Tensor:
        return x * float("nan")


def test_a_training_names_the_option_that_gives_nan() -> None:
    def block() -> Choice:
        return Choice(a=nn.Conv2d(4, 4, 1), b=nn.Identity())

    def space() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3),
            block(),
            block(),
            block(),
            block(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(4, 4),
        )

    poisoned = space()
    poisoned[3].add_module("sqrt", Poisoned())
    recipe = TrainConfig(epochs=10, batch_size=16)

    def paths(step: int) -> list[dict[str, str]]:
        """All options but one have been trained when that one comes."""
        option = "ab"[step % 2]
        return [{"1": option, "2": option, "3": option if step < 5 else "sqrt", "4": option}]

    trainer = Trainer(poisoned, tiny.data(), recipe, paths)
    trainer.run(3)
    with pytest.raises(TrainingDiverged) as caught:
        trainer.run(8)
    text = str(caught.value)
    assert "first at step 5 on the path 1=b, 2=b, 3=sqrt, 4=b, of which 3=sqrt never had a finite loss" in text
    assert text.endswith("; or go on without it: exclude=[3=sqrt]")
    again = space()
    again[3].add_module("sqrt", Poisoned())
    exclude_options(again, ["3=sqrt"])
    assert math.isfinite(Trainer(again, tiny.data(), recipe, UniformPaths(decisions(again), seed=1)).run(20).loss)
