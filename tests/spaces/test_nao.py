"""The cells of NAO: sizes as published, weights of an edge and an operation, one form for equal cells, unread nodes."""

from __future__ import annotations

import itertools
from random import Random

import pytest
import torch
from raynas.spaces.nao import Cell, Source, nao
from raynas.spaces.nao_genotype import (
    CELLS,
    DECISIONS,
    NODES,
    OPTIONS,
    canonical_form,
    choose,
    from_sequence,
    from_words,
    graph,
    respell,
    to_sequence,
    to_words,
    topology,
    unread,
)
from torch import nn

from raynas.architecture import sample, size
from raynas.costs.counter import Costs
from raynas.evaluation.angle_statistics import AngleStatistics
from raynas.nn.choice import decisions
from raynas.nn.subnet import assemble, derive

NAONET_B = "0 1 0 2 0 1 2 2 1 3 0 2 4 0 1 3 2 1 0 3 1 1 1 0 2 1 2 4 1 0 2 3 3 1 2 2 0 2 0 2"  # what NAO-WS found


def test_forty_decisions_in_the_order_of_the_published_sequence() -> None:
    assert size(DECISIONS) == ((2 * 3 * 4 * 5 * 6) ** 2 * 5**10) ** 2 == pytest.approx(2.6e25, rel=0.02)
    with torch.device("meta"):
        assert decisions(nao(channels=4, cells=1)) == DECISIONS == decisions(nao(channels=4, cells=1, evaluation=True))
    architecture = from_sequence(NAONET_B)
    assert " ".join(map(str, to_sequence(architecture))) == NAONET_B
    assert architecture["normal.3.input2"] == "2" and architecture["normal.3.operation2"] == "avg_pool_3x3"
    assert (unread(architecture, "normal"), unread(architecture, "reduction")) == ((3, 5, 6), (4, 5, 6))
    with pytest.raises(ValueError, match="39 numbers: expected 40"):
        from_sequence(NAONET_B[:-2])
    with pytest.raises(ValueError, match=r"number 0 \(normal.2.input1\) is 2; legal: 0 to 1"):
        from_sequence("2" + NAONET_B[1:])


def separable(channels: int, kernel: int) -> int:
    return 2 * (kernel * kernel * channels + channels * channels + 2 * channels)


def by_hand(architecture: dict[str, str], channels: int, cells: int) -> int:
    """The parameters of a network by itself for colour images and ten classes, from the papers' description."""
    total = 3 * 9 * 3 * channels + 2 * 3 * channels
    sources, channels_in = [3 * channels, 3 * channels], channels
    halved = False
    for index in range(3 * cells + 2):
        kind = "reduction" if index in (cells, 2 * cells + 1) else "normal"
        channels_in *= 2 if kind == "reduction" else 1
        for place, inputs in enumerate(sources):
            if inputs != channels_in or (halved and place == 0):
                total += inputs * channels_in + 2 * channels_in
        for node, place in itertools.product(NODES, (1, 2)):
            source = int(architecture[f"{kind}.{node}.input{place}"])
            operation = architecture[f"{kind}.{node}.operation{place}"]
            if operation.startswith("sep"):
                total += separable(channels_in, int(operation[-1]))
            elif operation == "skip_connect" and kind == "reduction" and source < 2:
                total += channels_in**2 + 2 * channels_in
        loose = unread(architecture, kind)
        if kind == "reduction":
            total += sum(node < 2 for node in loose) * (channels_in**2 + 2 * channels_in)
        sources, halved = [sources[1], len(loose) * channels_in], kind == "reduction"
    return total + sources[1] * 10 + 10


