"""NAS-Bench-201: published figures, notation, dead edges."""

from __future__ import annotations

import pickle
from collections import Counter
from pathlib import Path
from random import Random

import pytest
import torch
from raynas.spaces.nasbench201 import DECISIONS, nasbench201

from raynas.architecture import enumerate_all, sample
from raynas.config.run import Config
from raynas.config.train import TrainConfig
from raynas.costs.counter import Costs
from raynas.nn import choice
from raynas.nn import space as space_hooks
from raynas.nn.subnet import derive
from raynas.search_space.constraints import Limits
from raynas.spaces import nasbench201 as bench
from raynas.training.factory import path_sampler
from raynas.training.path_sampling import CellPaths


@pytest.fixture(scope="module")
def costs() -> Costs:
    with torch.device("meta"):
        return Costs(nasbench201(), (torch.zeros(1, 3, 32, 32),))


def test_fifteen_cells_follow_six_decisions(costs: Costs) -> None:
    assert costs.decisions == DECISIONS
    assert len(list(choice.choices(nasbench201(channels=2)))) == 6 * 15


@pytest.mark.parametrize(
    ("option", "macs", "parameters"),
    [
        ("nor_conv_3x3", 220_119_680, 1_531_546),
        ("none", 7_783_040, 73_306),
        ("nor_conv_1x1", 31_376_000, 241_306),
    ],
)
def test_published_figures(costs: Costs, option: str, macs: int, parameters: int) -> None:
    architecture = dict.fromkeys(DECISIONS, option)
    assert costs(architecture) == costs.count(architecture) == {"macs": macs, "parameters": parameters}


def test_costs_equal_the_whole_table(costs: Costs, shared_data: Path) -> None:
    pandas = pytest.importorskip("pandas")
    table = pandas.read_parquet(shared_data / "nasbench201_cifar10.parquet", columns=["arch", "params_m", "flops_m"])
    assert len(table) == 15_625
    for row in table.itertuples():
        own = costs(bench.from_string(row.arch))
        assert own["parameters"] / 1e6 == pytest.approx(row.params_m, abs=1e-6)
        # The table counts more than multiplications in convolutions and linear layers: for every value of the 15 cells
        # 3 operations in a convolution's edge (BatchNorm and ReLU) and 9 in a pooling's, and a constant elsewhere.
        values = 5 * (16 * 32**2 + 32 * 16**2 + 64 * 8**2)
        beyond = 160_831 + values * (3 * row.arch.count("conv") + 9 * row.arch.count("pool"))
        assert own["macs"] + beyond == pytest.approx(1e6 * row.flops_m, abs=10)


def test_every_cell_draws_its_own_complete_one_as_in_rlnas(costs: Costs) -> None:
    """Of the inputs of a node all but "none" alone are equally likely: a node of n inputs has 5^n - 1."""
    sampler = path_sampler(Config(train=TrainConfig(paths="cells")), costs, Limits())
    assert pickle.loads(pickle.dumps(sampler))(3) == sampler(3) != sampler(4)
    space, counts = nasbench201(channels=2), Counter[tuple[str, ...]]()
    places = [place for place, module in space.cells.named_children() if isinstance(module, bench.Cell)]
    for step in range(2000):
        path = sampler(step)[0]
        cells = [{name: path[f"cells.{cell}.edges.{edge}"] for edge, name in enumerate(DECISIONS)} for cell in places]
        assert len(path) == 6 * 15 and all(space.complete(cell) and bench.is_connected(cell) for cell in cells)
        counts[cells[0]["edge_1"], cells[1]["edge_1"]] += 1
    # Node 2: "none" has 4 of 24, every other option 5.
    likely = {option: (4 if option == "none" else 5) / 24 for option in bench.OPTIONS}
    for (first, second), count in counts.items():
        expected = 2000 * likely[first] * likely[second]
        assert abs(count - expected) < 5 * expected**0.5, counts
    assert len(counts) == 25


def test_cells_that_draw_their_own_train_the_options_they_took() -> None:
    space = nasbench201(channels=2, cells=1)
    sampler = CellPaths(DECISIONS, choice.places(space), space.complete, seed=1)
    trained = {place: set[str]() for place in (0, 2, 4)}
    for step in range(40):
        path = sampler(step)[0]
        space.zero_grad()
        derive(space, path, share_buffers=True)(torch.randn(2, 3, 8, 8)).sum().backward()
        moved = {name for name, weight in space.cells.named_parameters() if weight.grad is not None}
        for cell, _, edge, option, *_ in (name.split(".") for name in moved if "edges" in name):
            assert path[f"cells.{cell}.edges.{edge}"] == option
            trained[int(cell)].add(option)
    assert all(options == {"nor_conv_1x1", "nor_conv_3x3"} for options in trained.values())


