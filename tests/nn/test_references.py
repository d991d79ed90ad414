"""What the modules of a space refer to besides their submodules is that of the subnet in a subnet, or is refused."""

from __future__ import annotations

import copy
import functools
import weakref
from collections import OrderedDict, defaultdict, deque, namedtuple
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from raynas.costs.counter import Costs
from raynas.evaluation.scorer import recalibrate
from raynas.exceptions import SpaceError
from raynas.nn.choice import Choice
from raynas.nn.references import check_references
from raynas.nn.subnet import derive

Pair = namedtuple("Pair", "first second")


class Net(nn.Module):
    """Its forward takes the BatchNorm from where ``keep`` has put it."""

    def __init__(self, keep: Callable[[Net], Any], take: Callable[[Any], Any]) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(3)
        self.block = Choice(conv=nn.Conv2d(3, 3, 3, padding=1), skip=nn.Identity())
        self.head = nn.Linear(3, 4)
        self.take = take
        object.__setattr__(self, "kept", keep(self))

    def pre(self, x: Tensor) -> Tensor:
        return self.bn(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.block(self.take(self.kept)(x)).mean((2, 3)))


KINDS: dict[str, tuple[Callable[[Net], Any], Callable[[Any], Any]]] = {
    "a module": (lambda net: net.bn, lambda kept: kept),
    "a dict": (lambda net: {"in": net.bn}, lambda kept: kept["in"]),
    "a dict of lists": (lambda net: OrderedDict(a=[1, (net.bn,)]), lambda kept: kept["a"][1][0]),
    "a defaultdict": (lambda net: defaultdict(list, a=[net.bn]), lambda kept: kept["a"][0]),
    "a list": (lambda net: [net.head, net.bn], lambda kept: kept[1]),
    "a deque": (lambda net: deque([net.bn]), lambda kept: kept[0]),
    "a named tuple": (lambda net: Pair(1, net.bn), lambda kept: kept.second),
    "a bound method": (lambda net: net.pre, lambda kept: kept),
    "a bound method of a part": (lambda net: net.bn.forward, lambda kept: kept),
    "a partial": (lambda net: functools.partial(Net.pre, net), lambda kept: kept),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_reference_is_that_of_the_subnet(kind: str) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(64, 3, 8, 8, generator=generator) * 3 + torch.arange(64.0)[:, None, None, None] / 8
    torch.manual_seed(0)
    space = Net(*KINDS[kind])
    check_references(space)
    before = space.bn.running_mean.clone()
    net = derive(space, {"block": "conv"})
    recalibrate([net], [images])
    with torch.no_grad():
        whole, parts = net(images), torch.cat([net(part) for part in images.split(8)])
    torch.testing.assert_close(whole, parts)
    assert torch.equal(before, space.bn.running_mean) and not torch.equal(before, net.bn.running_mean)
    assert copy.deepcopy(net)(images).shape == (64, 4), "what is exported"


class Ordered(nn.Module):
    """A list that holds a Choice, a forward of another name, a buffer and an option under second names."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8)
        self.block = Choice(a=nn.Conv2d(8, 8, 1), b=nn.BatchNorm2d(8))
        self.order = [self.stem, self.norm, self.block]
        self.options = {"a": self.block.a, "b": self.block.b}
        self.statistics = [self.norm.running_mean]
        self.forward = self.forward_plain

    def forward_plain(self, x: Tensor) -> Tensor:
        for module in self.order:
            x = module(x)
        return x


def test_choices_options_and_buffers_are_redirected_too() -> None:
    space = Ordered()
    net = derive(space, {"block": "b"})
    assert net(torch.randn(4, 1, 8, 8)).shape == (4, 8, 6, 6)
    assert net.order == [net.stem, net.norm, net.block] and net.options["b"] is net.block is not space.block.b
    assert net.statistics[0] is net.norm.running_mean is not space.norm.running_mean
    assert net.options["a"].weight is space.block.a.weight and net.options["a"] is not space.block.a
    assert Costs(space, (torch.zeros(1, 1, 8, 8),))({"block": "a"})["parameters"] == 80 + 16 + 72


def test_others_references_are_left_alone() -> None:
    teacher = nn.BatchNorm2d(3)
    space = Net(lambda net: [teacher, net.bn], lambda kept: kept[1])
    net = derive(space, {"block": "skip"})
    assert net.kept[0] is teacher and net.take is space.take


class Helper:
    def __init__(self, net: nn.Module) -> None:
        self.parts = [net.bn]


def closure(net: Net) -> Any:
    return lambda x: net.bn(x)


def hooked(net: Net) -> Any:
    seen: dict[str, Any] = {}
    net.bn.register_forward_hook(lambda module, given, out: seen.update(out=out, by=net))


def compiled(net: Net) -> Any:
    net.head.compile()


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        (
            closure,
            r"the attribute kept of Net is a function \(.*test_references\.py, line \d+\) that refers to modules",
        ),
        (Helper, "the attribute kept of Net is an object of the class Helper that refers"),
        (
            lambda net: weakref.ref(net.bn),
            "the attribute kept of Net is an object of the class ReferenceType that refers",
        ),
        (hooked, r"a hook on bn is a function \(.*test_references\.py, line \d+\) that refers to modules"),
        (compiled, r"head is compiled \(torch\.compile\): .* Compile the network that derive returns"),
    ],
)
def test_what_cannot_be_redirected_is_refused_by_name(keep: Callable[[Net], Any], message: str) -> None:
    space = Net(keep, lambda kept: kept)
    with pytest.raises(SpaceError, match=message):
        Costs(space, (torch.zeros(1, 3, 8, 8),))
