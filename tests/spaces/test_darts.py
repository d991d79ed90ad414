"""The DARTS space: sizes and figures as published, shared weights, nodes that may be exchanged, drop path."""

from __future__ import annotations

import itertools
import pickle
from collections import Counter
from collections.abc import Callable, Sequence
from random import Random

import pytest
import torch
from raynas.spaces.darts import Cell, darts, darts_imagenet
from raynas.spaces.darts_genotype import (
    DECISIONS,
    OPTIONS,
    canonical_form,
    choose,
    from_genotype,
    graph,
    to_genotype,
    topology,
)
from raynas.spaces.layers import AuxiliaryHead, DropPath, FactorizedReduce
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from raynas.architecture import sample, size
from raynas.config.run import Config
from raynas.config.train import TrainConfig
from raynas.costs.counter import Costs
from raynas.nn import choice
from raynas.nn import space as space_hooks
from raynas.nn.choice import decisions
from raynas.nn.subnet import derive
from raynas.search_space.constraints import Limits
from raynas.training.factory import path_sampler

Genotype = dict[str, list[tuple[str, int]]]
SHORT = dict(zip("mas35dD", OPTIONS, strict=True))


def genotype(normal: str, reduce: str) -> dict[str, str]:
    """From a notation of an operation and a node each: ``30 31 ...``."""
    return from_genotype(*([(SHORT[o], int(i)) for o, i in cell.split()] for cell in (normal, reduce)))


DARTS_V2 = genotype("30 31 30 31 31 s0 s0 d2", "m0 m1 s2 m1 m0 s2 s2 m1")
# What RLNAS found on CIFAR-10, and on ImageNet under a limit of 600 million MACs.
RLNAS = genotype("50 31 d0 52 30 D3 D1 d2", "50 d1 30 52 d1 33 m1 52")
RLNAS_600 = genotype("30 31 s1 32 31 32 s0 34", "30 m1 30 s1 30 d1 s0 31")


def test_two_cells_of_two_inputs_a_node() -> None:
    assert size(DECISIONS) == ((1 * 3 * 6 * 10) * 7**8) ** 2 == pytest.approx(1.08e18, rel=0.005)
    with torch.device("meta"):
        assert decisions(darts(channels=4, cells=3)) == DECISIONS
        assert decisions(darts_imagenet(channels=4, cells=3, evaluation=True)) == DECISIONS


def count(space: nn.Module, architecture: dict[str, str], pixels: int) -> tuple[int, int]:
    """MACs, and parameters without those of the auxiliary head, which the papers leave out."""
    subnet = derive(space, architecture).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        subnet(torch.zeros(1, 3, pixels, pixels, device="meta"))
    parameters = sum(p.numel() for name, p in subnet.named_parameters() if not name.startswith("auxiliary."))
    return counter.get_total_flops() // 2, parameters


def test_published_figures_on_cifar() -> None:
    with torch.device("meta"):
        space = darts(channels=36, cells=20, evaluation=True, auxiliary=True)
    assert count(space, DARTS_V2, 32) == (528_359_040, 3_349_342)  # published: 3.3 M, by its own log 3.349342


@pytest.mark.parametrize(
    ("channels", "figures"),
    [
        # Of DARTS-V2 published: 4.7 M. RLNAS counts a little more than multiplications: 5.5 M, 597 M; 5.7 M, 629 M;
        (
            48,
            [(DARTS_V2, 529_911_552, 4_718_752), (RLNAS_600, 595_983_936, 5_463_616), (RLNAS, 628_356_864, 5_674_720)],
        ),
        # 581 M.
        (46, [(RLNAS, 579_815_648, 5_257_581)]),
    ],
)
def test_published_figures_on_imagenet(channels: int, figures: list[tuple[dict[str, str], int, int]]) -> None:
    with torch.device("meta"):
        space = darts_imagenet(channels=channels, evaluation=True)
    for architecture, macs, parameters in figures:
        assert count(space, architecture, 224) == (macs, parameters)