def test_parameters_of_networks_by_themselves() -> None:
    rng = Random(0)
    with torch.device("meta"):
        small, wide = nao(channels=4, cells=1, evaluation=True), nao(channels=36, cells=2, evaluation=True)
    for architecture in [sample(DECISIONS, rng) for _ in range(5)]:
        network = derive(small, architecture)
        assert sum(p.numel() for p in network.parameters()) == by_hand(architecture, 4, 1)
    network = derive(wide, from_sequence(NAONET_B))
    assert sum(p.numel() for p in network.parameters()) == by_hand(from_sequence(NAONET_B), 36, 2)


def renumbered(architecture: dict[str, str], rng: Random) -> dict[str, str]:
    """The same cells written in another way: nodes in another order, the two operations of some exchanged."""
    result = {}
    for cell in CELLS:
        number, left = {0: 0, 1: 1}, list(NODES)
        while left:
            ready = [n for n in left if all(int(architecture[f"{cell}.{n}.input{i}"]) in number for i in (1, 2))]
            node = rng.choice(ready)
            left.remove(node)
            number[node] = len(number)
            for place, old in enumerate(rng.sample((1, 2), 2), 1):
                source = number[int(architecture[f"{cell}.{node}.input{old}"])]
                result[f"{cell}.{number[node]}.input{place}"] = str(source)
                operation = architecture[f"{cell}.{node}.operation{old}"]
                result[f"{cell}.{number[node]}.operation{place}"] = operation
    return {name: result[name] for name in DECISIONS}


def test_cells_written_in_another_way_have_the_same_form() -> None:
    rng = Random(0)
    changed = 0
    for _ in range(40):
        architecture = sample(DECISIONS, rng)
        form = canonical_form(architecture)
        assert canonical_form(form) == form
        other = renumbered(architecture, rng)
        assert canonical_form(other) == form
        changed += other != architecture
        again = from_words(respell(to_words(architecture), rng))
        assert canonical_form(again) == form and sum(again[n] != architecture[n] for n in DECISIONS) <= 8
        changed += again != architecture
    assert changed > 60


def test_the_form_merges_only_what_computes_the_same() -> None:
    """A change of one decision that leaves the form as it is leaves the operations and their places as they are."""
    rng = Random(1)
    for _ in range(200):
        architecture = sample(DECISIONS, rng)
        name = rng.choice(list(DECISIONS))
        other = architecture | {name: rng.choice(DECISIONS[name])}
        if other != architecture and "operation" in name:
            counts = [sorted(form[n] for n in DECISIONS if "operation" in n) for form in (architecture, other)]
            assert canonical_form(other) != canonical_form(architecture) and counts[0] != counts[1]


def cell_of(kind: str, evaluation: bool, architecture: dict[str, str]) -> nn.Module:
    torch.manual_seed(0)
    cell = Cell(kind, (Source(8, None, 0), Source(8, None, 0)), 4, evaluation, 1.0)
    options = {name: option for name, option in choose(architecture).items() if name.startswith(kind)}
    return assemble(cell, options).eval()


@pytest.mark.parametrize("kind", CELLS)
def test_a_cell_computes_what_the_architecture_says(kind: str) -> None:
    architecture = sample(DECISIONS, Random(3))
    cell = cell_of(kind, True, architecture)
    x, y = torch.randn(2, 8, 8, 8), torch.randn(2, 8, 8, 8)
    values = [cell.first(x), cell.second(y)]
    for node, module in zip(NODES, cell.nodes, strict=True):
        total = 0
        for place, edges in ((1, module.first), (2, module.second)):
            source = int(architecture[f"{kind}.{node}.input{place}"])
            total = total + edges[source](values[source])
        values.append(total)
    side = 8 if kind == "normal" else 4
    loose = unread(architecture, kind)
    assert cell(x, y).shape == (2, 4 * len(loose), side, side)
    expected = [cell.outlets[n](values[n]) for n in loose]
    torch.testing.assert_close(cell(x, y), torch.cat(expected, dim=1))
    assert cell_of(kind, False, architecture)(x, y).shape == (2, 4, side, side)


