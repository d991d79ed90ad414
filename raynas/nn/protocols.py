"""What a space may define besides its Choices, as protocols, and a report of what a given space defines.

Every hook is optional. :func:`inspect_space` reports the hooks of a space and warns of names that are close to one, as
a misspelt hook would otherwise have no effect.
"""

from __future__ import annotations

import difflib
import functools
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from raynas import architecture as arch
from raynas.architecture import Architecture, Decisions, Graph, Notation
from raynas.exceptions import SpaceError
from raynas.nn.choice import choices, decisions
from raynas.utils.formatting import counted

__all__ = [
    "HOOKS",
    "HasCanonicalForm",
    "HasCompletion",
    "HasDropPath",
    "HasGraph",
    "HasSearchDecisions",
    "HasSequence",
    "HasSurrogateNorms",
    "HasTopology",
    "HasWordStep",
    "SpaceReport",
    "find_hook",
    "inspect_space",
]


@runtime_checkable
class HasCanonicalForm(Protocol):
    """A space in which different architectures can be the same network."""

    def canonical_form(self, architecture: Mapping[str, str], /) -> Architecture:
        """One form for all architectures that are the same network; of a canonical form, that form itself."""


@runtime_checkable
class HasGraph(Protocol):
    """A space that describes an architecture as a graph, for searchers with a graph kernel."""

    def graph(self, architecture: Mapping[str, str], /) -> Graph:
        """Edges (from node, to node, operation); an operation of None passes its input on."""


@runtime_checkable
class HasTopology(Protocol):
    """A space with a topology: the graph in which its decisions lie, which the weight angle of RLNAS needs."""

    def topology(self) -> Graph:
        """Edges (from node, to node, decision); a decision of None passes its input on."""


@runtime_checkable
class HasSearchDecisions(Protocol):
    """A space that is searched by other decisions than its Choices, because not all of their combinations are legal."""

    searched: Mapping[str, Sequence[str]]
    """The decisions of an architecture and their options."""

    def choose(self, architecture: Mapping[str, str], /) -> Mapping[str, str]:
        """The option of every Choice."""


@runtime_checkable
class HasSequence(Protocol):
    """A space with a sequence encoding of its own, for sequence models such as NAO."""

    def sequence_encoding(self) -> Notation:
        """How architectures are written as sequences and read from them."""


@runtime_checkable
class HasSurrogateNorms(Protocol):
    """A space with surrogate norms: what replaces operations without weights in the weight angle of RLNAS."""

    def surrogate_norm(self, option: str, channels: int, /) -> float | None:
        """The squared norm for an option that returns ``channels`` channels; None for one that passes nothing on."""


@runtime_checkable
class HasCompletion(Protocol):
    """A space whose cells are not all trainable when every repetition of a cell samples its own options."""

    def complete(self, architecture: Architecture, /) -> bool:
        """Whether a cell of this architecture connects its input with its output."""


@runtime_checkable
class HasWordStep(Protocol):
    """A language model that can be exported: it reads one word at a time."""

    def word(self, words: Tensor, state: Tensor, /) -> tuple[Tensor, Tensor]:
        """Map words [N] and the state to logits [N, classes] and the new state."""


@runtime_checkable
class HasDropPath(Protocol):
    """A module of a network, at any depth, whose rate of dropped paths the training loop raises step by step."""

    drop_path: float
    """Rate in [0, 1)."""


HOOKS: dict[str, type] = {
    "canonical_form": HasCanonicalForm,
    "graph": HasGraph,
    "topology": HasTopology,
    "searched": HasSearchDecisions,
    "choose": HasSearchDecisions,
    "sequence_encoding": HasSequence,
    "surrogate_norm": HasSurrogateNorms,
    "complete": HasCompletion,
    "word": HasWordStep,
}
"""The attributes of a space that RayNAS looks for, and the protocol of each; see also :class:`HasDropPath`."""
_FORMER = {"topology": "wiring", "surrogate_norm": "weightless", "sequence_encoding": "notation"}
"""Names of earlier releases, which are still accepted."""
_CLOSE = 0.8
"""The similarity, by difflib, from which a name is taken for a misspelt hook."""


def find_hook(space: nn.Module, name: str) -> Any:
    """A method of :data:`HOOKS` of a space; None where the space does not define it.

    A submodule of this name is no hook. The name of an earlier release is accepted with a ``DeprecationWarning``.

    Raises:
        TypeError: The attribute is not callable.
    """
    found = _attribute(space, name)
    former = _FORMER.get(name)
    if found is None and former is not None:
        found = _attribute(space, former)
        if found is not None:
            warnings.warn(
                f"{type(space).__name__}.{former}() is now called {name}(): rename it", DeprecationWarning, stacklevel=2
            )
    if found is not None and not callable(found):
        raise SpaceError(f"{type(space).__name__}.{name} is {found!r}: define it as a method, or rename it")
    return found


