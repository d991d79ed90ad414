"""``Choice``: the places of an ordinary PyTorch model where its author hesitates.

Write the model as always and put a :class:`Choice` where several modules could stand. Such a model is a *space*;
:func:`decisions` lists what is open in it, and :func:`derive` returns the ordinary network of one architecture::

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 16, 3)
            self.block = Choice(k3=nn.Conv2d(16, 16, 3, padding=1), skip=nn.Identity())

    decisions(Net())                      # {"block": ("k3", "skip")}
    derive(net, {"block": "k3"})          # an nn.Module without any Choice, sharing net's parameters

A Choice is a decision of its own, named after its place in the model. Where one decision drives many places, as in
networks that repeat a searched cell, the Choices are given the same ``decision`` name.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor, nn

from raynas import architecture as arch
from raynas.architecture import Architecture, Graph, Notation

__all__ = [
    "Choice", "Notation", "assemble", "canonical", "choices", "chosen", "decisions", "derive", "graph",
    "open_choices", "places", "wiring",
]  # fmt: skip


class Choice(nn.Module):
    """Several modules of which an architecture takes one.

    Args:
        options: The candidates by name. Names are non-empty, contain no dot and are not attributes of
            ``nn.Module`` ("train", "type", ...). A candidate may itself contain Choices.
        decision: Name of the decision that this Choice follows; by default its place in the model. All Choices of
            one name take the same option. The name counts from the root of the space, wherever the Choice stands.
        named: The same as keyword arguments: ``Choice(k3=..., k5=...)``.

    Raises:
        ValueError: No option at all, or a name that cannot be used.
    """

    def __init__(
        self, options: Mapping[str, nn.Module] | None = None, /, *, decision: str | None = None, **named: nn.Module
    ) -> None:
        super().__init__()
        if decision == "":
            raise ValueError("the decision name '' cannot be used: it must be non-empty")
        self.decision = decision
        candidates = {**(options or {}), **named}
        if not candidates:
            raise ValueError("a Choice needs at least one option")
        for name, module in candidates.items():
            if not name or "." in name or hasattr(self, name):
                raise ValueError(
                    f"option name {name!r} cannot be used: it must be non-empty, without a dot, "
                    "and no attribute of Choice or nn.Module"
                )
            self.add_module(name, module)

    @property
    def options(self) -> tuple[str, ...]:
        """The names of the candidates, in the order they were given."""
        return tuple(self._modules)

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Not defined: a space does not run, its subnets do."""
        raise RuntimeError(
            f"this model still contains a Choice of {', '.join(self.options)}: "
            "call derive(space, architecture) and run what it returns"
        )


def choices(space: nn.Module) -> Iterator[tuple[str, Choice]]:
    """Every Choice of a space once, with the name of its decision, in the order of the module tree."""
    return ((name, choice) for name, _, choice in _walk(space, "", set()))


def places(space: nn.Module) -> dict[str, tuple[str, ...]]:
    """Where the Choices of every decision stand in the module tree, in its order."""
    found: dict[str, tuple[str, ...]] = {}
    for name, place, _ in _walk(space, "", set()):
        found[name] = (*found.get(name, ()), place)
    return found


def _walk(module: nn.Module, name: str, seen: set[int]) -> Iterator[tuple[str, str, Choice]]:
    if id(module) in seen:
        return
    seen.add(id(module))
    if isinstance(module, Choice):
        place, name = name, module.decision or name
        yield name, place, module
    for child_name, child in module.named_children():
        yield from _walk(child, _join(name, child_name), seen)


def _join(name: str, child: str) -> str:
    return f"{name}.{child}" if name else child


