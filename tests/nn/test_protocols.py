"""The optional hooks of a space: found, misspelt, under a former name."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from raynas.spaces.darts import darts
from raynas.spaces.nao import nao
from raynas.spaces.recurrent import recurrent
from torch import nn

from raynas.costs.counter import Costs
from raynas.exceptions import SpaceError
from raynas.nn.choice import Choice
from raynas.nn.protocols import (
    HOOKS,
    HasCanonicalForm,
    HasSearchDecisions,
    HasSequence,
    HasTopology,
    find_hook,
    inspect_space,
)
from raynas.nn.space import canonical, topology


class Net(nn.Module):
    """Nine architectures of two convolutions; no hooks."""

    def __init__(self) -> None:
        super().__init__()
        kinds = ("a", "b", "c")
        self.blocks = nn.Sequential(*(Choice({k: nn.Conv2d(3, 3, 1) for k in kinds}) for _ in range(2)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.blocks(x)


def merge(self: nn.Module, architecture: Mapping[str, str]) -> dict[str, str]:
    return {**architecture, "blocks.0": "a"}


def net(**attributes: Any) -> nn.Module:
    return type("Mine", (Net,), attributes)()


def test_a_plain_space_has_no_hooks_and_no_warnings() -> None:
    report = inspect_space(Net())
    assert report.size == 9 and report.places == 2 and report.hooks == () and report.warnings == ()
    assert report.lines() == ["Net: 9 architectures, 2 decisions in 2 places", "hooks: none"]


@pytest.mark.parametrize("name", ["canoncial_form", "canonicalForm", "cannonical_form", "canonical_forms"])
def test_a_misspelt_hook_is_named(name: str) -> None:
    space = net(**{name: merge})
    report = inspect_space(space)
    assert report.warnings == (f"Mine has no 'canonical_form', but {name!r}: did you mean canonical_form?",)
    assert any(name in line for line in report.lines())
    assert canonical(space, {"blocks.0": "b", "blocks.1": "c"})["blocks.0"] == "b"  # it has no effect, so it is told
    assert inspect_space(net(canonical_form=merge, **{name: merge})).warnings == ()


@pytest.mark.parametrize("name", HOOKS)
def test_every_hook_is_guarded(name: str) -> None:
    wrong = name[:-2] + name[-1] + name[-2] if name != "searched" else "seached"
    if name == "word":
        wrong = "Word"
    assert any(f"did you mean {name}?" in text for text in inspect_space(net(**{wrong: merge})).warnings)


def test_an_attribute_of_the_object_counts_too() -> None:
    space = Net()
    space.serached = {"one": ("a",)}  # type: ignore[assignment]
    assert inspect_space(space).warnings == ("Net has no 'searched', but 'serached': did you mean searched?",)


def test_a_misspelt_rate_of_dropped_paths_is_named() -> None:
    space = Net()
    space.blocks.drop_pth = 0.1  # type: ignore[assignment]
    assert inspect_space(space).warnings == ("Sequential has no 'drop_path', but 'drop_pth': did you mean drop_path?",)


def test_searched_and_choose_belong_together() -> None:
    assert inspect_space(net(searched={"one": ("a",)})).warnings == (
        "Mine defines 'searched' without 'choose': both are needed",
    )
    assert "without 'searched'" in inspect_space(net(choose=merge)).warnings[0]


def test_what_is_no_method_is_refused() -> None:
    space = net(topology=[(0, 1, "blocks.0")])
    assert inspect_space(space).warnings == ("Mine.topology is not callable: define it as a method",)
    with pytest.raises(SpaceError, match=r"Mine.topology is \[\(0, 1, 'blocks.0'\)\]: define it as a method"):
        topology(space)


def test_a_submodule_is_no_hook() -> None:
    space = Net()
    space.graph = nn.Identity()
    assert find_hook(space, "graph") is None and inspect_space(space).hooks == ()
    assert inspect_space(space).warnings == (
        "Net.graph is a submodule, not a hook: define it as a method, or rename it",
    )


@pytest.mark.parametrize("former", ["wiring", "weightless", "notation"])
def test_a_former_name_is_accepted_with_one_warning(former: str) -> None:
    hook = {"wiring": "topology", "weightless": "surrogate_norm", "notation": "sequence_encoding"}[former]
    space = net(**{former: lambda self: [(0, 1, "blocks.0")]})
    with pytest.warns(DeprecationWarning, match=rf"Mine.{former}\(\) is now called {hook}\(\)") as caught:
        found = find_hook(space, hook)
    assert len(caught) == 1 and found() == [(0, 1, "blocks.0")]
    report = inspect_space(space)
    assert report.hooks == (hook,) and report.warnings == (f"Mine.{former}() is now called {hook}(): rename it",)


def test_former_names_reach_what_uses_them() -> None:
    old = net(wiring=lambda self: [(0, 1, "blocks.0")], notation=lambda self: "encoding")
    with pytest.warns(DeprecationWarning, match="wiring"):
        assert topology(old) == [(0, 1, "blocks.0")]
    with pytest.warns(DeprecationWarning, match="notation"):
        assert Costs(old, (torch.zeros(1, 3, 4, 4),)).notation == "encoding"


def test_our_spaces_define_what_their_protocols_ask_for() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cells = [darts(channels=4, cells=3), nao(channels=4, cells=1)]
        reports = [inspect_space(space) for space in (*cells, recurrent(20, 4))]
    for space in cells:
        assert isinstance(space, (HasCanonicalForm, HasTopology))
    assert isinstance(cells[0], HasSearchDecisions) and not isinstance(cells[0], HasSequence)
    assert isinstance(cells[1], HasSequence)
    assert reports[0].hooks == ("canonical_form", "graph", "topology", "searched", "choose", "surrogate_norm")
    assert reports[0].drop_paths == 12
    assert [report.warnings for report in reports] == [(), (), ()]
    assert "word" in reports[2].hooks
