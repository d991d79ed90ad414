"""Conformance tests to inherit: what a search space must do to be usable with RayNAS, in anyone's test suite.

A space of your own is checked by one class with two methods::

    from raynas.testing.space import SpaceContract

    class TestMine(SpaceContract):
        def make(self):
            return MyNet(num_classes=10)

        def example(self):
            return torch.randn(2, 3, 32, 32)

pytest collects it; nothing here needs Ray to be started. Make the space small: each test builds it.
"""

from __future__ import annotations

import abc
import functools
import random
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from raynas import architecture as arch
from raynas.architecture import Architecture
from raynas.nn.choice import Choice, decisions, open_choices
from raynas.nn.protocols import find_hook, inspect_space
from raynas.nn.space import canonical, chosen, graph, topology
from raynas.nn.subnet import derive

__all__ = ["SpaceContract"]


def _size(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def _outputs(found: Any) -> list[Tensor]:
    return [found] if isinstance(found, Tensor) else [each for each in found if isinstance(each, Tensor)]


class SpaceContract(abc.ABC):
    """Inherit it under a name that begins with ``Test``."""

    samples = 3
    """Random architectures that each test looks at; the smallest and the largest of 20 come on top."""
    canonical_costs = True
    """Whether an architecture and its canonical form have equally many parameters. Not so where an operation is dropped
    that nothing reads."""

    @abc.abstractmethod
    def make(self) -> nn.Module:
        """A small instance of the space."""

    @abc.abstractmethod
    def example(self) -> Tensor:
        """A batch of two or more inputs."""

    def _space(self) -> nn.Module:
        torch.manual_seed(0)
        return self.make()

    def _architectures(self, space: nn.Module) -> list[Architecture]:
        """Random architectures, and those of 20 random ones with the fewest and the most parameters."""
        rng = random.Random(0)
        drawn = [arch.sample(decisions(space), rng) for _ in range(20)]
        by_size = sorted(drawn, key=lambda each: _size(derive(space, each)))
        return [*drawn[: self.samples], by_size[0], by_size[-1]]

    def _run(self, network: nn.Module) -> list[Tensor]:
        torch.manual_seed(0)
        return _outputs(network(self.example()))

    def test_decisions_have_names_and_options(self) -> None:
        space = self._space()
        found = decisions(space)
        assert found and all(name and options for name, options in found.items())
        for name, options in found.items():
            assert all(isinstance(option, str) and option for option in options), name
            assert len(set(options)) == len(options), f"{name} has an option twice"
        for architecture in self._architectures(space):
            chosen_options = chosen(space, architecture)
            assert arch.canonical(open_choices(space), chosen_options) == dict(chosen_options)

    def test_no_hook_is_misspelt(self) -> None:
        assert inspect_space(self._space()).warnings == ()

    def test_subnets_run_forward_and_backward(self) -> None:
        space = self._space()
        for architecture in self._architectures(space):
            subnet = derive(space, architecture)
            shapes = [each.shape for each in self._run(subnet.eval())]
            outputs = self._run(subnet.train())
            assert outputs[0].shape == shapes[0], "the first output is the same in training"
            assert all(bool(torch.isfinite(each).all()) for each in outputs), architecture
            sum(each.float().square().mean() for each in outputs).backward()  # type: ignore[union-attr]
            assert any(p.grad is not None for p in subnet.parameters())

    def test_subnets_share_parameters_and_not_buffers(self) -> None:
        space = self._space()
        own = {id(p) for p in space.parameters()}
        before = {name: value.clone() for name, value in space.state_dict().items()}
        for architecture in self._architectures(space):
            subnet = derive(space, architecture)
            assert {id(p) for p in subnet.parameters()} <= own
            assert not {id(b) for b in subnet.buffers()} & {id(b) for b in space.buffers()}
            self._run(subnet.train())
        after = space.state_dict()
        assert all(torch.equal(value, after[name]) for name, value in before.items()), "running a subnet changed it"

    def test_a_step_moves_nothing_off_the_path(self) -> None:
        space = self._space()
        optimizer = torch.optim.SGD(space.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
        first, *others = self._architectures(space)
        for architecture in (*others, first):
            # All have momentum before the last step, except what no path used.
            subnet = derive(space, architecture, share_buffers=True).train()
            on_path = {id(p) for p in subnet.parameters()}
            before = {id(p): p.detach().clone() for p in space.parameters()}
            optimizer.zero_grad(set_to_none=True)
            sum(each.float().square().mean() for each in self._run(subnet)).backward()  # type: ignore[union-attr]
            optimizer.step()
            moved = {id(p) for p in space.parameters() if not torch.equal(before[id(p)], p)}
            assert moved and moved <= on_path

    def test_subnets_are_made_of_ordinary_modules(self) -> None:
        space = self._space()
        for architecture in self._architectures(space):
            subnet = derive(space, architecture)
            assert not [name for name, module in subnet.named_modules() if isinstance(module, Choice)]
            assert {name for name, _ in subnet.named_parameters()} == {
                name for name in subnet.state_dict() if name not in dict(subnet.named_buffers())
            }

    def test_the_canonical_form_is_canonical_and_the_same_kind_of_network(self) -> None:
        space = self._space()
        for architecture in self._architectures(space):
            form = canonical(space, architecture)
            assert canonical(space, form) == form and arch.canonical(decisions(space), form) == form
            one, two = derive(space, architecture).eval(), derive(space, form).eval()
            with torch.no_grad():
                assert [each.shape for each in self._run(one)] == [each.shape for each in self._run(two)]
            if self.canonical_costs:
                assert _size(one) == _size(two), architecture

    def test_the_graph_and_the_topology_fit_the_decisions(self) -> None:
        space = self._space()
        describe: Callable[[Architecture], Any] | None = graph(space)
        if describe is not None:
            for architecture in self._architectures(space):
                edges = list(describe(canonical(space, architecture)))
                assert all(source < target for source, target, _ in edges), "edges lead to a higher node"
                assert edges == list(describe(canonical(space, architecture)))
        places = topology(space)
        if places is not None:
            open_in_space = open_choices(space)
            placed = [name for _, _, name in places if name is not None]
            assert set(placed) <= open_in_space.keys()
            outer = {name for name in open_in_space if arch.parent(open_in_space, name) is None}
            assert outer <= set(placed), "every decision has its place"

    def test_the_sequence_encoding_is_read_as_it_is_written(self) -> None:
        space = self._space()
        make = find_hook(space, "sequence_encoding")
        if make is None:
            return
        encoding = make()
        for architecture in self._architectures(space):
            words = list(encoding.write(architecture))
            assert len(words) == len(encoding.legal)
            assert all(word in legal for word, legal in zip(words, encoding.legal, strict=True))
            assert dict(encoding.read(words)) == architecture
            if encoding.respell is not None:
                other = encoding.read(list(encoding.respell(words, random.Random(0))))
                assert canonical(space, other) == canonical(space, architecture)

    def test_operations_without_weights_have_a_surrogate_norm(self) -> None:
        space = self._space()
        rule = find_hook(space, "surrogate_norm")
        if rule is None:
            return
        for option in _weightless_options(space):
            norm = rule(option, 8)
            assert norm is None or norm >= 0, option

    def test_the_space_is_made_the_same_way_twice(self) -> None:
        one, two = self._space(), self._space()
        first, second = one.state_dict(), two.state_dict()
        assert decisions(one) == decisions(two) and first.keys() == second.keys()
        assert all(torch.equal(value, second[name]) for name, value in first.items())


def _weightless_options(space: nn.Module) -> list[str]:
    """The options that have neither weights nor Choices of their own."""

    def plain(module: nn.Module) -> bool:
        inside = any(isinstance(part, Choice) for part in module.modules())
        return not inside and not any(p.ndim > 1 for p in module.parameters())

    found: dict[str, None] = functools.reduce(
        lambda known, choice: known | {o: None for o in choice.options if plain(choice.get_submodule(o))},
        (module for module in space.modules() if isinstance(module, Choice)),
        dict[str, None](),
    )
    return list(found)
