"""Limits: reading them, measuring how far they are missed, and refusing what no architecture can keep."""

from __future__ import annotations

import math
import pickle
from random import Random
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from raynas.costs.counter import Costs
from raynas.costs.feasibility import check_satisfiable
from raynas.exceptions import InfeasibleError
from raynas.nn.choice import Choice
from raynas.search_space.constraints import Limits, violation


class Chain(nn.Module):
    """Twelve additive decisions."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            *(
                Choice(k1=nn.Conv2d(2, 2, 1), k3=nn.Conv2d(2, 2, 3, padding=1), k5=nn.Conv2d(2, 2, 5, padding=2))
                for _ in range(12)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x)


class Narrowing(nn.Module):
    """Not additive: the second block's costs depend on the first one's stride."""

    def __init__(self) -> None:
        super().__init__()
        self.first = Choice(s1=nn.Conv2d(2, 2, 1), s2=nn.Conv2d(2, 2, 1, stride=2))
        self.second = Choice(k1=nn.Conv2d(2, 2, 1), k3=nn.Conv2d(2, 2, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))


@pytest.fixture(scope="module")
def chain() -> Costs:
    return Costs(Chain(), (torch.zeros(1, 2, 4, 4),))


def test_parse_reads_what_people_write() -> None:
    limits = Limits.parse({"macs": "330e6", "parameters": [1e6, None]})
    assert limits.bounds == {"macs": (None, 330e6), "parameters": (1e6, None)}
    assert Limits.parse({"latency": 5}, names=("latency",)).bounds == {"latency": (None, 5.0)}
    assert str(limits) == "macs <= 330,000,000 and parameters >= 1,000,000"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"flops": 1e6}, "unknown limit 'flops'; legal ones: macs, parameters"),
        ({"macs": "many"}, "limit 'macs' is 'many': expected a number or a pair"),
        ({"macs": [1, 2, 3]}, "expected a number or a pair"),
        ({"macs": [2e6, 1e6]}, "expected 0 <= low <= high"),
        ({"macs": -1}, "expected 0 <= low <= high"),
        ({"macs": math.nan}, "expected 0 <= low <= high"),
        ({"macs": 0}, "high > 0"),
    ],
)
def test_parse_refuses_what_is_no_limit(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError) as caught:
        Limits.parse(values)
    assert words in str(caught.value)


def test_violation_is_the_summed_relative_excess() -> None:
    limits = Limits.parse({"macs": [100, 200], "parameters": 10})
    assert limits.violation({"macs": 100, "parameters": 10}) == 0.0
    assert limits.violation({"macs": 300, "parameters": 10}) == pytest.approx(0.5)
    assert limits.violation({"macs": 50, "parameters": 15}) == pytest.approx(1.0)
    assert Limits().violation({"macs": 1}) == 0.0
    with pytest.raises(ValueError, match=r"'parameters' is not known; known ones: macs"):
        limits.violation({"macs": 150})


def test_violation_for_searchers(chain: Costs) -> None:
    profile = chain.profile()["macs"]
    excess = violation(chain, Limits.parse({"macs": profile.median}))
    cheap, dear = (dict.fromkeys(chain.decisions, option) for option in ("k1", "k5"))
    assert excess(cheap) == 0.0
    assert excess(dear) == pytest.approx(profile.maximum / profile.median - 1)
    assert pickle.loads(pickle.dumps(excess))(dear) == excess(dear)


def test_impossible_limits_are_refused_by_proof(chain: Costs) -> None:
    profile = chain.profile()["macs"]
    assert (profile.minimum, profile.maximum) == (12 * 16 * 4, 12 * 16 * 100)
    for limit in (profile.minimum - 1, [profile.maximum + 1, None]):
        with pytest.raises(InfeasibleError) as caught:
            check_satisfiable(chain, Limits.parse({"macs": limit}))
        message = str(caught.value)
        assert "no architecture of this space has macs" in message
        assert "768 at least" in message
        assert "19,200 at most" in message
        assert f"{profile.median:,.0f} in the median" in message
        assert "\n" not in message


def test_rare_architectures_are_found(chain: Costs) -> None:
    # One of 3^12 architectures: random draws alone would hardly ever meet it.
    limits = Limits.parse({"macs": chain.profile()["macs"].minimum})
    assert check_satisfiable(chain, limits) == dict.fromkeys(chain.decisions, "k1")


def test_found_architectures_keep_all_limits(chain: Costs) -> None:
    rng = Random(0)
    for _ in range(5):
        wanted = chain(chain.sample(rng))
        limits = Limits.parse({name: [0.99 * value, 1.01 * value] for name, value in wanted.items()})
        assert limits.violation(chain(check_satisfiable(chain, limits))) == 0.0


def test_limits_that_exclude_each_other_show_the_nearest(chain: Costs) -> None:
    profile = chain.profile()
    limits = Limits.parse({"macs": profile["macs"].minimum, "parameters": [profile["parameters"].maximum, None]})
    with pytest.raises(InfeasibleError, match=r"no architecture found with macs <= .* and parameters >= .* nearest"):
        check_satisfiable(chain, limits)


def test_spaces_that_are_not_additive() -> None:
    costs = Costs(Narrowing(), (torch.zeros(1, 2, 4, 4),))
    assert not costs.additive
    smallest = {"first": "s2", "second": "k1"}
    assert check_satisfiable(costs, Limits.parse({"macs": costs(smallest)["macs"]})) == smallest
    with pytest.raises(InfeasibleError, match="nearest has macs"):
        check_satisfiable(costs, Limits.parse({"macs": costs(smallest)["macs"] - 1}))
