"""Angles: against vectors that are really built, and what must hold of them whatever the weights are."""

import functools
import itertools
import math
import random
import time

import numpy as np
import pytest
import torch
from helpers import tiny
from raynas.spaces.darts import darts
from torch import nn

from raynas.architecture import enumerate_all, sample
from raynas.costs.counter import Costs
from raynas.evaluation.angle_statistics import AngleStatistics
from raynas.exceptions import AngleError
from raynas.nn.choice import Choice, decisions
from raynas.nn.subnet import derive
from raynas.spaces import darts_genotype, nasbench201, nasbench_macro, shufflenet

CELL = nasbench201.nasbench201(channels=4, cells=1)
CELLS = tuple(enumerate_all(nasbench201.DECISIONS))
PATHS = ((3,), (0, 4), (1, 5), (0, 2, 5))  # the edges on the four ways from node 0 to node 3


def angle_statistics(space, size=8, channels=3, affine=False):
    return AngleStatistics(space, Costs(space, (torch.zeros(1, channels, size, size),)), affine)


def moved(space, by=0.3):
    """The weights of a space, and the same after a random change of all of them."""
    begin = {name: value.clone() for name, value in space.state_dict().items()}
    generator = torch.Generator().manual_seed(1)
    now = {
        name: value + by * value.std() * torch.randn(value.shape, generator=generator)
        if value.is_floating_point() and value.ndim > 1
        else value
        for name, value in begin.items()
    }
    return begin, now


@functools.cache
def ruler():
    return angle_statistics(CELL)


def angle_between(first, second):
    first, second = first.double(), second.double()
    cosine = (first @ second / (first.norm() * second.norm())).clamp(-1, 1)
    return math.degrees(math.acos(cosine))


def cell_vector(state, architecture):
    """The weight vector of a NAS-Bench-201 network, built; None where the cell is cut off."""
    # All of the fixed parts, with their BatchNorms; of the cells kernels alone.
    parts = [state[name].flatten() for name, _ in CELL.named_parameters() if ".edges." not in name]
    options = list(architecture.values())
    alive = [path for path in PATHS if all(options[edge] != "none" for edge in path)]
    for cell, path in itertools.product((0, 2, 4), alive):
        for edge in path:
            if options[edge].startswith("nor_conv"):
                parts.append(state[f"cells.{cell}.edges.{edge}.{options[edge]}.1.weight"].flatten())
            elif options[edge] == "avg_pool_3x3":
                parts.append(torch.full((state[f"cells.{cell}.edges.0.nor_conv_1x1.1.weight"].shape[0] * 9,), 1 / 9))
    return torch.cat(parts) if alive else None


def test_cells_have_the_angle_of_the_vectors_that_are_built():
    begin, now = moved(CELL)
    angles = ruler().angles(begin, now)(CELLS)
    for number in range(0, len(CELLS), 131):
        first, second = (cell_vector(state, CELLS[number]) for state in (begin, now))
        expected = 0.0 if first is None else angle_between(first, second)
        assert angles[number] == pytest.approx(expected, abs=1e-5), CELLS[number]
    assert np.ptp(angles[angles > 0]) > 1, "the angles hardly differ: nothing was compared"


def test_the_341_cells_that_are_cut_off_have_no_angle_and_all_others_have():
    angles = ruler().angles(*moved(CELL))(CELLS)
    cut = [not nasbench201.is_connected(architecture) for architecture in CELLS]
    assert sum(cut) == 341
    assert [angle == 0 for angle in angles] == cut


def darts_vector(space, state, architecture):
    """The weight vector of a DARTS network of a normal and two reduction cells, built way by way."""
    options = darts_genotype.choose(architecture)
    parts = [state[name].flatten() for name, _ in space.named_parameters() if ".edges." not in name]

    def ways(kind, node):
        if node < 2:
            return [[]]
        taken = [source for source in range(node) if options[darts_genotype.edge(kind, source, node)] != "none"]
        return [[*way, (source, node)] for source in taken for way in ways(kind, source)]

    for cell, (kind, width) in enumerate((("normal", 4), ("reduction", 8), ("reduction", 16))):
        every = [way for node in darts_genotype.NODES for way in ways(kind, node)]
        assert len(every) <= 30
        for source, node in itertools.chain.from_iterable(every):
            option = options[darts_genotype.edge(kind, source, node)]
            place = f"cells.{cell}.nodes.{node - 2}.edges.{source}.{option}."
            kernels = [value.flatten() for name, value in state.items() if name.startswith(place) and value.ndim == 4]
            constant = torch.eye(width) if option == "skip_connect" else torch.full((width * 9,), 1 / 9)
            parts += kernels or [constant.flatten()]
    return torch.cat(parts)