def decisions(space: nn.Module) -> dict[str, tuple[str, ...]]:
    """What is open in a space: the name of every decision and its options.

    A decision is named after the place of its Choice in the module tree, or as the Choice says. A Choice that stands
    in several places of the tree is one decision, under the first of its names.

    Where not every combination of options is legal, a space is searched in other terms, in which all are: it has an
    attribute ``searched``, these decisions, and a method ``choose(architecture)`` that returns the option of every
    Choice. Of the edges of a cell, for example, two are to be taken: one decision says which.

    Raises:
        ValueError: See :func:`open_choices`.
    """
    searched = getattr(space, "searched", None)
    return open_choices(space) if searched is None else dict(searched)


def open_choices(space: nn.Module) -> dict[str, tuple[str, ...]]:
    """The options of the Choices themselves: the decisions, where a space is not searched in other terms.

    Raises:
        ValueError: The space contains no Choice, is itself a bare Choice (it would have no name), or has Choices of
            one decision with different options.
    """
    if isinstance(space, Choice):
        raise ValueError("the space itself is a Choice and has no name: put it into a module")
    found: dict[str, tuple[str, ...]] = {}
    for name, choice in choices(space):
        if found.setdefault(name, choice.options) != choice.options:
            raise ValueError(
                f"the Choices of decision {name!r} differ in their options: {', '.join(choice.options)}; "
                f"the first has {', '.join(found[name])}"
            )
    if not found:
        raise ValueError(f"{type(space).__name__} contains no Choice: there is nothing to search")
    return found


def chosen(space: nn.Module, architecture: Mapping[str, str]) -> Mapping[str, str]:
    """The option of every Choice: the architecture itself, where a space is not searched in other terms.

    Raises:
        ArchitectureError: The space is searched in other terms, and these do not contain this architecture.
    """
    choose = getattr(space, "choose", None)
    return architecture if choose is None else choose(arch.canonical(decisions(space), architecture))


def canonical(space: nn.Module, architecture: Mapping[str, str]) -> Architecture:
    """The canonical form of an architecture: one form for all dictionaries that describe the same network.

    Decisions under unchosen options are dropped. Where other differences do not matter either (cells with dead
    edges, identities that commute), the space says so by a method ``canonical_form(architecture) -> architecture``.

    Raises:
        ArchitectureError: The space does not contain this architecture.
    """
    open_in_space = decisions(space)
    form = arch.canonical(open_in_space, architecture)
    own = getattr(space, "canonical_form", None)
    return form if own is None else arch.canonical(open_in_space, own(form))


def graph(space: nn.Module) -> Callable[[Architecture], Graph] | None:
    """How the operations of an architecture lie between input and output; None where that is not known.

    A space says it by a method ``graph(architecture)``. Where every Choice stands directly in an ``nn.Sequential``,
    they are a chain, in which an option that is an ``nn.Identity`` passes its input on.
    """
    own = getattr(space, "graph", None)
    if callable(own):
        return cast("Callable[[Architecture], Graph]", own)
    chain = _chained(space)
    if chain is None:
        return None
    passing = {
        name: {o for o in choice.options if isinstance(choice.get_submodule(o), nn.Identity)} for name, choice in chain
    }
    return functools.partial(_chain, passing)


def wiring(space: nn.Module) -> Graph | None:
    """Between which nodes the decisions of a space lie, whatever they are; None where that is not known.

    Edges (from node, to node, decision); a decision of None is no decision: the edge passes its input on. Nodes that
    nothing leads to are inputs, those that lead nowhere outputs. A space says it by a method ``wiring()``. Where every
    Choice stands directly in an ``nn.Sequential``, they are a chain.
    """
    own = getattr(space, "wiring", None)
    if callable(own):
        return cast("Graph", own())
    chain = _chained(space)
    return None if chain is None else [(place, place + 1, name) for place, (name, _) in enumerate(chain)]


def _chained(space: nn.Module) -> list[tuple[str, Choice]] | None:
    """The outer Choices of a space in their order, where they are a chain."""
    if hasattr(space, "searched"):
        return None  # where the Choices lie does not say where the decisions do
    held = {
        id(child)
        for module in space.modules()
        if isinstance(module, nn.Sequential)
        for child in module
        if isinstance(child, Choice)
    }
    outer = [(name, choice) for name, choice in choices(space) if arch.parent(decisions(space), name) is None]
    if not all(id(choice) in held for _, choice in outer) or len({name for name, _ in outer}) < len(outer):
        return None
    return outer


