"""References that the modules of a space hold to one another besides their submodules.

A list of layers, a dict of them, a bound method kept as an attribute: :func:`raynas.nn.subnet.derive` makes them point
to the modules of the subnet. What it cannot redirect, such as a closure, would run the modules of the space, with its
statistics and its mode: :func:`check_references` refuses it.
"""

from __future__ import annotations

import functools
import types
import weakref
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils.hooks import RemovableHandle

from raynas.exceptions import SpaceError

__all__ = ["References", "check_references", "references_of"]

_PLAIN = frozenset([int, float, bool, str, bytes, complex, type(None), torch.dtype, torch.device, torch.Size])
_OWN = frozenset(nn.Module().__dict__)
_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
_SEQUENCES = (list, tuple, set, frozenset, deque)
_MAPPINGS = (dict, OrderedDict, defaultdict)
_IGNORED = (type, types.ModuleType, RemovableHandle)
_DEEP = 6
"""So many objects within objects are looked into."""

Redirect = Callable[[nn.Module], nn.Module]


class References:
    """Which attributes of the modules of a space refer to other modules, or to buffers, of the same space.

    Args:
        space: Looked at once; modules that it gets later are looked at when they are met.

    Raises:
        SpaceError: An attribute refers to the space in a way that cannot be redirected.
    """

    def __init__(self, space: nn.Module) -> None:
        self._modules = {id(module) for module in space.modules()}
        self._buffers = {id(buffer) for buffer in space.buffers()}
        self._names = {id(module): self._scan(module, path) for path, module in space.named_modules()}
        self.any = any(self._names.values())
        """Whether there are such references at all."""

    def names(self, module: nn.Module) -> tuple[str, ...]:
        """The attributes of a module that refer to others."""
        return self._names.get(id(module), ())

    def __contains__(self, module: nn.Module) -> bool:
        return id(module) in self._modules

    def redirected(self, value: Any, redirect: Redirect, buffers: dict[int, Tensor]) -> Any:
        """A value with its references to the space replaced.

        Args:
            value: Of an attribute.
            redirect: Gives the module of the subnet for one of the space.
            buffers: The buffers of the subnet by the ``id`` of those of the space.
        """
        if isinstance(value, nn.Module):
            return redirect(value) if value in self else value
        if isinstance(value, Tensor):
            return buffers.get(id(value), value)
        if not self._redirects(value, _DEEP):
            return value
        again = functools.partial(self.redirected, redirect=redirect, buffers=buffers)
        if isinstance(value, _MAPPINGS):
            copy = value.copy()
            copy.clear()
            copy.update({key: again(item) for key, item in value.items()})
            return copy
        if isinstance(value, _SEQUENCES):
            items = [again(item) for item in value]
            return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
        if isinstance(value, types.MethodType):
            return types.MethodType(value.__func__, again(value.__self__))
        return functools.partial(
            again(value.func), *map(again, value.args), **{name: again(item) for name, item in value.keywords.items()}
        )

    def _scan(self, module: nn.Module, path: str) -> tuple[str, ...]:
        found = []
        for name, value in module.__dict__.items():
            if type(value) in _PLAIN or (name in _OWN and name not in _HOOKS and name != "_compiled_call_impl"):
                continue
            where = f"the attribute {path + '.' if path else ''}{name} of {type(module).__name__}"
            if name == "_compiled_call_impl" or type(module).__name__ == "OptimizedModule":
                if value is not None:
                    raise SpaceError(_COMPILED.format(where=path or type(module).__name__))
            elif self._redirects(value, _DEEP):
                found.append(name)
            elif name not in _HOOKS and self._refers(value, _DEEP, set()):
                raise SpaceError(_REFUSED.format(where=where, kind=_kind(value)))
        return tuple(found)

    def _redirects(self, value: Any, depth: int) -> bool:
        """Whether a value refers to the space, in a way that can be redirected."""
        if type(value) in _PLAIN or not depth:
            return False
        if isinstance(value, nn.Module):
            return value in self
        if isinstance(value, Tensor):
            return id(value) in self._buffers
        return any(self._redirects(part, depth - 1) for part in _parts(value))

    def _refers(self, value: Any, depth: int, seen: set[int]) -> bool:
        """Whether a value refers to the space in any way."""
        if type(value) in _PLAIN or not depth or id(value) in seen or isinstance(value, _IGNORED):
            return False
        seen.add(id(value))
        if isinstance(value, nn.Module):
            return value in self
        if isinstance(value, Tensor):
            return id(value) in self._buffers
        return any(self._refers(part, depth - 1, seen) for part in (*_parts(value), *_hidden(value)))