@pytest.mark.slow
def test_two_cells_of_darts_have_the_angle_of_the_vectors_that_are_built():
    space, rng = darts(channels=4, cells=3), random.Random(0)
    begin, now = moved(space)
    architectures = [sample(decisions(space), rng) for _ in range(12)]
    angles = angle_statistics(space, size=32).angles(begin, now)(architectures)
    for angle, architecture in zip(angles, architectures, strict=True):
        expected = angle_between(*(darts_vector(space, state, architecture) for state in (begin, now)))
        assert angle == pytest.approx(expected, abs=1e-5)
    assert np.ptp(angles) > 0.1, "the angles hardly differ: nothing was compared"


@pytest.mark.parametrize(
    ("space", "identity"),
    [
        (nasbench_macro.nasbench_macro(channels=4, head=16), True),
        (shufflenet.spos_small(in_channels=3), False),
        (tiny.space(in_channels=3), True),
    ],
    ids=["nasbench_macro", "spos", "a user's own"],
)
@pytest.mark.parametrize("affine", [False, True])
def test_a_chain_has_one_way_and_identities_are_unit_matrices(space, identity, affine):
    begin, now = moved(space)
    if affine:
        now = {name: value + 0.1 if value.is_floating_point() else value for name, value in now.items()}
    names = {id(p): name for name, p in space.named_parameters()}
    inside = {id(p) for module in space.modules() if isinstance(module, Choice) for p in module.parameters()}
    angles = angle_statistics(space, affine=affine).angles(begin, now)
    everything = list(enumerate_all(decisions(space)))
    found, met = [], 0
    for architecture in everything[:: len(everything) // 20]:
        subnet = derive(space, architecture)
        norms = {id(p) for m in subnet.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters()}
        kept = [names[id(p)] for p in subnet.parameters() if affine or id(p) not in norms & inside]
        places = (subnet.get_submodule(name) for name in architecture)
        widths = [place_width(space, n) for n, m in zip(architecture, places, strict=True) if type(m) is nn.Identity]
        met += len(widths)
        constants = [torch.eye(width).flatten() for width in widths]
        first, second = (torch.cat([*(state[n].flatten() for n in kept), *constants]) for state in (begin, now))
        assert float(angles([architecture])[0]) == pytest.approx(angle_between(first, second), abs=1e-5)
        found.append(float(angles([architecture])[0]))
    assert np.ptp(found) > 0.1 and bool(met) == identity


def place_width(space, name):
    """The channels at a Choice, from the last convolution of its last option."""
    choice = space.get_submodule(name)
    last = [m for o in choice.options for m in choice.get_submodule(o).modules() if isinstance(m, nn.Conv2d)]
    return last[-1].out_channels


def test_nothing_has_turned_at_the_start():
    begin, _ = moved(CELL)
    assert not ruler().angles(begin, begin)(CELLS).any()


@pytest.mark.parametrize("factor", [1e-3, 0.5, 7.0])
def test_positive_scaling_of_all_weights_changes_nothing(factor):
    begin, now = moved(CELL)
    # A pooling stands for a constant, which does not scale with the weights.
    some = [a for a in CELLS if "avg_pool_3x3" not in a.values()][::11]
    before = ruler().angles(begin, now)(some)
    scaled = {name: value * factor if value.is_floating_point() else value for name, value in now.items()}
    np.testing.assert_allclose(ruler().angles(begin, scaled)(some), before, rtol=1e-5)
    np.testing.assert_allclose(ruler().angles(now, begin)(some), before, rtol=1e-12)
    # Where rounding would give a cosine above 1 it is 1, and turned around it is -1.
    same = {name: value * factor for name, value in begin.items()}
    np.testing.assert_allclose(ruler().angles(begin, same)(some), 0, atol=1e-2)
    opposite = {name: value * -factor for name, value in begin.items()}
    connected = [a for a in some if nasbench201.is_connected(a)]
    np.testing.assert_allclose(ruler().angles(begin, opposite)(connected), 180, atol=1e-2)


def test_the_more_weights_turn_the_larger_the_angle():
    some = CELLS[::401]
    least, more = (ruler().angles(*moved(CELL, by))(some) for by in (0.1, 0.5))
    connected = least > 0
    assert connected.any() and (more[connected] > least[connected]).all()


def test_all_cells_in_less_than_two_seconds():
    angles = ruler().angles(*moved(CELL))
    begin = time.process_time()
    angles(CELLS)
    assert time.process_time() - begin < 2


class Nested(nn.Module):
    """A chain in which one option is open inside."""

    def __init__(self, last: nn.Module) -> None:
        super().__init__()
        inner = Choice(thin=nn.Conv2d(4, 4, 1), wide=nn.Conv2d(4, 4, 3, padding=1))
        self.blocks = nn.Sequential(nn.Conv2d(3, 4, 1), Choice(open=nn.Sequential(inner, nn.ReLU()), last=last))
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.blocks(x).mean((2, 3)))