def _chain(passing: Mapping[str, set[str]], architecture: Architecture) -> Graph:
    """The graph of a chain; a function of the module, so that a searcher that knows it can be pickled."""
    edges = arch.chain({name: architecture[name] for name in passing})
    return [(s, t, None if o in idle else o) for (s, t, o), idle in zip(edges, passing.values(), strict=True)]


def derive(space: nn.Module, architecture: Mapping[str, str], share_buffers: bool = False) -> nn.Module:
    """The network of one architecture, as an ordinary module that contains no Choice.

    It shares the space's parameters: training it trains the space. Everything else is its own: buffers
    (BatchNorm statistics), hooks and the training flag, so that ``eval()`` or a BatchNorm recalibration of the
    subnet leaves the space as it is. Moving a subnet to another device or type would change the shared parameters:
    place the space, or deep-copy the subnet first.

    Args:
        space: A module that contains Choices; not changed.
        architecture: One option for every active decision of the space.
        share_buffers: Share the buffers too: a supernet in training gathers BatchNorm statistics over all its paths.

    Returns:
        The subnet. In its ``state_dict`` the chosen module stands under the name of its Choice.

    Raises:
        ArchitectureError: Unknown or missing decisions or options; the legal ones are named.
    """
    return assemble(space, chosen(space, architecture), share_buffers)


def assemble(space: nn.Module, options: Mapping[str, str], share_buffers: bool = False) -> nn.Module:
    """As :func:`derive`, from an option for every Choice: by decision, or by place (:func:`places`)."""
    met: set[str] = set()
    try:
        subnet = _derive(space, "", _Path(options, met, share_buffers), {})
    except KeyError as unfit:
        arch.canonical(open_choices(space), options)  # says what is wrong
        name = unfit.args[0]
        raise ValueError(
            f"the Choice {name!r} stands under several options: give it a decision name of its own"
        ) from None
    if met != options.keys():
        # Only now is the whole space looked at: a training step derives a subnet, and the path alone is short.
        arch.canonical(open_choices(space), options)
    return subnet


@dataclass(frozen=True)
class _Path:
    """The chosen options, and which decisions were met on the way."""

    chosen: Mapping[str, str]
    met: set[str]
    share_buffers: bool

    def option(self, place: str, name: str, choice: Choice) -> str:
        if name not in self.chosen and place in self.chosen:
            name = place
        option = self.chosen[name]
        if option not in choice._modules:
            raise KeyError(name)
        self.met.add(name)
        return option


def _derive(module: nn.Module, name: str, path: _Path, done: dict[int, nn.Module]) -> nn.Module:
    """Copy the objects on the path; ``done`` keeps modules that are used in several places one object."""
    if id(module) in done:
        return done[id(module)]
    if isinstance(module, Choice):
        place, name = name, module.decision or name
        option = path.option(place, name, module)
        result = _derive(module.get_submodule(option), f"{name}.{option}", path, done)
        done[id(module)] = result
        return result
    copy = module.__class__.__new__(module.__class__)
    done[id(module)] = copy
    # Containers that belong to nn.Module itself (hooks, parameters, ...) are copied, their contents are not.
    # Written into __dict__, because nn.Module's own assignment takes ten times as long.
    state = copy.__dict__
    for attribute, value in module.__dict__.items():
        state[attribute] = value.copy() if attribute[0] == "_" and isinstance(value, (dict, set)) else value
    if not path.share_buffers:
        state["_buffers"] = {key: None if value is None else value.clone() for key, value in module._buffers.items()}
    for child_name, child in module._modules.items():
        if child is not None:
            state["_modules"][child_name] = _derive(child, _join(name, child_name), path, done)
    return copy