def _attribute(space: nn.Module, name: str) -> Any:
    found = getattr(space, name, None)
    return None if isinstance(found, nn.Module) else found


@dataclass(frozen=True)
class SpaceReport:
    """What RayNAS found in a space; made by :func:`inspect_space`."""

    name: str
    """Of its class."""
    decisions: Decisions
    places: int
    """How many Choices it contains."""
    hooks: tuple[str, ...]
    """The hooks that it defines, in the order of :data:`HOOKS`."""
    drop_paths: int
    """How many of its modules have a ``drop_path`` rate."""
    warnings: tuple[str, ...]
    """Names that are close to a hook, and hooks that have no effect as they are; empty where all is well."""

    @functools.cached_property
    def size(self) -> int:
        """How many architectures it has, different forms of one network counted apart."""
        return arch.size(self.decisions)

    def lines(self) -> list[str]:
        """The report as lines of text, the warnings last."""
        count = f"{counted(len(self.decisions), 'decision')} in {counted(self.places, 'place')}"
        hooks = [*self.hooks, *([f"drop_path in {self.drop_paths} modules"] if self.drop_paths else [])]
        return [
            f"{self.name}: {counted(self.size, 'architecture')}, {count}",
            f"hooks: {', '.join(hooks) or 'none'}",
            *(f"warning: {text}" for text in self.warnings),
        ]


def inspect_space(space: nn.Module) -> SpaceReport:
    """Report which hooks a space defines, and warn of names that look like a misspelt one.

    Args:
        space: A module that contains Choices.

    Raises:
        SpaceError: It contains no Choice; see :func:`raynas.nn.choice.decisions`.
    """
    found = [name for name in HOOKS if _attribute(space, name) is not None]
    found += [name for name, former in _FORMER.items() if name not in found and _attribute(space, former) is not None]
    dropping = [module for module in space.modules() if isinstance(getattr(module, "drop_path", None), float)]
    return SpaceReport(
        name=type(space).__name__,
        decisions=decisions(space),
        places=sum(1 for _ in choices(space)),
        hooks=tuple(name for name in HOOKS if name in found),
        drop_paths=len(dropping),
        warnings=(*_misused(space, found), *_near_misses(space, found)),
    )


def _misused(space: nn.Module, found: Sequence[str]) -> list[str]:
    """Hooks that are there, but cannot work."""
    kind = type(space).__name__
    modules = [name for name in HOOKS if isinstance(getattr(space, name, None), nn.Module)]
    texts = [f"{kind}.{name} is a submodule, not a hook: define it as a method, or rename it" for name in modules]
    for name in found:
        if name != "searched" and not callable(_attribute(space, name) or _attribute(space, _FORMER.get(name, ""))):
            texts.append(f"{kind}.{name} is not callable: define it as a method")
    for one, other in (("searched", "choose"), ("choose", "searched")):
        if one in found and other not in found:
            texts.append(f"{kind} defines {one!r} without {other!r}: both are needed")
    for name, former in _FORMER.items():
        if name in found and _attribute(space, name) is None:
            texts.append(f"{kind}.{former}() is now called {name}(): rename it")
    return texts


def _near_misses(space: nn.Module, found: Sequence[str]) -> list[str]:
    """Public names of a space, and rates of its modules, that are close to a hook which it does not define."""
    plain = {_plain(name): name for name in HOOKS if name not in found}
    kind = type(space)
    own = {name for base in kind.__mro__ if base not in nn.Module.__mro__ for name in vars(base)} | {*vars(space)}
    texts = []
    for name in sorted(own - {*HOOKS, *_FORMER.values()}):
        close = [] if name.startswith("_") else difflib.get_close_matches(_plain(name), plain, n=1, cutoff=_CLOSE)
        if close:
            texts.append(f"{kind.__name__} has no {plain[close[0]]!r}, but {name!r}: did you mean {plain[close[0]]}?")
    rates = {
        (type(module).__name__, name)
        for module in space.modules()
        if not hasattr(module, "drop_path")
        for name, value in vars(module).items()
        if isinstance(value, float) and difflib.get_close_matches(_plain(name), ["droppath"], cutoff=_CLOSE)
    }
    texts += [f"{owner} has no 'drop_path', but {name!r}: did you mean drop_path?" for owner, name in sorted(rates)]
    return texts


def _plain(name: str) -> str:
    return name.replace("_", "").lower()
