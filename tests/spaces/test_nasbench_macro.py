"""NAS-Bench-Macro: its table's own counts, its digits, identities that commute."""

from __future__ import annotations

import pickle
from pathlib import Path
from random import Random

import pytest
import torch
from raynas.spaces.nasbench_macro import DECISIONS, canonical_form, from_string, nasbench_macro, to_string

from raynas.architecture import enumerate_all, sample
from raynas.costs.counter import Costs
from raynas.nn import space as space_hooks
from raynas.nn.choice import decisions
from raynas.nn.subnet import derive


@pytest.fixture(scope="module")
def costs() -> Costs:
    with torch.device("meta"):
        return Costs(nasbench_macro(), (torch.zeros(1, 3, 32, 32),))


def test_eight_decisions(costs: Costs) -> None:
    assert costs.decisions == DECISIONS
    assert costs.additive


@pytest.mark.parametrize(
    ("text", "macs", "parameters"),
    [("00000000", 7_713_280, 387_882), ("00000001", 14_115_328, 791_594), ("00000011", 20_517_376, 1_195_306)],
)
def test_published_figures(costs: Costs, text: str, macs: int, parameters: int) -> None:
    assert costs.count(from_string(text)) == {"macs": macs, "parameters": parameters}


def test_costs_equal_the_whole_table(costs: Costs, shared_data: Path) -> None:
    # The table's "flops" are the multiplications of convolutions and linear layers, as counted here.
    pandas = pytest.importorskip("pandas")
    table = pandas.read_parquet(shared_data / "nasbench_macro.parquet", columns=["arch", "params", "flops"])
    assert len(table) == 6_561
    for row in table.itertuples():
        assert costs(from_string(row.arch)) == {"macs": row.flops, "parameters": row.params}, row.arch


def test_equal_networks_have_equal_scores_in_the_table(shared_data: Path) -> None:
    pandas = pytest.importorskip("pandas")
    table = pandas.read_parquet(shared_data / "nasbench_macro.parquet", columns=["arch", "acc_mean"])
    accuracy = dict(zip(table["arch"], table["acc_mean"], strict=True))
    assert all(accuracy[text] == accuracy[to_string(canonical_form(from_string(text)))] for text in accuracy)


def test_identities_commute() -> None:
    forms = {to_string(canonical_form(architecture)) for architecture in enumerate_all(DECISIONS)}
    assert len(forms) == 3_969
    assert to_string(canonical_form(from_string("00001002"))) == "00010020"
    assert to_string(canonical_form(from_string("00002102"))) == "00020120"
    assert all(to_string(canonical_form(from_string(form))) == form for form in forms)
    with torch.device("meta"):
        space = nasbench_macro(channels=2, head=8)
    assert space_hooks.canonical(space, from_string("00001000")) == from_string("00010000")


def test_identities_keep_the_shape_where_it_changes() -> None:
    subnet = derive(nasbench_macro(channels=2, head=8), from_string("00000000"))
    kinds = [type(block).__name__ for block in subnet.blocks]
    assert kinds == ["Sequential", "Identity", *["Sequential", "Identity", "Identity"] * 2]


@pytest.mark.parametrize("text", ["2221222", "222122200", "22212223", "k3"])
def test_bad_strings_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected 8 digits"):
        from_string(text)
    assert to_string(from_string("22212220")) == "22212220"


@pytest.mark.parametrize("seed", [0, 1])
def test_subnets_trace_export_and_pickle(seed: int) -> None:
    space = nasbench_macro(num_classes=3, in_channels=1, channels=2, head=8).eval()
    x = torch.randn(2, 1, 16, 16)
    subnet = derive(space, sample(decisions(space), Random(seed)))
    expected = subnet(x)
    assert expected.shape == (2, 3)
    torch.testing.assert_close(torch.fx.symbolic_trace(subnet)(x), expected)
    torch.testing.assert_close(torch.export.export(subnet, (x,)).module()(x), expected)
    torch.testing.assert_close(pickle.loads(pickle.dumps(subnet))(x), expected)