def test_weights_belong_to_an_edge_and_an_operation() -> None:
    space = darts(channels=4, cells=3)

    def weights(inputs: str, source: int) -> list[int]:
        path = {name: "sep_conv_3x3" if name.endswith(("first", "second")) else o[0] for name, o in DECISIONS.items()}
        subnet = derive(space, path | {"normal.4.inputs": inputs})
        return [p.data_ptr() for p in subnet.get_submodule(f"cells.0.nodes.2.edges.{source}").parameters()]

    assert weights("0+1", 1) == weights("1+2", 1) == weights("1+3", 1)
    assert not set(weights("0+1", 1)) & set(weights("0+1", 0)) and weights("0+1", 2) == []
    # A normal cell of 4 channels: of each of 14 edges two separable and two dilated convolutions, two BatchNorms of
    # pools, and two preprocessing layers.
    separable = sum(2 * (k * k * 4 + 4 * 4 + 2 * 4) for k in (3, 5))
    dilated = sum(k * k * 4 + 4 * 4 + 2 * 4 for k in (3, 5))
    cell = Cell("normal", (8, 12), 4, after_reduction=False, evaluation=False)
    assert sum(p.numel() for p in cell.parameters()) == 14 * (separable + dilated + 2 * 2 * 4) + 4 * (8 + 12) + 4 * 4


def test_costs_add_up_and_are_told_of_legal_cells_alone() -> None:
    with torch.device("meta"):
        costs = Costs(darts(channels=4, cells=3), (torch.zeros(1, 3, 16, 16),))
    assert costs.additive and costs.decisions == DECISIONS
    rng = Random(0)
    for _ in range(5):
        architecture = sample(DECISIONS, rng)
        assert costs(architecture) == costs.count(architecture)
    cheapest = costs(dict.fromkeys(DECISIONS, "max_pool_3x3") | {n: o[0] for n, o in DECISIONS.items() if "in" in n})
    dearest = costs(dict.fromkeys(DECISIONS, "sep_conv_5x5") | {n: o[0] for n, o in DECISIONS.items() if "in" in n})
    for name, profile in costs.profile(200).items():
        assert cheapest[name] <= profile.minimum < profile.median < profile.maximum <= dearest[name]


def test_every_edge_has_its_place() -> None:
    options = choose(DARTS_V2)
    with torch.device("meta"):
        assert options.keys() == choice.open_choices(darts(channels=4, cells=3)).keys()
    taken = {name: option for name, option in options.items() if option != "none"}
    assert len(options) == 2 * 14 and len(taken) == 2 * 8
    assert taken["normal.2-5"] == "dil_conv_3x3" and taken["normal.0-5"] == "skip_connect"
    assert [name for _, _, name in topology() if name is not None] == list(options)

    def ways(node: int) -> int:
        entering = [source for source, target, _ in topology() if target == node]
        return sum(map(ways, entering)) if entering else 1

    assert ways(6) == ways(13) == 30  # as RLNAS counts them


def test_plain_paths_take_all_pairs_of_inputs_equally_often_as_in_rlnas() -> None:
    with torch.device("meta"):
        costs = Costs(darts(channels=4, cells=3), (torch.zeros(1, 3, 32, 32),))
    sampler = path_sampler(Config(train=TrainConfig(paths="plain")), costs, Limits())
    counts = Counter(item for step in range(3000) for item in sampler(step)[0].items())
    for name, options in DECISIONS.items():
        expected = 3000 / len(options)
        assert all(abs(counts[name, option] - expected) < 5 * expected**0.5 for option in options), name


