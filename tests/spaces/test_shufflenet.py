"""The SPOS block space: its published figures to the digit, and the smaller variants."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Sequence
from random import Random
from statistics import median

import pytest
import torch
from raynas.spaces.shufflenet import OPTIONS, ShuffleNet, ShuffleUnit, spos, spos_32, spos_small

from raynas.architecture import sample, size
from raynas.costs.counter import Costs
from raynas.nn.choice import decisions
from raynas.nn.subnet import derive

# The architecture found with blocks and hidden widths, and the scales of its widths.
WIDE_BLOCKS = map(int, "00311100202110202132")
SCALES = (1.4, 1.2, 0.8, 1.2, 0.6, 1.4, 0.8, 1.0, 0.6, 1.2, 1.6, 1.2, 1.0, 1.4, 1.6, 1.0, 1.0, 1.2, 1.0, 0.8)


def space_and_costs(scales: Sequence[float] | None = None) -> Costs:
    with torch.device("meta"):
        return Costs(spos(scales=scales), (torch.zeros(1, 3, 224, 224),))


@pytest.fixture(scope="module")
def costs() -> Costs:
    return space_and_costs()


def blocks(options: Iterable[int]) -> dict[str, str]:
    return {f"blocks.{i}": OPTIONS[option] for i, option in enumerate(options)}


def test_twenty_decisions_of_four_options(costs: Costs) -> None:
    assert costs.decisions == {f"blocks.{i}": ("k3", "k5", "k7", "xception") for i in range(20)}
    assert size(costs.decisions) == 4**20
    assert costs.additive


@pytest.mark.parametrize(
    ("options", "macs", "parameters"),
    [
        ([0] * 20, 295_842_496, 3_154_880),
        ([1] * 20, 313_654_976, 3_211_968),
        ([2] * 20, 340_373_696, 3_297_600),
        ([3] * 20, 358_825_920, 3_870_816),
        # The architecture that SPOS released.
        ([2, 1, 0, 1, 2, 0, 2, 0, 2, 0, 2, 3, 0, 0, 0, 0, 3, 2, 3, 3], 322_918_720, 3_558_464),
    ],
)
def test_published_figures(costs: Costs, options: list[int], macs: int, parameters: int) -> None:
    assert costs(blocks(options)) == {"macs": macs, "parameters": parameters}
    assert costs.count(blocks(options)) == costs(blocks(options))


def test_published_figures_with_hidden_widths() -> None:
    assert space_and_costs(SCALES)(blocks(WIDE_BLOCKS)) == {"macs": 327_857_920, "parameters": 3_432_579}


def test_random_paths_are_distributed_as_published(costs: Costs) -> None:
    rng = Random(0)
    macs = [costs(sample(costs.decisions, rng))["macs"] for _ in range(5000)]
    assert median(macs) / 1e6 == pytest.approx(327, abs=1.0)
    assert sum(m <= 330e6 for m in macs) / len(macs) == pytest.approx(0.589, abs=0.02)
    assert sum(290e6 <= m <= 360e6 for m in macs) / len(macs) == pytest.approx(0.997, abs=0.003)


@pytest.mark.parametrize(("option", "stride"), [("k3", 1), ("k7", 2), ("xception", 1), ("xception", 2)])
def test_units(option: str, stride: int) -> None:
    unit = ShuffleUnit(8, 16 if stride == 2 else 8, 4, stride, option)
    x = torch.randn(2, 8, 6, 6)
    y = unit(x)
    assert y.shape == ((2, 8, 6, 6) if stride == 1 else (2, 16, 3, 3))
    if stride == 1:
        assert torch.equal(y[:, :4], x[:, ::2])


def test_a_unit_needs_room_for_both_branches() -> None:
    with pytest.raises(ValueError, match="out_channels is 8"):
        ShuffleUnit(8, 8, 4, 2, "k3")


def test_one_scale_for_every_block() -> None:
    with pytest.raises(ValueError, match="2 width scales given for 6 blocks"):
        spos_small(scales=[1.0, 1.0])


@pytest.mark.parametrize(("pixels", "in_channels", "num_classes"), [(8, 1, 10), (28, 1, 3), (32, 3, 100)])
def test_the_small_space_takes_any_images(pixels: int, in_channels: int, num_classes: int) -> None:
    space = spos_small(num_classes, in_channels)
    subnet = derive(space, sample(decisions(space), Random(0)))
    assert subnet(torch.randn(2, in_channels, pixels, pixels)).shape == (2, num_classes)


def test_the_32_pixel_space() -> None:
    with torch.device("meta"):
        space = spos_32(num_classes=7, in_channels=1)
    assert size(decisions(space)) == 4**20
    subnet = derive(space, blocks([3, 2, 1, 0] * 5))
    assert subnet(torch.zeros(2, 1, 32, 32, device="meta")).shape == (2, 7)


@pytest.mark.parametrize("seed", [0, 1])
def test_subnets_trace_export_and_pickle(seed: int) -> None:
    space: ShuffleNet = spos_small().eval()
    x = torch.randn(2, 1, 8, 8)
    subnet = derive(space, sample(decisions(space), Random(seed)))
    expected = subnet(x)
    torch.testing.assert_close(torch.fx.symbolic_trace(subnet)(x), expected)
    torch.testing.assert_close(torch.export.export(subnet, (x,)).module()(x), expected)
    torch.testing.assert_close(pickle.loads(pickle.dumps(subnet))(x), expected)


def test_without_affine_only_convolutions_and_the_classifier_learn() -> None:
    space = spos_small(affine=False)
    assert all(parameter.dim() > 1 for parameter in space.parameters())


def test_a_path_learns() -> None:
    torch.manual_seed(0)
    space = spos_small(num_classes=2)
    x = torch.randn(32, 1, 8, 8)
    y = (x.mean((1, 2, 3)) > 0).long()
    subnet = derive(space, blocks([0, 1, 2, 3, 0, 1]))
    optimizer = torch.optim.SGD(subnet.parameters(), lr=0.05, momentum=0.9)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(subnet(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
