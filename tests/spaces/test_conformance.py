"""Every space of ours against the published contract, at small size."""

from __future__ import annotations

import torch
from helpers import tiny
from raynas.spaces.darts import darts, darts_imagenet
from raynas.spaces.nao import nao
from raynas.spaces.nasbench201 import nasbench201
from raynas.spaces.nasbench_macro import nasbench_macro
from raynas.spaces.proxyless import LAYERS, Layout, ProxylessNet
from raynas.spaces.recurrent import recurrent
from raynas.spaces.shufflenet import spos_small
from torch import Tensor, nn

from raynas.testing.space import SpaceContract


class Images(SpaceContract):
    def example(self) -> Tensor:
        return torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


class TestTiny(Images):
    def make(self) -> nn.Module:
        return tiny.space(num_classes=4, in_channels=3)


class TestShuffleNet(Images):
    def make(self) -> nn.Module:
        return spos_small(in_channels=3)


class TestProxyless(Images):
    canonical_costs = False  # the layer that changes the width has another place than those that do not

    def make(self) -> nn.Module:
        assert len(LAYERS) == 6
        return ProxylessNet(Layout(4, 4, (4, 4, 4, 4, 4, 4), (1, 1, 2, 2, 1, 1, 1), 8), 10, 3)


class TestNasBench201(Images):
    canonical_costs = False  # operations that nothing reads are dropped

    def make(self) -> nn.Module:
        return nasbench201(channels=4, cells=1)


class TestNasBenchMacro(Images):
    def make(self) -> nn.Module:
        return nasbench_macro(channels=2, head=8)


class TestDarts(Images):
    samples = 1

    def make(self) -> nn.Module:
        return darts(channels=2, cells=3, auxiliary=True)


class TestDartsImageNet(SpaceContract):
    samples = 1

    def make(self) -> nn.Module:
        return darts_imagenet(channels=2, cells=3)

    def example(self) -> Tensor:
        return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


class TestNao(Images):
    samples = 1

    def make(self) -> nn.Module:
        return nao(channels=2, cells=1)


class TestRecurrent(SpaceContract):
    def make(self) -> nn.Module:
        return recurrent(20, 4)

    def example(self) -> Tensor:
        return torch.arange(12).view(2, 6)