def renumbered(architecture: dict[str, str], order: Sequence[int]) -> dict[str, str] | None:
    """The same cells with their nodes in another order; None where a node would read one after it."""
    number = [0, 1, *(2 + order.index(node) for node in range(4))]
    cells: Genotype = {}
    for name, reads in to_genotype(architecture).items():
        moved = [(option, number[source]) for option, source in reads]
        cells[name] = [read for node in order for read in moved[2 * node : 2 * node + 2]]
        if any(source >= 2 + place // 2 for place, (_, source) in enumerate(cells[name])):
            return None
    return from_genotype(**cells)


def derived(cell: Cell, kind: str, architecture: dict[str, str]) -> nn.Module:
    """A cell by itself."""
    return derive(cell, {name: option for name, option in choose(architecture).items() if name.startswith(kind)})


def test_nodes_in_another_order_have_the_same_form() -> None:
    rng = Random(0)
    changed = 0
    for _ in range(30):
        architecture = sample(DECISIONS, rng)
        form = canonical_form(architecture)
        assert canonical_form(form) == form
        for order in itertools.permutations(range(4)):
            other = renumbered(architecture, order)
            if other is not None:
                assert canonical_form(other) == form
                changed += other != architecture
    assert changed > 20


def test_different_wirings_have_different_forms() -> None:
    every = [name for name in DECISIONS if name.startswith("normal") and name.endswith("inputs")]
    wirings = [
        dict.fromkeys(DECISIONS, "max_pool_3x3") | dict(zip(every, pairs, strict=True))
        | {name: "0+1" for name in DECISIONS if name.startswith("reduction") and name.endswith("inputs")}
        for pairs in itertools.product(*(DECISIONS[name] for name in every))
    ]  # fmt: skip
    orbits = {
        frozenset(
            tuple(other.values()) for order in itertools.permutations(range(4)) if (other := renumbered(a, order))
        )
        for a in wirings
    }
    assert len(wirings) == 180 > len(orbits) == len({tuple(canonical_form(a).values()) for a in wirings})


def test_exchanged_nodes_are_the_same_network_with_channels_in_another_order() -> None:
    torch.manual_seed(0)
    cell = Cell("normal", (6, 6), 2, after_reduction=False, evaluation=True).double()
    first = genotype("30 51 a0 d2 s0 D1 50 34", "m0 m1 m0 m1 m0 m1 m0 m1")
    order = (2, 0, 3, 1)  # 4, 2, 5, 3: node 4 reads the inputs alone, 5 reads 4
    second = renumbered(first, order)
    assert second is not None and second != first and canonical_form(second) == canonical_form(first)
    one, other = (derived(cell, "normal", architecture) for architecture in (first, second))
    number = [0, 1, *(2 + order.index(node) for node in range(4))]
    for node in range(4):
        for source, operation in enumerate(one.nodes[node].edges):
            theirs = other.nodes[order.index(node)].edges
            if number[source] < len(theirs):
                theirs[number[source]].load_state_dict(operation.state_dict())
    x, y = torch.randn(2, 3, 6, 4, 4, dtype=torch.float64)
    expected = one(x, y).chunk(4, dim=1)
    torch.testing.assert_close(other(x, y), torch.cat([expected[node] for node in order], dim=1))


def test_the_graph_holds_every_way_to_a_node() -> None:
    edges = graph(DARTS_V2)
    assert edges[:3] == [(0, 2, "sep_conv_3x3"), (1, 2, "sep_conv_3x3"), (2, 6, None)] and len(edges) == 2 * (8 + 4)
    assert (0, 4, None) in edges and (2, 5, "dil_conv_3x3") in edges
    assert (7, 9, "reduction/max_pool_3x3") in edges and (9, 10, None) in edges
    reduced = graph(DARTS_V2 | {"reduction.2.first": "skip_connect"})
    assert (7, 9, "reduction/skip_connect") in reduced  # at stride 2 it has weights
    with torch.device("meta"):
        assert space_hooks.graph(darts(channels=2, cells=3))(DARTS_V2) == edges  # type: ignore[misc]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda cell: cell[:6], "has 6 operations: expected 8"),
        (lambda cell: [("none", 0), *cell[1:]], "unknown operation 'none'; legal ones: max_pool_3x3"),
        (lambda cell: [*cell[:2], ("skip_connect", 0), ("max_pool_3x3", 0), *cell[4:]], "node 3 reads 0 and 0"),
        (lambda cell: [*cell[:7], ("max_pool_3x3", 5)], "node 5 reads 0 and 5"),
    ],
)
def test_bad_genotypes_are_refused(change: Callable[[Sequence[object]], Sequence[object]], words: str) -> None:
    cells = to_genotype(DARTS_V2)
    assert from_genotype(**cells) == DARTS_V2
    with pytest.raises(ValueError, match=words):
        from_genotype(**(cells | {"normal": change(cells["normal"])}))  # type: ignore[arg-type]


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("pixels", [7, 8])
def test_operations_keep_or_halve_the_resolution(option: str, pixels: int) -> None:
    path = dict.fromkeys(DECISIONS, option) | {n: o[-1] for n, o in DECISIONS.items() if n.endswith("inputs")}
    for kind, height in (("normal", pixels), ("reduction", (pixels + 1) // 2)):
        cell = derived(Cell(kind, (5, 6), 4, after_reduction=True, evaluation=False), kind, path)
        inputs = torch.randn(2, 5, 2 * pixels, 2 * pixels), torch.randn(2, 6, pixels, pixels)
        assert cell(*inputs).shape == (2, 16, height, height)


def test_factorized_reduction_sees_all_pixels() -> None:
    layer = FactorizedReduce(1, 4).eval()
    x = torch.rand(1, 1, 6, 6, requires_grad=True)
    torch.nn.init.ones_(layer.even.weight)
    torch.nn.init.ones_(layer.odd.weight)
    layer(x).sum().backward()
    assert x.grad is not None
    seen = (x.grad[0, 0] != 0).nonzero()
    assert {(int(row) % 2, int(column) % 2) for row, column in seen} == {(0, 0), (1, 1)} and len(seen) == 18


def test_drop_path_keeps_the_expectation_and_drops_whole_images() -> None:
    torch.manual_seed(0)
    drop, x = DropPath(), torch.rand(20_000, 2, 1, 3) + 0.5
    assert torch.equal(drop(x), x)
    drop.drop_path = 0.3
    out = drop(x)
    share = (out == 0).float().mean((1, 2, 3))
    assert set(share.tolist()) == {0.0, 1.0} and float(share.mean()) == pytest.approx(0.3, abs=0.02)
    torch.testing.assert_close(out[share == 0], x[share == 0] / 0.7)
    torch.testing.assert_close(out.mean(0), x.mean(0), rtol=0.03, atol=0)
    assert torch.equal(drop.eval()(x), x)


def test_drop_path_leaves_the_skip_connections_alone() -> None:
    torch.manual_seed(0)
    skip = {n: "skip_connect" if n.endswith(("first", "second")) else o[0] for n, o in DECISIONS.items()}
    with_pool = skip | {"normal.2.first": "max_pool_3x3"}
    cell = Cell("normal", (4, 4), 4, after_reduction=False, evaluation=True)
    for module in cell.modules():
        if isinstance(module, DropPath):
            module.drop_path = 0.9
    x, y = torch.rand(2, 64, 4, 4, 4)
    for path, drops in ((skip, False), (with_pool, True)):
        subnet = derived(cell, "normal", path)
        assert torch.equal(subnet(x, y), subnet(x, y)) == (not drops)


def test_the_auxiliary_head_speaks_in_training_alone() -> None:
    space = darts(num_classes=5, channels=4, cells=3, evaluation=True, auxiliary=True)
    subnet, x = derive(space, DARTS_V2), torch.randn(2, 3, 32, 32)
    logits, auxiliary = subnet(x)
    assert logits.shape == auxiliary.shape == (2, 5)
    assert subnet.eval()(x).shape == (2, 5)
    for pixels in (8, 28, 64):
        assert subnet.train()(torch.randn(2, 3, pixels, pixels))[1].shape == (2, 5)
    x = torch.randn(2, 7, 8, 8)
    head = AuxiliaryHead(7, 5, imagenet=False).eval()
    pooled = nn.functional.avg_pool2d(torch.relu(x), 5, 3)
    assert torch.equal(head(x), head.classifier(head.layers(pooled).flatten(1)))


@pytest.mark.parametrize(("pixels", "in_channels"), [(8, 1), (32, 3)])
def test_subnets_trace_export_and_pickle(pixels: int, in_channels: int) -> None:
    space = darts(3, in_channels, channels=4, cells=3, evaluation=True, auxiliary=True).eval()
    x = torch.randn(2, in_channels, pixels, pixels)
    subnet = derive(space, sample(DECISIONS, Random(0)))
    expected = subnet(x)
    assert expected.shape == (2, 3)
    torch.testing.assert_close(torch.fx.symbolic_trace(subnet)(x), expected)
    torch.testing.assert_close(torch.export.export(subnet, (x,)).module()(x), expected)
    torch.testing.assert_close(pickle.loads(pickle.dumps(subnet))(x), expected)


def test_too_few_cells_are_refused() -> None:
    with pytest.raises(ValueError, match="cells is 2: at least 3"):
        darts(cells=2)