def test_cells_that_are_cut_off() -> None:
    cells = list(enumerate_all(DECISIONS))
    assert len(cells) == 15_625
    assert sum(not bench.is_connected(cell) for cell in cells) == 341
    unconnected = [cell for cell in cells if not bench.is_connected(cell)]
    assert {tuple(bench.canonical_form(cell, affine=False).values()) for cell in unconnected} == {("none",) * 6}
    # Pruning dead edges leaves 9,445 cells: the number of different ones that NATS-Bench gives.
    assert len({tuple(bench.canonical_form(cell, affine=False).values()) for cell in cells}) == 9_445


def test_a_cell_that_is_cut_off_does_not_see_its_input() -> None:
    space = nasbench201(channels=2, cells=1).eval()
    rng = Random(0)
    first, second = torch.randn(2, 1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    for _ in range(40):
        architecture = sample(DECISIONS, rng)
        cell = derive(space, architecture).cells[0]
        x = torch.relu(torch.randn(2, 1, 2, 8, 8)) + 0.1
        assert torch.equal(cell(x[0]), cell(x[1])) == (not bench.is_connected(architecture)), architecture
    cut = derive(space, {**dict.fromkeys(DECISIONS, "none"), "edge_2": "nor_conv_3x3"})
    assert torch.equal(cut(first), cut(second))


@pytest.mark.parametrize("affine", [True, False])
def test_canonical_form_is_the_same_network(affine: bool) -> None:
    torch.manual_seed(0)
    space = nasbench201(channels=2, cells=1, affine=affine).double()
    for module in space.modules():
        if isinstance(module, torch.nn.BatchNorm2d) and affine:
            torch.nn.init.normal_(module.bias)
    images = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    rng = Random(1)
    changed = 0
    while changed < 25:
        architecture = sample(DECISIONS, rng)
        if rng.random() < 0.5:  # many missing edges make the rare cases frequent
            architecture.update({name: "none" for name in DECISIONS if rng.random() < 0.4})
        form = space_hooks.canonical(space, architecture)
        assert space_hooks.canonical(space, form) == form
        if form != architecture:
            changed += 1
            outputs = [derive(space, a).train()(images) for a in (architecture, form)]
            torch.testing.assert_close(*outputs, rtol=1e-12, atol=1e-12)


def test_a_convolution_of_zeros_is_dead_only_without_affine_parameters() -> None:
    architecture = {**dict.fromkeys(DECISIONS, "none"), "edge_3": "skip_connect", "edge_4": "nor_conv_3x3"}
    assert bench.canonical_form(architecture, affine=True) == architecture
    assert bench.canonical_form(architecture, affine=False) == {**architecture, "edge_4": "none"}
    pooled = {**architecture, "edge_4": "avg_pool_3x3"}
    assert bench.canonical_form(pooled, affine=True) == {**architecture, "edge_4": "none"}


def test_strings() -> None:
    text = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|nor_conv_1x1~1|none~2|"
    architecture = bench.from_string(text)
    assert architecture == {
        "edge_0": "nor_conv_3x3",
        "edge_1": "none",
        "edge_2": "skip_connect",
        "edge_3": "avg_pool_3x3",
        "edge_4": "nor_conv_1x1",
        "edge_5": "none",
    }
    assert bench.to_string(architecture) == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("|conv~0|+|none~0|none~1|+|none~0|none~1|none~2|", "unknown operation 'conv'"),
        ("|none~0|+|none~0|none~1|", "is not a NAS-Bench-201 cell"),
        ("|none~1|+|none~0|none~1|+|none~0|none~1|none~2|", "is not a NAS-Bench-201 cell"),
        ("", "is not a NAS-Bench-201 cell"),
    ],
)
def test_bad_strings_are_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        bench.from_string(text)


@pytest.mark.parametrize("seed", [0, 1])
def test_subnets_trace_export_and_pickle(seed: int) -> None:
    space = nasbench201(num_classes=3, in_channels=1, channels=2, cells=1).eval()
    x = torch.randn(2, 1, 8, 8)
    subnet = derive(space, sample(DECISIONS, Random(seed)))
    expected = subnet(x)
    assert expected.shape == (2, 3)
    torch.testing.assert_close(torch.fx.symbolic_trace(subnet)(x), expected)
    torch.testing.assert_close(torch.export.export(subnet, (x,)).module()(x), expected)
    torch.testing.assert_close(pickle.loads(pickle.dumps(subnet))(x), expected)


def test_the_graph_holds_what_carries_something() -> None:
    cell = bench.from_string("|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|none~1|skip_connect~2|")
    assert bench.graph(cell) == [(0, 1, "nor_conv_3x3"), (1, 2, None), (0, 3, "avg_pool_3x3"), (2, 3, None)]
    assert space_hooks.graph(nasbench201(channels=2))(cell) == bench.graph(cell)
