"""The MobileNet-like space: published sizes and figures, skipped layers that commute, images of other sizes."""

from __future__ import annotations

import pickle
from collections import Counter
from random import Random

import pytest
import torch
from raynas.spaces.layers import InvertedResidual
from raynas.spaces.proxyless import DECISIONS, canonical_form, from_digits, proxyless, proxyless_32

from raynas.architecture import sample, size
from raynas.config.run import Config
from raynas.config.train import TrainConfig
from raynas.costs.counter import Costs
from raynas.nn import space as space_hooks
from raynas.nn.choice import decisions
from raynas.nn.subnet import derive
from raynas.search_space.constraints import Limits
from raynas.training.factory import path_sampler

# What RLNAS found under a limit of 475 million MACs, and the network that ProxylessNAS found for GPUs.
RLNAS = [2, 0, -1, 2, 2, 0, 2, 4, 0, 4, 4, 2, 4, 2, 4, 2, 0, 0, 0, 2, 2]
GPU = [2, -1, -1, -1, 4, -1, -1, 0, 5, 2, -1, -1, 3, -1, 0, 2, 5, 5, 5, 3, 5]


@pytest.fixture(scope="module")
def costs() -> Costs:
    with torch.device("meta"):
        return Costs(proxyless(), (torch.zeros(1, 3, 224, 224),))


def test_twenty_one_layers(costs: Costs) -> None:
    assert costs.decisions == DECISIONS and costs.additive
    assert size(DECISIONS) == 6**6 * 7**15
    fixed = [name for name, options in DECISIONS.items() if "skip" not in options]
    assert fixed == [f"blocks.{i}" for i in (0, 4, 8, 12, 16, 20)]


def test_published_figures(costs: Costs) -> None:
    gpu = costs(from_digits(GPU))  # published: 465 M MACs and, by those who ported it, 7,119,848 parameters
    assert gpu == costs.count(from_digits(GPU)) == {"macs": 465_260_160, "parameters": 7_119_848}
    rlnas = costs(from_digits(RLNAS))  # published: 473 M, where more than multiplications is counted, and 5.3 M
    assert rlnas == {"macs": 471_521_184, "parameters": 5_255_648}
    assert rlnas["macs"] / 1e6 == pytest.approx(473, rel=0.005)


def test_skipped_layers_commute() -> None:
    one, other = list(RLNAS), list(RLNAS)
    one[1:4], other[1:4] = [-1, 3, -1], [3, -1, -1]
    assert from_digits(one) != from_digits(other) == canonical_form(from_digits(one))
    # Across the border of a stage they do not.
    one[4:6], other[4:6] = [0, -1], [1, -1]
    assert canonical_form(from_digits(one)) != canonical_form(from_digits(other))
    with torch.device("meta"):
        space = proxyless_32()
    rng = Random(0)
    for _ in range(50):
        form = space_hooks.canonical(space, sample(DECISIONS, rng))
        assert space_hooks.canonical(space, form) == form


def test_plain_paths_take_every_option_of_every_layer_equally_often_as_in_rlnas(costs: Costs) -> None:
    sampler = path_sampler(Config(train=TrainConfig(paths="plain")), costs, Limits())
    drawn = [sampler(step)[0] for step in range(3000)]
    for name, options in DECISIONS.items():
        expected = 3000 / len(options)
        counts = Counter(path[name] for path in drawn)
        assert all(abs(counts[option] - expected) < 5 * expected**0.5 for option in options), name


def test_the_layers_are_a_chain() -> None:
    with torch.device("meta"):
        space = proxyless_32()
    graph = space_hooks.graph(space)
    assert graph is not None
    edges = graph(from_digits(GPU))
    assert [edge[:2] for edge in edges] == [(i, i + 1) for i in range(21)]
    assert [edge[2] for edge in edges][:4] == ["k5_e3", None, None, None]


@pytest.mark.parametrize("digits", [[0] * 20, [-1] * 21, [6] + [0] * 20])
def test_bad_digits_are_refused(digits: list[int]) -> None:
    with pytest.raises(ValueError, match="expected 21 numbers from 0 to 5, or -1 where the shape does not change"):
        from_digits(digits)


def test_a_layer_has_a_shortcut_where_the_shape_does_not_change() -> None:
    x = torch.randn(2, 8, 6, 6)
    layer = InvertedResidual(8, 8, 1, kernel=5, expansion=3).eval()
    torch.nn.init.zeros_(layer.transform[-2].weight)
    assert torch.equal(layer(x), x)
    assert InvertedResidual(8, 12, 2, kernel=7, expansion=6)(x).shape == (2, 12, 3, 3)


@pytest.mark.parametrize(("pixels", "in_channels", "num_classes"), [(28, 1, 7), (32, 3, 100)])
def test_small_images_trace_export_and_pickle(pixels: int, in_channels: int, num_classes: int) -> None:
    space = proxyless_32(num_classes, in_channels).eval()
    assert decisions(space) == DECISIONS
    x = torch.randn(2, in_channels, pixels, pixels)
    subnet = derive(space, sample(DECISIONS, Random(pixels)))
    expected = subnet(x)
    assert expected.shape == (2, num_classes)
    torch.testing.assert_close(torch.fx.symbolic_trace(subnet)(x), expected)
    torch.testing.assert_close(torch.export.export(subnet, (x,)).module()(x), expected)
    torch.testing.assert_close(pickle.loads(pickle.dumps(subnet))(x), expected)


def test_without_affine_only_convolutions_and_the_classifier_learn() -> None:
    with torch.device("meta"):
        space = proxyless(affine=False)
    assert {name for name, p in space.named_parameters() if p.dim() == 1} == {"classifier.bias"}
