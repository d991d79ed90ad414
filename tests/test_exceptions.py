"""What a person gives wrongly raises a public error of RayNAS, which is also the error of its kind in Python."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from raynas import exceptions, prepare
from raynas.config.run import Config, SearchConfig
from raynas.exceptions import ClusterLostError, ConfigError, NotOwnedError, RayNASError, SpaceError
from raynas.nn.choice import Choice, decisions
from raynas.nn.space import canonical
from raynas.nn.subnet import derive
from raynas.search_space.constraints import Limits, check_objectives
from raynas.search_space.space import SearchSpace
from raynas.searchers import (
    NAO,
    BatchSearcher,
    Bayes,
    Evolution,
    EvolutionSettings,
    LocalSearch,
    NAOSettings,
    RandomSearch,
    RegularizedSettings,
)
from raynas.storage.removal import remove_tree
from raynas.tune.schedulers import asha

SPACE = SearchSpace({"a": ("x", "y")})


class Twice(nn.Module):
    """The Choices of one decision differ in their options."""

    def __init__(self) -> None:
        super().__init__()
        self.one = Choice(x=nn.Identity(), decision="same")
        self.two = Choice(y=nn.Identity(), decision="same")


class Hook(nn.Module):
    """A hook that is no method."""

    canonical_form = 3

    def __init__(self) -> None:
        super().__init__()
        self.one = Choice(x=nn.Identity(), y=nn.ReLU())


def shared() -> nn.Module:
    """One Choice under two options."""
    inner = Choice(p=nn.Identity(), q=nn.ReLU())
    outer = [Choice(x=nn.Sequential(inner), y=nn.Sequential(inner)), nn.Identity()]
    return nn.Sequential(*outer)


WRONG: list[tuple[Callable[[], Any], type[RayNASError], str]] = [
    (lambda: Choice(), SpaceError, "at least one option"),
    (lambda: Choice(x=nn.Identity(), decision=""), SpaceError, "the decision name ''"),
    (lambda: Choice({"a.b": nn.Identity()}), SpaceError, "option name 'a.b' cannot be used"),
    (lambda: decisions(nn.Identity()), SpaceError, "Identity contains no Choice"),
    (lambda: decisions(Choice(x=nn.Identity())), SpaceError, "has no name"),
    (lambda: decisions(Twice()), SpaceError, "differ in their options"),
    (lambda: canonical(Hook(), {"one": "x"}), SpaceError, "canonical_form is 3: define it as a method"),
    (lambda: derive(shared(), {"0": "y", "0.x.0": "p"}), SpaceError, "stands under several options"),
    (lambda: SearchSpace({}), SpaceError, "at least one decision"),
    (lambda: SearchSpace({"a": ("x", "x")}), SpaceError, "'a' needs distinct options"),
    (lambda: SearchSpace({"a": ("x",)}, objectives=("macs",)), SpaceError, "objectives macs need costs"),
    (lambda: SPACE.form({"a": "z"}), exceptions.ArchitectureError, "'x', 'y'"),
    (lambda: Limits.parse({"mac": 1}), ConfigError, "unknown limit 'mac'; legal ones: macs"),
    (lambda: Limits.parse({"macs": "much"}), ConfigError, "expected a number or a pair"),
    (lambda: Limits.parse({"macs": -1}), ConfigError, "expected 0 <= low"),
    (lambda: check_objectives(["mac"]), ConfigError, "unknown objective 'mac'"),
    (lambda: check_objectives(["macs", "macs"]), ConfigError, "twice"),
    (lambda: RandomSearch(SPACE, mode="best"), ConfigError, "mode is 'best'"),
    (lambda: RandomSearch(SPACE, settings=3), ConfigError, "has no settings, got 3"),
    (lambda: EvolutionSettings(population=0), ConfigError, "population"),
    (lambda: EvolutionSettings(population=2, mutations=2, crossovers=2), ConfigError, "mutations . crossovers"),
    (lambda: RegularizedSettings(population=2, sample_size=3), ConfigError, "sample_size is 3"),
    (lambda: Evolution(SPACE, settings=EvolutionSettings(avoided=["z"])), ConfigError, "no decision has an option 'z'"),
    (lambda: NAO(SPACE, settings=NAOSettings(device="abacus")), ConfigError, "device is 'abacus'"),
    (lambda: BatchSearcher(RandomSearch(SPACE), 0), ConfigError, "size of a cohort is 0"),
    (lambda: LocalSearch(SPACE, draws=0), ConfigError, "draws"),
    (lambda: Bayes(SPACE, points_to_evaluate=[{"b": "x"}]), exceptions.ArchitectureError, "'b'"),
    (lambda: asha(4, grace=5), ConfigError, "grace is 5"),
]


@pytest.mark.parametrize(("wrong", "error", "message"), WRONG, ids=[str(each[2])[:30] for each in WRONG])
def test_bad_input_raises_a_public_error(wrong: Callable[[], Any], error: type[RayNASError], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        wrong()
    assert type(caught.value).__name__ in exceptions.__all__ and "\n" not in str(caught.value)
    assert isinstance(caught.value, ValueError), "who catches a ValueError catches it too"


TWICE = {"a": ("x", "x")}


def test_bare_decisions_that_are_no_space_are_named(tmp_path: Path) -> None:
    config = Config(
        space=f"{__name__}:TWICE", storage_path=str(tmp_path), search=SearchConfig(trainable="helpers.plain:Summing")
    )
    with pytest.raises(SpaceError, match=rf"space '{__name__}:TWICE': decision 'a' needs distinct options"):
        prepare(config)


def test_a_path_that_is_not_ours_is_a_public_error_and_one_of_the_system(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(NotOwnedError) as caught:
        remove_tree(tmp_path / "mine")
    assert isinstance(caught.value, RayNASError) and isinstance(caught.value, PermissionError)
    assert caught.value.errno == errno.EPERM and caught.value.filename == str(tmp_path / "mine")
    assert (tmp_path / "mine").is_dir()


def test_a_lost_cluster_is_a_public_error() -> None:
    assert issubclass(ClusterLostError, RayNASError) and issubclass(ClusterLostError, RuntimeError)
    assert "ClusterLostError" in exceptions.__all__
