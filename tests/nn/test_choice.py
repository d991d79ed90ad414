"""Choice, decisions and derive: what a subnet shares with its space, and what it does not."""

from __future__ import annotations

import io
import pickle

import pytest
import torch
from torch import Tensor, nn

from raynas.exceptions import ArchitectureError
from raynas.nn.choice import Choice, choices, decisions, places
from raynas.nn.space import canonical, graph
from raynas.nn.subnet import derive


def conv_bn(kernel: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(4, 4, kernel, padding=kernel // 2, bias=False), nn.BatchNorm2d(4), nn.ReLU())


class Net(nn.Module):
    """Two blocks; an option of the second contains a Choice of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.blocks = nn.Sequential(
            Choice(k3=conv_bn(3), k5=conv_bn(5)),
            Choice(skip=nn.Identity(), deep=nn.Sequential(conv_bn(3), Choice(relu=nn.ReLU(), tanh=nn.Tanh()))),
        )
        self.classifier = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.stem(x))
        return self.classifier(x.mean((2, 3)))


class Tied(nn.Module):
    """Two places that follow one decision."""

    def __init__(self, second: nn.Module) -> None:
        super().__init__()
        self.first = Choice(a=nn.Linear(2, 2), b=nn.Identity(), decision="edge")
        self.second = second

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))


DEEP = {"blocks.0": "k3", "blocks.1": "deep", "blocks.1.deep.1": "tanh"}
FLAT = {"blocks.0": "k5", "blocks.1": "skip"}
IMAGES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_decisions_are_the_places_of_the_choices() -> None:
    assert decisions(Net()) == {
        "blocks.0": ("k3", "k5"),
        "blocks.1": ("skip", "deep"),
        "blocks.1.deep.1": ("relu", "tanh"),
    }


def test_a_space_needs_a_choice_and_a_name_for_it() -> None:
    with pytest.raises(ValueError, match="contains no Choice"):
        decisions(nn.Linear(1, 1))
    with pytest.raises(ValueError, match="has no name"):
        decisions(Choice(a=nn.ReLU()))


@pytest.mark.parametrize("name", ["", "a.b", "train", "options", "decision"])
def test_option_names_that_cannot_be_used(name: str) -> None:
    with pytest.raises(ValueError, match="option name"):
        Choice({name: nn.ReLU()})


def test_a_choice_has_options_and_does_not_run() -> None:
    with pytest.raises(ValueError, match="at least one option"):
        Choice()
    with pytest.raises(RuntimeError, match="derive"):
        Net()(IMAGES)


def test_subnet_contains_no_choice_and_shares_the_parameters() -> None:
    net = Net()
    subnet = derive(net, DEEP)
    assert not any(isinstance(module, Choice) for module in subnet.modules())
    assert subnet.get_parameter("blocks.0.0.weight") is net.get_parameter("blocks.0.k3.0.weight")
    assert subnet.get_parameter("classifier.weight") is net.classifier.weight
    assert {id(p) for p in subnet.parameters()} < {id(p) for p in net.parameters()}
    assert isinstance(subnet, Net)
    assert subnet(IMAGES).shape == (2, 2)


def test_subnet_computes_what_its_modules_compute() -> None:
    net = Net().eval()
    x = net.get_submodule("blocks.0.k5")(net.stem(IMAGES))
    assert torch.equal(derive(net, FLAT)(IMAGES), net.classifier(x.mean((2, 3))))


def test_unknown_and_missing_keys_are_refused() -> None:
    with pytest.raises(ArchitectureError, match=r"'blocks.7'.*'blocks.0'"):
        derive(Net(), {**FLAT, "blocks.7": "k3"})
    with pytest.raises(ArchitectureError, match=r"'blocks.1' is missing.*'skip', 'deep'"):
        derive(Net(), {"blocks.0": "k3"})
    with pytest.raises(ArchitectureError, match=r"no option 'k9'.*'k3', 'k5'"):
        derive(Net(), {**FLAT, "blocks.0": "k9"})


def test_inactive_nested_keys_are_dropped() -> None:
    assert canonical(Net(), {**FLAT, "blocks.1.deep.1": "relu"}) == FLAT
    assert derive(Net(), {**FLAT, "blocks.1.deep.1": "relu"})(IMAGES).shape == (2, 2)


def test_the_space_may_merge_architectures() -> None:
    class Merging(Net):
        def canonical_form(self, architecture: dict[str, str]) -> dict[str, str]:
            return {**architecture, "blocks.0": "k3"}

    assert canonical(Merging(), FLAT) == {**FLAT, "blocks.0": "k3"}


def test_buffers_and_training_flag_are_the_subnets_own() -> None:
    net = Net().train()
    before = {name: buffer.clone() for name, buffer in net.named_buffers()}
    subnet = derive(net, DEEP)
    subnet.train()(IMAGES)
    assert subnet.get_buffer("blocks.0.1.num_batches_tracked") == 1
    subnet.eval()
    assert all(torch.equal(buffer, before[name]) for name, buffer in net.named_buffers())
    assert all(module.training for module in net.modules())
    assert derive(net.eval(), DEEP).training is False


def test_hooks_are_independent() -> None:
    net = Net()
    calls: list[str] = []
    net.stem.register_forward_hook(lambda *_: calls.append("space"))
    subnet = derive(net, DEEP)
    subnet.get_submodule("stem").register_forward_hook(lambda *_: calls.append("subnet"))
    derive(net, FLAT)(IMAGES)
    assert calls == ["space"]
    subnet(IMAGES)
    assert calls == ["space", "space", "subnet"]


def test_a_changed_subnet_leaves_the_space_alone() -> None:
    net = Net()
    subnet = derive(net, FLAT)
    subnet.classifier = nn.Identity()
    del subnet.blocks[1]
    assert isinstance(net.classifier, nn.Linear)
    assert len(net.blocks) == 2


@pytest.mark.parametrize("architecture", [DEEP, FLAT])
def test_subnets_trace_export_and_pickle(architecture: dict[str, str]) -> None:
    subnet = derive(Net(), architecture).eval()
    expected = subnet(IMAGES)
    assert torch.equal(torch.fx.symbolic_trace(subnet)(IMAGES), expected)
    torch.testing.assert_close(torch.export.export(subnet, (IMAGES,)).module()(IMAGES), expected)
    assert torch.equal(pickle.loads(pickle.dumps(subnet))(IMAGES), expected)
    assert "Choice" not in repr(subnet)
    buffer = io.BytesIO()
    torch.save(subnet.state_dict(), buffer)
    buffer.seek(0)
    other = derive(Net(), architecture).eval()
    other.load_state_dict(torch.load(buffer, weights_only=True))
    assert torch.equal(other(IMAGES), expected)


def test_parameters_of_unused_options_do_not_move_by_a_bit() -> None:
    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)

    def step(architecture: dict[str, str]) -> None:
        optimizer.zero_grad()
        derive(net, architecture)(IMAGES).square().sum().backward()
        optimizer.step()

    step(DEEP)  # now these options have momentum
    before = {name: parameter.clone() for name, parameter in net.named_parameters()}
    step(FLAT)
    unused = [name for name in before if ".k3." in name or ".deep." in name]
    assert unused
    for name, parameter in net.named_parameters():
        assert torch.equal(parameter, before[name]) == (name in unused), name


def test_choices_of_one_decision_follow_it_together() -> None:
    net = Tied(Choice(a=nn.ReLU(), b=nn.Tanh(), decision="edge"))
    assert decisions(net) == {"edge": ("a", "b")}
    assert [name for name, _ in choices(net)] == ["edge", "edge"]
    subnet = derive(net, {"edge": "b"})
    assert isinstance(subnet.first, nn.Identity)
    assert isinstance(subnet.second, nn.Tanh)


def test_choices_of_one_decision_may_be_told_apart_by_their_places() -> None:
    space = Tied(Choice(a=nn.Linear(2, 2), b=nn.Identity(), decision="edge"))
    assert places(space) == {"edge": ("first", "second")}
    subnet = derive(space, {"first": "b", "second": "a"})
    assert isinstance(subnet.first, nn.Identity) and subnet.second.weight is space.second.a.weight
    for unfit in ({"first": "b"}, {"edge": "a", "first": "b"}, {"first": "b", "second": "c"}):
        with pytest.raises(ArchitectureError):
            derive(space, unfit)


def test_choices_of_one_decision_have_the_same_options() -> None:
    with pytest.raises(ValueError, match=r"'edge'.*a, c.*a, b"):
        decisions(Tied(Choice(a=nn.ReLU(), c=nn.Tanh(), decision="edge")))


def test_choices_inside_a_named_decision_are_nested_under_it() -> None:
    inner = nn.Sequential(Choice(p=nn.ReLU(), q=nn.Tanh()))
    net = Tied(Choice(a=nn.ReLU(), b=inner, decision="edge"))
    assert decisions(net) == {"edge": ("a", "b"), "edge.b.0": ("p", "q")}
    assert canonical(net, {"edge": "a", "edge.b.0": "q"}) == {"edge": "a"}
    assert isinstance(derive(net, {"edge": "b", "edge.b.0": "q"}).second[0], nn.Tanh)


def test_a_decision_name_is_not_empty() -> None:
    with pytest.raises(ValueError, match="non-empty"):
        Choice(a=nn.ReLU(), decision="")


def test_a_module_used_twice_stays_one_object() -> None:
    net = Net()
    net.again = net.blocks
    assert list(decisions(net)) == ["blocks.0", "blocks.1", "blocks.1.deep.1"]
    subnet = derive(net, DEEP)
    assert subnet.again is subnet.blocks


def test_one_choice_under_two_options_needs_a_name() -> None:
    shared = Choice(p=nn.ReLU(), q=nn.Tanh())
    net = nn.Sequential(Choice(a=nn.Sequential(shared), b=nn.Sequential(shared)))
    with pytest.raises(ValueError, match="under several options"):
        derive(net, {"0": "b"})
    shared.decision = "activation"
    assert isinstance(derive(net, {"0": "b", "activation": "q"})[0][0], nn.Tanh)


def test_choices_in_sequentials_are_a_chain() -> None:
    def block() -> Choice:
        return Choice(k3=nn.Conv2d(4, 4, 3, padding=1), skip=nn.Identity())

    chain = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(block(), block()), block())
    edges = graph(chain)({"1.0": "k3", "1.1": "skip", "2": "k3"})
    assert edges == [(0, 1, "k3"), (1, 2, None), (2, 3, "k3")]
    assert graph(nn.ModuleList([block(), block()])) is None  # who knows how these are connected
    own = nn.ModuleList([block()])
    own.graph = lambda architecture: [(0, 1, architecture["0"])]
    assert graph(own)({"0": "k3"}) == [(0, 1, "k3")]


def test_options_from_a_list_or_with_numbers_as_names() -> None:
    a, b = nn.Identity(), nn.ReLU()
    assert Choice([a, b]).options == Choice(nn.ModuleList([a, b])).options == ("0", "1")
    assert Choice({3: a, 5: b}).options == ("3", "5") and Choice(nn.ModuleDict({"x": a})).options == ("x",)
    for wrong, message in (
        ({"a": None}, r"option 'a' is None: for no operation write nn\.Identity\(\)"),
        ({"a": nn.Identity}, r"option 'a' is the class Identity, not a module: write Identity\(\.\.\.\)"),
        ({"a": (a,)}, "option 'a' is a tuple with a module: is there a comma too many"),
        ({"a": "conv"}, "option 'a' is a str, not an nn.Module"),
        ({1: a, "1": b}, "option name '1' stands twice"),
        ({2.5: a}, "option name 2.5 cannot be used"),
        (a, "must be a mapping from names to modules, or a list of them"),
    ):
        with pytest.raises(ValueError, match=message):
            Choice(wrong)  # type: ignore[arg-type]