def test_nested_decisions_count_where_they_are_active():
    space = Nested(nn.MaxPool2d((1, 3), stride=1, padding=(0, 1)))
    begin, now = moved(space)
    angles = angle_statistics(space).angles(begin, now)
    for architecture in enumerate_all(decisions(space)):
        names = {id(p): name for name, p in space.named_parameters()}
        kept = [names[id(p)] for p in derive(space, architecture).parameters()]
        pooled = [torch.full((12,), 1 / 3)] if architecture["blocks.1"] == "last" else []
        first, second = (torch.cat([*(state[n].flatten() for n in kept), *pooled]) for state in (begin, now))
        assert float(angles([architecture])[0]) == pytest.approx(angle_between(first, second), abs=1e-5)


def test_weights_that_are_no_numbers_have_no_angle():
    space = Nested(nn.MaxPool2d((1, 3), stride=1, padding=(0, 1)))
    begin = {name: tensor.clone() for name, tensor in space.state_dict().items()}
    now = {name: torch.full_like(tensor, torch.nan) for name, tensor in begin.items()}
    with pytest.raises(AngleError, match="not all finite numbers"):
        angle_statistics(space).angles(begin, now)(list(enumerate_all(decisions(space)))[:1])


def test_an_operation_without_a_rule_is_named():
    with pytest.raises(AngleError, match=r"option 'last' of 'blocks.1' has no weights.* Nested .*surrogate_norm"):
        angle_statistics(Nested(nn.Tanh()))


class Apart(nn.Module):
    """A Choice that stands in no Sequential."""

    def __init__(self, *edges) -> None:
        super().__init__()
        self.first, self.second = (Choice(a=nn.Conv2d(3, 3, 1), b=nn.Conv2d(3, 3, 3, padding=1)) for _ in range(2))
        self.edges = edges

    def forward(self, x):
        return (self.first(x) + self.second(x)).mean((2, 3))


class Wired(Apart):
    def topology(self):
        return self.edges


def test_a_space_that_is_no_chain_says_where_its_decisions_lie():
    with pytest.raises(AngleError, match="Apart is no chain of Choices"):
        angle_statistics(Apart())
    with pytest.raises(AngleError, match="does not say where the decision 'second' lies"):
        angle_statistics(Wired((0, 1, "first")))
    with pytest.raises(AngleError, match="'third', which is no decision; these are: first, second"):
        angle_statistics(Wired((0, 1, "third")))
    space = Wired((0, 1, "first"), (0, 1, "second"), (1, 2, None), (1, 3, None))
    begin, now = moved(space)
    # Two outputs behind the sum: every operation lies on two ways, which changes nothing here.
    chosen = {"first": "a", "second": "b"}
    kept = ("first.a.weight", "first.a.bias", "second.b.weight", "second.b.bias")
    vectors = (torch.cat([state[name].flatten() for name in kept]) for state in (begin, now))
    assert float(angle_statistics(space).angles(begin, now)([chosen])[0]) == pytest.approx(
        angle_between(*vectors), abs=1e-5
    )
