"""Errors in the forward of a space with their place: architecture, options, module, line of the user's code."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from raynas import architecture as arch
from raynas.architecture import Decisions
from raynas.exceptions import ForwardError
from raynas.utils.user_code import user_line

__all__ = ["Blame", "exclusion_hint", "forward_error", "module_of_first_nan", "options_to_blame", "text_of"]

_TRIES = 64
"""So many other architectures are tried to find the options that are to blame."""
_SHOWN = 6


@dataclass(frozen=True)
class Blame:
    """What fails."""

    text: str
    """The architecture, or the options of it with others in whose place it works."""
    options: tuple[str, ...] = ()
    """These options, ``decision=option``."""

    def __str__(self) -> str:
        return self.text

    @property
    def cure(self) -> str:
        """How to go on without the first of the options, for the end of a message; empty where none is to blame."""
        return exclusion_hint(self.options[:1])


def exclusion_hint(options: Sequence[str]) -> str:
    """How to go on without some options, ``decision=option``, for the end of a message; empty where there are none."""
    return f"; or go on without it: exclude=[{','.join(options)}]" if options else ""


def forward_error(error: Exception, network: nn.Module, run: Callable[[nn.Module], Any], blame: Blame) -> ForwardError:
    """An error of a forward pass with its place.

    Args:
        error: What was raised.
        network: Of the architecture.
        run: Runs a network as it was run when it failed.
        blame: The architecture, as :func:`options_to_blame` words it.

    Returns:
        The error to be raised from the first one; it says how to go on without the option that is to blame.
    """
    module = _failing_module(network, run)
    parts = [f"in {module}" if module else "in its forward", user_line(error, network)]
    message = (str(error).strip().splitlines() or [""])[0]
    what = f"{type(error).__name__}: {message}" if message else type(error).__name__
    return ForwardError(f"{blame} fails {', '.join(part for part in parts if part)}: {what}{blame.cure}")


def options_to_blame(
    space: nn.Module,
    architecture: Mapping[str, str],
    decisions: Decisions,
    make: Callable[[nn.Module, Mapping[str, str]], nn.Module],
    works: Callable[[nn.Module], bool],
) -> Blame:
    """The architecture in words, and which of its options are to blame, if others in their place work.

    Args:
        space: The space.
        architecture: One that fails.
        decisions: All decisions.
        make: Makes the network of an architecture of the space.
        works: Whether a network works.
    """
    named = type(space).__name__
    cures: dict[str, str] = {}
    tries = 0
    for name, option in architecture.items():
        others = [other for other in decisions.get(name, ()) if other != option]
        for other in others:
            tries += 1
            if tries > _TRIES:
                break
            try:
                changed = arch.canonical(decisions, _filled(decisions, {**architecture, name: other}))
                fits = works(make(space, changed))
            except Exception:  # whatever another architecture raises: it does not work either
                continue
            if fits:
                cures[f"{name}={option}"] = other
                break
    if not cures:
        return Blame(f"the architecture {text_of(architecture)} of {named}")
    shown = (f"{one} (with {one.rpartition('=')[0]}={other} it works)" for one, other in cures.items())
    return Blame(f"{named} with {' and with '.join(shown)}", tuple(cures))


def _filled(decisions: Decisions, architecture: Mapping[str, str]) -> dict[str, str]:
    """With the first option of every decision that another option has opened."""
    return {name: options[0] for name, options in decisions.items()} | dict(architecture)


def text_of(architecture: Mapping[str, str]) -> str:
    """An architecture in short."""
    shown = [f"{name}={option}" for name, option in list(architecture.items())[:_SHOWN]]
    return ", ".join(shown) + (", ..." if len(architecture) > _SHOWN else "")


def _failing_module(network: nn.Module, run: Callable[[nn.Module], Any]) -> str | None:
    """The innermost module whose forward does not return, as its path and class."""
    entered: list[tuple[str, nn.Module]] = []
    handles = []
    for path, module in network.named_modules():
        if path:
            before = module.register_forward_pre_hook(lambda m, args, path=path: entered.append((path, m)))
            handles += [before, module.register_forward_hook(lambda m, args, output: entered.pop() and None)]
    try:
        run(network)
    except Exception:  # the same error again
        return None if not entered else f"{entered[-1][0]} ({type(entered[-1][1]).__name__})"
    finally:
        for handle in handles:
            handle.remove()
    return None


def module_of_first_nan(network: nn.Module, run: Callable[[nn.Module], Any]) -> str | None:
    """The first module that returns NaN or infinity, as its path and class."""
    found: list[str] = []

    def look(path: str, module: nn.Module, output: Any) -> None:
        bad = isinstance(output, Tensor) and output.is_floating_point() and not bool(torch.isfinite(output).all())
        if bad and not found:
            found.append(f"{path} ({type(module).__name__})")

    handles = [
        module.register_forward_hook(lambda m, args, output, path=path: look(path, m, output))
        for path, module in network.named_modules()
        if path
    ]
    try:
        run(network)
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None
