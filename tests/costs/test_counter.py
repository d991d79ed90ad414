"""Counting MACs and parameters: exact for additive spaces and for others."""

from __future__ import annotations

import pickle
from random import Random

import pytest
import torch
from torch import Tensor, nn

from raynas import architecture as arch
from raynas.costs.counter import Costs
from raynas.costs.memory import training_memory
from raynas.exceptions import ArchitectureError
from raynas.nn.choice import Choice, decisions
from raynas.nn.subnet import derive


def conv(inputs: int, outputs: int, kernel: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)


class Additive(nn.Module):
    """Nested choices whose options keep the shape."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 4, 3)
        inner = nn.Sequential(conv(4, 4, 1), Choice(k1=conv(4, 4, 1), k7=conv(4, 4, 7)))
        self.blocks = nn.Sequential(Choice(k3=conv(4, 4, 3), skip=nn.Identity()), Choice(k5=conv(4, 4, 5), deep=inner))
        self.classifier = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.blocks(self.stem(x)).mean((2, 3)))


class Widths(nn.Module):
    """Options that hand on different widths: what the second block costs depends on the first."""

    def __init__(self) -> None:
        super().__init__()
        self.first = Choice(narrow=nn.LazyConv2d(4, 1), wide=nn.LazyConv2d(8, 1))
        self.second = Choice(pool=nn.AvgPool2d(2), mix=Mix())

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))


class Mix(nn.Module):
    """A matrix product of the input with itself: works at every width."""

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(2)
        return flat @ flat.transpose(1, 2)


class SharedWeights(nn.Module):
    """Two options that share a layer."""

    def __init__(self) -> None:
        super().__init__()
        shared = conv(3, 3, 3)
        self.first = Choice(a=nn.Sequential(shared), b=nn.Identity())
        self.second = Choice(a=nn.Sequential(shared), b=nn.Identity())

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))


class TooClever(nn.Module):
    """Keeps all shapes, but runs one block twice where the other is an identity."""

    def __init__(self) -> None:
        super().__init__()
        self.first = Choice(k3=conv(3, 3, 3), skip=nn.Identity())
        self.second = conv(3, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.first(x))
        return self.second(x) if isinstance(self.first, nn.Identity) else x


IMAGES = (torch.zeros(2, 3, 8, 8),)


def widths() -> Widths:
    net = Widths()
    for option in ("narrow", "wide"):
        net.first.get_submodule(option)(torch.zeros(1, 3, 8, 8))
    return net


def test_costs_by_hand() -> None:
    costs = Costs(Additive(), IMAGES)
    fixed = {"macs": 64 * 3 * 4 * 9 + 8, "parameters": 3 * 4 * 9 + 8 + 2}
    assert costs({"blocks.0": "skip", "blocks.1": "k5"}) == {
        "macs": fixed["macs"] + 64 * 16 * 25,
        "parameters": fixed["parameters"] + 16 * 25,
    }
    assert costs({"blocks.0": "k3", "blocks.1": "deep", "blocks.1.deep.1": "k7"}) == {
        "macs": fixed["macs"] + 64 * 16 * (9 + 1 + 49),
        "parameters": fixed["parameters"] + 16 * (9 + 1 + 49),
    }


@pytest.mark.parametrize(
    ("space", "additive"),
    [(Additive(), True), (widths(), False), (SharedWeights(), False), (TooClever(), False)],
    ids=lambda value: type(value).__name__,
)
def test_costs_are_exact_for_every_architecture(space: nn.Module, additive: bool) -> None:
    costs = Costs(space, IMAGES)
    assert costs.additive is additive
    listed = list(arch.enumerate_all(costs.decisions))
    for architecture in listed:
        assert costs(architecture) == costs.count(architecture)
        assert costs(architecture)["parameters"] == sum(p.numel() for p in derive(space, architecture).parameters())
    profile = costs.profile(samples=200)
    for name in ("macs", "parameters"):
        values = [costs(architecture)[name] for architecture in listed]
        assert (profile[name].minimum, profile[name].maximum) == (min(values), max(values))


def test_counting_leaves_the_space_alone() -> None:
    space = Additive().train()
    Costs(space, IMAGES).profile()
    assert all(parameter.device.type == "cpu" for parameter in space.parameters())
    assert all(module.training and not module._forward_hooks for module in space.modules())


def test_illegal_architectures_are_refused() -> None:
    with pytest.raises(ArchitectureError, match=r"'blocks.1' is missing"):
        Costs(Additive(), IMAGES)({"blocks.0": "k3"})


def test_an_answer_can_be_changed_without_harm() -> None:
    for space in (Additive(), widths()):
        costs = Costs(space, IMAGES)
        architecture = arch.sample(costs.decisions, Random(0))
        expected = costs.count(architecture)
        costs(architecture)["macs"] = 0
        assert costs(architecture) == expected


def test_costs_pickle() -> None:
    costs = Costs(Additive(), IMAGES)
    copied = pickle.loads(pickle.dumps(costs))
    architecture = arch.sample(costs.decisions, Random(0))
    assert copied(architecture) == copied.count(architecture) == costs(architecture)


def test_samples_are_canonical() -> None:
    class Merging(Additive):
        def canonical_form(self, architecture: dict[str, str]) -> dict[str, str]:
            return {**architecture, "blocks.0": "skip"}

    costs = Costs(Merging(), IMAGES)
    rng = Random(0)
    assert {costs.sample(rng)["blocks.0"] for _ in range(20)} == {"skip"}


class Tied(nn.Module):
    """Layers of the fixed part share a weight; so do options of different Choices, a module and a buffer."""

    def __init__(self, across: bool) -> None:
        super().__init__()
        self.up, self.up2 = nn.Linear(64, 30), nn.Linear(64, 30)
        self.up2.weight = self.up.weight
        self.block = Choice(a=nn.Linear(30, 8), b=nn.Linear(30, 8, bias=False))
        self.other = Choice(a=nn.Linear(30, 8), b=nn.Sequential(nn.Linear(30, 8), nn.Linear(8, 8)))
        self.same = self.up
        if across:
            self.other.a.weight = self.block.a.weight
            self.other.b[0].weight = self.block.b.weight

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        x = self.up(x) + self.up2(x) + self.same(x)
        return self.block(x) + self.other(x)


@pytest.mark.parametrize("across", [False, True])
def test_tied_weights_are_counted_once(across: bool) -> None:
    space = Tied(across)
    costs = Costs(space, (torch.zeros(1, 1, 8, 8),))
    assert costs.additive == (not across)
    for architecture in arch.enumerate_all(decisions(space)):
        assert costs(architecture)["parameters"] == sum(p.numel() for p in derive(space, architecture).parameters())
    everything = [costs(architecture)["parameters"] for architecture in arch.enumerate_all(decisions(space))]
    profile = costs.profile()["parameters"]
    assert (profile.minimum, profile.maximum) == (min(everything), max(everything))


def test_memory_counts_what_tied_layers_keep() -> None:
    found = training_memory(Tied(False), torch.zeros(1, 1, 8, 8), 4)
    assert found["weights"] == 4 * sum(p.numel() for p in Tied(False).parameters())