_REFUSED = (
    "{where} is {kind} that refers to modules of the space: it would go on to use those of the space, not those of "
    "the network of an architecture. Keep the modules themselves, in a list, a dict or as a bound method, or use them "
    "in forward"
)
_COMPUTED = (
    "is computed from parameters outside forward, so that the space cannot be copied: compute it in forward; for "
    "torch.nn.utils.weight_norm and spectral_norm take those of torch.nn.utils.parametrizations"
)
_COMPILED = (
    "{where} is compiled (torch.compile): the compiled code runs the modules of the space, not those of the network "
    "of an architecture. Compile the network that derive returns instead"
)


def references_of(space: nn.Module) -> References:
    """The references within a space, found once for each space.

    Raises:
        SpaceError: See :class:`References`.
    """
    found = _FOUND.get(space)
    if found is None:
        found = _FOUND[space] = References(space)
    return found


_FOUND: weakref.WeakKeyDictionary[nn.Module, References] = weakref.WeakKeyDictionary()


def check_references(space: nn.Module) -> None:
    """Refuse a space whose modules refer to one another in ways that cannot be redirected.

    Raises:
        SpaceError: An attribute, or a hook, does; it is named.
    """
    references = _FOUND[space] = References(space)  # it may have changed since it was looked at
    for path, module in space.named_modules():
        if any(map(is_lazy, module.parameters(recurse=False))):
            raise SpaceError(
                f"{path or 'the space'} is a {type(module).__name__}, whose weights have no size before it is called: "
                f"give its input size, as to nn.{type(module).__name__.replace('Lazy', '')}"
            )
        for name, value in module.__dict__.items():
            if isinstance(value, Tensor) and not value.is_leaf:
                where = f"the attribute {path + '.' if path else ''}{name} of {type(module).__name__}"
                raise SpaceError(f"{where} {_COMPUTED}")
        for kind in _HOOKS:
            for hook in module.__dict__.get(kind, {}).values():
                if not references._redirects(hook, _DEEP) and references._refers(hook, _DEEP, set()):
                    where = f"a hook on {path or type(module).__name__}"
                    raise SpaceError(_REFUSED.format(where=where, kind=_kind(hook)))


def _parts(value: Any) -> Iterator[Any]:
    """What a value consists of, of the kinds that can be made anew."""
    if isinstance(value, _MAPPINGS):
        yield from value.values()
    elif isinstance(value, _SEQUENCES):
        yield from value
    elif isinstance(value, types.MethodType):
        if isinstance(value.__self__, nn.Module):
            yield value.__self__
    elif isinstance(value, functools.partial):
        yield from (value.func, *value.args, *value.keywords.values())


def _hidden(value: Any) -> Iterator[Any]:
    """What a value refers to besides."""
    if isinstance(value, types.MethodType):
        yield value.__self__
    elif isinstance(value, weakref.ref):
        yield value()  # a copy of it, and a pickle, would not follow the copy of the space
    elif isinstance(value, types.FunctionType):
        for cell in value.__closure__ or ():
            try:
                yield cell.cell_contents
            except ValueError:  # a cell that is still empty
                continue
        yield from value.__defaults__ or ()
        yield from (value.__kwdefaults__ or {}).values()
        if hasattr(value, "__wrapped__"):
            yield value.__wrapped__
    elif not isinstance(value, (*_MAPPINGS, *_SEQUENCES, functools.partial)):
        yield from getattr(value, "__dict__", {}).values()


def _kind(value: Any) -> str:
    if isinstance(value, types.FunctionType):
        return f"a function ({value.__code__.co_filename}, line {value.__code__.co_firstlineno})"
    return f"an object of the class {type(value).__name__}"
