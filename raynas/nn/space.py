"""The canonical form, graph and topology of a space: its own hooks, or what its module tree shows."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import cast

from torch import nn

from raynas import architecture as arch
from raynas.architecture import Architecture, Graph
from raynas.nn.choice import Choice, choices, decisions
from raynas.nn.protocols import find_hook

__all__ = ["canonical", "chosen", "graph", "topology"]


def chosen(space: nn.Module, architecture: Mapping[str, str]) -> Mapping[str, str]:
    """The option of every Choice: the architecture itself, where a space is not searched in other terms.

    Raises:
        ArchitectureError: The space is searched in other terms, and these do not contain this architecture.
    """
    choose = find_hook(space, "choose")
    return architecture if choose is None else choose(arch.canonical(decisions(space), architecture))


def canonical(space: nn.Module, architecture: Mapping[str, str]) -> Architecture:
    """The canonical form of an architecture: one form for all dictionaries that describe the same network.

    Decisions under unchosen options are dropped. Where other differences do not matter either (cells with dead
    edges, identities that commute), the space maps them to one form by a method
    ``canonical_form(architecture) -> architecture``.

    Raises:
        ArchitectureError: The space does not contain this architecture.
    """
    open_in_space = decisions(space)
    form = arch.canonical(open_in_space, architecture)
    own = find_hook(space, "canonical_form")
    if own is None:
        return form
    merged = own(form)
    if getattr(space, "excludes_options", False) and any(
        option not in open_in_space.get(name, ()) for name, option in merged.items()
    ):
        return form  # the space's own form has an option that was excluded
    return arch.canonical(open_in_space, merged)


def graph(space: nn.Module) -> Callable[[Architecture], Graph] | None:
    """How the operations of an architecture lie between input and output; None where that is not known.

    A space defines it by a method ``graph(architecture)``. Where every Choice stands directly in an ``nn.Sequential``,
    they are a chain, in which an option that is an ``nn.Identity`` passes its input on.
    """
    own = find_hook(space, "graph")
    if own is not None:
        return cast("Callable[[Architecture], Graph]", own)
    chain = _chained(space)
    if chain is None:
        return None
    passing = {
        name: {o for o in choice.options if isinstance(choice.get_submodule(o), nn.Identity)} for name, choice in chain
    }
    return functools.partial(_chain, passing)


def topology(space: nn.Module) -> Graph | None:
    """Between which nodes the decisions of a space lie, whatever they are; None where that is not known.

    Edges (from node, to node, decision); a decision of None is no decision: the edge passes its input on. Nodes that
    nothing leads to are inputs, those that lead nowhere outputs. A space defines it by a method ``topology()``. Where
    every Choice stands directly in an ``nn.Sequential``, they are a chain.
    """
    own = find_hook(space, "topology")
    if own is not None:
        return cast("Graph", own())
    chain = _chained(space)
    return None if chain is None else [(place, place + 1, name) for place, (name, _) in enumerate(chain)]


def _chained(space: nn.Module) -> list[tuple[str, Choice]] | None:
    """The outer Choices of a space in their order, where they are a chain."""
    if hasattr(space, "searched"):
        return None  # the places of the Choices are not those of the decisions
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
