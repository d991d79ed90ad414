"""Options that are left out of a space: ``exclude=[block3=sqrt]``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from raynas.architecture import Decisions
from raynas.exceptions import SpaceError
from raynas.nn.choice import choices, decisions

__all__ = ["exclude_options", "without_options"]


def without_options(open_decisions: Decisions, excluded: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Decisions without some of their options.

    Args:
        open_decisions: The options of each decision.
        excluded: ``decision=option`` each.

    Raises:
        SpaceError: There is no such decision or option, or none would be left; the message names the legal ones.
    """
    left = {name: tuple(options) for name, options in open_decisions.items()}
    for text in excluded:
        name, equals, option = text.rpartition("=")
        if not equals or name not in left:
            raise SpaceError(
                f"exclude: {text!r} is no decision=option of the space; its decisions: {_listed(open_decisions)}"
            )
        if option not in open_decisions[name]:
            raise SpaceError(f"exclude: {name} has no option {option!r}; legal ones: {_listed(open_decisions[name])}")
        left[name] = tuple(other for other in left[name] if other != option)
        if not left[name]:
            raise SpaceError(f"exclude: {text!r} leaves no option of {name}")
    return left


def exclude_options(space: nn.Module, excluded: Sequence[str]) -> None:
    """Remove options from a space, with their weights.

    Args:
        space: Changed in place.
        excluded: ``decision=option`` each.

    Raises:
        SpaceError: As :func:`without_options`.
    """
    if not excluded:
        return
    left = without_options(decisions(space), excluded)
    searched = getattr(space, "searched", None)
    if isinstance(searched, Mapping):
        space.searched = left  # type: ignore[assignment]
    else:
        for name, choice in choices(space):
            for option in choice.options:
                if option not in left[name]:
                    delattr(choice, option)
    space.excludes_options = True  # type: ignore[assignment]


def _listed(names: Mapping[str, object] | Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 12 else ", ".join([*list(names)[:12], "..."])
