"""Subnets: the ordinary network of one architecture, which shares the parameters of its space."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from raynas import architecture as arch
from raynas.exceptions import SpaceError
from raynas.nn.choice import Choice, _join, open_choices
from raynas.nn.references import References, references_of
from raynas.nn.space import chosen

__all__ = ["assemble", "derive"]


def derive(space: nn.Module, architecture: Mapping[str, str], share_buffers: bool = False) -> nn.Module:
    """The network of one architecture, as an ordinary module that contains no Choice.

    It shares the space's parameters: training it trains the space. Everything else is its own: buffers
    (BatchNorm statistics), hooks and the training flag, so that ``eval()`` or a BatchNorm recalibration of the
    subnet leaves the space as it is. Lists, dicts and bound methods that refer to modules of the space refer to those
    of the subnet. Moving a subnet to another device or type would change the shared parameters:
    place the space, or deep-copy the subnet first.

    Args:
        space: A module that contains Choices; not changed.
        architecture: One option for every active decision of the space.
        share_buffers: Share the buffers too: a supernet in training gathers BatchNorm statistics over all its paths.

    Returns:
        The subnet. In its ``state_dict`` the chosen module stands under the name of its Choice.

    Raises:
        ArchitectureError: Unknown or missing decisions or options; the legal ones are named.
        SpaceError: An attribute refers to modules of the space in a way that cannot be redirected to the subnet.
    """
    return assemble(space, chosen(space, architecture), share_buffers)


def assemble(space: nn.Module, options: Mapping[str, str], share_buffers: bool = False) -> nn.Module:
    """As :func:`derive`, from an option for every Choice: by decision, or by place (:func:`places`)."""
    met: set[str] = set()
    try:
        done: dict[int, nn.Module] = {}
        path = _Path(options, met, share_buffers, references_of(space))
        subnet = _derive(space, "", path, done)
        if path.references.any:
            _redirect(space, path, done)
    except KeyError as unfit:
        arch.canonical(open_choices(space), options)  # says what is wrong
        name = unfit.args[0]
        raise SpaceError(
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
    references: References

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


def _redirect(space: nn.Module, path: _Path, done: dict[int, nn.Module]) -> None:
    """Make what the modules of a subnet refer to besides their submodules that of the subnet."""
    references = path.references
    modules = [module for module in space.modules() if not isinstance(module, Choice)]
    buffers = {
        id(value): own
        for module in modules
        if id(module) in done
        for key, value in module._buffers.items()
        if isinstance(own := done[id(module)]._buffers[key], Tensor)
    }

    def of_subnet(module: nn.Module) -> nn.Module:
        """The module of the subnet; one beside the path gets a copy of its own, unless a Choice in it is open."""
        if id(module) not in done and not any(isinstance(part, Choice) for part in module.modules()):
            _derive(module, "", path, done)
        return done.get(id(module), module)

    redirected: set[int] = set()
    while waiting := [module for module in modules if id(module) in done.keys() - redirected]:
        for module in waiting:
            redirected.add(id(module))
            for name in references.names(module):
                done[id(module)].__dict__[name] = references.redirected(module.__dict__[name], of_subnet, buffers)
