"""``Choice``: the parts of an ordinary PyTorch model that an architecture selects.

Write the model as usual, with a :class:`Choice` where one of several modules is to be selected. Such a model is a
*space*; :func:`decisions` lists its decisions, and :func:`derive` returns the ordinary network of one architecture::

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

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from raynas.architecture import Notation
from raynas.exceptions import SpaceError

__all__ = [
    "Choice", "Notation", "choices", "decisions",     "open_choices", "places", ]  # fmt: skip


class Choice(nn.Module):
    """Several modules of which an architecture takes one.

    Args:
        options: The candidates by name, or a list of them, which are then named 0, 1, ... Names are non-empty, contain
            no dot and are not attributes of ``nn.Module`` ("train", "type", ...). A candidate may itself contain
            Choices.
        decision: Name of the decision that this Choice follows; by default its place in the model. All Choices of
            one name take the same option. The name counts from the root of the space, wherever the Choice stands.
        named: The same as keyword arguments: ``Choice(k3=..., k5=...)``.

    Raises:
        SpaceError: No option at all, or a name that cannot be used.
    """

    def __init__(
        self,
        options: Mapping[Any, nn.Module] | Sequence[nn.Module] | None = None,
        /,
        *,
        decision: str | None = None,
        **named: nn.Module,
    ) -> None:
        super().__init__()
        if decision == "":
            raise SpaceError("the decision name '' cannot be used: it must be non-empty")
        self.decision = decision
        candidates = {**_by_name(options), **named}
        if not candidates:
            raise SpaceError("a Choice needs at least one option")
        for name, module in candidates.items():
            if not name or "." in name or hasattr(self, name):
                raise SpaceError(
                    f"option name {name!r} cannot be used: it must be non-empty, without a dot, "
                    "and no attribute of Choice or nn.Module"
                )
            if not isinstance(module, nn.Module):
                raise SpaceError(f"option {name!r} is {_shown(module)}")
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


def _by_name(options: Mapping[Any, nn.Module] | Sequence[nn.Module] | None) -> dict[str, nn.Module]:
    """The options by name: of a list 0, 1, ...; a number is the name that it is written as."""
    if options is None:
        return {}
    if isinstance(options, (list, tuple, nn.ModuleList)):
        return {str(place): module for place, module in enumerate(options)}
    if not isinstance(options, (Mapping, nn.ModuleDict)):
        raise SpaceError(f"the options must be a mapping from names to modules, or a list of them, not {options!r}")
    wrong = [name for name in options if isinstance(name, bool) or not isinstance(name, (str, int))]
    if wrong:
        raise SpaceError(f"option name {wrong[0]!r} cannot be used: legal are text and whole numbers")
    names = [str(name) for name in options]
    if len(set(names)) < len(names):
        raise SpaceError(f"option name {next(name for name in names if names.count(name) > 1)!r} stands twice")
    return {str(name): module for name, module in options.items()}


def _shown(value: Any) -> str:
    """What stands where a module is needed, and what to write."""
    if value is None:
        return "None: for no operation write nn.Identity(), or a module that returns zeros"
    if isinstance(value, type) and issubclass(value, nn.Module):
        return f"the class {value.__name__}, not a module: write {value.__name__}(...)"
    if isinstance(value, tuple) and len(value) == 1 and isinstance(value[0], nn.Module):
        return "a tuple with a module: is there a comma too many?"
    return f"a {type(value).__name__}, not an nn.Module"


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
    """The decisions of a space: the name of each, and its options.

    A decision has the name of its Choice in the module tree, or the name that the Choice was given. A Choice that
    stands in several places of the tree is one decision, under the first of its names.

    Where not every combination of options is legal, a space is searched in other terms, in which all are: it has an
    attribute ``searched``, these decisions, and a method ``choose(architecture)`` that returns the option of every
    Choice. For example two of the edges of a cell are selected by one decision.

    Raises:
        SpaceError: See :func:`open_choices`.
    """
    searched = getattr(space, "searched", None)
    return open_choices(space) if searched is None else dict(searched)


def open_choices(space: nn.Module) -> dict[str, tuple[str, ...]]:
    """The options of the Choices themselves: the decisions, where a space is not searched in other terms.

    Raises:
        SpaceError: The space contains no Choice, is itself a bare Choice (it would have no name), or has Choices of
            one decision with different options.
    """
    if isinstance(space, Choice):
        raise SpaceError("the space itself is a Choice and has no name: put it into a module")
    found: dict[str, tuple[str, ...]] = {}
    for name, choice in choices(space):
        if found.setdefault(name, choice.options) != choice.options:
            raise SpaceError(
                f"the Choices of decision {name!r} differ in their options: {', '.join(choice.options)}; "
                f"the first has {', '.join(found[name])}"
            )
    if not found:
        raise SpaceError(f"{type(space).__name__} contains no Choice: there is nothing to search")
    return found