def test_an_input_that_no_node_reads_is_part_of_the_output() -> None:
    alone = {name: options[0] for name, options in DECISIONS.items()}  # all nodes read node 0 alone
    assert unread(alone, "reduction") == (1, 2, 3, 4, 5, 6)
    x = torch.randn(1, 8, 6, 6)
    assert cell_of("reduction", True, alone)(x, x).shape == (1, 24, 3, 3)
    with torch.device("meta"):
        network = derive(nao(channels=4, cells=1, evaluation=True), alone)
    assert sum(p.numel() for p in network.parameters()) == by_hand(alone, 4, 1)


def test_weights_belong_to_an_edge_and_an_operation() -> None:
    space = nao(channels=4, cells=1)
    base = {name: options[0] for name, options in DECISIONS.items()}

    def weights(changes: dict[str, str], path: str) -> list[int]:
        subnet = derive(space, base | changes)
        return [p.data_ptr() for p in subnet.get_submodule(f"cells.0.nodes.2.{path}").parameters()]

    same = weights({}, "first.0")
    assert same == weights({"normal.4.input2": "3"}, "first.0")
    assert not set(same) & set(weights({}, "second.0"))
    assert not set(same) & set(weights({"normal.4.operation1": "sep_conv_5x5"}, "first.0"))
    assert weights({"normal.4.input1": "1"}, "first.0") == []


@pytest.fixture(scope="module")
def supernet_costs() -> Costs:
    with torch.device("meta"):
        return Costs(nao(channels=2, cells=1), (torch.zeros(1, 3, 8, 8),))


def test_costs_add_up_in_a_supernet_and_are_counted_one_by_one_elsewhere(supernet_costs: Costs) -> None:
    with torch.device("meta"):
        alone = Costs(nao(channels=2, cells=1, evaluation=True), (torch.zeros(1, 3, 8, 8),))
    architecture = canonical_form(from_sequence(NAONET_B))
    for costs, additive in ((supernet_costs, True), (alone, False)):
        assert costs.additive == additive and costs.classes() == 10
        assert costs(architecture) == costs.count(architecture)
        assert costs.canonical(from_sequence(NAONET_B)) == architecture


def test_every_edge_has_its_place_and_an_angle_can_be_told(supernet_costs: Costs) -> None:
    names = [name for _, _, name in topology()]
    architecture = from_sequence(NAONET_B)
    assert sorted(names) == sorted(choose(architecture)) and len(set(names)) == len(names)
    edges = graph(architecture)
    assert (
        len(edges) == 2 * 10 + 3 + 3 and (0, 2, "sep_conv_5x5") in edges and (8, 14, "reduction/avg_pool_3x3") in edges
    )
    space = nao(channels=2, cells=1)
    begin = {name: value.clone() for name, value in space.state_dict().items()}
    now = {name: value + 0.1 * torch.randn_like(value.float()) for name, value in begin.items()}
    turned = AngleStatistics(space, supernet_costs, affine=False).angles(begin, now)([architecture])
    assert 0 < float(turned[0]) < 90


def test_subnets_trace_and_have_an_auxiliary_classifier() -> None:
    space = nao(3, 1, channels=4, cells=1, evaluation=True, auxiliary=True)
    assert set(OPTIONS) == set(DECISIONS["normal.2.operation1"])
    subnet = derive(space, from_sequence(NAONET_B))
    x = torch.randn(2, 1, 8, 8)
    assert [tuple(out.shape) for out in subnet(x)] == [(2, 3), (2, 3)]
    subnet.eval()
    torch.testing.assert_close(torch.fx.symbolic_trace(subnet)(x), subnet(x))
    # Paths near the input are left out less often.
    parts = [node.drop.part for cell in subnet.cells for node in cell.nodes]
    assert parts[0] == pytest.approx(1 / 5) and parts[-1] == 1.0
    with pytest.raises(ValueError, match="cells is 0: at least 1"):
        nao(cells=0)
